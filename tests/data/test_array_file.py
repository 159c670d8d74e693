"""Images in arrays: IDX files under every name, .npy, .npz; what is certain is read, and what is not is asked about."""
import gzip
import struct

import numpy as np
import pytest
from PIL import Image

from tinygan import data
from tinygan.data import array_file, idx, own
from tinygan.data.own import read_own
from tinygan.errors import UserError

GRAY = np.random.default_rng(0).integers(0, 256, (6, 8, 10), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (6, 8, 10, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


def idx_bytes(array, code=8):
    return bytes([0, 0, code, array.ndim]) + struct.pack(f'>{array.ndim}I', *array.shape) + array.tobytes()


def put(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def npy(tmp_path, array, name='mine.npy'):
    np.save(tmp_path / name, array)
    return tmp_path / name


def npz(tmp_path, **arrays):
    np.savez_compressed(tmp_path / 'mine.npz', **arrays)
    return tmp_path / 'mine.npz'


def read(path, shape=(8, 10, 1)):
    return read_own(path, shape)[0]


def refusal(path, shape=(8, 10, 1)):
    with pytest.raises(UserError) as error:
        read_own(path, shape)
    message = str(error.value)
    assert str(path) in message and '\n' not in message
    return message


# ---- IDX

@pytest.mark.parametrize('name', ['train-images-idx3-ubyte', 'train-images.idx3-ubyte', 'letters', 'TRAIN_IMAGES.IDX3-UBYTE'])
@pytest.mark.parametrize('pack', [bytes, gzip.compress], ids=['raw', 'gzipped'])
@pytest.mark.parametrize('whole_folder', [True, False])
def test_an_idx_file_is_read_whatever_its_name_alone_or_in_its_folder(tmp_path, name, pack, whole_folder):
    labels = pack(idx_bytes(np.arange(6, dtype=np.uint8)))
    folder = put(tmp_path / 'raw', **{name: pack(idx_bytes(GRAY)), name.replace('mages', 'abels') + '1': labels})
    assert np.array_equal(read(folder if whole_folder else folder / name)[..., 0], GRAY)


def test_torchvision_s_folder_is_read_from_any_height_and_the_training_images_are_taken(tmp_path):
    raw, test = idx_bytes(GRAY), idx_bytes(GRAY[:2])
    put(tmp_path / 'FashionMNIST' / 'raw', **{
        'train-images-idx3-ubyte': raw, 'train-images-idx3-ubyte.gz': gzip.compress(raw), 't10k-images-idx3-ubyte': test,
        't10k-images-idx3-ubyte.gz': gzip.compress(test)})
    for folder in (tmp_path, tmp_path / 'FashionMNIST', tmp_path / 'FashionMNIST' / 'raw'):
        assert len(read(folder)) == 6


def test_of_several_sets_in_a_folder_one_is_asked_for(tmp_path):
    splits = {f'emnist-{name}-train-images-idx3-ubyte': idx_bytes(GRAY) for name in ('letters', 'digits')}
    folder = put(tmp_path / 'gzip', **splits)
    assert 'holds several sets of images (emnist-digits-train-images-idx3-ubyte, emnist-letters-train-images' in refusal(folder)
    Image.new('L', (8, 8)).save(folder / 'preview.png')
    (folder / 'emnist-digits-train-images-idx3-ubyte').unlink()
    assert 'several sets of images (emnist-letters-train-images-idx3-ubyte, preview.png): name the' in refusal(folder)


def test_emnist_s_images_are_turned_upright(tmp_path):
    square = GRAY[:, :, :8]
    put(tmp_path, **{'emnist-letters-train-images-idx3-ubyte': idx_bytes(square.swapaxes(1, 2))})
    assert np.array_equal(read(tmp_path, (8, 8, 1))[..., 0], square)


@pytest.mark.parametrize('code, numbers', [(9, (GRAY // 2).astype('i1')), (11, GRAY.astype('>i2')), (12, GRAY.astype('>i4')),
                                           (13, (GRAY / 255).astype('>f4')), (14, (GRAY / 255).astype('>f8'))])
def test_idx_files_hold_other_numbers_too(tmp_path, code, numbers):
    put(tmp_path, mine=idx_bytes(numbers, code))
    assert np.array_equal(read(tmp_path / 'mine')[..., 0], GRAY // 2 if code == 9 else GRAY)


def test_a_link_s_own_name_says_whether_it_is_emnist_s(tmp_path):
    square = GRAY[:, :, :8]
    put(tmp_path / 'store', **{'0a1b2c': idx_bytes(square.swapaxes(1, 2))})
    (tmp_path / 'emnist-letters-train-images-idx3-ubyte').symlink_to(tmp_path / 'store' / '0a1b2c')
    assert np.array_equal(read(tmp_path / 'emnist-letters-train-images-idx3-ubyte', (8, 8, 1))[..., 0], square)


def test_a_file_is_as_long_as_its_array_or_is_not_whole():
    file = idx_bytes(GRAY)
    for start in file[:16], file:
        assert idx.is_whole(start, len(file)) and not idx.is_whole(start, len(file) - 1) and not idx.is_whole(start, 16)


def test_an_array_of_truths_may_be_black_all_over():
    assert array_file.scale_of(np.zeros((2, 4, 4, 1), bool), 'it')[:2] == (255, 0)


def test_idx_files_hold_colour_too(tmp_path):
    put(tmp_path, colour=idx_bytes(COLOUR))
    assert np.array_equal(read(tmp_path / 'colour', (8, 10, 3)), COLOUR)


def test_labels_alone_are_no_images(tmp_path):
    put(tmp_path / 'raw', labels=idx_bytes(np.arange(6, dtype=np.uint8)))
    assert 'holds no picture, but IDX files (1); --data takes' in refusal(tmp_path / 'raw')
    assert 'has the shape (6,)' in refusal(tmp_path / 'raw' / 'labels')


@pytest.mark.parametrize('cut, complaint', [
    (lambda raw: raw[:-1], 'is truncated: it holds 495 of 496 bytes'), (lambda raw: raw[:9], 'is truncated: it holds 9 bytes'),
    (lambda raw: raw + b'x', 'holds 497 bytes, and its array only 496'),
    (lambda raw: gzip.compress(raw)[:-9], 'is truncated: its compressed data break off'),
    (lambda raw: gzip.compress(raw)[:-8] + bytes(8), 'is corrupted: CRC check failed')])
def test_a_damaged_idx_file_is_named_with_its_fault_and_nobody_is_told_to_delete_it(tmp_path, cut, complaint):
    name = 'images.idx3-ubyte'
    put(tmp_path / 'raw', **{name: cut(idx_bytes(GRAY))})
    for path in tmp_path / 'raw' / name, tmp_path / 'raw':
        with pytest.raises(UserError) as error:
            read(path)
        assert str(error.value) == f'{tmp_path / "raw" / name} {complaint}'


def test_a_film_that_begins_like_an_idx_file_is_passed_over(tmp_path, capsys):
    files = {'film.mov': b'\0\0\x08\x03ftypqt  ' + bytes(200), 'clip': b'\0\0\x08\x02', 'x': b'\0\0\x0b\x04aa'}
    folder = put(tmp_path / 'folder', **files)
    Image.fromarray(GRAY[0]).save(folder / 'a.png')
    assert len(read(folder)) == 1 and 'passed over: .mov (1), without a suffix (2)' in capsys.readouterr().err


def test_a_file_that_only_begins_like_an_idx_file_is_none():
    assert [idx.dimensions(start) for start in (b'', b'\0\0', b'\0\0\x08', bytes(8), b'\x1f\x8b', b'\x1f\x8b' + bytes(60),
                                                gzip.compress(b''), gzip.compress(b'hello'), b'\0\0\x08lmoov')] == [0] * 9


# ---- .npy and .npz

@pytest.mark.parametrize('array, shape', [
    (GRAY, (8, 10, 1)), (GRAY[..., None], (8, 10, 1)), (GRAY[:, None], (8, 10, 1)), (np.asfortranarray(GRAY), (8, 10, 1)),
    (COLOUR, (8, 10, 3)), (COLOUR.transpose(0, 3, 1, 2), (8, 10, 3))],
    ids=['NHW', 'NHW1', 'N1HW', 'Fortran', 'NHWC', 'NCHW'])
def test_axes_are_recognised_where_they_are_certain(tmp_path, array, shape, capsys):
    images = read(npy(tmp_path, array), shape)
    assert np.array_equal(images, COLOUR if shape[2] == 3 else GRAY[..., None])
    kind = 'RGB' if shape[2] == 3 else 'gray'
    assert f'mine.npy: N = 6, 8x10, {kind}, uint8' in capsys.readouterr().err


@pytest.mark.parametrize('shape', [(80,), (6, 80), (6, 8, 10, 2), (6, 8, 10, 3, 1), (8, 10, 3), (3, 8, 10), (28, 28, 600),
                                   (32, 32, 3, 50), (6, 3, 10, 3), (6, 1, 10, 1)])
def test_axes_that_are_not_certain_are_asked_about(tmp_path, shape):
    message = refusal(npy(tmp_path, np.zeros(shape, np.uint8)))
    assert f'has the shape {shape}, of which it is not certain what is what: needed is (N, H, W), (N, H, W, C) or' in message


@pytest.mark.parametrize('numbers', [
    GRAY / 255, (GRAY / 255).astype('f'), (GRAY / 255).astype('>f4'), GRAY / 127.5 - 1, (GRAY / 127.5 - 1).astype('f'),
    GRAY.astype('f'), GRAY.astype(int), GRAY.astype('>i4'), GRAY.astype(np.uint16) * 257],
    ids=['0 to 1', 'float32', 'big-endian', '-1 to 1', '-1 to 1, float32', '0 to 255', 'integers', 'big-endian integers',
         '16 bits'])
def test_numbers_become_the_shades_that_they_mean(tmp_path, numbers):
    assert np.array_equal(read(npy(tmp_path, numbers))[..., 0], GRAY)


def test_half_precision_and_truth_become_shades(tmp_path):
    half = read(npy(tmp_path, (GRAY / 255).astype(np.float16)))[..., 0]
    assert abs(half.astype(int) - GRAY).max() <= 1
    assert np.array_equal(read(npy(tmp_path, GRAY > 99))[..., 0], (GRAY > 99) * np.uint8(255))


@pytest.mark.parametrize('numbers', [
    GRAY / 255 - 0.5, GRAY / 51. - 2, GRAY * 4., GRAY / 100, GRAY.astype(int) - 3, GRAY.astype(int) * 2,
    np.where(GRAY == 7, np.nan, GRAY)],
    ids=['-0.5 to 0.5', 'standardised', '0 to 1020', '0 to 2.55', 'negative', '0 to 510', 'nan'])
def test_numbers_that_do_not_say_what_is_black_and_white_are_asked_about(tmp_path, numbers):
    message = refusal(npy(tmp_path, numbers))
    assert 'does not say what is black and what white: needed is uint8, or floats in [0, 1] or [-1, 1]' in message


@pytest.mark.parametrize('arrays', [
    {'x_train': GRAY, 'y_train': np.arange(6), 'x_test': GRAY[:2]}, {'images': GRAY, 'other': GRAY[:3]}, {'arr_0': GRAY},
    {'faces': GRAY, 'names': np.array(['a'] * 6), 'labels': np.arange(6)}, {'train_images': GRAY, 'val_images': GRAY[:1]}])
def test_the_images_of_an_npz_are_found_by_name_or_because_nothing_else_fits(tmp_path, arrays, capsys):
    assert np.array_equal(read(npz(tmp_path, **arrays))[..., 0], GRAY)
    assert f'mine.npz, {next(iter(arrays))}: N = 6, 8x10, gray' in capsys.readouterr().err


def test_the_array_of_the_right_name_counts_even_if_another_fits(tmp_path):
    assert 'x_train has the shape (6, 80)' in refusal(npz(tmp_path, x_train=GRAY.reshape(6, 80), x_test=GRAY[:2]))


def test_an_npz_without_images_or_with_several_that_may_be_meant_is_answered_with_what_it_holds(tmp_path):
    assert 'holds no array of images' in refusal(npz(tmp_path, labels=np.arange(6)))
    message = refusal(npz(tmp_path, cats=GRAY, dogs=GRAY[:2]))
    assert 'cats (6, 8, 10), dogs (2, 8, 10)' in message and 'np.save' in message


def test_objects_are_not_unpickled(tmp_path):
    array = np.array([GRAY, None], dtype=object)
    np.save(tmp_path / 'mine.npy', array, allow_pickle=True)
    assert 'mine.npy cannot be read (' in refusal(tmp_path / 'mine.npy')
    assert 'mine.npz cannot be read (' in refusal(npz(tmp_path, images=array))


@pytest.mark.parametrize('name', ['mine.npy', 'mine.npz'])
@pytest.mark.parametrize('keep', [9, 100, -1])
def test_a_damaged_array_is_named_in_one_line(tmp_path, name, keep):
    path = npy(tmp_path, GRAY) if name == 'mine.npy' else npz(tmp_path, images=GRAY)
    path.write_bytes(path.read_bytes()[:keep])
    refusal(path)


def test_an_npz_that_leads_to_before_its_beginning_is_damaged(tmp_path):
    path = npz(tmp_path, images=GRAY)
    path.write_bytes(b'PK\3\4' + path.read_bytes()[12:])
    assert 'mine.npz cannot be read (' in refusal(path)


def test_an_empty_array_is_no_data(tmp_path):
    assert 'is empty: its shape is (0, 8, 8)' in refusal(npy(tmp_path, np.zeros((0, 8, 8), np.uint8)))
    for shape in (0, 8, 8), (0, 2**32 - 1, 2**32 - 1):
        put(tmp_path, images=bytes([0, 0, 8, 3]) + struct.pack('>3I', *shape))
        assert f'images is empty: its shape is {shape}' in refusal(tmp_path / 'images')


def test_a_shape_that_overflows_is_answered_in_one_line_alone(tmp_path, recwarn):
    path = npy(tmp_path, GRAY)
    path.write_bytes(path.read_bytes().replace(b'(6, 8, 10), }              ', b'(4, 2147483647, 2147483647)}'))
    assert 'mine.npy cannot be read (' in refusal(path) and not recwarn.list


def test_rows_of_another_size_are_cropped_resized_and_kept_as_pictures_are(tmp_path, capsys):
    path = npy(tmp_path, COLOUR)
    images = read(path, (4, 4, 1))
    folder = put(tmp_path / 'pictures')
    for i, image in enumerate(COLOUR):
        Image.fromarray(image).save(folder / f'{i}.png')
    assert np.array_equal(images, read(folder, (4, 4, 1))) and isinstance(images, np.memmap)
    capsys.readouterr()
    assert np.array_equal(read(path, (4, 4, 1)), images) and 'reading' not in capsys.readouterr().err


def test_transparent_rows_lie_on_the_ground(tmp_path):
    clear = np.concatenate([COLOUR, np.zeros_like(COLOUR[..., :1])], axis=3)
    assert (read_own(npy(tmp_path, clear), (8, 10, 3), 'black')[0] == 0).all()


def test_an_array_of_the_very_shape_is_taken_as_it_is_and_known_again(tmp_path, monkeypatch):
    path = npy(tmp_path, GRAY)
    monkeypatch.setattr(own, 'LOOKED_AT', 2)      # at a time
    images, digest, warning, *_ = read_own(path, (8, 10, 1))
    assert isinstance(images, np.memmap) and warning is None and not (tmp_path / 'cache').exists()
    assert read_own(npz(tmp_path, arr_0=GRAY), (8, 10, 1))[1] == digest
    changed = GRAY.copy()
    changed[5, 7, 9] ^= 1
    assert read_own(npy(tmp_path, changed), (8, 10, 1))[1] != digest


def test_a_large_array_is_looked_at_in_parts_and_kept_where_it_had_to_be_converted(tmp_path, monkeypatch):
    monkeypatch.setattr(array_file, 'PART', 4)
    path = npy(tmp_path, GRAY / 255)
    assert np.array_equal(read(path)[..., 0], GRAY)
    monkeypatch.setattr(array_file, 'read_array', None)           # it does not even read the file again
    assert np.array_equal(read(path)[..., 0], GRAY)


@pytest.mark.parametrize('last', [np.nan, 1.5, -3])
def test_every_part_of_an_array_is_looked_at(tmp_path, monkeypatch, last):
    monkeypatch.setattr(array_file, 'PART', 160)
    numbers = GRAY / 255
    numbers[5, 7, 9] = last
    assert 'does not say what is black' in refusal(npy(tmp_path, numbers))


def test_an_array_in_fortran_s_order_is_kept_in_ours(tmp_path):
    images = read(npy(tmp_path, np.asfortranarray(GRAY)))
    assert np.array_equal(images[..., 0], GRAY) and images.flags.c_contiguous


def test_mnist_is_known_by_its_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr(data.mnist, 'DIGEST', read_own(npy(tmp_path, GRAY), (8, 10, 1))[1])
    assert data.load(str(tmp_path / 'mine.npy'), shape=(8, 10, 1)).digest == data.mnist.DIGEST
