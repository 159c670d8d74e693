"""MNIST files, good and bad, their download, and minibatches."""
import contextlib
import gzip
import hashlib
import http.server
import io
import os
import struct
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

from tinygan import data
from tinygan.arrays import random_stream
from tinygan.data.digits import Digits
from tinygan.errors import UserError

IMAGES, LABELS = 'train-images-idx3-ubyte', 'train-labels-idx1-ubyte'
IMAGE_ARRAY = np.random.default_rng(0).integers(0, 256, (7, 28, 28), dtype=np.uint8)
LABEL_ARRAY = np.arange(7, dtype=np.uint8)


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f'>{array.ndim}I', *array.shape) + array.tobytes()


FILES = {IMAGES: idx(IMAGE_ARRAY), LABELS: idx(LABEL_ARRAY)}
ZIPPED = {name: gzip.compress(content) for name, content in FILES.items()}


REAL_MNIST = os.environ.get('TINYGAN_DATA')
real_urlopen, real_sha256 = urllib.request.urlopen, dict(data.mnist.SHA256)


@pytest.fixture(autouse=True)
def small_mnist(monkeypatch, tmp_path):
    """Seven images pass for MNIST, the cache is an empty folder, and nothing reaches the network."""
    for name, content in FILES.items():
        monkeypatch.setitem(data.mnist.SHA256, name, hashlib.sha256(content).hexdigest())
    monkeypatch.delenv('TINYGAN_DATA', raising=False)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setattr(data.mnist, 'MIRRORS', ('https://one.invalid/mnist/', 'https://two.invalid/mnist/'))
    monkeypatch.setattr(urllib.request, 'urlopen', no_network)


def no_network(url, timeout):
    raise urllib.error.URLError(OSError(101, 'Network is unreachable'))


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def both(folder, images=FILES[IMAGES]):
    return write(folder, {IMAGES: images, LABELS: FILES[LABELS]})


def same_as_stored(images, labels):
    return np.array_equal(images[..., 0], IMAGE_ARRAY) and np.array_equal(labels, LABEL_ARRAY)


# ---- reading

def test_raw_and_gzipped_files_give_the_same_images_and_labels(tmp_path):
    raw = data.mnist.load(folder=both(tmp_path / 'raw'))
    zipped = data.mnist.load(folder=write(tmp_path / 'gz', {f'{name}.gz': ZIPPED[name] for name in ZIPPED}))
    for images, labels in (raw, zipped):
        assert images.shape == (7, 28, 28, 1) and images.dtype == labels.dtype == np.uint8
        assert same_as_stored(images, labels)


def test_the_folder_asked_for_comes_before_the_environment_and_that_before_the_cache(tmp_path, monkeypatch):
    both(tmp_path / 'asked')
    both(tmp_path / 'cache' / 'tinygan' / 'mnist')
    assert same_as_stored(*data.mnist.load())                              # from the cache
    monkeypatch.setenv('TINYGAN_DATA', str(tmp_path / 'empty'))
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UserError, match='empty holds no train-images'):
        data.mnist.load()
    assert same_as_stored(*data.mnist.load(folder=tmp_path / 'asked'))


def test_the_test_split_is_another_pair_of_files(tmp_path):
    with pytest.raises(UserError, match='holds no t10k-images-idx3-ubyte'):
        data.mnist.load('test', folder=both(tmp_path / 'data'))


@pytest.mark.parametrize('content, complaint', [
    (b'', 'is truncated: it holds 0 bytes'),
    (FILES[IMAGES][:10], 'is truncated: it holds 10 bytes'),
    (FILES[IMAGES][:-1], 'is truncated: it holds 5503 of 5504 bytes'),
    (ZIPPED[IMAGES][:-1], 'is truncated: its compressed data break off'),
    (ZIPPED[IMAGES][:5], 'is truncated: its compressed data break off'),
    (ZIPPED[IMAGES][:300] + b'oops' + ZIPPED[IMAGES][304:], 'is corrupted: '),
    (ZIPPED[IMAGES][:-8] + b'oops' + ZIPPED[IMAGES][-4:], 'is corrupted: CRC check failed'),
    (b'<html>404 Not Found</html>', 'is no IDX file: it begins with 0x3c68746d'),
    (FILES[IMAGES] + b'?', 'holds 5505 bytes, and its array only 5504'),
], ids=['empty', 'half a header', 'one byte short', 'gzip one byte short', 'gzip header only', 'gzip garbled',
        'gzip checksum', 'a web page', 'one byte more'])
