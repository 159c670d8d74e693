"""Which device computes, --device cpu, gpu or auto, and in which precision."""
import numpy as np

from ..errors import UserError

INSTALL_CUPY = "install CuPy with pip install 'cupy-cuda12x[ctk]' (CUDA 12) or 'cupy-cuda13x[ctk]' (CUDA 13)"

PRECISIONS = 'fp32', 'tf32', 'bf16'               # of products on a GPU


def select_device(device, processes=1):
    """The array module for device 'cpu', 'gpu' or 'auto', and one line that says what was chosen and why.

    'cpu' never imports CuPy; 'gpu' raises UserError unless the GPU really computes; 'auto' tries it and
    falls back to NumPy.
    """
    if processes > 1:
        if device == 'gpu':
            raise UserError('--device gpu: only one process can train on a GPU: start it without mpirun')
        return np, f'cpu: NumPy, in {processes} processes'
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


def find_precision(asked, xp):
    """'fp32', 'tf32' or 'bf16': what was asked for, else tf32 where there is a GPU that has it."""
    if asked not in (None, *PRECISIONS):          # a run of another version, say
        raise UserError(f'--precision {asked}: there is {", ".join(PRECISIONS)}')
    capable = xp is not np and int(xp.cuda.Device().compute_capability) >= 80
    if asked in PRECISIONS[1:] and not capable:
        raise UserError(f'--precision {asked}: only GPUs since Ampere (compute capability 8.0) have it; use fp32')
    return asked or ('tf32' if capable else 'fp32')
