"""Pictures of one's own: every kind and size, broken ones, and the array that is kept of them."""
import io
import os
import pathlib
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from commands import LIMIT, begun
from PIL import Image, ImageOps, features
from PIL.PngImagePlugin import PngInfo

from tinygan.data import ImageSet, decode, own as module
from tinygan.data.folder import Folder
from tinygan.data.own import read_own
from tinygan.errors import UserError
from tinygan.run.pictures import plot_curves, save_gif, save_png

BLANK = 'warning: every image is blank, of one shade alone; open one and check how it was made\n'
RED, GREEN = (200, 40, 30), (20, 160, 60)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """The folder, empty, in which arrays are kept."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return tmp_path / 'cache' / 'tinygan' / 'own'


def read_folder(path, shape, background='white'):
    return read_own(path, shape, background)[0]


def flat(colour=RED, size=(8, 8)):
    return Image.new('RGB' if isinstance(colour, tuple) else 'L', size, colour)


def save(image, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def several(folder, n):
    """A folder of n gray images: the first of shade 0, the next of shade 1 ..."""
    for i in range(n):
        save(flat(i), folder / f'{i:03}.png')
    return folder


def one(image, tmp_path, shape=(4, 4, 3), name='image.png', **options):
    """What becomes of one image, once it is saved under that name: int (H, W, C), fit for subtraction."""
    images = read_folder(save(image, tmp_path / 'one' / name, **options).parent, shape)
    assert images.shape == (1, *shape) and images.dtype == np.uint8
    return images[0].astype(int)


def shades(images):
    return images[:, 0, 0, 0].tolist()


def kept(cache):
    return sorted(path.name for path in cache.iterdir()) if cache.exists() else []


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


# ---- every kind of image

@pytest.mark.parametrize('name', ['a.png', 'a.jpg', 'a.JPEG', 'a.gif', 'a.bmp', 'a.webp', 'a.tif', 'a.TIFF',
                                  'a.ppm'])
def test_every_format_is_read(tmp_path, name):
    assert abs(one(flat(), tmp_path, name=name) - RED).max() <= 4


@pytest.mark.parametrize('mode, name', [('P', 'a.png'), ('RGBA', 'a.png'), ('CMYK', 'a.jpg'),
                                        ('CMYK', 'a.tif'), ('YCbCr', 'a.jpg')])
def test_every_mode_comes_out_in_its_colour_or_as_its_gray(tmp_path, mode, name):
    image = flat().quantize() if mode == 'P' else flat().convert(mode)
    assert abs(one(image, tmp_path, name=name, quality=95) - RED).max() <= 4
    gray = flat().convert('L').getpixel((0, 0))
    assert abs(one(image, tmp_path, (4, 4, 1), name, quality=95) - gray).max() <= 4


@pytest.mark.parametrize('mode, name', [('1', 'a.png'), ('L', 'a.png'), ('LA', 'a.png'), ('P', 'a.gif'),
                                        ('L', 'a.jpg'), ('L', 'a.pgm')])
def test_a_gray_image_has_three_equal_channels_where_colour_is_asked_for(tmp_path, mode, name):
    assert (one(flat(255).convert(mode), tmp_path, name=name) == 255).all()


@pytest.mark.parametrize('name', ['a.png', 'a.tif', 'a.pgm'])
@pytest.mark.parametrize('value, shade', [(0, 0), (25600, 100), (25700, 100), (25800, 100), (65535, 255)])
def test_sixteen_bits_become_the_nearest_eight(tmp_path, name, value, shade):
    image = Image.fromarray(np.full((8, 8), value, np.int32 if name == 'a.pgm' else np.uint16))
    assert (one(image, tmp_path, (4, 4, 1), name) == shade).all()


def test_what_is_whiter_than_white_in_thirty_two_bits_is_white(tmp_path):
    pixels = np.full((8, 8), 70000, np.int32)
    pixels[:4] = -5
    read = one(Image.fromarray(pixels), tmp_path, (8, 8, 1), 'a.tif')
    assert read[:4].max() == 0 and read[4:].min() == 255


def test_sixteen_bits_are_read_in_either_byte_order(tmp_path):
    pixels = np.full((8, 8), 100 * 257, '>u2')
    image = Image.frombytes('I;16B', (8, 8), pixels.tobytes())
    assert (one(image, tmp_path, name='a.tif') == 100).all()


@pytest.mark.parametrize('image, options', [
    (Image.new('RGBA', (8, 8), (*RED, 0)), {}),
    (Image.new('LA', (8, 8), (77, 0)), {}),
    (Image.new('L', (8, 8), 77), {'transparency': 77}),
    (Image.new('RGB', (8, 8), RED), {'transparency': RED}),
    (flat().quantize(), {'transparency': 0}),
    (flat().quantize(), {'transparency': bytes([0])}),
], ids=['RGBA', 'LA', 'L', 'RGB', 'P', 'P with an alpha for each colour'])
def test_what_is_transparent_lies_on_white(tmp_path, image, options):
    for channels in (1, 3):
        assert (one(image, tmp_path, (4, 4, channels), **options) == 255).all()


def test_what_is_half_transparent_is_mixed_with_white(tmp_path):
    assert abs(one(Image.new('RGBA', (8, 8), (0, 100, 255, 128)), tmp_path) - [127, 177, 255]).max() <= 1


def test_an_animation_gives_its_first_frame(tmp_path):
    options = {'save_all': True, 'append_images': [flat(9)]}
    assert (one(flat(240), tmp_path, name='a.gif', **options) == 240).all()


@pytest.mark.parametrize('name', ['a.jpg', 'a.png', 'a.webp'])
@pytest.mark.parametrize('orientation, undo', [
    (1, None), (2, Image.Transpose.FLIP_LEFT_RIGHT), (3, Image.Transpose.ROTATE_180),
    (4, Image.Transpose.FLIP_TOP_BOTTOM), (5, Image.Transpose.TRANSPOSE), (6, Image.Transpose.ROTATE_90),
    (7, Image.Transpose.TRANSVERSE), (8, Image.Transpose.ROTATE_270)])
def test_images_are_turned_upright_as_their_exif_data_ask(tmp_path, name, orientation, undo):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16], upright[8:, 16:] = 250, 120
    lying = Image.fromarray(upright) if undo is None else Image.fromarray(upright).transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    read = one(lying, tmp_path, (16, 32, 3), name, exif=exif, quality=100)
    assert abs(read - upright).max() < 30


def test_an_image_whose_exif_data_are_garbage_is_read_as_it_lies(tmp_path, capsys):
    assert (one(flat(), tmp_path, exif=b'Exif\0\0garbage') == RED).all()
    assert 'left out' not in capsys.readouterr().err


def test_what_a_file_holds_counts_and_not_what_it_is_called(tmp_path):
    assert abs(one(flat(), tmp_path, name='a.png', format='JPEG') - RED).max() <= 4


# ---- cropped and resized

@pytest.mark.parametrize('size, middle, shape', [
    ((60, 20), (20, 0, 40, 20), (10, 10, 3)), ((20, 60), (0, 20, 20, 40), (10, 10, 3)),
    ((60, 60), (0, 15, 60, 45), (8, 16, 3)), ((60, 60), (15, 0, 45, 60), (16, 8, 3)),
    ((4, 12), (0, 4, 4, 8), (8, 8, 3))],
    ids=['landscape', 'portrait', 'to landscape', 'to portrait', 'enlarged'])
def test_the_middle_with_the_proportions_asked_for_is_cut_out(tmp_path, size, middle, shape):
    image = flat(RED, size)
    image.paste(GREEN, middle)
    assert abs(one(image, tmp_path, shape) - GREEN).max() < 40    # at an edge Lanczos looks beyond it


def test_nothing_within_the_middle_is_lost(tmp_path):
    image = flat(RED, (30, 10))
    image.paste(GREEN, (10, 0, 15, 10))
    read = one(image, tmp_path, (10, 10, 3))
    assert (read[:, :5] == GREEN).all() and (read[:, 5:] == RED).all()


def test_an_image_of_the_very_shape_is_kept_pixel_for_pixel(tmp_path):
    pixels = noise(24, 16)
    assert np.array_equal(one(Image.fromarray(pixels), tmp_path, pixels.shape), pixels)


@pytest.mark.parametrize('mode', ['L', '1', 'P', 'RGB'])
def test_fine_detail_is_averaged_and_not_skipped(tmp_path, mode):
    board = Image.fromarray((np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)).convert(mode)
    assert abs(one(board, tmp_path, (8, 8, 1))[1:-1, 1:-1] - 127.5).max() < 3


def test_an_edge_stays_sharp(tmp_path):
    image = flat((0, 0, 0), (64, 64))
    image.paste((255, 255, 255), (32, 0, 64, 64))
    row = one(image, tmp_path, (16, 16, 1))[8, :, 0]
    assert row[:7].max() < 20 and row[9:].min() > 235 and row[8] - row[7] > 200


def test_an_enlarged_slope_has_no_steps(tmp_path):
    slope = Image.fromarray(np.tile(np.uint8([0, 80, 160, 240]), (4, 1)))
    assert np.diff(one(slope, tmp_path, (32, 32, 1))[16, :, 0]).max() < 20


@pytest.mark.parametrize('shape', [(16, 16, 3), (16, 8, 1)])
def test_a_large_jpeg_is_decoded_small_and_looks_the_same(tmp_path, monkeypatch, shape):
    large = Image.fromarray(noise(16, 16)).resize((512, 512), Image.Resampling.BICUBIC)
    save(large, tmp_path / 'png' / 'a.png')
    save(large, tmp_path / 'jpg' / 'a.jpg', quality=95)
    sizes = []
    monkeypatch.setattr(ImageOps, 'exif_transpose', lambda image: (sizes.append(image.size), image)[1])
    png, jpg = (read_folder(tmp_path / kind, shape).astype(int) for kind in ('png', 'jpg'))
    assert sizes == [(512, 512), (64, 64)]
    assert abs(png - jpg).mean() < 3 and png.std() > 30


def test_a_large_jpeg_that_lies_on_its_side_loses_no_detail(tmp_path):
    upright = Image.fromarray(noise(50, 400)).resize((1600, 200), Image.Resampling.BICUBIC)
    save(upright, tmp_path / 'png' / 'a.png')
    exif = Image.Exif()
    exif[0x0112] = 6
    save(upright.transpose(Image.Transpose.ROTATE_90), tmp_path / 'jpg' / 'a.jpg', quality=95, exif=exif)
    png, jpg = (read_folder(tmp_path / kind, (64, 8, 1)).astype(int) for kind in ('png', 'jpg'))
    assert abs(png - jpg).mean() < 3 and png.std() > 30


# ---- which files, in which order

def test_the_order_is_that_of_the_names_whatever_the_system_lists_first(tmp_path, monkeypatch):
    names = ['B.png', 'a.png', 'a/b/c.png', 'a/z.png', 'a0.png', 'b.png']
    for i, name in enumerate(names):
        save(flat(i), tmp_path / 'data' / name)
    real, orders = os.scandir, []

    class Listed:
        def __init__(self, path, turn):
            with real(path) as entries:
                self.entries = iter(sorted(entries, key=os.fspath)[::turn])
            orders.append(turn)
        __enter__ = __iter__ = lambda self: self
        __next__ = lambda self: next(self.entries)
        __exit__ = close = lambda self, *_: None

    for turn in (1, -1):
        with monkeypatch.context() as patch:
            patch.setattr(os, 'scandir', lambda path: Listed(path, turn))
            found = Folder(tmp_path / 'data')
        assert found.names == names
        assert shades(read_folder(tmp_path / 'data', (2, 2, turn + 2))) == [0, 1, 2, 3, 4, 5]
    assert set(orders) == {1, -1}


def passed(capsys):
    """What was passed over, as the user reads it."""
    line, = (line for line in capsys.readouterr().err.splitlines() if line.startswith('passed over: '))
    return line.removeprefix('passed over: ').split(', ')


def test_what_is_passed_over_is_counted_by_its_kind(tmp_path, capsys):
    data = save(flat(7), tmp_path / '.data' / 'a.png').parent
    for name in ('.hidden.png', '.folder/b.png', 'inner/.git/c.png'):
        save(flat(8), data / name)
    for name in ('notes.txt', 'inner/more.TXT', 'png', 'film.mp4'):
        (data / name).write_text('not an image')
    (data / 'folder.png').mkdir()
    (data / 'gone.png').symlink_to(tmp_path / 'gone.png')
    os.mkfifo(data / 'pipe.png')
    assert shades(read_folder(data, (2, 2, 1))) == [7]
    assert passed(capsys) == ['.mp4 (1)', '.txt (2)', 'hidden (3)', 'links that lead nowhere (1)', 'neither file nor folder (1)',
                              'without a suffix (1)']
    read_folder(data, (2, 2, 1))                  # not only the first time
    assert len(passed(capsys)) == 6


def test_links_are_followed_and_loops_are_not(tmp_path, capsys):
    data = several(tmp_path / 'data', 1)
    elsewhere = save(flat(9), tmp_path / 'elsewhere' / 'x.png')
    (data / 'file.png').symlink_to(elsewhere)
    (data / 'folder').symlink_to(elsewhere.parent)
    (data / 'again').symlink_to(elsewhere.parent)
    (data / 'itself').symlink_to(data)
    (elsewhere.parent / 'back').symlink_to(data)
    (tmp_path / 'link').symlink_to(data)
    for path in data, tmp_path / 'link':
        assert Folder(path).names == ['000.png', 'again/x.png', 'file.png']
        assert shades(read_folder(path, (2, 2, 1))) == [0, 9, 9]
        assert passed(capsys) == ['folders that were read already (3)']


def test_a_folder_or_a_file_that_may_not_be_read_is_named_and_left_out(tmp_path, monkeypatch, capsys):
    data = several(tmp_path / 'data', 2)
    save(flat(8), data / 'closed' / 'a.png')
    save(flat(9), data / 'mine.png')
    real = os.scandir

    def scandir(path):                            # root may read everything, and tests may run as root
        if os.path.basename(path) == 'closed':
            raise PermissionError(13, 'Permission denied', path)
        return real(path)
    with monkeypatch.context() as patch:          # undone before pytest removes tmp_path
        patch.setattr(os, 'scandir', scandir)
        patch.setattr(os, 'access', lambda path, mode: not path.endswith('mine.png'))
        assert shades(read_folder(data, (2, 2, 1))) == [0, 1]
    assert passed(capsys) == ['unreadable file: mine.png', 'unreadable folder: closed']


WAYS = {                                          # suffix that pictures have in the world, and how Pillow writes such a file
    'jfif': 'JPEG', 'jpe': 'JPEG', 'JPG': 'JPEG', 'avif': 'AVIF', 'jp2': 'JPEG2000', 'j2k': 'JPEG2000', 'tga': 'TGA', 'pbm': 'PPM',
    'pnm': 'PPM', 'ico': 'ICO', 'pcx': 'PCX', 'dib': 'DIB', 'sgi': 'SGI', 'qoi': 'QOI', 'dds': 'DDS', 'apng': 'PNG',
    'xbm': 'XBM', 'icns': 'ICNS', 'blp': 'BLP', 'msp': 'MSP'}


@pytest.mark.parametrize('suffix', WAYS)
def test_whatever_pillow_reads_is_read(tmp_path, suffix, capsys):
    Image.init()
    if WAYS[suffix] not in Image.SAVE or suffix in ('jp2', 'j2k') and not features.check('jpg_2000'):
        pytest.skip('this Pillow is too old, or was built without')
    mode = {'xbm': '1', 'msp': '1', 'pbm': '1', 'blp': 'P'}.get(suffix, 'RGB')
    image = Image.new('RGB', (64, 64), (255, 255, 255)).convert(mode)
    assert (one(image, tmp_path, name=f'a.{suffix}', format=WAYS[suffix]) >= 250).all()
    assert 'left out' not in capsys.readouterr().err


@pytest.mark.parametrize('name', ['picture', 'picture.dat', 'picture.jpg_large', 'picture.txt', 'picture.gif'])
@pytest.mark.parametrize('format', ['PNG', 'JPEG', 'WEBP', 'TIFF', 'BMP'])
def test_a_picture_is_known_by_what_it_holds(tmp_path, name, format):
    assert abs(one(flat(), tmp_path, name=name, format=format) - RED).max() <= 4


def test_what_only_begins_like_a_picture_is_passed_over_where_no_suffix_promises_one(tmp_path, capsys):
    data = several(tmp_path / 'data', 1)
    (data / 'header.h').write_text('#define X\n')
    (data / 'cut').write_bytes(PNG[:8])
    (data / 'P').write_bytes(b'P')
    assert shades(read_folder(data, (2, 2, 1))) == [0]
    assert passed(capsys) == ['.h (1)', 'without a suffix (2)']


# ---- pictures that tinygan made

def run_in(folder, name='run'):
    """What a run leaves in its folder."""
    for file in 'config.json', 'metrics.csv', 'checkpoint.npz':
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / file).write_text('{"recipe": "dcgan", "versions": {"tinygan": "0.1.0"}}')
    for picture in 'samples/epoch_001.png', 'curves.png', 'samples.gif':
        save(flat(200), folder / name / picture)  # as of an older version: nothing in them says who made them
    return folder / name


def test_what_pillow_thinks_of_it_is_not_printed(tmp_path, recwarn):
    save(flat(), tmp_path / 'a.png')
    (tmp_path / 'tables').write_bytes(b'II*\0\0\0\0\1')
    assert len(read_folder(tmp_path, (4, 4, 3))) == 1 and not recwarn.list


def test_a_run_s_own_folder_is_no_data(tmp_path, capsys):
    data = several(tmp_path / 'data', 2)
    run_in(data, 'runs/dcgan'), run_in(data, 'runs/dcgan-2')
    assert shades(read_folder(data, (2, 2, 1))) == [0, 1]
    assert passed(capsys) == ['folder of a run: runs/dcgan', 'folder of a run: runs/dcgan-2']


def test_a_folder_that_only_looks_like_a_run_s_is_data(tmp_path):
    data = several(tmp_path / 'data', 1)
    save(flat(8), data / 'mine' / 'samples' / 'a.png')
    for file in 'config.json', 'metrics.csv', 'checkpoint.npz':
        (data / 'mine' / file).write_text('{"versions": {"mymodel": 3}}')
    assert shades(read_folder(data, (2, 2, 1))) == [0, 8]


def test_a_run_in_the_very_folder_of_the_data_leaves_these_as_they_are(tmp_path):
    data = several(tmp_path / 'data', 2)
    before = read_own(data, (2, 2, 1))
    run_in(data, '.')
    after = read_own(data, (2, 2, 1))
    assert shades(after[0]) == [0, 1] and before[1] == after[1]


def test_whatever_tinygan_drew_is_no_data_wherever_it_lies(tmp_path, capsys):
    data, image = several(tmp_path / 'data', 2), np.zeros((8, 8, 3), np.uint8)
    save_png(data / 'grid.png', image)
    save_gif(data / 'way.gif', [Image.fromarray(image)] * 2)
    plot_curves(data / 'plot.png', dict.fromkeys(('step', 'loss_D', 'frechet'), np.arange(3.)))
    assert shades(read_folder(data, (2, 2, 1))) == [0, 1]
    assert capsys.readouterr().err.count(': tinygan made it\n') == 3


@pytest.mark.skipif(sys.platform != 'linux', reason='elsewhere a name is text')
def test_a_name_that_is_no_text_is_no_obstacle(tmp_path):
    save(flat(7), tmp_path / 'data' / os.fsdecode(b'\xff\xfe.png'))
    assert shades(read_folder(tmp_path / 'data', (2, 2, 1))) == [7]


@pytest.mark.parametrize('name, what', [
    ('gone', ': no such file or folder, and neither mnist nor digits'), ('pipe', ': neither a file nor a folder'),
    ('file.png', ' is a single picture: name the folder'),
    ('notes.txt', ' is not what --data takes: mnist, digits, a folder or a zip of pictures, a folder of IDX files, or an IDX'),
    ('empty', ' is not what --data takes')])
def test_what_data_cannot_be_is_answered_with_what_they_can_be(tmp_path, name, what):
    save(flat(), tmp_path / 'file.png')
    (tmp_path / 'notes.txt').write_text('no image')
    (tmp_path / 'empty').touch()
    os.mkfifo(tmp_path / 'pipe')
    with pytest.raises(UserError) as error:
        read_folder(tmp_path / name, (4, 4, 3))
    assert str(error.value).startswith(f'--data {tmp_path / name}{what}')


def test_a_folder_without_pictures_is_named_with_what_is_in_it(tmp_path, cache):
    (tmp_path / 'data' / 'empty').mkdir(parents=True)
    for path, found in ((tmp_path / 'data', 'nothing at all'), (tmp_path, '.txt (1)')):
        with pytest.raises(UserError) as error:
            read_folder(path, (4, 4, 3))
        assert str(error.value).startswith(f'--data {path} holds no picture, but {found}; --data takes a folder or')
        (tmp_path / 'notes.txt').write_text('no image')
    assert kept(cache) == []


# ---- broken images

def encoded(format, **options):
    file = io.BytesIO()
    Image.fromarray(noise(64, 64)).save(file, format, **options)
    return file.getvalue()


PNG, JPEG = encoded('PNG'), encoded('JPEG')
BROKEN = {
    'empty': (b'', 'cannot identify image file'),
    'a web page': (b'<html>404 Not Found</html>', 'cannot identify image file'),
    'PNG header only': (PNG[:20], ''),
    'PNG cut': (PNG[:len(PNG) // 2], 'image file is truncated'),
    'PNG garbled': (PNG[:2000] + b'oops' + PNG[2004:], ''),
    'JPEG cut': (JPEG[:len(JPEG) // 2], 'image file is truncated'),
    'JPEG header only': (JPEG[:300], ''),
    'GIF cut': (encoded('GIF')[:1000], 'image file is truncated'),
    'WebP cut': (encoded('WEBP')[:500], ''),
    'a TIFF that points to nowhere': (b'II+\0\x08\0\0\0' + (1 << 62).to_bytes(8, 'little'), ''),
    'a script for Ghostscript': (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n',
                                 'cannot identify image file'),
    'floats': (None, 'floating-point pixels, which do not say what is white'),
}


@pytest.mark.parametrize('content, complaint', BROKEN.values(), ids=BROKEN)
def test_a_broken_image_is_left_out_and_named_with_its_fault(tmp_path, capsys, content, complaint):
    data = several(tmp_path / 'data', 2)
    if content is None:
        Image.new('F', (8, 8), 0.5).save(data / '000b.tif')
    else:
        (data / '000b.tif').write_bytes(content)
    images = read_folder(data, (2, 2, 1))
    assert images.shape == (2, 2, 2, 1) and shades(images) == [0, 1]
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == 'left out:' and lines[2].startswith(f'  000b.tif: {complaint}')
    assert len(lines) in (3, 4) and len(lines[2]) > len('  000b.tif: ')


def test_an_image_too_large_to_be_honest_is_left_out_before_it_is_decoded(tmp_path, capsys, monkeypatch):
    data = several(tmp_path / 'data', 1)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)          # Pillow warns from there on, and refuses twice as many
    save(flat(9, (40, 30)), data / 'large.png')
    save(flat(9, (100, 100)), data / 'bomb.png')
    assert shades(read_folder(data, (2, 2, 1))) == [0, 9]
    said = capsys.readouterr().err
    assert '  bomb.png: Image size (10000 pixels) exceeds limit of' in said and 'large.png' not in said


def test_large_images_are_decoded_one_by_one(tmp_path, monkeypatch):
    inside, most = [], []

    def watched(image):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.01)
        inside.pop()
        return image
    monkeypatch.setattr(decode, 'LARGE', 100)
    monkeypatch.setattr(ImageOps, 'exif_transpose', watched)
    monkeypatch.setattr(os, 'cpu_count', lambda: 4)
    for i in range(6):
        save(flat(i, (20, 20)), tmp_path / 'data' / f'{i}.png')
    assert shades(read_folder(tmp_path / 'data', (2, 2, 1))) == [0, 1, 2, 3, 4, 5] and most == [1] * 6


@pytest.mark.parametrize('chunk', ['tEXt', 'zTXt', 'iTXt', 'iCCP', 'many'])
def test_a_sound_picture_may_come_with_long_texts_and_large_profiles(tmp_path, chunk, capsys):
    about, options = PngInfo(), {}
    if chunk == 'iCCP':
        options['icc_profile'] = bytes(3_000_000)
    elif chunk == 'iTXt':
        about.add_itxt('workflow', 'x' * 3_000_000, zip=True)
    elif chunk == 'many':
        for i in range(70):
            about.add_text(f'part {i}', 'x' * 1_000_000, zip=True)
    else:
        about.add_text('workflow', 'x' * 3_000_000, zip=chunk == 'zTXt')
    assert (one(flat(), tmp_path, pnginfo=about, **options) == RED).all()
    assert 'left out' not in capsys.readouterr().err


def test_ten_broken_images_are_named_and_the_others_counted(tmp_path, capsys):
    for n, last in ((10, '  09.jpg: cannot'), (12, '  and 2 more')):
        data = several(tmp_path / f'{n}', 3)
        for i in range(n):
            (data / f'{i:02}.jpg').write_bytes(b'')
        assert shades(read_folder(data, (2, 2, 1))) == [0, 1, 2]
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('  ')]
        assert len(lines) == min(n, 11) and lines[-1].startswith(last)


def test_a_folder_of_nothing_but_broken_images_is_an_error_and_nothing_is_kept(tmp_path, cache, capsys):
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'a.png').write_bytes(PNG[:1000])
    with pytest.raises(UserError, match='^--data .*data: no picture in it can be used .a.png: image file is truncated'):
        read_folder(tmp_path / 'data', (4, 4, 3))
    assert kept(cache) == []


def test_pillow_s_warnings_neither_reach_the_user_nor_spoil_an_image(tmp_path, recwarn):
    tags = b'II*\0\x08\0\0\0\2\0' + b'\x12\1\3\0\1\0\0\0\6\0\0\0' + b'\x0f\1\2\0\x63\0\0\0\xff\0\0\0'
    image = flat(0, (32, 16))
    image.paste(250, (0, 0, 16, 16))              # turned to the right, its left half is its upper half
    read = one(image, tmp_path, (32, 16, 1), exif=tags)
    assert read[:16].min() == 250 and read[16:].max() == 0
    assert not recwarn.list


def test_a_file_that_may_not_be_read_is_an_error_and_not_a_broken_image(tmp_path, cache, monkeypatch):
    data = several(tmp_path / 'data', 2)
    monkeypatch.setattr(Folder, 'open', lambda folder, name: open(data / 'gone.png'))             # since the folder was listed
    with pytest.raises(UserError) as error:
        read_folder(data, (4, 4, 3))
    assert str(error.value) == f'000.png in {data} cannot be read (No such file or directory)'
    assert kept(cache) == []


@pytest.mark.parametrize('fault, said', [(OSError(24, 'Too many open files'), 'cannot be read (Too many open files)'),
                                         (OSError(5, 'Input/output error'), 'cannot be read (Input/output error)'),
                                         (PermissionError(13, 'Permission denied'), 'cannot be read (Permission denied)'),
                                         (MemoryError(), 'not enough memory for 000.png')])
def test_what_ails_the_system_is_not_kept_as_a_fault_of_the_picture(tmp_path, cache, monkeypatch, fault, said):
    data, real = several(tmp_path / 'data', 2), Folder.open

    def ailing(folder, name):
        if name == '000.png':
            raise fault
        return real(folder, name)
    monkeypatch.setattr(Folder, 'open', ailing)
    with pytest.raises(UserError) as error:
        read_folder(data, (4, 4, 3))
    assert said in str(error.value) and kept(cache) == []
    monkeypatch.undo()


# ---- what may be wrong with sound pictures

def doubted(tmp_path, images, **options):
    for i, image in enumerate(images):
        save(image, tmp_path / 'data' / f'{i}.png')
    return read_own(tmp_path / 'data', (4, 4, 1), **options)[2] or ''


def ramp(high, dtype=np.uint8):
    return Image.fromarray(np.linspace(0, high, 64).reshape(8, 8).astype(dtype))


@pytest.mark.parametrize('images, warning', [
    ([Image.new('RGBA', (8, 8), (255, 255, 255, shade)) for shade in (0, 99)], 'blank, of one shade alone; if they are white on'),
    ([flat(9), flat(3)], 'blank, of one shade alone; open one'),
    ([ramp(200), ramp(200)], 'all images are the same'),
    ([ramp(4095, np.uint16), ramp(4000, np.uint16)], 'nearly black: of 255 shades, none above 1'),
    ([ramp(200), ramp(199)], None), ([ramp(200)], None), ([flat(9), ramp(200)], None)])
def test_pictures_that_cannot_be_meant_so_are_warned_of_with_the_likely_reason(tmp_path, capsys, images, warning):
    for _ in range(2):                            # when they are read, and when they come from the cache
        assert (warning or '') in doubted(tmp_path, images)
        said = capsys.readouterr().err
        assert 'warning: ' in said and warning in said if warning else 'warning' not in said


def test_another_ground_shows_what_is_white_on_transparency(tmp_path):
    drawing = Image.new('RGBA', (8, 8), (255, 255, 255, 0))
    drawing.paste((255, 255, 255, 255), (0, 0, 4, 8))
    assert 'blank' in doubted(tmp_path, [drawing])
    assert not doubted(tmp_path, [drawing], background='black')
    assert 'blank' in doubted(tmp_path, [])       # each ground has an array of its own
    assert read_folder(tmp_path / 'data', (8, 8, 1), '#000080')[0, 0, [0, 7], 0].tolist() == [255, 15]
    assert read_folder(tmp_path / 'data', (8, 8, 3), '#000080')[0, 0, 7].tolist() == [0, 0, 128]


# ---- the array that is kept

def test_the_array_is_a_read_only_map_of_a_plain_npy_file(tmp_path, cache, capsys):
    images = read_folder(several(tmp_path / 'data', 3), (4, 6, 3))
    assert isinstance(images, np.memmap) and images.mode == 'r' and images.shape == (3, 4, 6, 3)
    with pytest.raises(ValueError, match='read-only'):
        images[:] = 0
    name, = kept(cache)
    assert np.array_equal(np.load(cache / name, allow_pickle=False), images)
    said = capsys.readouterr().err
    assert said.startswith(f'reading 3 pictures in {tmp_path / "data"}, into {cache}\n')


def test_minibatches_are_copies_that_may_be_changed(tmp_path):
    images = ImageSet(read_folder(several(tmp_path / 'data', 4), (4, 4, 1)))
    batch = images.batch(0, 4)
    assert sorted(shades(batch)) == [0, 1, 2, 3] and not isinstance(batch, np.memmap)
    batch[:] = 9
    assert sorted(shades(images.batch(0, 4))) == [0, 1, 2, 3]


def test_the_next_run_reads_no_image_and_says_nothing(tmp_path, monkeypatch, capsys):
    first = read_folder(several(tmp_path / 'data', 3), (4, 4, 1))
    capsys.readouterr()
    monkeypatch.setattr(module, 'pixels', None)
    monkeypatch.chdir(tmp_path)
    for name in (tmp_path / 'data', 'data', 'data/../data/', pathlib.Path('data')):
        images = read_folder(name, (4, 4, 1))
        assert np.array_equal(images, first) and isinstance(images, np.memmap) and images.mode == 'r'
    assert capsys.readouterr().err.replace(BLANK, '') == ''


def touch(data):
    os.utime(data / '000.png', ns=(1, 1))


def grow(data):
    status = os.stat(data / '000.png')
    with open(data / '000.png', 'ab') as file:
        file.write(b'more')
    os.utime(data / '000.png', ns=(status.st_atime_ns, status.st_mtime_ns))


def rewrite(data):
    """Another picture of the same size, at the same time: of BMPs, all are equally long."""
    save(flat(0), data / '000.png', format='BMP')
    status = os.stat(data / '000.png')
    read_folder(data, (2, 2, 1))
    save(flat(8), data / '000.png', format='BMP')
    os.utime(data / '000.png', ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize('change, result', [
    (touch, [0, 1]), (grow, [0, 1]),
    (lambda data: save(flat(5), data / 'sub' / 'new.png'), [0, 1, 5]),
    (lambda data: (data / '000.png').unlink(), [1]), (rewrite, [8, 1]),
    (lambda data: (data / '000.png').rename(data / '002.png'), [1, 0]),
], ids=['another time', 'another size', 'one more', 'one fewer', 'others of equal size and time', 'another name'])
def test_a_folder_that_changed_is_read_anew_and_its_old_array_removed(tmp_path, cache, change, result):
    data = several(tmp_path / 'data', 2)
    read_folder(data, (2, 2, 1))
    old, = kept(cache)
    change(data)
    assert shades(read_folder(data, (2, 2, 1))) == result
    new, = kept(cache)
    assert new != old


def test_every_folder_and_every_shape_has_an_array_of_its_own(tmp_path, cache):
    for name in ('one', 'other'):
        for shape in ((2, 2, 1), (2, 2, 3), (2, 4, 1), (4, 2, 1)):
            data = tmp_path / name
            if not data.exists():
                several(data, 2)
                os.utime(data / '000.png', ns=(1, 1))
                os.utime(data / '001.png', ns=(1, 1))
            assert read_folder(data, shape).shape == (2, *shape)
    assert len(kept(cache)) == 8


def test_an_array_made_by_another_version_is_made_anew(tmp_path, cache, monkeypatch):
    read_folder(several(tmp_path / 'data', 1), (2, 2, 1))
    old, = kept(cache)
    monkeypatch.setattr(module, 'VERSION', 'next')
    read_folder(tmp_path / 'data', (2, 2, 1))
    new, = kept(cache)
    assert new != old


@pytest.mark.parametrize('damage', [
    lambda content: b'', lambda content: content[:-1], lambda content: content[:50], lambda content: b'junk'
], ids=['empty', 'cut', 'half a header', 'garbage'])
def test_a_damaged_array_is_made_anew(tmp_path, cache, damage):
    data = several(tmp_path / 'data', 3)
    read_folder(data, (2, 2, 1))
    path = cache / kept(cache)[0]
    path.write_bytes(damage(path.read_bytes()))
    assert shades(read_folder(data, (2, 2, 1))) == [0, 1, 2]
    assert kept(cache) == [path.name]


def test_without_xdg_cache_home_arrays_are_kept_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.delenv('XDG_CACHE_HOME')
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    read_folder(several(tmp_path / 'data', 1), (2, 2, 1))
    assert len(kept(tmp_path / 'home' / '.cache' / 'tinygan' / 'own')) == 1


@pytest.mark.parametrize('step', ['fsync', 'replace'])
def test_an_interrupted_run_leaves_nothing_and_the_next_begins_anew(tmp_path, cache, monkeypatch, step):
    def interrupt(*args):
        assert len(kept(cache)) == 1 and kept(cache)[0].endswith('.part')
        raise KeyboardInterrupt
    data = several(tmp_path / 'data', 3)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, step, interrupt)
        read_folder(data, (2, 2, 1))
    assert kept(cache) == []
    assert shades(read_folder(data, (2, 2, 1))) == [0, 1, 2]


def test_what_a_killed_run_left_is_removed_after_a_day_and_what_others_write_is_not(tmp_path, cache):
    data = several(tmp_path / 'data', 1)
    read_folder(data, (2, 2, 1))
    name, = kept(cache)
    place = name.partition('-')[0]
    for old in (f'{place}-dead.part', f'{place}-alive.part', 'other-dead.part', 'other-0.npy'):
        (cache / old).write_bytes(b'')
    for dead in (f'{place}-dead.part', 'other-dead.part', 'other-0.npy'):
        os.utime(cache / dead, (time.time() - 90000,) * 2)
    (cache / f'{place}-folder.npy').mkdir()                       # cannot be removed as a file is
    touch(data)
    read_folder(data, (2, 2, 1))
    left = kept(cache)
    assert len(left) == 5 and name not in left
    assert {f'{place}-alive.part', 'other-dead.part', 'other-0.npy', f'{place}-folder.npy'} < set(left)


def test_a_cache_that_cannot_be_written_is_named_with_the_reason(tmp_path, cache):
    data = several(tmp_path / 'data', 1)
    (tmp_path / 'cache').write_text('in the way')
    with pytest.raises(UserError) as error:
        read_folder(data, (2, 2, 1))
    assert str(error.value) == f'{cache} cannot be written (Not a directory); set another XDG_CACHE_HOME'


def test_a_full_disk_is_named_and_what_was_written_is_given_back(tmp_path, cache, monkeypatch):
    def full(file_descriptor):
        raise OSError(28, 'No space left on device')
    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(UserError, match='own cannot be written .No space left on device.; set another'):
        read_folder(several(tmp_path / 'data', 1), (2, 2, 1))
    assert kept(cache) == []


RUN = """
import os, sys, time
from tinygan.data.own import read_own
def wait(file_descriptor):
    deadline = time.monotonic() + 60
    open(sys.argv[2], 'w').close()
    while not all(os.path.exists(path) for path in sys.argv[2:]):
        assert time.monotonic() < deadline
        time.sleep(0.01)