def test_a_damaged_file_is_named_with_what_is_wrong_and_how_to_mend_it(tmp_path, content, complaint):
    folder = both(tmp_path / 'data', images=content)
    with pytest.raises(UserError) as error:
        data.mnist.load(folder=folder)
    message = str(error.value)
    assert message.startswith(f'{folder / IMAGES} {complaint}')
    assert message.endswith('; put a whole one in its place') and '\n' not in message
    with pytest.raises(UserError) as error:       # what we fetched ourselves, we may fetch again
        both(tmp_path / 'cache' / 'tinygan' / 'mnist', images=content)
        data.mnist.load()
    assert str(error.value).endswith('; delete it, and the next run downloads it again')


@pytest.mark.parametrize('content', [FILES[LABELS], idx(IMAGE_ARRAY[:3]), FILES[IMAGES][:-1] + b'?'],
                         ids=['labels for images', 'fewer', 'one pixel changed'])
def test_a_sound_file_that_is_not_mnist_s_is_said_to_be_that_and_may_be_trained_on(tmp_path, content):
    folder = both(tmp_path / 'data', images=content)
    with pytest.raises(UserError) as error:
        data.mnist.load(folder=folder)
    message = str(error.value)
    assert message.startswith(f'{folder / IMAGES} is a sound IDX file, of ') and f'but not {IMAGES} of MNIST; ' in message
    assert message.endswith(f'to train on it, --data {folder / IMAGES}') and 'delete' not in message


def test_labels_are_not_needed_where_only_images_are(tmp_path):
    folder = write(tmp_path / 'data', {IMAGES: FILES[IMAGES]})
    assert np.array_equal(data.load('mnist', folder).images[..., 0], IMAGE_ARRAY)
    with pytest.raises(UserError, match='holds no train-labels'):
        data.mnist.load(folder=folder, download=False)
    with pytest.raises(data.mnist.Unavailable, match='holds no train-labels.* or use --data digits'):
        data.load('mnist', folder, labelled=True)


def test_labels_come_with_the_images_of_mnist_where_they_are_asked_for(tmp_path):
    images = data.load('mnist', both(tmp_path / 'data'), labelled=True)
    assert images.labels.tolist() == LABEL_ARRAY.tolist() and images.class_names == tuple('0123456789')
    images = data.load('mnist', tmp_path / 'data')
    assert images.labels is None and images.class_names == ()


@pytest.mark.parametrize('name', ['train-images.idx3-ubyte', 'train-images.idx3-ubyte.gz', 'MNIST/raw/train-images-idx3-ubyte'])
def test_the_files_may_bear_their_other_usual_name(tmp_path, name):
    content = (ZIPPED if name.endswith('.gz') else FILES)[IMAGES]
    (tmp_path / 'data' / name).parent.mkdir(parents=True)
    (tmp_path / 'data' / name).write_bytes(content)
    assert len(data.load('mnist', tmp_path / 'data')) == 7


def test_nothing_is_downloaded_to_a_folder_that_is_not_there_or_holds_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(urllib.request, 'urlopen', None)
    with pytest.raises(UserError, match='there is no folder .*gone; name a folder that holds the MNIST files'):
        data.load('mnist', tmp_path / 'gone')
    write(tmp_path / 'cats' / 'young', {'a.png': b'', 'b.jpg': b''})
    for given in ('--data-dir', 'TINYGAN_DATA'):
        monkeypatch.setenv('TINYGAN_DATA', str(tmp_path / 'cats'))
        with pytest.raises(UserError) as error:
            data.load(None, tmp_path / 'cats' if given == '--data-dir' else None)
        assert str(error.value).startswith(f'{tmp_path / "cats"} holds no file of MNIST, but pictures, such as ')
        assert f': to train on them, --data {tmp_path / "cats"}; to download MNIST there all' in str(error.value)


