"""Images of your own: whatever --data names, as an array. Pictures are decoded once, into the user's cache, and mapped from
there; so are arrays of another size than the network's."""
import contextlib
import hashlib
import os
import sys
import time
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from . import idx
from .array_file import NPY, read_array
from .cache import cache_folder
from .decode import START, looks_like_picture, pixels
from .folder import Folder, Zip, file_key
from ..errors import UserError

VERSION = 2                                       # of `pixels`: a new one makes every stored array stale
TAKES = 'a folder or a zip of pictures, IDX files, an .npy or an .npz'
LOOKED_AT = 1000                                  # images, by `doubt`
DARK = 64                                         # of 255: no shade above it


def read_own(path, shape, background='white'):
    """What a path names: (images, digest, warning), read-only uint8 (N, H, W, C) of that shape (H, W, C), C 1 for gray or 3
    for RGB, the SHA-256 of their pixels, and what may be wrong with them, or None. UserError where there are none."""
    source = find(Path(path))
    if source.passed:
        counts = [f'{n} {what}' if n > 1 or ':' not in what else what for what, n in sorted(source.passed.items())]
        more = [f'and {len(counts) - 10} more kinds'] * (len(counts) > 10)
        print('passed over:', ', '.join(counts[:10] + more), file=sys.stderr)
    if isinstance(source, Rows) and source.images.shape[1:] == shape:
        images, digest = source.images, digest_of(source.images)
    else:
        images, digest = decoded(source, shape, background)
    warning = doubt(images)
    if warning:
        print(f'warning: {warning}', file=sys.stderr)
    return images, digest, warning


def find(path):
    """Where the images that a path names are: a Folder, a Zip or Rows, alike in path, files, names, passed and open(name)."""
    if path.is_dir():
        return in_folder(path)
    if not path.exists():
        raise UserError(f'--data {path}: no such file or folder, and neither mnist nor digits')
    with open(path, 'rb') as file:
        start = file.read(START)
    if start[:4] in (b'PK\3\4', b'PK\5\6') and not is_npz(path):
        return with_pictures(Zip(path))
    if start[:2] == b'PK' or start.startswith(NPY) or idx.dimensions(start):
        return Rows(path)
    if looks_like_picture(start):
        raise UserError(f'--data {path} is a single picture: name the folder')
    raise UserError(f'--data {path} is not what --data takes: mnist, digits, {TAKES}')


def is_npz(path):
    with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as file:
        return any(name.endswith('.npy') for name in file.namelist())


def in_folder(path):
    """A Folder of pictures, or the Rows of the IDX file of images in it."""
    folder = Folder(path)
    if not folder.idx:
        return with_pictures(folder)
    names = sorted(name for name in folder.idx if name.removesuffix('.gz') == name or name[:-3] not in folder.idx)
    training = [name for name in names if 'train' in Path(name).name.lower()] or names
    if len(training) > 1 or folder.names:
        pictures = f'{len(folder.names)} pictures and ' if folder.names else ''
        raise UserError(f'--data {path} holds {pictures}{len(training)} IDX files of images ({", ".join(training[:4])}'
                        f'{", ..." if len(training) > 4 else ""}): name the one that you mean')
    return Rows(path / training[0])


def with_pictures(source):
    if not source.names:
        passed = ', '.join(f'{n} {what}' for what, n in sorted(source.passed.items())) or 'nothing at all'
        raise UserError(f'--data {source.path} holds no picture, but {passed}; --data takes {TAKES}')
    return source


