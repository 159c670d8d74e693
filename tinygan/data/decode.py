"""One picture of any kind as the pixels that a network sees."""
import contextlib
import os
import threading

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin

from .ours import MADE_BY

START = 1024                                      # bytes by which a file is recognised, even a gzipped one
LARGE = 2 ** 24                                   # pixels: one such picture at a time, or memory might not do

Image.init()
UNREAD = {'EPS', 'WMF',                           # programs, for Ghostscript and for Windows
          'BUFR', 'GRIB', 'HDF5', 'MPEG'}         # of which Pillow knows no more than that
FORMATS = [name for name in Image.OPEN if name not in UNREAD]
CERTAIN = [name for name in FORMATS if Image.OPEN[name][1]]       # begin in a way of their own
SUFFIXES = {suffix: name for suffix, name in Image.registered_extensions().items() if name in FORMATS}
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 2 ** 28        # some have long texts and large profiles

one_large = threading.Lock()


def has_suffix(name):
    """Is a file of that name supposed to be a picture?"""
    return suffix_of(name) in SUFFIXES


def suffix_of(name):
    return os.path.splitext(name)[1].lower()


def looks_like_picture(start):
    """Is a file that begins with these bytes perhaps a picture?"""
    start = start.ljust(START, b'\0')
    return any(Image.OPEN[name][1](start) is True for name in CERTAIN)


def open_picture(file, name):
    """A Pillow image, not decoded yet, of a path or an open file. What it holds counts, and for the few formats without a
    beginning of their own what it is called."""
    by_name = SUFFIXES.get(suffix_of(name))
    return Image.open(file, formats=CERTAIN if by_name in (None, *CERTAIN) else [*CERTAIN, by_name])


def is_ours(image):
    """Is it a picture that tinygan wrote?"""
    return image.info.get('Software') == MADE_BY or image.info.get('comment') == MADE_BY.encode()


def pixels(image, shape, background):
    """The H * W * C bytes of a Pillow image: upright (EXIF), on a ground of the colour `background` where it is transparent,
    the middle cut out and resized (Lanczos); of an animation, the first frame. ValueError if it has no shades to show."""
    H, W, C = shape
    mode = {1: 'L', 3: 'RGB'}[C]
    if is_ours(image):
        raise ValueError('tinygan made it')
    with one_large if image.width * image.height > LARGE else contextlib.nullcontext():
        image.draft(mode, (2 * max(H, W), 2 * max(H, W)))         # a large JPEG at 1/2, 1/4 or 1/8
        image.load()
        with contextlib.suppress(Exception):      # EXIF data may be garbage where the pixels are not
            image = ImageOps.exif_transpose(image)
        if image.mode == 'F':
            raise ValueError('floating-point pixels, which do not say what is white')
        if image.mode.startswith('I'):            # 16 bits a pixel, which convert would clip to 8
            image = Image.fromarray(np.rint(np.asarray(image).clip(0, 65535) / 257).astype(np.uint8))
        if image.has_transparency_data:
            image = Image.alpha_composite(Image.new('RGBA', image.size, background), image.convert('RGBA'))
        return ImageOps.fit(image.convert(mode), (W, H), Image.Resampling.LANCZOS).tobytes()