def test_where_a_folder_is_named_no_cache_is_looked_for(tmp_path, monkeypatch):
    folder = both(tmp_path / 'data')
    monkeypatch.setattr(data.mnist, 'cache_folder', None)
    assert same_as_stored(*data.mnist.load(folder=folder))


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    both(tmp_path / 'my' / 'mnist')
    monkeypatch.setenv('TINYGAN_DATA', '~/my/mnist')
    assert same_as_stored(*data.mnist.load())


def test_a_gzipped_file_cut_anywhere_is_never_taken_for_whole():
    for cut in range(0, len(ZIPPED[LABELS])):
        with pytest.raises(ValueError, match='is truncated'):
            data.mnist.unpack(ZIPPED[LABELS][:cut], LABELS)


def test_files_that_are_absent_and_not_to_be_downloaded_are_missing(tmp_path):
    with pytest.raises(UserError) as error:
        data.mnist.load(folder=tmp_path, download=False)
    assert str(error.value) == (f'{tmp_path} holds no {IMAGES}[.gz]; name a folder that holds the MNIST '
                                'files with TINYGAN_DATA')


def test_without_network_the_message_names_the_folder_every_mirror_and_three_ways_out(tmp_path):
    with pytest.raises(UserError) as error:
        data.load('mnist', tmp_path)
    message = str(error.value)
    assert message.startswith(f'{tmp_path} holds no {IMAGES}[.gz] and it could not be downloaded')
    for part in ('one.invalid: Network is unreachable; two.invalid: Network is unreachable',
                 '--data-dir', 'TINYGAN_DATA', '--data digits'):
        assert part in message
    assert '\n' not in message
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named_with_the_reason(tmp_path):
    (tmp_path / 'cache').write_text('in the way')
    with pytest.raises(UserError) as error:
        data.mnist.load()
    assert 'cache/tinygan/mnist holds no train-images-idx3-ubyte[.gz] and cannot be written (Not a directory); ' \
           'name a folder' in str(error.value)


