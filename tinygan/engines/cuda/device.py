"""The GPU as network.py and step.py use it: kernels compiled and launched, a second stream, memory that blocks share."""
from contextlib import contextmanager
from pathlib import Path

import numpy as np

MULTIPROCESSORS = 132                             # of an H100: sums are divided into as many blocks as keep those busy
FILES = {'conv': ('device.cuh', 'product.cuh', 'conv.cu'),
         'pointwise': ('device.cuh', 'pointwise.cu', 'minibatch.cu', 'penalty.cu')}
SHARES, COUNTERS = 2**22, 4096                    # numbers of memory that blocks share: see last_to_arrive


class NotCovered(Exception):
    """What the kernels were not written for; the layers do it."""


class Device:
    """The compiled kernels, a stream beside the current one, and memory in which several blocks finish one sum."""

    def __init__(self, cupy, precision):
        self.cupy, self.precision = cupy, precision
        self.side, self.forked, self.done = cupy.cuda.Stream(), cupy.cuda.Event(), cupy.cuda.Event()
        self.shares, self.side_shares = cupy.empty(SHARES, np.float32), cupy.empty(SHARES, np.float32)
        self.double_shares = cupy.empty(SHARES // 4, np.float64)
        self.arrived, self.side_arrived = cupy.zeros(COUNTERS, np.int32), cupy.zeros(COUNTERS, np.int32)
        self.pointwise = self.compile('pointwise')

    @contextmanager
    def beside(self):
        """What is launched in here waits for all launches before it. Those after it do not wait for it, up to join."""
        self.forked.record(self.cupy.cuda.get_current_stream())
        self.side.wait_event(self.forked)
        with self.side:
            yield

    def join(self):
        self.done.record(self.side)
        self.cupy.cuda.get_current_stream().wait_event(self.done)

    def compile(self, name, **constants):
        """launch(kernel, grid, block, *arguments) for the kernels of a .cu file, compiled with these constants."""
        options = '-std=c++17', *(f'-D{kind.upper()}={int(kind == self.precision)}' for kind in ('tf32', 'bf16'))
        module = self.cupy.RawModule(code=source(name, **constants), options=options)
        kernels = {}

        def launch(kernel, grid, block, *arguments):
            if kernel not in kernels:
                kernels[kernel] = module.get_function(kernel)
            kernels[kernel](grid, block, tuple(map(c_type, arguments)))
        return launch

    def each(self, kernel, count, *arguments):
        """Launch a pointwise kernel with a thread for each of `count` numbers."""
        self.pointwise(kernel, (ceil(count, 256),), (256,), *arguments)

    def columns(self, kernel, rows, C, groups, *arguments):
        """Launch a pointwise kernel whose threads each go down some rows of a group, in one of C channels."""
        width = max(w for w in range(1, 33) if C % w == 0)          # at best, a warp reads a whole line of memory
        across, height = C // width, 1024 // width
        parts = min(2 * MULTIPROCESSORS // (across * groups) or 1, ceil(rows, 2 * height))
        self.pointwise(kernel, (across, parts, groups), (width, height), rows, C, *arguments)

    def sums(self, kernel, rows, C, groups, *arguments):
        """The same for a kernel in which several blocks finish one sum over the rows."""
        self.columns(kernel, rows, C, groups, *arguments, self.double_shares, self.arrived)


def source(name, **constants):
    """The text of a .cu file with what it needs in front."""
    text = ''.join(f'const int {constant} = {value};\n' for constant, value in constants.items())
    return text + ''.join(Path(__file__).with_name(file).read_text() for file in FILES[name])


def c_type(argument):
    """Kernels take their arguments bit by bit: int and float have 32 there, 64 in Python."""
    return {int: np.int32, float: np.float32}.get(type(argument), lambda same: same)(argument)


def ceil(a, b):
    return -(-a // b)