os.fsync = wait
print(read_own(sys.argv[1], (2, 2, 1))[0][:, 0, 0, 0].tolist())
"""


def test_two_runs_that_build_the_same_array_at_the_same_time_both_end_well(tmp_path, cache):
    data, marks = several(tmp_path / 'data', 3), [str(tmp_path / 'first'), str(tmp_path / 'second')]
    root = pathlib.Path(module.__file__).parent.parent.parent
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
    for run in [begun([sys.executable, '-c', RUN, data, *order], cwd=root, **pipes)
                for order in (marks, marks[::-1])]:
        out, err = run.communicate(timeout=LIMIT)
        assert run.returncode == 0 and out == '[0, 1, 2]\n' and err.startswith('reading 3 pictures'), err
    name, = kept(cache)
    assert name.endswith('.npy') and shades(read_folder(data, (2, 2, 1))) == [0, 1, 2]


# ---- many images

def test_images_are_decoded_side_by_side(tmp_path, monkeypatch):
    both = threading.Barrier(2, timeout=10)
    monkeypatch.setattr(os, 'cpu_count', lambda: 2)
    monkeypatch.setattr(module, 'pixels', lambda *_: bytes([both.wait()]))
    assert sorted(shades(read_folder(several(tmp_path / 'data', 2), (1, 1, 1)))) == [0, 1]


def test_few_images_wait_to_be_written_however_many_there_are(tmp_path, monkeypatch):
    decoded, waiting = [], []

    def watched(names, *args, **options):
        for i, name in enumerate(names):
            waiting.append(len(decoded) - i)
            yield name
            time.sleep(0.0005)                    # a slow disk: the decoders have time to run ahead

    def decode(source, name, *_):
        decoded.append(name)
        return bytes([int(name[:3]) % 256])

    monkeypatch.setattr(module, 'tqdm', watched)
    monkeypatch.setattr(module, 'bytes_of', decode)
    (tmp_path / 'data').mkdir()
    for i in range(500):
        (tmp_path / 'data' / f'{i:03}.png').touch()
    images = read_folder(tmp_path / 'data', (1, 1, 1))
    assert shades(images) == [i % 256 for i in range(500)]
    assert 1 < max(waiting) <= 128


def test_a_progress_bar_is_shown_on_a_terminal_only(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True
    for stream, shown in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, 'stderr', stream)
        read_folder(several(tmp_path / f'{shown}', 3), (2, 2, 1))
        assert ('reading:   0%' in stream.getvalue() and '| 0/3 [' in stream.getvalue()) == shown