class Mirror(http.server.BaseHTTPRequestHandler):
    """The first part of its path says how it behaves: whole, halfway, wrong, gone."""

    def do_GET(self):
        behaviour, name = self.path.strip('/').split('/')
        self.server.asked.append(self.path)
        if behaviour == 'gone':
            return self.send_error(404)
        content = b'<html>Try tomorrow</html>' if behaviour == 'wrong' else ZIPPED[name[:-3]]
        self.send_response(200)
        self.send_header('Content-Length', str(len(content)))
        self.end_headers()
        self.wfile.write(content[:len(content) // 2] if behaviour == 'halfway' else content)

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def mirrors(monkeypatch, *behaviours):
    """Make data.mnist.MIRRORS mirrors that behave so; yields the list of what they are asked for."""
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Mirror) as server:
        server.asked = []
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(urllib.request, 'urlopen', real_urlopen)
        monkeypatch.setenv('no_proxy', '127.0.0.1')
        monkeypatch.setattr(data.mnist, 'MIRRORS', tuple(
            f'http://127.0.0.1:{server.server_port}/{behaviour}/' for behaviour in behaviours))
        yield server.asked
        server.shutdown()


def test_a_download_lands_in_the_cache_once_and_is_read_from_there_ever_after(tmp_path, monkeypatch, capsys):
    with mirrors(monkeypatch, 'whole') as asked:
        assert same_as_stored(*data.mnist.load())
        assert asked == [f'/whole/{IMAGES}.gz', f'/whole/{LABELS}.gz']
    folder = tmp_path / 'cache' / 'tinygan' / 'mnist'
    stored = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert stored == {f'{name}.gz': ZIPPED[name] for name in ZIPPED}
    assert f'/whole/{IMAGES}.gz' in capsys.readouterr().err           # the user is told what is fetched
    monkeypatch.setattr(urllib.request, 'urlopen', no_network)
    assert same_as_stored(*data.mnist.load())


def test_a_mirror_that_is_gone_breaks_off_or_sends_a_web_page_gives_way_to_the_next(tmp_path, monkeypatch):
    (tmp_path / 'new').mkdir()
    with mirrors(monkeypatch, 'gone', 'halfway', 'wrong', 'whole') as asked:
        assert same_as_stored(*data.mnist.load(folder=tmp_path / 'new'))
        assert len(asked) == 8
    assert sorted(path.name for path in (tmp_path / 'new').iterdir()) == [f'{IMAGES}.gz', f'{LABELS}.gz']


def test_a_partial_download_leaves_nothing_behind_and_each_mirror_s_fault_is_told(tmp_path, monkeypatch):
    with mirrors(monkeypatch, 'gone', 'halfway', 'wrong'):
        with pytest.raises(UserError) as error:
            data.mnist.load(folder=tmp_path)
    for part in (': 404 Not Found; ', 'what it sent is truncated', 'what it sent is no IDX file'):
        assert part in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_does_not_bear_its_name_before_it_is_complete(tmp_path, monkeypatch):
    def full_disk(file_descriptor):
        raise OSError(28, 'No space left on device')
    monkeypatch.setattr(os, 'fsync', full_disk)
    with mirrors(monkeypatch, 'whole'), pytest.raises(UserError, match='cannot be written .No space left'):
        data.mnist.load(folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_stays_silent_is_given_up_within_the_timeout(tmp_path, monkeypatch):
    silence = threading.Event()
    monkeypatch.setattr(urllib.request, 'urlopen', lambda url, timeout: silence.wait(30))
    monkeypatch.setattr(data.mnist, 'TIMEOUT', 0.05)
    start = time.monotonic()
    with pytest.raises(UserError, match='one.invalid: no answer in 0.05 seconds; two.invalid: no answer'):
        data.mnist.load(folder=tmp_path)
    assert time.monotonic() - start < 10
    silence.set()


def test_a_mirror_that_stalls_in_the_middle_gives_way_to_the_next(tmp_path, monkeypatch):
    class Answer(io.BytesIO):
        headers = {}

    class Stalling(Answer):
        def read(self, size):
            raise TimeoutError('timed out')

    monkeypatch.setattr(urllib.request, 'urlopen', lambda url, timeout: (
        Stalling() if 'one.invalid' in url else Answer(ZIPPED[IMAGES if IMAGES in url else LABELS])))
    assert same_as_stored(*data.mnist.load(folder=tmp_path))


# ---- choosing

def test_mnist_is_loaded_by_name_and_without_a_name(tmp_path):
    folder = both(tmp_path / 'data')
    for name in ('mnist', None):
        dataset = data.load(name, folder)
        assert len(dataset) == 7 and dataset.shape == (28, 28, 1) and dataset.name == 'mnist'
    assert data.load(None, folder, seed=5).seed == 5


def test_with_neither_name_nor_files_nor_network_digits_are_drawn_after_a_message_nobody_can_miss(capsys):
    dataset = data.load(seed=5)
    assert isinstance(dataset, Digits) and dataset.seed == 5 and dataset.name == 'digits'
    message = capsys.readouterr().err
    assert 'THIS IS NOT MNIST: training on DRAWN DIGITS instead.' in message
    assert 'Network is unreachable' in ' '.join(message.split()) and '--data-dir' in message
    assert len(message.splitlines()) >= 5 and message.count('*' * 100) == 2


@pytest.mark.parametrize('name, folder', [('mnist', None), ('mnist', 'empty'), (None, 'empty')])
def test_mnist_asked_for_by_name_or_folder_is_never_replaced_by_digits(tmp_path, name, folder, monkeypatch):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UserError, match='could not be downloaded'):
        data.load(name, folder and tmp_path / folder)
    monkeypatch.setenv('TINYGAN_DATA', str(tmp_path / 'mistyped'))
    with pytest.raises(UserError, match='there is no folder .*mistyped'):
        data.load()


def test_a_damaged_file_is_an_error_even_where_digits_could_stand_in(tmp_path, monkeypatch):
    monkeypatch.setenv('TINYGAN_DATA', str(both(tmp_path / 'data', images=FILES[IMAGES][:-1])))
    with pytest.raises(UserError, match='is truncated'):
        data.load()


def test_digits_asked_for_by_name_come_without_a_message(capsys):
    assert isinstance(data.load('digits'), Digits)
    assert capsys.readouterr().err == ''


def test_an_unknown_dataset_is_answered_with_the_choices():
    with pytest.raises(UserError, match='--data cifar: no such file or folder, and neither mnist nor digits'):
        data.load('cifar')


# ---- minibatches

def numbered(n, seed=0):
    """n images of one pixel, whose two channels tell their number."""
    numbers = np.arange(n)
    pixels = np.stack([numbers % 256, numbers // 256], 1).astype(np.uint8)
    return data.ImageSet(pixels.reshape(n, 1, 1, 2), seed)


def numbers(batch):
    return batch[:, 0, 0, 0] + 256 * batch[:, 0, 0, 1].astype(int)


def epoch(dataset, which, size):
    steps = dataset.steps_per_epoch(size)
    return [numbers(dataset.batch(step, size)) for step in range(which * steps, (which + 1) * steps)]


def test_an_epoch_shows_every_image_once():
    for which in range(3):
        assert sorted(np.concatenate(epoch(numbered(600), which, 50))) == list(range(600))


def test_the_last_incomplete_minibatch_is_dropped_and_the_next_epoch_may_show_its_images():
    dataset = numbered(10)
    assert dataset.steps_per_epoch(4) == 2
    seen = [np.concatenate(epoch(dataset, which, 4)) for which in range(40)]
    assert all(len(set(s)) == 8 for s in seen)
    assert set(np.concatenate(seen)) == set(range(10))


def test_every_epoch_has_an_order_of_its_own_and_so_has_every_seed():
    first, second = (np.concatenate(epoch(numbered(600), which, 50)) for which in (0, 1))
    other_seed = np.concatenate(epoch(numbered(600, seed=1), 0, 50))
    assert (first != second).mean() > 0.9 and (first != other_seed).mean() > 0.9
    assert (first != np.arange(600)).mean() > 0.9


def test_a_minibatch_is_a_pure_function_of_seed_step_and_size():
    forwards = numbered(100, seed=3)
    stored = [forwards.batch(step, 8) for step in range(40)]
    backwards = numbered(100, seed=3)
    for step in reversed(range(40)):
        assert np.array_equal(backwards.batch(step, 8), stored[step])
        assert np.array_equal(backwards.batch(step, 8), stored[step])
    order = random_stream(3, 'shuffle', 1).permutation(100)     # an epoch has 12 steps: 13 is its second
    assert np.array_equal(numbers(stored[13]), order[8:16])


def test_minibatches_are_uint8_copies_that_leave_the_dataset_alone():
    dataset = numbered(20)
    batch = dataset.batch(0, 5)
    assert batch.dtype == np.uint8 and batch.shape == (5, *dataset.shape) == (5, 1, 1, 2)
    batch[:] = 0
    assert not np.array_equal(dataset.batch(0, 5), batch)


def test_flipped_images_are_mirrored_left_to_right_half_of_them_and_each_epoch_others():
    pixels = np.arange(600)[:, None, None, None] + np.arange(6).reshape(2, 3, 1) * 1000
    dataset, straight = (data.ImageSet(pixels, 3, flip=flip) for flip in (True, False))
    seen = []
    for which in 0, 1:
        plain, flipped = (np.concatenate([images.batch(12 * which + step, 50) for step in range(12)])
                          for images in (straight, dataset))
        mirrored = (flipped != plain).any(axis=(1, 2, 3))
        assert np.array_equal(flipped[mirrored], plain[mirrored, :, ::-1]) and 0.4 < mirrored.mean() < 0.6
        seen.append(set(plain[mirrored, 0, 0, 0]))
    assert seen[0] != seen[1]
    assert np.array_equal(dataset.batch(7, 50), data.ImageSet(pixels, 3, flip=True).batch(7, 50))


def test_a_minibatch_larger_than_the_dataset_is_refused():
    with pytest.raises(UserError, match='a minibatch of 21 is more than the 20 images there are'):
        numbered(20).batch(0, 21)


# ---- uint8 and back

@pytest.mark.parametrize('black, middle', [(-1, -0.6), (0, 0.2)])
def test_white_becomes_one_and_black_what_the_recipe_says(black, middle):
    x = data.normalise(np.array([0, 51, 255], np.uint8), np, black)
    assert x.dtype == np.float32
    assert np.allclose(x, [black, middle, 1], atol=1e-7)


def test_images_travel_to_the_device_as_uint8():
    class Device:
        def asarray(self, x):
            self.received = x.dtype
            return np.asarray(x)
    device = Device()
    data.normalise(np.zeros(3, np.uint8), device)
    assert device.received == np.uint8


def test_every_shade_survives_the_way_to_the_networks_and_back():
    shades = np.arange(256, dtype=np.uint8)
    for black in -1, 0:
        back = data.to_uint8(data.normalise(shades, np, black), black)
        assert back.dtype == np.uint8 and np.array_equal(back, shades)


def test_what_lies_beyond_black_or_white_is_clipped_and_the_rest_rounded():
    x = np.array([-7, -1, 2 / 255 * 0.6 - 1, 1, 7], np.float32)
    assert data.to_uint8(x).tolist() == [0, 0, 1, 255, 255]


# ---- the real thing

@pytest.mark.skipif(not REAL_MNIST, reason='TINYGAN_DATA does not name a folder with MNIST')
def test_the_real_mnist_is_read_and_passes_its_checksums(monkeypatch):
    monkeypatch.setattr(data.mnist, 'SHA256', real_sha256)
    images, labels = data.mnist.load('train', REAL_MNIST, download=False)
    assert images.shape == (60000, 28, 28, 1) and images.dtype == np.uint8
    assert round(images.mean(), 3) == 33.318 and labels[:5].tolist() == [5, 0, 4, 1, 9]
    images, labels = data.mnist.load('test', REAL_MNIST, download=False)
    assert images.shape == (10000, 28, 28, 1)
    assert np.bincount(labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


# ---- the size of a network

def test_images_are_enlarged_as_pillow_does_it(rng):
    from PIL import Image
    images = rng.integers(0, 256, (3, 28, 28, 1), dtype=np.uint8)
    fitted = data.fit(images, (64, 64, 1))
    assert fitted.dtype == np.uint8 and fitted.shape == (3, 64, 64, 1)
    for image, large in zip(images, fitted):
        pillow = np.asarray(Image.fromarray(image[..., 0]).resize((64, 64), Image.Resampling.BILINEAR), int)
        assert abs(large[..., 0] - pillow).max() <= 1              # Pillow rounds after each of the two directions


def test_gray_fills_as_many_channels_as_asked_for_and_colour_keeps_its_own(rng):
    gray, colour = (rng.integers(0, 256, (2, 8, 8, c), dtype=np.uint8) for c in (1, 3))
    assert (data.fit(gray, (8, 8, 3)) == gray).all() and data.fit(gray, (8, 8, 3)).shape == (2, 8, 8, 3)
    assert data.fit(colour, (8, 8, 3)) is colour
    large = data.fit(colour, (12, 16, 3))
    for c in range(3):
        assert (large[..., c:c + 1] == data.fit(colour[..., c:c + 1], (12, 16, 1))).all()
