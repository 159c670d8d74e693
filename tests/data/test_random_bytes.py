"""Whatever bytes a file holds, --data answers with images or in one line. Hypothesis draws the bytes: at random, behind a right
beginning, and in place of some of a sound file's."""
import contextlib
import gzip
import hashlib
import io
import struct
import tempfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, strategies as st
from PIL import Image
from strategies import SEEDS
from test_array_file import idx_bytes

from tinygan.data import idx
from tinygan.data.own import read_own
from tinygan.errors import UserError, line_of

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 5), dtype=np.uint8)
SHAPE = 4, 5, 1


@pytest.fixture(scope='module', autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))
        yield


def written(write, *arguments, **options):
    file = io.BytesIO()
    write(file, *arguments, **options)
    return file.getvalue()


def picture(format):
    return written(Image.fromarray(IMAGES[0]).save, format)


def zipped(files):
    def write(file):
        with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as packed:
            for name, content in files.items():
                packed.writestr(name, content)
    return written(write)


ARRAYS = {'a.npy': written(np.save, IMAGES), 'b.npy': written(np.save, IMAGES / 255), 'a.npz': written(np.savez, x=IMAGES),
          'b.npz': written(np.savez_compressed, x_train=IMAGES.astype('f'), y_train=np.arange(6)), 'idx3': idx_bytes(IMAGES),
          'idx3.gz': gzip.compress(idx_bytes(IMAGES)), 'a.zip': zipped({'a.png': picture('PNG'), 'b': picture('BMP')})}
Image.init()                                      # all formats that this Pillow has
FORMATS = {'PNG', 'JPEG', 'GIF', 'BMP', 'TIFF', 'WEBP', 'PPM', 'TGA', 'ICO', 'PCX', 'SGI', 'DDS'} & Image.SAVE.keys()
PICTURES = {f'a.{format.lower()}': picture(format) for format in sorted(FORMATS)}


@st.composite
def spoiled(draw, files):
    """The name and the bytes of one of these files, with some bytes replaced by others, and perhaps cut off."""
    name = draw(st.sampled_from(list(files)))
    content = bytearray(files[name])
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, min(len(content), 200)) | st.integers(0, len(content)))
        content[start:start + draw(st.integers(0, 8))] = draw(st.binary(max_size=8))
    return name, bytes(content[:draw(st.just(None) | st.integers(0, len(content)))])


STARTS = st.sampled_from([b'', b'\x93NUMPY\1\0', b'PK\3\4', b'PK\5\6', b'\x1f\x8b\x08', b'\0\0\x08\3', b'\0\0\x0d\4',
                          b'\x89PNG\r\n\x1a\n', b'\xff\xd8\xff', b'GIF89a', b'BM', b'II*\0', b'RIFF', b'P5 '])
NOISE = st.tuples(STARTS, st.binary(max_size=300)).map(lambda parts: ('noise', b''.join(parts)))
SIZES = st.sampled_from([0, 1, 4, 5, 6, 2**16, 2**31 - 1, 2**32 - 1])


@st.composite
def idx_like(draw):
    """A file with an IDX header of any type and shape; of the right length, if that is short, or another."""
    code = draw(st.sampled_from([*idx.TYPES, 0, 10, 255]))
    sizes = draw(st.lists(st.sampled_from([1, 4, 5, 6]), min_size=1, max_size=3) | st.lists(SIZES, max_size=5))
    length = np.prod(sizes, dtype=object) * np.dtype(idx.TYPES.get(code, 'u1')).itemsize + draw(st.sampled_from([0, 0, 0, -1, 1]))
    numbers = np.random.default_rng(draw(SEEDS)).bytes(min(max(length, 0), 1000))
    return 'idx', bytes([0, 0, code, len(sizes)]) + struct.pack(f'>{len(sizes)}I', *sizes) + numbers


@st.composite
def npy_like(draw):
    """A file with an .npy header of any type and shape, alone or as the one array of an .npz."""
    descr = draw(st.sampled_from(['|u1', '<i2', '>i8', '<u8', '<f2', '<f4', '>f8', '|b1', '|O', '<U3', '<c8', '<M8[s]', '|V3',
                                  '<f16', [('a', '<i4')], 'nonsense']))
    shape = draw(st.lists(SIZES | st.integers(-3, 5), max_size=5).map(tuple) | st.just((6, 4, 5)))
    header = f'{{"descr": {descr!r}, "fortran_order": {draw(st.booleans())}, "shape": {shape!r}}}\n'.encode()
    numbers = draw(st.sampled_from([bytes(120), bytes(480), (IMAGES / 255).astype('>f8').tobytes()]) | st.binary(max_size=99))
    content = b'\x93NUMPY' + draw(st.sampled_from([b'\1\0', b'\2\0', b'\3\0', b'\1\0', b'\7\0']))
    content += struct.pack('<H' if content[6] == 1 else '<I', len(header)) + header + numbers
    return ('c.npz', zipped({'x.npy': content})) if draw(st.booleans()) else ('c.npy', content)


def huge(*shape):
    """a.npy, whose header promises more."""
    return ARRAYS['a.npy'].replace(b'(6, 4, 5), }'.ljust(40), f'{shape}}}'.encode().ljust(40))


@contextlib.contextmanager
def at_once(**files):
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        yield Path(folder)


def answer(path):
    """The images that --data finds, or None after one line, which may be that memory is short; and nothing else is said."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        try:
            images, digest, *_ = read_own(path, SHAPE)
        except (UserError, MemoryError) as error:
            assert line_of(error).isprintable() and '\n' not in str(error)
            images = None
    assert not said
    if images is not None:
        assert images.dtype == np.uint8 and images.shape[1:] == SHAPE and len(images)
        assert digest == hashlib.sha256(np.ascontiguousarray(images)).hexdigest()
    return images


@example(('a.npz', b'PK\3\4' + ARRAYS['a.npz'][12:]))
@example(('a.npy', huge(4, 2**31 - 1, 2**31 - 1)))
@example(('c.npz', zipped({'x.npy': huge(16, 2**31 - 1, 1)})))
@given(NOISE | spoiled(ARRAYS) | idx_like() | npy_like())
def test_a_file_holds_images_or_is_answered_in_one_line(file):
    name, content = file
    with at_once(**{name: content}) as folder:
        images = answer(folder / name)
        if content in ARRAYS.values():
            assert len(images) == 2 if name == 'a.zip' else np.array_equal(images[..., 0], IMAGES)


@example(('noise', b'II*\0\0\0\0\1'))
@given(NOISE | spoiled(PICTURES | ARRAYS) | idx_like())
def test_what_is_no_picture_does_not_spoil_the_folder_that_it_lies_in(file):
    name, content = file
    with at_once(**{'whole.png': picture('PNG'), name: content}) as folder:
        images = answer(folder)
        assert images is None or np.array_equal(images[-1, ..., 0], IMAGES[0])
        assert images is not None or name[:3] == 'idx'            # which is a set of images of its own


@example(('idx', b'\0\0\x08\3' + bytes(4) + b'\xff' * 8))
@given(NOISE | idx_like())
def test_what_an_idx_file_holds_is_all_there_is_in_it(file):
    _, content = file
    try:
        array = idx.parse(content)
    except idx.Damaged:
        return
    assert idx_bytes(array, content[2]) == content
