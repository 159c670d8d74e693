"""Pictures: where each image of a grid lies, what a file holds when read again, and the way between two z."""
import errno
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tinygan.run.pictures import grid, linear, plot_curves, save_gif, save_png, spherical

GRAY = 64                                         # of the gaps


def flat_images(n, H=3, W=2, C=1):
    """n images of one shade each: 100, 101, 102 ..."""
    return np.tile(np.arange(100, 100 + n, dtype=np.uint8)[:, None, None, None], (1, H, W, C))


# ---- grids

def test_a_grid_is_read_like_a_page_and_its_incomplete_last_row_ends_in_gray():
    sheet = grid(flat_images(5), columns=3, gap=1)
    assert sheet.shape == (2 * 4 + 1, 3 * 3 + 1, 1) and sheet.dtype == np.uint8
    expected = np.full((9, 10), GRAY)
    for i, (y, x) in enumerate([(1, 1), (1, 4), (1, 7), (5, 1), (5, 4)]):
        expected[y:y + 3, x:x + 2] = 100 + i
    assert np.array_equal(sheet[..., 0], expected)


def test_each_image_of_a_grid_keeps_its_pixels_in_place(rng):
    images = rng.integers(0, 256, (4, 5, 7, 3), dtype=np.uint8)
    sheet = grid(images, columns=2, gap=2)
    assert sheet.shape == (2 * 7 + 2, 2 * 9 + 2, 3)
    for i, (y, x) in enumerate([(2, 2), (2, 11), (9, 2), (9, 11)]):
        assert np.array_equal(sheet[y:y + 5, x:x + 7], images[i])


def test_a_grid_of_fewer_images_than_columns_is_one_full_row():
    assert grid(flat_images(3), columns=8, gap=2).shape == (3 + 4, 3 * 4 + 2, 1)
    assert grid(flat_images(1)).shape == (3 + 4, 2 + 4, 1)


def test_a_grid_without_gaps_is_the_images_alone():
    sheet = grid(flat_images(4), columns=2, gap=0)
    assert np.array_equal(sheet[::3, ::2, 0], [[100, 101], [102, 103]]) and (sheet != GRAY).all()


# ---- files

@pytest.mark.parametrize('C, mode', [(1, 'L'), (3, 'RGB')])
@pytest.mark.parametrize('scale', [1, 3])
def test_a_png_holds_every_pixel_as_it_was_as_large_as_asked_for(tmp_path, rng, C, mode, scale):
    image = rng.integers(0, 256, (5, 4, C), dtype=np.uint8)
    save_png(tmp_path / 'image.png', image, scale)
    with Image.open(tmp_path / 'image.png') as picture:
        assert (picture.format, picture.mode, picture.size) == ('PNG', mode, (4 * scale, 5 * scale))
        pixels = np.asarray(picture).reshape(5 * scale, 4 * scale, C)
    assert np.array_equal(pixels, image.repeat(scale, 0).repeat(scale, 1))


@pytest.mark.parametrize('save', [
    lambda path: save_png(path, np.zeros((5, 4, 1), np.uint8)),
    lambda path: save_gif(path, [Image.fromarray(np.zeros((5, 4), np.uint8))] * 2),
    lambda path: plot_curves(path, columns(3))], ids=['png', 'gif', 'curves'])
def test_a_picture_that_is_cut_off_leaves_the_one_that_was_there(save, tmp_path, monkeypatch):
    (tmp_path / 'picture').write_bytes(b'the old one')
    monkeypatch.setattr(os, 'fsync', lambda file: (_ for _ in ()).throw(OSError(errno.ENOSPC, 'No space left on device')))
    with pytest.raises(OSError, match='No space left') as error:
        save(tmp_path / 'picture')
    assert error.value.filename == str(tmp_path / 'picture')
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b'the old one']


def test_a_gif_shows_its_frames_in_the_given_order_for_ever_and_the_last_one_longest(tmp_path):
    shades = 10, 250, 90
    frames = [Image.fromarray(np.full((6, 5), shade, np.uint8)) for shade in shades]
    save_gif(tmp_path / 'frames.gif', frames, milliseconds=120)
    shown, durations = [], []
    with Image.open(tmp_path / 'frames.gif') as gif:
        assert gif.n_frames == 3 and gif.info['loop'] == 0
        for frame in range(3):
            gif.seek(frame)
            durations.append(gif.info['duration'])
            shown.append(np.asarray(gif.convert('L')))
    assert [image.shape for image in shown] == 3 * [(6, 5)]
    for image, shade in zip(shown, shades):
        assert abs(image.astype(int) - shade).max() <= 1
    assert durations == [120, 120, 2000]


def test_a_gif_keeps_colours(tmp_path):
    """256 shades of gray, as RGB: a fixed palette would have six of them. Pillow looks for the nearest colour by six bits of each
    channel."""
    ramp = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    save_gif(tmp_path / 'ramp.gif', [Image.fromarray(ramp), Image.fromarray(ramp[::-1].copy())])
    with Image.open(tmp_path / 'ramp.gif') as gif:
        assert abs(np.asarray(gif.convert('RGB')).astype(int) - ramp).max() <= 4


def test_a_gif_of_one_frame_is_a_picture(tmp_path):
    save_gif(tmp_path / 'one.gif', [Image.fromarray(flat_images(1)[0, ..., 0])])
    with Image.open(tmp_path / 'one.gif') as gif:
        assert gif.n_frames == 1


