"""Images in an array: .npy, .npz and IDX files, as uint8 (N, H, W, C)."""
import zipfile
from pathlib import Path

import numpy as np

from . import idx
from ..errors import UserError

PREFERRED = 'x_train', 'images', 'arr_0', 'train_images'          # of the arrays in an .npz
CHANNELS = 1, 3, 4                                # gray, RGB, RGB with transparency
PART = 1000                                       # images converted at a time
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


def read_array(path):
    """The images that a file holds, uint8 (N, H, W, C), and a sentence about them. UserError where they are not certain."""
    path = Path(path)
    try:
        with open(path, 'rb') as file:
            start = file.read(6)
        if start == NPY:
            array, what = np.load(path, mmap_mode='r', allow_pickle=False), str(path)
        elif start[:2] == b'PK':
            array, what = from_npz(path)
        else:
            array, what = from_idx(path), str(path)
    except (UserError, OSError, MemoryError):
        raise
    except idx.Damaged as problem:
        raise UserError(f'{path} {problem}') from None
    except Exception as error:                    # whatever zipfile and NumPy make of damaged bytes
        raise UserError(f'{path} cannot be read ({error})') from None
    return to_images(array, what)


def from_idx(path):
    """The array of an IDX file, gzipped or not. EMNIST's images lie transposed, and are turned upright."""
    array = idx.parse(idx.unpack(path.read_bytes()))
    return array.swapaxes(1, 2) if path.name.lower().startswith('emnist') and array.ndim == 3 else array


def from_npz(path):
    """The array of an .npz that holds the images, and its name: one of PREFERRED, else the only one that they can be."""
    with zipfile.ZipFile(path) as file:
        shapes = {name.removesuffix('.npy'): shape_in(file, name) for name in file.namelist() if name.endswith('.npy')}
    fitting = {name: shape for name, shape in shapes.items() if shape}
    names = [name for name in PREFERRED if name in fitting] or list(fitting)
    if not names:
        raise UserError(f'{path} holds no array of images: none has the axes (N, H, W), (N, H, W, C) or (N, C, H, W)')
    if len(names) > 1 and names[0] not in PREFERRED:
        found = ', '.join(f'{name} {fitting[name]}' for name in names)
        raise UserError(f'{path} holds several arrays that may be the images ({found}): save the one that you mean with np.save')
    with np.load(path, allow_pickle=False) as arrays:
        return arrays[names[0]], f'{path}, {names[0]}'


def shape_in(file, name):
    """The shape of an array of numbers in an open .npz, if it can be that of images, without reading the rest."""
    with file.open(name) as stream:
        header = HEADERS.get(np.lib.format.read_magic(stream))
        shape, _, dtype = header(stream) if header else ((), None, None)
    return shape if len(shape) in (3, 4) and dtype.kind in NUMBERS else None


def to_images(array, what):
    """Numbers of any type and axes as uint8 (N, H, W, C), with a sentence about it. UserError where that is a guess."""
    if array.dtype.kind not in NUMBERS:
        raise UserError(f'{what} is an array of {array.dtype}, not of images')
    if not array.size:
        raise UserError(f'{what} is empty: its shape is {array.shape}')
    numbers = with_channels_last(array, what)
    scale, offset, words = scale_of(array, what)
    images = numbers
    if array.dtype != np.uint8:
        images = np.empty(numbers.shape, np.uint8)
        for start in range(0, len(images), PART):
            images[start:start + PART] = np.rint((numbers[start:start + PART] * scale + offset).clip(0, 255))
    N, H, W, C = images.shape
    return images, f'{what}: {N:,} {dict(zip(CHANNELS, ("gray", "RGB", "RGBA")))[C]} images of {H}x{W}, {words}'


def with_channels_last(array, what):
    """A view (N, H, W, C) of an array (N, H, W), (N, H, W, C) or (N, C, H, W)."""
    shape = array.shape
    if array.ndim == 3 and shape[2] not in CHANNELS:
        return array[..., None]
    last, first = (array.ndim == 4 and shape[axis] in CHANNELS for axis in (3, 1))
    if last == first:
        unsure = 'it is not certain which axis has the channels' if last else 'that is neither of these'
        if array.ndim == 3:
            unsure = 'that may be a single picture'
        raise UserError(f'{what} has the shape {shape}: needed is (N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1, 3 or 4, '
                        f'and {unsure}; save it as np.save(FILE, array.reshape(N, H, W, C))')
    return array if last else array.transpose(0, 2, 3, 1)


def scale_of(array, what):
    """(scale, offset, words): number * scale + offset is a shade from 0 to 255, and how the array's numbers were understood."""
    parts = [array[start:start + PART] for start in range(0, len(array), PART)]
    low, high = min(part.min() for part in parts), max(part.max() for part in parts)
    for kinds, (a, b), (c, d), scale, offset in RANGES:
        if array.dtype.kind in kinds and a <= low <= b and c <= high <= d:
            return scale, offset, f'{array.dtype} from {round(a)} to {round(d)}'
    raise UserError(f'{what} has {array.dtype} from {low:g} to {high:g}, which does not say what is black and what white: '
                    'needed is uint8, or floats in [0, 1] or [-1, 1]')
