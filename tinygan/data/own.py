"""Images of your own: whatever --data names, as an array. Pictures are decoded once, into the user's cache, and mapped from
there; so are arrays that are not already what a network takes."""
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
from PIL import UnidentifiedImageError
from tqdm import tqdm

from . import idx
from .array_file import NPY, Rows
from .cache import cache_folder
from .decode import START, looks_like_picture, pixels
from .folder import Folder, Zip, is_of_system
from ..errors import UserError, listed, printable

VERSION = 2                                       # of `pixels`: a new one makes every stored array stale
TAKES = 'a folder or a zip of pictures, a folder of IDX files, or an IDX file, an .npy or an .npz'
LOOKED_AT = 1000                                  # images, by `doubt`
MOST_CLASSES = 100                                # each is a plane of every image that D sees
DARK = 64                                         # of 255: no shade above it


def read_own(path, shape, background='white', labelled=False):
    """What a path names: (images, digest, warning, labels, class_names). Images are read-only uint8 (N, H, W, C) of that shape
    (H, W, C), C 1 for gray or 3 for RGB; the digest is the SHA-256 of their pixels; the warning says what may be wrong with them,
    or is None. Labels (N,) are the places of their classes among class_names or, if they are not asked for, None. UserError where
    there are no images, or no labels."""
    source = find(Path(path))
    if source.passed:
        print('passed over:', counted(source.passed), file=sys.stderr)
    home = cache_folder('own')
    place, key = (hashlib.sha256(repr(what).encode()).hexdigest()[:16]
                  for what in ((os.path.realpath(path), *shape, background), (VERSION, source.files)))
    images, digest, left_out = (stored(home, place, key) or as_they_lie(source, shape) or
                                make(home, place, key, source, shape, background))
    labels, class_names = classes_of(source, len(images), left_out) if labelled else (None, ())
    warning = doubt(images)
    if warning:
        print(f'warning: {warning}', file=sys.stderr)
    return images, digest, warning, labels, class_names


def classes_of(source, N, left_out):
    """(labels, class_names) of the N images that remain of a source without those that were left out."""
    labels = source.labels()
    if len(labels) != N + len(left_out):
        raise UserError(f'--data {source.path} has {N + len(left_out)} images and {len(labels)} labels: each image needs one')
    all_classes, (found, labels) = np.unique(labels), np.unique(np.delete(labels, left_out), return_inverse=True)
    names = list(map(str, found.tolist()))
    if gone := list(map(str, np.setdiff1d(all_classes, found).tolist())):
        print(f'classes without a picture that can be used: {listed(gone)}', file=sys.stderr)
    if not 2 <= len(names) <= MOST_CLASSES:
        few = f'has but one class, {printable(names[0])}, and this recipe needs two or more'
        many = f'has {len(names)} classes, and this recipe takes at most {MOST_CLASSES}'
        raise UserError(f'--data {source.path} {few if len(names) < 2 else many}')
    return labels, names


def find(path):
    """Where the images that a path names are: a Folder, a Zip or Rows, alike in path, files, names, passed, about() and
    open(name)."""
    if path.is_dir():
        return in_folder(path)
    if not path.is_file():                        # a pipe would be waited for
        what = 'neither a file nor a folder' if path.exists() else 'no such file or folder, and neither mnist nor digits'
        raise UserError(f'--data {path}: {what}')
    with open(path, 'rb') as file:
        start = file.read(START)
    if start[:4] in (b'PK\3\4', b'PK\5\6'):
        return in_zip(path)
    if start.startswith(NPY) or idx.dimensions(start):
        return Rows(path)
    if looks_like_picture(start):
        raise UserError(f'--data {path} is a single picture: name the folder')
    raise UserError(f'--data {path} is not what --data takes: mnist, digits, {TAKES}')


def in_zip(path):
    """The pictures in a zip, or the Rows of an .npz, which is a zip of nothing but arrays."""
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
        zipped = None if names and all(name.endswith('.npy') for name in names) else Zip(path)
    except Exception as error:                    # whatever zipfile makes of damaged bytes
        if is_of_system(error):
            raise
        raise UserError(f'{path} is a damaged zip ({error})') from None
    return with_pictures(zipped) if zipped else Rows(path)


def in_folder(path):
    """A Folder of pictures, or the Rows of the IDX file of images in it."""
    folder = Folder(path)
    if not folder.idx_files:
        return with_pictures(folder)
    names = sorted(name for name in folder.idx_files if not (name.endswith('.gz') and name[:-3] in folder.idx_files))
    training = [name for name in names if 'train' in Path(name).name.lower()] or names
    if len(training) > 1 or folder.names:
        found = [*training, *folder.names[:1]]
        some = printable(', '.join(found[:4]) + ', ...' * (len(found) > 4))
        raise UserError(f'--data {path} holds several sets of images ({some}): name the file or the folder of the one you mean')
    return Rows(path / training[0])


def with_pictures(source):
    if not source.names:
        raise UserError(f'--data {source.path} holds no picture, but {counted(source.passed) or "nothing at all"}; --data takes '
                        f'{TAKES}')
    return source


def counted(passed, most=10):
    """How many there are of each kind, in a line."""
    kinds = [f'{what} ({n})' if ': ' not in what else what for what, n in sorted(passed.items())]
    return printable(', '.join(kinds[:most] + [f'and {len(kinds) - most} more kinds'] * (len(kinds) > most)))


