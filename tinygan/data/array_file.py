"""Images in an array: .npy, .npz and IDX files."""
import contextlib
import re
import warnings
import zipfile
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from . import idx
from .folder import file_key, is_of_system
from ..errors import UserError
from .npz import open_npz

PREFERRED = 'x_train', 'X_train', 'images', 'arr_0', 'train_images'          # of the arrays in an .npz
LABELS = 'y_train', 'Y_train', 'labels', 'train_labels', 'y'        # of the array beside it with the class of each image
CHANNELS = {1: 'gray', 3: 'RGB', 4: 'RGBA'}
PART = 2 ** 24                                    # numbers looked at at a time
NPY, NUMBERS = b'\x93NUMPY', 'buif'               # how such a file begins, and NumPy's kinds of them
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
RANGES = (                                        # kinds of numbers; where the smallest and the largest must lie; scale, offset
    ('b', (0, 1), (0, 1), 255., 0),
    ('iu', (0, 255), (0, 255), 1., 0),
    ('u', (0, 65535), (256, 65535), 1 / 257, 0),
    ('f', (-1e-3, 1), (0, 1.001), 255., 0),       # and a little for rounding
    ('f', (-1.001, -0.75), (-1, 1.001), 127.5, 127.5),
    ('f', (0, 255), (32, 255), 1., 0),
)


class Rows:
    """The images of an array in a file, as a Folder has its pictures: path, files, names, passed, about() and open(name). The file
    is read when they are first asked for: UserError if the axes or the shades would have to be guessed."""
    passed = {}

    def __init__(self, path):
        self.path, self.files = Path(path), [file_key(path)]

    @cached_property
    def read(self):
        """The numbers (N, H, W, C), and what they are called."""
        array, what = read_array(self.path)
        return with_channels_last(array, what), what

    @cached_property
    def scale(self):
        return scale_of(*self.read)

    @property
    def names(self):
        return range(len(self.read[0]))

    def about(self):
        numbers, what = self.read
        N, H, W, C = numbers.shape
        return f'{what}: N = {N}, {H}x{W}, {CHANNELS[C]}, {self.scale[2]}'

    def open(self, i):
        scale, offset, _ = self.scale
        image = np.rint((self.read[0][i] * scale + offset).clip(0, 255)).astype(np.uint8)
        return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)

    def labels(self):
        """The class of each image, integers (N,), from the same .npz or from the IDX file of labels beside that of images."""
        labels, what = read_labels(self.path)
        labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
        if labels.dtype.kind not in 'bui' or labels.ndim != 1:
            raise UserError(f'{what} is {labels.dtype} {labels.shape}: labels are integers (N,), one for each image, as NumPy makes '
                            'them of others by astype(int), argmax(axis=1) or unique(..., return_inverse=True)[1]')
        return labels

    def as_it_lies(self, shape):
        """The numbers, if they are just what a network for that shape (H, W, C) takes."""
        numbers = self.read[0]
        return numbers if numbers.dtype == np.uint8 and numbers.shape[1:] == shape and numbers.flags.c_contiguous else None


@contextlib.contextmanager
def damage_told(path):
    """Within the block, whatever is wrong with the bytes of a file is a UserError."""
    try:
        with warnings.catch_warnings(action='ignore'):            # such as NumPy's about a shape that overflows
            yield
    except UserError:
        raise
    except idx.Damaged as problem:
        raise UserError(f'{path} {problem}') from None
    except Exception as error:                    # whatever zipfile and NumPy make of damaged bytes
        if is_of_system(error):
            raise
        raise UserError(f'{path} cannot be read ({error})') from None


def read_array(path):
    """The array with the images in a file, and what to call it."""
    with damage_told(path):
        with open(path, 'rb') as file:
            start = file.read(6)
        if start == NPY:
            array, what = np.load(path, mmap_mode='r', allow_pickle=False), str(path)
        elif start[:2] == b'PK':
            array, what = from_npz(path)
        else:
            array, what = from_idx(path), str(path)
    if array.dtype.kind not in NUMBERS:
        raise UserError(f'{what} is an array of {array.dtype}, not of images')
    if not array.size:
        raise UserError(f'{what} is empty: its shape is {array.shape}')
    return array, what


