"""Classes of images: wherever they come from, each image keeps its own label."""
import gzip
import io
import os
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from tinygan import data
from tinygan.arrays import random_stream
from tinygan.data import digits, own
from tinygan.data.digits import Digits
from tinygan.data.minibatches import Minibatches
from tinygan.errors import UserError
from tinygan.recipes import RECIPES

SHADES = {'ape': 20, 'bat': 120, 'cow': 220}      # by which the class of a picture is seen


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return tmp_path / 'cache' / 'tinygan' / 'own'


def png(shade, width=6):
    file = io.BytesIO()
    Image.new('L', (width, 6), shade).save(file, 'PNG')
    return file.getvalue()


def put(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def zoo(folder, more=()):
    """A folder of three classes, four pictures each; more has further files or other contents."""
    return put(folder, {f'{name}/{i}.png': png(shade + i) for name, shade in SHADES.items() for i in range(4)} | dict(more))


def load(path, seed=0, flip=False, shape=(6, 6, 1)):
    return data.load(str(path), None, seed, shape, 'white', flip, True)


def seen(images):
    """The class that each image shows, by its shade."""
    return images.reshape(len(images), -1).mean(axis=1).astype(int) // 100


def aligned(dataset, size=3, steps=30):
    """Do all images that D sees have the label of the class that they show?"""
    assert dataset.class_names == tuple(SHADES)
    for step in range(steps):
        labels = dataset.batch_labels(step, size)
        assert labels.shape == (size,) and labels.tolist() == seen(dataset.batch(step, size)).tolist()
    return True


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f'>{array.ndim}I', *array.shape) + array.tobytes()


# ---- through minibatches

@pytest.mark.parametrize('flip', [False, True])
def test_labels_are_shuffled_with_their_images(flip):
    labels = np.arange(30) % 3
    images = np.broadcast_to((labels * 100 + 20).astype(np.uint8)[:, None, None, None], (30, 6, 6, 1))
    assert aligned(data.ImageSet(images, 3, flip=flip, labels=labels, class_names=SHADES), size=7)


def test_g_and_d_are_told_the_class_of_each_image_behind_z(tmp_path):
    dataset = load(zoo(tmp_path / 'zoo'), flip=True, shape=(28, 28, 1))
    recipe = RECIPES['conditional']._replace(batch_size=5, classes=3)
    batches, bare = Minibatches(dataset, recipe, 1), Minibatches(dataset, recipe._replace(classes=0), 1)
    for number in 1, 2, 3:
        x, z, *_ = batches(number)
        assert z.shape == (5, 35) and z.dtype == np.float32
        np.testing.assert_array_equal(z[:, :32], bare(number)[1])
        np.testing.assert_array_equal(z[:, 32:], np.eye(3)[seen(data.to_uint8(x))])


def test_a_drawn_digit_comes_with_its_label_and_is_drawn_once(monkeypatch):
    draw, calls = digits.draw, []
    monkeypatch.setattr(digits, 'draw', lambda rng, n: calls.append(n) or draw(rng, n))
    dataset = Digits(3)
    for step in 2, 0:
        images, labels = draw(random_stream(3, 'digits', step), 8)
        dataset.batch(step, 8)[:] = 0             # it is a copy
        for _ in range(2):
            np.testing.assert_array_equal(dataset.batch(step, 8), images)
            np.testing.assert_array_equal(dataset.batch_labels(step, 8), labels)
    assert calls == [8, 8] and dataset.class_names == tuple('0123456789')


# ---- pictures

def test_the_subfolders_are_the_classes(tmp_path):
    folder = zoo(tmp_path / 'zoo', {'bat/deep/9.png': png(125), 'empty/notes.txt': b'none'})
    assert aligned(load(folder)) and len(load(folder)) == 13
    with zipfile.ZipFile(tmp_path / 'zoo.zip', 'w') as file:
        for path in folder.rglob('*.*'):
            file.write(path, path.relative_to(folder))
    assert aligned(load(tmp_path / 'zoo.zip'))


def test_a_folder_around_all_classes_does_not_count(tmp_path):
    zoo(tmp_path / 'outer' / 'inner')
    assert aligned(load(tmp_path / 'outer')) and aligned(load(tmp_path))


def test_a_picture_that_was_left_out_moves_no_label_now_or_at_the_next_start(tmp_path, monkeypatch, capsys, cache):
    broken = {'ape/0.png': b'', 'ape/3.png': b'junk', 'bat/2.png': png(1)[:-30]}
    folder = zoo(tmp_path / 'zoo', broken)
    assert aligned(load(folder)) and capsys.readouterr().err.count('cannot identify') == 2
    before = [path.read_bytes() for path in cache.iterdir()]
    monkeypatch.setattr(own, 'pixels', None)      # from here on, nothing can be decoded
    assert aligned(load(folder)) and 'left out, because they cannot be used: 3 of 12' in capsys.readouterr().err
    assert not data.load(str(folder), None, 0, (6, 6, 1)).class_names
    assert [path.read_bytes() for path in cache.iterdir()] == before


def test_an_array_that_does_not_know_what_was_left_out_is_made_anew(tmp_path, cache):
    folder = zoo(tmp_path / 'zoo', {'ape/0.png': b''})
    images = own.read_own(folder, (6, 6, 1))[0]
    path, = cache.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:images.offset + images.nbytes])
    assert aligned(load(folder)) and path.read_bytes() == whole


