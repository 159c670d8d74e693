"""The GPU as network.py and step.py use it: kernels compiled and launched, a second stream, memory that blocks share."""
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ...arrays import to_numpy
from .launch import can_overlap, launch_overlapping

MULTIPROCESSORS = 132                             # of an H100: sums are divided into as many blocks as keep those busy
THREADS = 512                                     # of a block that goes down rows, as in norm.cu
MOST_PARTS = 2 * 8 * MULTIPROCESSORS              # that such a kernel leaves, a pair of sums for each of up to 8 channels
FILES = {'conv': ('device.cuh', 'product.cuh', 'conv.cu'),
         'pointwise': ('device.cuh', 'norm.cu', 'pointwise.cu', 'minibatch.cu', 'penalty.cu')}
SHARES, COUNTERS = 2**22, 4096                    # numbers of memory that blocks share: see last_to_arrive


class NotCovered(Exception):
    """What the kernels were not written for; the layers do it."""


class Device:
    """The compiled kernels, a stream beside the current one, and memory in which several blocks finish one sum."""

    def __init__(self, cupy, precision):
        self.cupy, self.precision = cupy, precision
        self.side, self.forked, self.done = cupy.cuda.Stream(), cupy.cuda.Event(), cupy.cuda.Event()
        self.overlaps = can_overlap(cupy)
        self.running = set()                      # streams that have waited for no other one since our last launch there
        self.number = np.uint16 if precision == 'bf16' else np.float32            # Number in device.cuh
        self.depth = 128 // np.dtype(self.number).itemsize                        # of a tile, as depth_of in product.cuh
        self.shares, self.side_shares = cupy.empty(SHARES, np.float32), cupy.empty(SHARES, np.float32)
        self.arrived = cupy.zeros(COUNTERS, np.int32)
        self.pointwise = self.compile('pointwise')
        self.zeros = cupy.zeros(COUNTERS, np.float32)                             # where there is nothing
        self.no_numbers = self.zeros.view(self.number)

    @contextmanager
    def beside(self):
        """What is launched in here waits for all launches before it. Those after it do not wait for it, up to join."""
        self.forked.record(self.cupy.cuda.get_current_stream())
        self.side.wait_event(self.forked)
        self.running.discard(self.side.ptr)
        with self.side:
            yield

    def join(self):
        stream = self.cupy.cuda.get_current_stream()
        self.done.record(self.side)
        stream.wait_event(self.done)
        self.running.discard(stream.ptr)

    def compile(self, name, **constants):
        """launch(kernel, grid, block, *arguments) for the kernels of a .cu file, compiled with these constants."""
        options = ('-std=c++17', f'-DOVERLAPS={int(self.overlaps)}',
                   *(f'-D{kind.upper()}={int(kind == self.precision)}' for kind in ('tf32', 'bf16')))
        module = self.cupy.RawModule(code=source(name, **constants), options=options)
        kernels = {}

        def launch(kernel, grid, block, *arguments):
            if kernel not in kernels:
                kernels[kernel] = module.get_function(kernel)
            self.launch(kernels[kernel], grid, block, tuple(map(c_type, arguments)))
        return launch

    def launch(self, kernel, grid, block, arguments):
        """In the current stream; if the last thing there was such a launch, overlapping with the end of that kernel."""
        stream = self.cupy.cuda.get_current_stream()
        if self.overlaps and stream.ptr in self.running:
            addresses = [argument.data.ptr if isinstance(argument, self.cupy.ndarray) else argument for argument in arguments]
            launch_overlapping(kernel.kernel.ptr, grid, block, addresses, stream.ptr)
        else:
            kernel(grid, block, arguments)
        self.running.add(stream.ptr)

    def each(self, kernel, count, *arguments):
        """Launch a pointwise kernel with a thread for each of `count` numbers."""
        self.pointwise(kernel, (ceil(count, 256),), (256,), *arguments)

    def columns(self, kernel, rows, C, groups, *arguments, at_once=1):
        """Launch a pointwise kernel whose threads each go down some rows of a group, in one of C channels or in as many as are
        read at once. Returns into how many parts the rows of a group were divided."""
        width = divisor(C // at_once, 32 if at_once > 1 else 8)
        across, height = C // at_once // width, THREADS // width
        parts = min(2 * MULTIPROCESSORS // (across * groups) or 1, ceil(rows, height))
        self.pointwise(kernel, (across, parts, groups), (width, height), rows, C, *arguments)
        return parts

    def channels(self, kernel, C, *arguments):
        """Launch a pointwise kernel that sums up what there is of each of C channels."""
        width = divisor(C, 8)                     # a sector of memory
        self.pointwise(kernel, (C // width,), (width, THREADS // width), *arguments)

    def add_slices(self, shares, slices, dw, n, adds):
        together = min(slices, 16, max(1, 2**18 // n))              # threads that add up for one number
        width = THREADS // together // 32 * 32
        self.pointwise('add_slices', (ceil(n, width),), (width, together), shares, slices, dw, n, adds)

    def send(self, *arrays):
        """Copy arrays to the CPU after all launches so far and before those that follow, without waiting: a function does that, and
        returns the copies. They lie in pinned memory, since copies to other memory are waited for at once."""
        pinned = self.cupy.cuda.alloc_pinned_memory
        copies = [np.ndarray(array.shape, array.dtype, pinned(max(array.nbytes, 1))) for array in arrays]
        for array, copied in zip(arrays, copies):
            array.get(out=copied, blocking=False)
        arrived = self.cupy.cuda.Event(block=True)
        arrived.record()

        def receive():
            arrived.synchronize()
            return copies
        return receive

    def numbers(self, *shape):
        """A new array of what layers hand one another."""
        return self.cupy.empty(shape, self.number)

    def convert(self, x, y=None):
        """An array of float32, as products take it, in y or in a new array."""
        y = self.numbers(*x.shape) if y is None else y
        self.each('convert', x.size, x, y, x.size)
        return y


def divisor(n, most):
    return max(d for d in range(1, most + 1) if n % d == 0)


def source(name, **constants):
    """The text of a .cu file with what it needs in front."""
    text = ''.join(f'const int {constant} = {value};\n' for constant, value in constants.items())
    return text + ''.join(Path(__file__).with_name(file).read_text('utf-8') for file in FILES[name])


def c_type(argument):
    """Kernels take their arguments bit by bit: int and float have 32 there, 64 in Python."""
    return {int: np.int32, float: np.float32}.get(type(argument), lambda same: same)(argument)


def ceil(a, b):
    return -(-a // b)


def floats(numbers):
    """What an array of Device.numbers holds, float32 on the CPU, for those who want to look."""
    numbers = to_numpy(numbers)
    return numbers if numbers.dtype == np.float32 else (numbers.astype(np.uint32) << 16).view(np.float32)
