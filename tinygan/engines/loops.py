"""What the engine does with all pixels, each time in one loop: in loops.c, or with NumPy, which takes several; and how C is called.

loops.c and toomcook.c are compiled when the first network is converted, if the computer has a C compiler, and kept in
~/.cache/tinygan/c. They take contiguous arrays of float32, most of them with a multiple of 16 channels. Without them, and for other
arrays, there is NumPy, which computes the same from finite numbers, but for rounding.
"""
import ctypes
import hashlib
import math
import os
import platform
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..data.cache import cache_folder
from ..errors import UserError

SOURCES = [Path(__file__).with_name(name) for name in ('loops.c', 'toomcook.c', 'vectors.h')]
OPTIONS = '-O3', '-march=native', '-fPIC', '-shared'
MULTIPLE = 16                       # of so many channels
PANEL = 64                          # columns that a panel of toomcook.c has at most
ROOM = 8 * 256 * PANEL              # for as many panels as toomcook.c makes at once


def channel_sum(x, C):
    """The sum of x over images and pixels."""
    if c := in_c(C, x):
        sums = np.empty(C, x.dtype)
        c.channel_sum(x, sums, x.size // C, C)
        return sums
    x = rows(x)                                   # as a product with ones, which BLAS does several times as fast as x.sum
    return (np.ones(len(x), x.dtype) @ x).reshape(-1, C).sum(axis=0)


def add_bias(y, b):
    """y + b, which may take the place of y."""
    if c := in_c(b.size, y, b):
        c.add_bias(y, b, y.size // b.size, b.size)
        return y
    return (rows(y) + repeated(b, y)).reshape(y.shape)


def centre(x, mu):
    """x - mu, and the sum of its squares over images and pixels."""
    if c := in_c(mu.size, x, mu):
        centred, squares = np.empty_like(x), np.empty_like(mu)
        c.centre(x, mu, centred, squares, x.size // mu.size, mu.size)
        return centred, squares
    centred = rows(x) - repeated(mu, x)
    return centred.reshape(x.shape), dot(centred, centred, mu.size)


def scale(x, rstd, gamma, beta):
    """gamma xhat + beta, and x becomes xhat = rstd x."""
    if c := in_c(gamma.size, x, rstd, gamma, beta):
        y = np.empty_like(x)
        c.scale(x, rstd, gamma, beta, y, x.size // gamma.size, gamma.size)
        return y
    xhat = rows(x)
    xhat *= repeated(rstd, x)
    return (repeated(gamma, x) * xhat + repeated(beta, x)).reshape(x.shape)


def sum_and_dot(dy, xhat, C):
    """The sums of dy and of dy xhat over images and pixels."""
    if c := in_c(C, dy, xhat):
        total, product = np.empty((2, C), dy.dtype)
        c.sum_and_dot(dy, xhat, total, product, dy.size // C, C)
        return total, product
    return channel_sum(dy, C), dot(rows(dy), rows(xhat), C)


def scale_grad(dy, xhat, slope, mean_dy, mean_dy_xhat):
    """slope (dy - mean_dy - xhat mean_dy_xhat)"""
    if c := in_c(slope.size, dy, xhat, slope, mean_dy, mean_dy_xhat):
        dx = np.empty_like(dy)
        c.scale_grad(dy, xhat, slope, mean_dy, mean_dy_xhat, dx, dy.size // slope.size, slope.size)
        return dx
    slope, mean_dy, mean_dy_xhat = (repeated(vector, dy) for vector in (slope, mean_dy, mean_dy_xhat))
    return (slope * (rows(dy) - mean_dy - rows(xhat) * mean_dy_xhat)).reshape(dy.shape)


def leaky_relu(x, slope):
    """max(x, slope x), and where x > 0."""
    if c := in_c(x.shape[-1], x):
        y, above = np.empty_like(x), np.empty(x.shape, bool)
        c.leaky_relu(x, y, above, float(slope), x.size)
        return y, above
    y = slope * x
    return np.maximum(x, y, out=y), x > 0


def leaky_relu_grad(dy, above, slope):
    """dy where x was > 0, and else slope dy."""
    if (above.shape, above.dtype) == (dy.shape, bool) and above.flags.c_contiguous and (c := in_c(dy.shape[-1], dy)):
        dx = np.empty_like(dy)
        c.leaky_relu_grad(dy, above, dx, float(slope), dy.size)
        return dx
    slopes = above.astype(dy.dtype)               # faster than to leave that to NumPy, which converts a few at a time
    np.maximum(slopes, dy.dtype.type(slope), out=slopes)
    slopes *= dy
    return slopes


def rows(x):
    """x with all numbers of an image in one row: NumPy is faster at long rows than at as many numbers as there are channels."""
    return x.reshape(len(x), math.prod(x.shape[1:]))


def repeated(vector, x):
    """What a vector has for each channel, for all pixels of such a row."""
    return np.tile(vector, math.prod(x.shape[1:]) // vector.size)


def dot(x, y, C):
    """The sum of x * y over images and pixels, without storing x * y."""
    return np.einsum('np,np->p', x, y).reshape(-1, C).sum(axis=0)


def in_c(C, first, *others):
    """The functions in C, if they take such arrays: like the first, or with a number for each of C channels; else None. C may be 0
    where it does not matter how many there are."""
    if C % MULTIPLE == 0 and all(array.dtype == np.float32 and array.flags.c_contiguous and array.shape in (first.shape, (C,))
                                 for array in (first, *others)):
        return library()


class Library:
    """The functions of a C library. They take arrays as pointers, Python's floats as float and other numbers as long."""

    def __init__(self, path):
        self._library = ctypes.CDLL(str(path))

    def __getattr__(self, name):
        function = getattr(self._library, name)
        function.restype = None
        return lambda *arguments: function(*map(c_value, arguments))


def c_value(value):
    if isinstance(value, np.ndarray):
        return ctypes.c_void_p(value.ctypes.data)
    return ctypes.c_float(value) if isinstance(value, float) else ctypes.c_long(int(value))


@lru_cache
def library():
    """The functions in C, compiled for this processor unless that has been done before. None where that cannot be done or kept."""
    compiler = shutil.which('cc')
    if compiler is None:
        return None
    try:
        sources = [path.read_text(encoding='utf-8') for path in SOURCES]
        key = digest(repr((sources, OPTIONS, compiler, os.stat(compiler).st_mtime_ns, processor())).encode())
        folder = cache_folder('c')
        return kept(folder, key) or compiled(folder, key, compiler)
    except (OSError, UserError, subprocess.SubprocessError):                  # UserError: of cache_folder
        return None


def kept(folder, key):
    """The library that was made for this key. Its name has a digest of what is in it: a process that loads half a library dies."""
    for path in folder.glob(f'{key}.*.so'):
        if path.name.split('.')[1] == digest(path.read_bytes()):
            return Library(path)


def compiled(folder, key, compiler):
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        made = Path(work, 'loops.so')
        subprocess.run([compiler, *OPTIONS, '-o', made, *SOURCES[:2]], check=True, capture_output=True, timeout=60)
        loaded = Library(made)
        os.replace(made, folder / f'{key}.{digest(made.read_bytes())}.so')
    return loaded


def digest(data):
    return hashlib.sha256(data).hexdigest()[:16]


def processor():
    """What -march=native depends on: a home may be that of several computers."""
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as file:
            return sorted({line for line in file if line.startswith(('flags', 'Features', 'model name'))})
    except OSError:
        return platform.processor()