# ---- interpolation

@pytest.mark.parametrize('way', [linear, spherical])
def test_the_way_between_two_z_starts_at_one_and_ends_at_the_other(rng, way):
    z0, z1 = rng.standard_normal((2, 100)).astype(np.float32)
    path = way(z0, z1, 7)
    assert path.shape == (7, 100) and path.dtype == np.float32
    np.testing.assert_allclose(path[[0, -1]], [z0, z1], rtol=1e-5, atol=1e-6)


def test_between_two_z_of_equal_length_the_length_stays_and_every_step_turns_as_far(rng):
    z0, z1 = (z / np.linalg.norm(z) * 10 for z in rng.standard_normal((2, 100)))
    path = spherical(z0, z1, 9)
    np.testing.assert_allclose(np.linalg.norm(path, axis=1), 10)
    np.testing.assert_allclose(np.sum(path[1:] * path[:-1], axis=1), path[0] @ path[1])


def test_half_way_between_east_and_north_is_north_east():
    east, north = np.eye(2)
    np.testing.assert_allclose(spherical(east, north, 3)[1], [0.5 ** 0.5, 0.5 ** 0.5])
    np.testing.assert_allclose(linear(east, north, 3)[1], [0.5, 0.5])                       # and there by a shorter way


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
@pytest.mark.parametrize('factor', [1, 2])
def test_between_two_z_of_one_direction_nothing_is_divided_by_zero(rng, dtype, factor):
    z = rng.standard_normal(100).astype(dtype)
    path = spherical(z, factor * z, 5)
    np.testing.assert_allclose(path, np.linspace(1, factor, 5)[:, None] * z, rtol=1e-5)


# ---- curves

def columns(n):
    rng = np.random.default_rng(0)
    names = 'loss_D', 'loss_G', 'D_x', 'D_G_z1', 'D_G_z2'
    return {'step': np.arange(1, n + 1), 'frechet': np.full(n, np.nan)} | {name: rng.random(n) for name in names}


@pytest.mark.parametrize('n', [1, 2, 49, 500])
def test_curves_are_drawn_from_the_first_row_on(tmp_path, n):
    plot_curves(tmp_path / 'curves.png', columns(n))
    with Image.open(tmp_path / 'curves.png') as picture:
        assert picture.format == 'PNG' and picture.size == (1080, 720)
        assert np.asarray(picture.convert('L')).std() > 5         # something is drawn


def test_curves_follow_their_numbers(tmp_path):
    for name, n in (('few', 20), ('many', 200), ('many again', 200)):
        plot_curves(tmp_path / f'{name}.png', columns(n))
    few, many, again = ((tmp_path / f'{name}.png').read_bytes() for name in ('few', 'many', 'many again'))
    assert few != many == again


def test_distances_have_a_panel_of_their_own_where_a_single_one_is_seen(tmp_path):
    metrics, heights = columns(20), []
    for step, distance in (10, 40), (20, 30):
        metrics['frechet'][step - 1] = distance
        plot_curves(tmp_path / 'curves.png', metrics)
        with Image.open(tmp_path / 'curves.png') as picture:
            pixels = np.asarray(picture.convert('RGB')).astype(int)
        panel = pixels[720:-60, 120:]             # without the labels of its axes
        heights.append(len(set(np.nonzero(panel[..., 2] - panel[..., 0] > 60)[0])))      # of what is blue
        assert len(pixels) == 1080
    assert 0 < heights[0] < 20 and heights[1] > 100


# ---- what must not go wrong

def test_frames_are_opened_one_by_one_and_reduced_so_that_they_take_little(tmp_path, rng):
    """In another process, as the most memory that this one ever had says nothing."""
    for name in 'a.png', 'b.png':
        Image.fromarray(rng.integers(0, 256, (1060, 1060, 3), np.uint8)).save(tmp_path / name)
    code = ('import resource, sys; from tinygan.run.pictures import save_gif; save_gif(sys.argv[1], sys.argv[2:]); '
            'print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)')
    most = [int(subprocess.run([sys.executable, '-c', code, tmp_path / 'a.gif', *[tmp_path / 'a.png', tmp_path / 'b.png'] * n],
                               capture_output=True, text=True, timeout=60, check=True).stdout) for n in (1, 5)]
    assert most[1] - most[0] < 15_000            # KiB for 8 more frames: each has 274, and its picture 3292
    with Image.open(tmp_path / 'a.gif') as gif:
        assert gif.n_frames == 10 and gif.size == (530, 530)
    assert (tmp_path / 'a.gif').stat().st_size < 10 * 600_000


@pytest.mark.parametrize('backend', ['module://matplotlib_inline.backend_inline', 'nonsense'])
def test_the_backend_that_a_notebook_leaves_behind_does_no_harm_and_stays(tmp_path, backend):
    code = ('import os, sys; import numpy as np; from tinygan.run.pictures import plot_curves; '
            'columns = "step", "loss_D", "frechet"; plot_curves(sys.argv[1], dict.fromkeys(columns, np.arange(3.))); print(os.environ["MPLBACKEND"])')
    done = subprocess.run([sys.executable, '-c', code, str(tmp_path / 'a.png')], env={**os.environ, 'MPLBACKEND': backend},
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout == backend + '\n' and (tmp_path / 'a.png').exists(), done.stderr
