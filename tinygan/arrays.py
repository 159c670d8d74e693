"""NumPy or CuPy: the one place that knows which of the two computes, and where random numbers come from."""
import sys
import zlib

import numpy as np


def array_module(x):
    """The module that x is an array of: numpy, or cupy on a GPU. By convention it is called xp."""
    return np if isinstance(x, (np.ndarray, np.generic)) else sys.modules[type(x).__module__.partition('.')[0]]


def to_numpy(x):
    """A copy of x in the computer's memory (from a GPU this waits until x has been computed)."""
    return x.get() if hasattr(x, 'get') else np.array(x)


def random_stream(seed, purpose, step=0):
    """A NumPy Generator that is a pure function of (seed, purpose, step).

    Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") turns a key and a counter into
    random bits, so nothing has to be remembered between steps: a resumed run draws what an unbroken one would.
    """
    key = [seed, zlib.crc32(purpose.encode())]
    return np.random.Generator(np.random.Philox(key=np.array(key, np.uint64), counter=[0, 0, 0, step]))
