"""A folder of images as a dataset: decoded once into an array in the user's cache, and mapped from there."""
import contextlib
import hashlib
import os
import pathlib
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from .cache import cache_folder
from ..errors import UserError

FORMATS = 'PNG', 'JPEG', 'GIF', 'BMP', 'WEBP', 'TIFF', 'PPM'      # what a file may be, whatever it is called
SUFFIXES = '.png', '.jpg', '.jpeg', '.gif', '.bmp', '.webp', '.tif', '.tiff', '.ppm', '.pgm'
VERSION = 1                                       # of _pixels: a new one makes every stored array stale


def read_folder(folder, shape):
    """The images in a folder and all folders in it, sorted by name: a read-only uint8 (N, H, W, C).

    shape is (H, W, C), C 1 for gray or 3 for RGB. Images are turned upright (EXIF), laid on white where they
    are transparent, cropped about the centre and resized (Lanczos); of an animation the first frame is taken.
    Hidden files and links to folders are passed over, broken images left out and named on stderr.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise UserError(f'--data {folder}: no such folder, and neither mnist nor digits')
    if not (files := sorted(_find(folder))):
        raise UserError(f'--data {folder}: there is no image in it (looked for {" ".join(SUFFIXES)})')
    home = cache_folder('folders')
    place, key = (hashlib.sha256(repr(what).encode()).hexdigest()[:16]
                  for what in ((str(folder.resolve()), *shape), (VERSION, files)))
    stored, part = home / f'{place}-{key}.npy', home / f'{place}-{os.urandom(8).hex()}.part'
    with contextlib.suppress(OSError, EOFError, ValueError):      # absent, or damaged: made anew
        return np.load(stored, mmap_mode='r', allow_pickle=False)
    print(f'reading the images in {folder}, {len(files)} in all, into {stored}', file=sys.stderr)
    try:
        home.mkdir(parents=True, exist_ok=True)
        with open(part, 'wb') as file:
            _write(file, folder, [name for name, *_ in files], shape)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, stored)                  # so a file that bears this name is complete
    except OSError as error:
        raise UserError(f'{home} cannot be written ({error.strerror}); set another XDG_CACHE_HOME') from None
    finally:
        for old in set(home.glob(f'{place}-*')) - {stored}:       # stale arrays, and parts that nobody writes
            with contextlib.suppress(OSError):    # another run may remove it too
                if old == part or old.suffix == '.npy' or time.time() - old.stat().st_mtime > 24 * 60 * 60:
                    old.unlink()
    return np.load(stored, mmap_mode='r', allow_pickle=False)


def _find(folder, prefix=''):
    """Yields (name, size, time of change) of each image file, its name with the folders it is in."""
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith('.'):
            yield from _find(entry.path, f'{prefix}{entry.name}/')
        elif entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith('.') and entry.is_file():
            yield prefix + entry.name, entry.stat().st_size, entry.stat().st_mtime_ns


def _write(file, folder, names, shape):
    """Write the images as .npy: its header, the pixels, and the header again, now that N is known."""
    layout, broken = {'descr': '|u1', 'fortran_order': False}, []
    np.lib.format.write_array_header_1_0(file, {**layout, 'shape': (len(names), *shape)})
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter('ignore')           # Pillow's misgivings about images that it can read
        warnings.simplefilter('error', Image.DecompressionBombWarning)
        images = (image for i in range(0, len(names), 128)        # no more than these wait to be written
                  for image in pool.map(lambda name: _pixels(folder / name, *shape), names[i:i + 128]))
        for name, image in zip(tqdm(names, 'reading', leave=False, disable=None), images):
            if isinstance(image, bytes):
                file.write(image)
            else:
                broken.append(f'{name}: {image}')
    if broken:
        more = [f'and {len(broken) - 10} more'] * (len(broken) > 10)
        print('broken and left out:', *broken[:10], *more, sep='\n  ', file=sys.stderr)
    if len(broken) == len(names):
        raise UserError(f'--data {folder}: every image in it is broken')
    file.seek(0)                                  # the header has room for any number
    np.lib.format.write_array_header_1_0(file, {**layout, 'shape': (len(names) - len(broken), *shape)})


def _pixels(path, H, W, C):
    """The H * W * C bytes of the image in a file or, where it is broken, what is wrong with it."""
    mode = {1: 'L', 3: 'RGB'}[C]
    try:
        with Image.open(path, formats=FORMATS) as image:
            image.draft(mode, (2 * max(H, W), 2 * max(H, W)))     # a large JPEG at 1/2, 1/4 or 1/8
            image.load()
            with contextlib.suppress(Exception):  # EXIF data may be garbage where the pixels are not
                image = ImageOps.exif_transpose(image)
            if image.mode == 'F':
                raise ValueError('floating-point pixels, which do not say what is white')
            if image.mode.startswith('I'):        # 16 bits a pixel, which convert would clip to 8
                image = Image.fromarray(np.rint(np.asarray(image).clip(0, 65535) / 257).astype(np.uint8))
            if image.has_transparency_data:
                image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image.convert('RGBA'))
            return ImageOps.fit(image.convert(mode), (W, H), Image.Resampling.LANCZOS).tobytes()
    except (FileNotFoundError, PermissionError) as error:         # not to be stored as if it were broken
        raise UserError(f'{path} cannot be read ({error.strerror})') from None
    except Exception as error:                    # Pillow meets garbage with almost any exception there is
        return str(error) or type(error).__name__
