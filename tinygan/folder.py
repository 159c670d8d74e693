"""A folder of images as a dataset: each is decoded once, into one array that lies in the user's cache.

The array is mapped into memory, not loaded, so 100,000 images need no more of it than a minibatch.
"""
import contextlib
import hashlib
import os
import pathlib
import sys
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from .errors import UserError

FORMATS = 'PNG', 'JPEG', 'GIF', 'BMP', 'WEBP', 'TIFF', 'PPM'      # what a file may be, whatever it is called
SUFFIXES = '.png', '.jpg', '.jpeg', '.gif', '.bmp', '.webp', '.tif', '.tiff', '.ppm', '.pgm'
VERSION = 1                                       # of _pixels: a new one makes every stored array stale
CHUNK = 256                                       # the most images that wait, decoded, to be written


def read_folder(folder, shape):
    """The images in a folder and all folders in it, sorted by name: a read-only uint8 (N, H, W, C).

    shape is (H, W, C), with 1 channel for gray or 3 for RGB. Images are turned upright (EXIF), laid on white
    where transparent, cropped about the centre and resized; an animation gives its first frame. Hidden files
    and links to folders are passed over. Broken images are left out and named on stderr.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise UserError(f'--data {folder}: there is no such folder')
    files = sorted(_find(folder))
    if not files:
        raise UserError(f'--data {folder}: there is no image in it (looked for {" ".join(SUFFIXES)})')
    home = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
    place, key = (hashlib.sha256(repr(what).encode()).hexdigest()[:16]
                  for what in ((str(folder.resolve()), *shape), (VERSION, files)))
    stored = pathlib.Path(home, 'tinygan', 'folders', f'{place}-{key}.npy')
    with contextlib.suppress(OSError, EOFError, ValueError):      # absent, or damaged: made anew
        return np.load(stored, mmap_mode='r', allow_pickle=False)
    print(f'reading the {len(files)} images in {folder}, once, into {stored}', file=sys.stderr)
    try:
        stored.parent.mkdir(parents=True, exist_ok=True)
        _store(stored, folder, [name for name, *_ in files], shape)
        for old in stored.parent.glob(f'{place}-*'):              # a .part of a day ago: its run was killed
            if old != stored and (old.suffix == '.npy' or time.time() - old.stat().st_mtime > 24 * 60 * 60):
                old.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f'{stored.parent} cannot be written ({error.strerror}); set XDG_CACHE_HOME to a folder '
                        'that can, with room for the images') from None
    return np.load(stored, mmap_mode='r', allow_pickle=False)


def _find(folder, prefix=''):
    """Yields (name, size, time of change) of each image file, its name with the folders it is in."""
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith('.'):
            yield from _find(entry.path, f'{prefix}{entry.name}/')
        elif entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith('.') and entry.is_file():
            yield prefix + entry.name, entry.stat().st_size, entry.stat().st_mtime_ns


def _store(path, folder, names, shape):
    """Write the images as path, an .npy file that does not bear its name before it is complete."""
    def header(n):                                # equally long for every n: NumPy leaves room for it to grow
        np.lib.format.write_array_header_1_0(part, dict(descr='|u1', fortran_order=False, shape=(n, *shape)))

    good, broken = 0, []
    ...