def test_runs_know_images_by_their_labels_too(tmp_path):
    one, same, other = (zoo(tmp_path / name) for name in ('one', 'same', 'other'))
    os.rename(other / 'ape' / '3.png', other / 'bat' / '-.png')            # sorted, all pixels are where they were
    one, same, other = map(load, (one, same, other))
    assert one.digest == same.digest == other.digest and one.labels_digest == same.labels_digest != other.labels_digest
    assert Digits().labels_digest is None and data.ImageSet(one.images, labels=one.labels).labels_digest is None


# ---- arrays

Y = np.array([9, 10, -1, 9, 10, -1, 9])           # as text, '10' would come before '9'
X = np.broadcast_to(np.where(Y < 0, 0, 28 * Y - 240).astype(np.uint8)[:, None, None], (7, 6, 6))         # 0, 12 and 40


@pytest.mark.parametrize('name', ['y_train', 'labels', 'train_labels'])
@pytest.mark.parametrize('shape', [(6, 6, 1), (4, 4, 1)], ids=['as it lies', 'made'])
def test_an_npz_has_labels_beside_its_images(tmp_path, name, shape):
    np.savez(tmp_path / 'it.npz', x_train=X, **{name: Y[:, None] if name == 'train_labels' else Y})
    for _ in range(2):
        dataset = load(tmp_path / 'it.npz', shape=shape)
        assert dataset.class_names == ('-1', '9', '10') and dataset.labels.tolist() == [1, 2, 0, 1, 2, 0, 1]
        shades, labels = dataset.batch(1, 4)[:, 0, 0, 0], dataset.batch_labels(1, 4)
        assert shades.tolist() == np.array([0, 12, 40])[labels].tolist()


@pytest.mark.parametrize('images, labels', [
    ('train-images-idx3-ubyte', 'train-labels-idx1-ubyte'), ('train-images.idx3-ubyte.gz', 'train-labels.idx1-ubyte'),
    ('Train-Images-idx3-ubyte', 'train-labels-idx1-ubyte.gz')])
def test_an_idx_file_has_its_labels_beside_it(tmp_path, images, labels):
    arrays = {images: X, labels: np.uint8(Y + 1), 't10k-labels-idx1-ubyte': np.uint8([0])}
    put(tmp_path / 'it', {name: (gzip.compress if name.endswith('.gz') else bytes)(idx(arrays[name])) for name in arrays})
    for path in tmp_path / 'it', tmp_path / 'it' / images:
        dataset = load(path)
        assert dataset.class_names == ('0', '10', '11') and dataset.labels.tolist() == [1, 2, 0, 1, 2, 0, 1]


# ---- mistakes

def npz(path, **arrays):
    np.savez(path / 'it.npz', **arrays)
    return path / 'it.npz'


def npy(path):
    np.save(path / 'it.npy', X)
    return path / 'it.npy'


@pytest.mark.parametrize('make, complaint', [
    (lambda path: zoo(path / 'zoo', {'stray.png': png(0)}), 'zoo: stray.png lies in no subfolder, and those are the classes'),
    (lambda path: zoo(path / 'zoo') / 'ape', 'ape: 0.png lies in no subfolder'),
    (lambda path: put(path / 'it', {'ape/0.png': png(0)}), 'it has but one class, ape, and this recipe needs two or more'),
    (lambda path: npz(path, x_train=X, y_train=np.ones(7, int)), 'it.npz has but one class, 1, and'),
    (lambda path: npz(path, x_train=X.repeat(20, axis=0), y_train=np.arange(140)), 'has 140 classes, and this recipe takes at'),
    (lambda path: npz(path, x_train=X, y_train=Y[1:]), 'it.npz has 7 images and 6 labels'),
    (lambda path: npz(path, x_train=X), 'it.npz has no labels: it needs an array y_train'),
    (lambda path: npz(path, x_train=X, labels=Y + 0.5), r'it.npz, labels is float64 \(7,\): labels are integers'),
    (lambda path: npz(path, x_train=X, labels=np.eye(7, dtype=int)), r'labels is int64 \(7, 7\): labels are integers'),
    (lambda path: npz(path, x_train=X, labels=np.array([{}] * 7)), 'it.npz cannot be read'),
    (npy, r'it.npy has no labels: an .npz has them, with arrays x_train and y_train; so do IDX files'),
    (lambda path: put(path / 'it', {'a-images-idx3-ubyte': idx(X)}), 'an IDX file beside it, called a-labels-idx1-ubyte'),
    (lambda path: put(path / 'it', {'letters': idx(X)}), 'an IDX file beside it, called as it is but with labels for'),
    (lambda path: put(path / 'it', {'images': idx(X), 'labels': idx(np.uint8(Y))[:-1]}), 'labels is truncated'),
], ids=range(14))
def test_where_classes_are_not_to_be_had_one_line_says_why(tmp_path, make, complaint):
    path = make(tmp_path)
    with pytest.raises(UserError, match=complaint) as error:
        load(path)
    assert str(path) in str(error.value) and '\n' not in str(error.value)
    data.load(str(path), None, 0, (6, 6, 1))      # and without them, nothing is missed
