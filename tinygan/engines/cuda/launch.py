"""A launch that CuPy has no words for: of a kernel whose blocks are put in place while the kernel before it is ending.

CUDA calls this programmatic dependent launch. A step has some fifty kernels, many of which take no more than three microseconds,
and otherwise the GPU is idle between any two.
"""
import ctypes
import sys
from functools import cache

import numpy as np

OVERLAPPING = 6                                   # CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION of cuda.h


def can_overlap(cupy):
    """On Hopper, where it was measured; others reported that captures of such launches fail on later GPUs. Captures know them since
    CUDA 12.3."""
    return (sys.platform == 'linux' and cupy.cuda.Device().compute_capability == '90'
            and cupy.cuda.runtime.driverGetVersion() >= 12030)


class Attribute(ctypes.Structure):
    """CUlaunchAttribute of cuda.h, whose value is one of many things in 64 bytes."""
    _fields_ = [('id', ctypes.c_uint), ('padding', ctypes.c_uint), ('value', ctypes.c_uint), ('others', ctypes.c_uint * 15)]


class Config(ctypes.Structure):
    """CUlaunchConfig of cuda.h."""
    _fields_ = [('grid', ctypes.c_uint * 3), ('block', ctypes.c_uint * 3), ('shared_memory', ctypes.c_uint),
                ('stream', ctypes.c_void_p), ('attributes', ctypes.POINTER(Attribute)), ('count', ctypes.c_uint)]


def launch_overlapping(function, grid, block, arguments, stream):
    """Launch a function that begins with begin() of device.cuh. Function, stream and arrays among the arguments are addresses, as
    CUDA's driver knows them. RuntimeError if it refuses."""
    values = [np.asarray(argument) for argument in arguments]
    addresses = (ctypes.c_void_p * len(values))(*[value.ctypes.data for value in values])
    config = Config(sizes(grid), sizes(block), 0, stream, ctypes.pointer(Attribute(OVERLAPPING, 0, 1)), 1)
    if error := driver().cuLaunchKernelEx(ctypes.byref(config), ctypes.c_void_p(function), addresses, None):
        raise RuntimeError(f'a kernel could not be launched: error {error} of the CUDA driver')


@cache
def driver():
    return ctypes.CDLL('libcuda.so.1')


def sizes(of):
    return (ctypes.c_uint * 3)(*of, *[1] * (3 - len(of)))