class Rows:
    """The images of an array in a file."""

    def __init__(self, path):
        self.path, self.files, self.passed = path, [file_key(path)], {}
        self.images, about = read_array(path)
        self.names = range(len(self.images))
        print(about, file=sys.stderr)

    def open(self, i):
        image = self.images[i]
        return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def decoded(source, shape, background):
    """(images, digest) of a source, from the cache if it has not changed since it was decoded."""
    home = cache_folder('own')
    place, key = (hashlib.sha256(repr(what).encode()).hexdigest()[:16]
                  for what in ((str(source.path.resolve()), *shape, background), (VERSION, source.files)))
    for stored in home.glob(f'{place}-{key}-*.npy'):
        with contextlib.suppress(OSError, EOFError, ValueError):  # damaged: made anew
            images = np.load(stored, mmap_mode='r', allow_pickle=False)
            if lost := len(source.names) - len(images):
                print(f'{lost} of the {len(source.names)} pictures in {source.path} cannot be read', file=sys.stderr)
            return images, stored.stem.rpartition('-')[2]
    print(f'reading {len(source.names):,} images from {source.path} into {home}', file=sys.stderr)
    part = home / f'{place}-{os.urandom(8).hex()}.part'
    stored = None
    try:
        home.mkdir(parents=True, exist_ok=True)
        with open(part, 'wb') as file:
            digest = write(file, source, shape, background)
            file.flush()
            os.fsync(file.fileno())
        stored = home / f'{place}-{key}-{digest}.npy'
        os.replace(part, stored)                  # so a file that bears this name is complete
    except OSError as error:
        raise UserError(f'{home} cannot be written ({error.strerror}); set another XDG_CACHE_HOME') from None
    finally:
        for old in set(home.glob(f'{place}-*')) - {stored}:       # stale arrays, and parts that nobody writes
            with contextlib.suppress(OSError):    # another run may remove it too
                if old == part or old.suffix == '.npy' or time.time() - old.stat().st_mtime > 24 * 60 * 60:
                    old.unlink()
    return np.load(stored, mmap_mode='r', allow_pickle=False), digest


def write(file, source, shape, background):
    """Write the images as .npy: its header, the pixels, and the header again, now that N is known. Returns their digest."""
    layout, unreadable, digest = {'descr': '|u1', 'fortran_order': False}, [], hashlib.sha256()
    names = source.names
    np.lib.format.write_array_header_1_0(file, {**layout, 'shape': (len(names), *shape)})
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter('ignore')           # Pillow's misgivings about images that it can read
        images = (image for i in range(0, len(names), 128)        # no more than these wait to be written
                  for image in pool.map(lambda name: bytes_of(source, name, shape, background), names[i:i + 128]))
        for name, image in zip(tqdm(names, 'reading', leave=False, disable=None), images):
            if isinstance(image, bytes):
                file.write(image)
                digest.update(image)
            else:
                unreadable.append(f'{name}: {image}')
    if unreadable:
        more = [f'and {len(unreadable) - 10} more'] * (len(unreadable) > 10)
        print('left out:', *unreadable[:10], *more, sep='\n  ', file=sys.stderr)
    if len(unreadable) == len(names):
        raise UserError(f'--data {source.path}: no picture in it can be used')
    file.seek(0)                                  # the header has room for any number
    np.lib.format.write_array_header_1_0(file, {**layout, 'shape': (len(names) - len(unreadable), *shape)})
    return digest.hexdigest()


def bytes_of(source, name, shape, background):
    """The pixels of an image or, where it cannot be used, why not."""
    try:
        with source.open(name) as image:
            return pixels(image, shape, background)
    except (FileNotFoundError, PermissionError) as error:         # not to be stored as if it were broken
        raise UserError(f'{source.path / name} cannot be read ({error.strerror})') from None
    except Exception as error:                    # Pillow meets garbage with almost any exception there is
        return str(error) or type(error).__name__


def digest_of(images):
    digest = hashlib.sha256()
    for start in range(0, len(images), LOOKED_AT):
        digest.update(np.ascontiguousarray(images[start:start + LOOKED_AT]))
    return digest.hexdigest()


def doubt(images):
    """What is probably wrong with images that all show nothing, all the same, or almost only black."""
    some = np.asarray(images[::-(-len(images) // LOOKED_AT)]).reshape(-1, images[0].size)
    low, high = some.min(axis=1), some.max(axis=1)
    if (low == high).all():
        white = 'if they are white on a transparent ground, --background black shows them'
        return f'every image is blank, of one shade alone; {white if low.min() == 255 else "look at one, and at how it was made"}'
    if len(some) > 1 and (some == some[0]).all():
        return 'all images are the same, and G can learn no other'
    if high.max() <= DARK:
        return (f'the images are nearly black: of 255 shades, none above {high.max()}; those that hold 12 bits in 16, for example, '
                'must be multiplied by 16 first')