def stored(home, place, key):
    """(images, digest, left_out) from the cache, if they are there. A file is named after its place, which is what --data names
    and the shape; its key, which changes with the files; how many were left out; and the digest of all that is in it."""
    for path in home.glob(f'{place}-{key}-*.npy'):
        with contextlib.suppress(Exception):      # whatever NumPy makes of damaged bytes: they are made anew
            images = np.load(path, mmap_mode='r', allow_pickle=False)
            _, _, lost, found = path.stem.split('-')
            left_out, digest = left_out_of(path, images) if int(lost) else [], digest_of(images)
            if whole_digest(digest, left_out) == found:
                if int(lost):
                    print(f'left out, because they cannot be used: {lost} of {int(lost) + len(images)}', file=sys.stderr)
                return images, digest.hexdigest(), left_out


def left_out_of(path, images):
    """The places, among the names of a source, of what was left out: a second array behind the images in their file."""
    with open(path, 'rb') as file:
        file.seek(images.offset + images.nbytes)
        return np.lib.format.read_array(file, allow_pickle=False).astype('<i8')


def as_they_lie(source, shape):
    """(images, digest, left_out) of an array that needs nothing done to it."""
    if isinstance(source, Rows) and (images := source.as_it_lies(shape)) is not None:
        print(source.about(), file=sys.stderr)
        return images, digest_of(images).hexdigest(), []


def make(home, place, key, source, shape, background):
    """(images, digest, left_out) of a source, which the cache then holds."""
    print(f'reading {source.about()}, into {home}', file=sys.stderr)
    part, path = home / f'{place}-{os.urandom(8).hex()}.part', None
    try:
        home.mkdir(parents=True, exist_ok=True)
        with open(part, 'wb') as file:
            unreadable, digest = write(file, source, shape, background)
            file.flush()
            os.fsync(file.fileno())
        path = home / f'{place}-{key}-{len(unreadable)}-{whole_digest(digest, [*unreadable])}.npy'
        os.replace(part, path)                    # so a file that bears this name is complete
    except OSError as error:
        raise UserError(f'{home} cannot be written ({error.strerror}); set another XDG_CACHE_HOME') from None
    finally:
        for old in set(home.glob(f'{place}-*')) - {path}:         # stale arrays, and parts that nobody writes
            with contextlib.suppress(OSError):    # another run may remove it too
                if old == part or old.suffix == '.npy' or time.time() - old.stat().st_mtime > 24 * 60 * 60:
                    old.unlink()
    if unreadable:
        more = [f'and {len(unreadable) - 10} more'] * (len(unreadable) > 10)
        print('left out:', *[*unreadable.values()][:10], *more, sep='\n  ', file=sys.stderr)
    return np.load(path, mmap_mode='r', allow_pickle=False), digest.hexdigest(), [*unreadable]


def write(file, source, shape, background):
    """Write the images as .npy: its header, the pixels, and the header again, now that N is known. Returns what was left out, by
    its place among the names, and the digest. Those places follow, as a second array, which np.load does not look at."""
    layout, unreadable, digest = {'descr': '|u1', 'fortran_order': False}, {}, hashlib.sha256()
    names = source.names
    np.lib.format.write_array_header_1_0(file, {**layout, 'shape': (len(names), *shape)})
    with warnings.catch_warnings(action='ignore'), ThreadPoolExecutor(os.cpu_count()) as pool:         # Pillow's misgivings
        images = (image for i in range(0, len(names), 128)        # no more than these wait to be written
                  for image in pool.map(lambda name: bytes_of(source, name, shape, background), names[i:i + 128]))
        for i, (name, image) in enumerate(zip(tqdm(names, 'reading', leave=False, disable=None), images)):
            if isinstance(image, bytes):
                file.write(image)
                digest.update(image)
            else:
                unreadable[i] = printable(f'{name}: {image}')
    if len(unreadable) == len(names):
        raise UserError(f'--data {source.path}: no picture in it can be used ({unreadable[0]} ...)')
    if unreadable:
        np.lib.format.write_array(file, np.array([*unreadable]), allow_pickle=False)
    file.seek(0)                                  # the header has room for any number
    np.lib.format.write_array_header_1_0(file, {**layout, 'shape': (len(names) - len(unreadable), *shape)})
    return unreadable, digest


def bytes_of(source, name, shape, background):
    """The pixels of an image or, where it cannot be used, why not."""
    try:
        with source.open(name) as image:
            return pixels(image, shape, background)
    except MemoryError:
        raise UserError(f'{source.path}: not enough memory for {name}') from None
    except UnidentifiedImageError:                # whose text has the whole path
        return 'cannot identify image file'
    except Exception as error:                    # Pillow meets garbage with almost any exception there is
        if is_of_system(error):
            raise UserError(f'{name} in {source.path} cannot be read ({error.strerror})') from None
        return str(error) or type(error).__name__


def digest_of(images):
    digest = hashlib.sha256()
    for start in tqdm(range(0, len(images), LOOKED_AT), 'checking', leave=False, disable=None, delay=1):
        digest.update(images[start:start + LOOKED_AT])
    return digest


def whole_digest(digest, left_out):
    """The digest of images and of the places of what was left out; that of the images is a hash that can go on."""
    digest = digest.copy()
    digest.update(np.array(left_out, '<i8'))
    return digest.hexdigest()


def doubt(images):
    """What is probably wrong with images that all show nothing, all the same, or almost only black."""
    some = np.asarray(images[::-(-len(images) // LOOKED_AT)]).reshape(-1, images[0].size)
    low, high = some.min(axis=1), some.max(axis=1)
    if (low == high).all():
        white = 'if they are white on a transparent ground, --background black shows them'
        return f'every image is blank, of one shade alone; {white if low.min() == 255 else "open one and check how it was made"}'
    if len(some) > 1 and (some == some[0]).all():
        return 'all images are the same, and G can learn no other'
    if high.max() <= DARK:
        return (f'the images are nearly black: of 255 shades, none above {high.max()}; 12 bits stored in 16, or 0 and 1 for black '
                'and white, must be scaled first')
