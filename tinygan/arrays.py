"""NumPy or CuPy: the one place that knows which of the two computes, and where random numbers come from."""
import math
import sys
import threading
import zlib

import numpy as np

from .errors import UserError

INSTALL_CUPY = "install CuPy with pip install 'cupy-cuda12x[ctk]' (CUDA 12) or 'cupy-cuda13x[ctk]' (CUDA 13)"


def array_module(x):
    """The module whose array x is: numpy, or cupy for an array on the GPU. By convention it is called xp."""
    return np if isinstance(x, (np.ndarray, np.generic)) else sys.modules[type(x).__module__.partition('.')[0]]


def to_numpy(x):
    """A copy of x in the computer's memory (from a GPU this waits until x has been computed)."""
    return x.get() if hasattr(x, 'get') else np.array(x)


def select_device(device):
    """The array module for device 'cpu', 'gpu' or 'auto', and one line that says what was chosen and why.

    'cpu' never imports CuPy; 'gpu' raises UserError unless the GPU really computes; 'auto' tries it and
    falls back to NumPy.
    """
    if device == 'cpu':
        return np, 'cpu: NumPy, as asked'
    try:
        import cupy
        name = _probe(cupy)
        return cupy, f'gpu: {name}, CuPy {cupy.__version__}'
    except ModuleNotFoundError:
        problem, mend = 'CuPy is not installed', INSTALL_CUPY
    except ImportError as error:                  # CuPy without [ctk] lacks CUDA's own libraries
        problem, mend = f'CuPy cannot load ({first_line(error)})', INSTALL_CUPY
    except Exception as error:                    # whatever a broken driver raises
        problem, mend = f'CuPy found no usable GPU ({first_line(error)})', 'check the driver with nvidia-smi'
    if device == 'gpu':
        raise UserError(f'--device gpu: {problem}; {mend}, or use --device cpu')
    return np, f'cpu: NumPy ({problem})'


def _probe(cupy):
    """Launch a kernel and a product: importing CuPy proves nothing, it succeeds with no driver at all."""
    x = cupy.ones((4, 4), np.float32)
    if float(((x + 1) @ x).sum()) != 128:
        raise RuntimeError('a test product came out wrong')
    return cupy.cuda.runtime.getDeviceProperties(0)['name'].decode()


def first_line(error):
    return (str(error) or type(error).__name__).splitlines()[0]


IN_CACHE = 2**16                    # numbers that a core's cache holds beside what is made of them


def pieces(count, size, at_least=1):
    """Slices that cover `count` items of `size` numbers each, as many in a slice as fit into the cache."""
    step = max(at_least, IN_CACHE // size)
    return [slice(start, start + step) for start in range(0, count, step)]


memory = threading.local()


def scratch(name, shape, like):
    """A temporary array of like's type. The next one of that name in this thread has the same memory, which is then
    still in the cache. On a GPU it comes from CuPy's memory pool."""
    if not isinstance(like, np.ndarray):
        return array_module(like).empty(shape, like.dtype)
    size, kept = math.prod(shape), vars(memory).get(name)
    if kept is None or kept.size < size or kept.dtype != like.dtype:
        kept = vars(memory)[name] = np.empty(size, like.dtype)
    return kept[:size].reshape(shape)


def random_stream(seed, purpose, step=0):
    """A NumPy Generator that is a pure function of (seed, purpose, step).

    Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") turns a key and a counter into
    random bits, so nothing has to be remembered between steps: a resumed run draws what an unbroken one would.
    """
    key = [seed, zlib.crc32(purpose.encode())]
    return np.random.Generator(np.random.Philox(key=np.array(key, np.uint64), counter=[0, 0, 0, step]))