def read_labels(path):
    """The array with the labels of the images in a file, and what to call it."""
    with open(path, 'rb') as file:
        start = file.read(6)
    if start == NPY:
        raise UserError(f'{path} has no labels: an .npz has them, with arrays x_train and y_train; so do IDX files, and a folder '
                        'with a subfolder for each class')
    if start[:2] == b'PK':
        with damage_told(path), open_npz(path) as arrays:
            for name in LABELS:
                if name in arrays:
                    return arrays[name], f'{path}, {name}'
        raise UserError(f'{path} has no labels: it needs an array y_train, of integers (N,)')
    wanted = re.sub('images', 'labels', re.sub(r'idx\d', 'idx1', name_of(path)))
    beside = sorted(other for other in path.parent.iterdir() if name_of(other) == wanted != name_of(path))
    if not beside:
        called = f'called {wanted}' if wanted != name_of(path) else 'called as it is but with labels for images'
        raise UserError(f'{path} has no labels: it needs an IDX file beside it, {called}')
    return read_array(beside[0])


def name_of(path):
    return path.name.lower().removesuffix('.gz')


def from_idx(path):
    """The array of an IDX file, gzipped or not. EMNIST's images lie transposed, and are turned upright."""
    array = idx.parse(idx.unpack(path.read_bytes()))
    return array.swapaxes(1, 2) if path.name.lower().startswith('emnist') and array.ndim == 3 else array


def from_npz(path):
    """The array of an .npz that holds the images, and its name: one of PREFERRED, else the only one that they can be."""
    with zipfile.ZipFile(path) as file:
        shapes = {name.removesuffix('.npy'): shape_in(file, name) for name in file.namelist() if name.endswith('.npy')}
    fitting = {name: shape for name, shape in shapes.items() if shape}
    names = [name for name in PREFERRED if name in shapes] or list(fitting)
    if not names:
        raise UserError(f'{path} holds no array of images: none has the axes (N, H, W), (N, H, W, C) or (N, C, H, W)')
    if len(names) > 1 and names[0] not in PREFERRED:
        found = ', '.join(f'{name} {fitting[name]}' for name in names)
        raise UserError(f'{path} holds several arrays that may be the images ({found}): save the one that you mean with np.save')
    with open_npz(path) as arrays:
        return arrays[names[0]], f'{path}, {names[0]}'


def shape_in(file, name):
    """The shape of an array of numbers in an open .npz, if it can be that of images, without reading the rest."""
    with file.open(name) as stream:
        header = HEADERS.get(np.lib.format.read_magic(stream))
        shape, _, dtype = header(stream) if header else ((), None, None)
    return shape if len(shape) in (3, 4) and dtype.kind in NUMBERS else None


def with_channels_last(array, what):
    """A view (N, H, W, C) of an array (N, H, W), (N, H, W, C) or (N, C, H, W)."""
    shape = array.shape
    if array.ndim == 3:                           # a single picture would have C in front or behind; (H, W, N) would be square
        if shape[0] not in CHANNELS and shape[2] not in CHANNELS and not shape[0] == shape[1] != shape[2]:
            return array[..., None]
    elif array.ndim == 4 and (shape[3] in CHANNELS) != (shape[1] in CHANNELS):
        return array if shape[3] in CHANNELS else array.transpose(0, 2, 3, 1)
    raise UserError(f'{what} has the shape {shape}, of which it is not certain what is what: needed is (N, H, W), (N, H, W, C) or '
                    '(N, C, H, W), with C = 1, 3 or 4; np.moveaxis moves an axis, np.reshape divides one')


def scale_of(array, what):
    """(scale, offset, words): number * scale + offset is a shade from 0 to 255, and how the array's numbers were understood.
    UserError where that would be a guess."""
    if array.dtype == np.uint8:
        return 1., 0, 'uint8'
    n = max(1, PART // array[0].size)
    parts = [array[start:start + n] for start in range(0, len(array), n)]
    low, high = np.min([part.min() for part in parts]), np.max([part.max() for part in parts])           # nan, if there is one
    for kinds, (a, b), (c, d), scale, offset in RANGES:
        if array.dtype.kind in kinds and a <= low <= b and c <= high <= d:
            return scale, offset, f'{array.dtype} from {round(a)} to {round(d)}'
    raise UserError(f'{what} has {array.dtype} from {low:g} to {high:g}, which does not say what is black and what white: '
                    'needed is uint8, or floats in [0, 1] or [-1, 1], such as (x - x.min()) / (x.max() - x.min())')
