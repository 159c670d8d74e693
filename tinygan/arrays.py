"""NumPy or CuPy: the one place that knows which of the two computes, and where random numbers come from."""
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

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


BLOCK = 7 * 2**19                   # bytes of patches in a block of images: the best of those tried on an AMD EPYC
workers, threads = None, 1          # of the CPU: see start_workers


def start_workers():
    """Give this process a thread for each core that BLAS would use, and BLAS one for each of them.

    Products are then not divided among the cores, but blocks of images: see map_blocks. It is for the whole process
    and for good, since BLAS's own threads, once woken, would spin beside ours for a while after every product.
    """
    global workers, threads
    if workers:
        return
    from threadpoolctl import ThreadpoolController
    blas = ThreadpoolController()
    threads = max((library['num_threads'] for library in blas.info() if library['user_api'] == 'blas'), default=1)
    blas.limit(limits=1, user_api='blas')
    # every thread has error settings of its own: training looks for numbers that are none by itself
    workers = ThreadPoolExecutor(threads, initializer=np.seterr, initargs=('ignore',))


def map_blocks(function, images, numbers):
    """[function(block)] for slices that divide a minibatch; numbers is how many an image becomes in function.

    On the CPU a block is small enough to be in the cache from one end of the function to the other, and with
    start_workers there is a thread for each core: gathering and scattering patches, which BLAS knows nothing of, go
    on beside the products. The blocks, and so the last bits of a sum over them, do not depend on how many threads
    there are. A GPU takes the whole minibatch.
    """
    N, total = len(images), len(images) * numbers * images.itemsize
    if not isinstance(images, np.ndarray) or total < BLOCK // 16:       # too little to hand out
        return [function(slice(N))]
    count = -(-N // (2 * -(-total // (2 * BLOCK))))          # images in a block, for an even number of blocks
    blocks = [slice(start, start + count) for start in range(0, N, count)]
    return list(workers.map(function, blocks) if workers else map(function, blocks))


def random_stream(seed, purpose, step=0):
    """A NumPy Generator that is a pure function of (seed, purpose, step).

    Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") turns a key and a counter into
    random bits, so nothing has to be remembered between steps: a resumed run draws what an unbroken one would.
    """
    key = [seed, zlib.crc32(purpose.encode())]
    return np.random.Generator(np.random.Philox(key=np.array(key, np.uint64), counter=[0, 0, 0, step]))
