"""CUDA kernels on the CPU: the RawModule, the streams and the graphs of the stand-in for CuPy, fake_cupy.py.

A RawModule compiles its CUDA source with the computer's own C++ compiler. cuda_on_host.h, which goes in front, has
what a kernel calls, and cuda_on_host.cpp says how it then runs. A launch refuses what CuPy would pass on in another
size, and what the driver would refuse. The kernel works on copies of its arrays, each between two margins: what it writes there
is noticed, what it reads there is NaN. Set `reverse` to run threads, warps and blocks in the opposite order.

A capture runs nothing: it records launches with their arguments, scalars and addresses, as they are then.
Like CuPy's, a graph does not keep its arrays alive; unlike CuPy's, it says so when one has gone.
"""
import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import weakref
from pathlib import Path

import numpy as np

COMPILER = shutil.which('g++') or shutil.which('c++')
HERE = Path(__file__).parent
SHIM, RUNTIME, RACES = ((HERE / name).read_text() for name in ('cuda_on_host.h', 'cuda_on_host.cpp', 'races_on_host.h'))
FLAGS = '-w', '-fPIC', '-fvisibility=hidden', '-fno-exceptions', '-fno-rtti', '-U_FORTIFY_SOURCE'
SOON = '-O1', '-fno-ivopts', '-fno-tree-dominator-opts', '-fno-forward-propagate'       # the rest takes longer than it saves
WATCHED = ['-fsanitize=bounds,alignment']       # the .cpp is the sanitizer's library,
if sys.platform == 'linux':
    WATCHED += ['-fsanitize=thread']            # and finds races
DEVICE_ONLY = re.compile(r'--?(use_fast_math|DOVERLAPS=.*|fmad=.*|lineinfo|maxrregcount=.*|extra-device-vectorization)')
MARGIN = 1 << 16                                # bytes
TYPES = {'float': np.float32, 'double': np.float64, 'int': np.int32, 'unsigned': np.uint32,
         'unsigned int': np.uint32, 'long long': np.int64, 'unsigned char': np.uint8, 'unsigned short': np.uint16}
KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+(?:void\s+)?(?:__launch_bounds__\s*\(([^(),]*)[^()]*\)\s*)?'
                    r'(?:void\s+)?(\w+)\s*\(([^()]*)\)\s*\{')
BFLOAT16 = '-DBF16=1'                           # with this option a Number has two bytes
LIMITS = (2**31 - 1, 65535, 65535), (1024, 1024, 64)       # of a grid in blocks, of a block in threads
reverse = False


def note(what):
    """Told of 'launches', 'syncs' and 'graphs'; fake_cupy puts its own here, to count or refuse them."""


class CompileError(RuntimeError):
    pass


class KernelError(RuntimeError):
    """A kernel did what a GPU does not forgive, or would leave undefined."""


class CUDARuntimeError(RuntimeError):
    pass


class Parameter:
    """One of a kernel's, from its C text: `const float* __restrict__ x`."""

    def __init__(self, text, options):
        self.c_type, self.name = re.fullmatch(r'\s*(.*?)\s*\b(\w+)\s*', text, re.S).groups()
        element = re.sub(r'\b(const|__restrict__)\b', '', self.c_type)
        self.is_array, self.is_const = '*' in element, 'const' in self.c_type.split('*')[0]
        types = TYPES
        if self.is_array:
            types = {**TYPES, 'float2': np.float32, 'double2': np.float64,
                     'Number': np.uint16 if BFLOAT16 in options else np.float32}
        self.dtype = types.get(' '.join(element.replace('*', ' ').split()))

    def check(self, value):
        if self.dtype is None:
            raise TypeError(f"no argument is of the type of '{self.c_type} {self.name}'")
        wanted = f"'{self.c_type} {self.name}' takes {np.dtype(self.dtype)}"
        if not self.is_array:
            if type(value) is not self.dtype:           # CuPy passes a Python int or float as 8 bytes
                raise TypeError(f'{wanted}, not a {type(value).__name__}')
        elif type(value).__module__ != 'cupy':
            raise TypeError(f'{wanted} on the device, not a {type(value).__name__}')
        elif value.dtype != self.dtype:
            raise TypeError(f'{wanted}, not {value.dtype}')
        elif not value.flags.c_contiguous:
            raise TypeError(f'{wanted}, contiguous')


def find_kernels(code, options):
    """{name: (parameters, how many threads a block may have, as C text)}. None may be within an #if."""
    code = re.sub(r'//[^\n]*|/\*.*?\*/', ' ', code, flags=re.S)
    return {name: ([Parameter(text, options) for text in texts.split(',') if text.strip()], bound.strip() or '1024')
            for bound, name, texts in KERNEL.findall(code)}


def launcher(name, parameters, bound):
    values = (f'*static_cast<{p.c_type.replace("__restrict__", "")}*>(on_host::arguments[{i}])'
              for i, p in enumerate(parameters))
    names = ''.join(f'"{p.is_array * p.name}", ' for p in parameters)
    return f'''extern "C" __attribute__((visibility("default")))
const char* launch_{name}(const unsigned* sizes, void** values, char* memory, size_t bytes, bool reverse) {{
    static const char* const names[] = {{{names}nullptr}};
    return on_host::run([] {{ {name}({", ".join(values)}); }}, names, {bound}, sizes, values, memory, bytes, reverse);
}}'''


def compiler_options(options):
    """Of those for CUDA's compiler the ones that mean something to this computer's."""
    kept = [option.replace('--std', '-std') for option in options if not DEVICE_ONLY.fullmatch(option)]
    for option in kept:
        if not option.startswith(('-D', '-U', '-std=')):
            raise CompileError(f'unknown option {option}')
    return kept if any(option.startswith('-std=') for option in kept) else ['-std=c++17', *kept]


def objects_folder():
    """Where this user's compiled kernels lie: from one run of the tests to the next."""
    folder = Path(tempfile.gettempdir(), f'tinygan-kernels-{os.getuid()}')
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f'{folder} is somebody else\'s')
    return folder


def compiled(suffix, source, *arguments):
    """The file of that suffix which the compiler makes of the source, unless an earlier run has done so."""
    if COMPILER is None:
        raise CompileError('no C++ compiler: neither g++ nor c++ is on the path')
    compiler = os.stat(COMPILER)
    key = repr((source, SHIM, RACES, FLAGS, arguments, compiler.st_size, compiler.st_mtime_ns))
    file = objects_folder() / (hashlib.sha256(key.encode()).hexdigest()[:32] + suffix)
    if not file.exists():
        with tempfile.TemporaryDirectory(dir=file.parent) as work:
            done = subprocess.run([COMPILER, *FLAGS, f'-I{HERE}', '-o', f'{work}/made', '-x', 'c++', '-', *arguments], input=source,
                                  capture_output=True, text=True, env={**os.environ, 'LC_ALL': 'C'})
            if done.returncode:
                raise CompileError(done.stderr)
            os.replace(f'{work}/made', file)
    return file


@functools.cache
def build(code, options):
    """The library of the kernels of `code`."""
    source = '\n'.join(['#include "cuda_on_host.h"', '#line 1 "kernels.cu"', code, '#line 1 "launchers"',
                        *(launcher(name, *found) for name, found in find_kernels(code, options).items())])
    runtime = compiled('.o', RUNTIME, '-c', '-O2', *(option for option in options if option == BFLOAT16))
    return ctypes.CDLL(str(compiled('.so', source, *SOON, *WATCHED, *compiler_options(options), '-shared', '-nodefaultlibs',
                                    '-x', 'none', runtime, '-lm', '-lc')))


class RawModule:
    def __init__(self, *, code, options=(), backend='nvrtc', name_expressions=None):
        if not isinstance(options, tuple):
            raise TypeError('options must be a tuple')
        if name_expressions is not None:
            raise NotImplementedError('only kernels that are extern "C"')
        self.code, self.options = code, options

    def get_function(self, name):
        return RawKernel(self.code, name, self.options)._compiled()


class RawKernel:
    def __init__(self, code, name, options=(), backend='nvrtc'):
        if not isinstance(options, tuple):
            raise TypeError('options must be a tuple')
        self.code, self.name, self.options, self._run = code, name, options, None

    def _compiled(self):
        if self._run is None:
            library, kernels = build(self.code, self.options), find_kernels(self.code, self.options)
            if self.name not in kernels:
                raise KernelError(f'CUDA_ERROR_NOT_FOUND: no extern "C" __global__ void {self.name}(...)')
            self.parameters, _ = kernels[self.name]
            self._run = getattr(library, f'launch_{self.name}')
            self._run.restype = ctypes.c_char_p
            self._run.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_size_t, ctypes.c_bool]
        return self

    def __call__(self, grid, block, args, *, shared_mem=0):
        if shared_mem:
            raise NotImplementedError('dynamic shared memory')
        launch = Launch(self._compiled(), grid, block, args)
        stream = get_current_stream()
        if stream.is_capturing():
            stream.capture.add(launch, stream)
        else:
            launch()


class Launch:
    """A kernel with its arguments, checked: ready to run, once or often."""

    def __init__(self, kernel, grid, block, args):
        self.kernel = kernel
        self.sizes = np.array([_sizes(grid, LIMITS[0]), _sizes(block, LIMITS[1])], np.uint32)
        if self.sizes[1].prod() > 1024:
            raise ValueError(f'a block of {block}: over 1024 threads')
        if len(args) != len(kernel.parameters):
            raise TypeError(f'{kernel.name} takes {len(kernel.parameters)} arguments, not {len(args)}')
        self.scalars, self.arrays = {}, {}
        for i, (parameter, value) in enumerate(zip(kernel.parameters, args)):
            parameter.check(value)
            if parameter.is_array:
                span = value.data.ptr, value.data.ptr + value.nbytes
                self.arrays[i] = span, weakref.ref(value.data.mem)
            else:
                self.scalars[i] = np.array(value)

    def changes(self, other):
        """Whether this changes anything that the other reads or changes."""
        return any(start < other_stop and other_start < stop
                   for i, ((start, stop), _) in self.arrays.items() if not self.kernel.parameters[i].is_const
                   for (other_start, other_stop), _ in other.arrays.values())

    def __call__(self):
        note('launches')
        kernel = self.kernel
        for i, (_, memory) in self.arrays.items():
            if memory() is None:
                raise KernelError(f"{kernel.name}: the array '{kernel.parameters[i].name}' has been freed")
        regions, memory = guarded_regions(span for span, _ in self.arrays.values())
        values = dict(self.scalars)
        for i, (span, _) in self.arrays.items():
            values[i] = np.array(regions[span].address_of(span[0]), np.uintp)
        pointers = np.array([values[i].ctypes.data for i in range(len(values))], np.uintp)
        error = kernel._run(self.sizes.ctypes.data, pointers.ctypes.data, memory.ctypes.data, memory.nbytes, reverse)
        if error:
            raise KernelError(f'{kernel.name}, {error.decode()}')
        for i, (span, _) in self.arrays.items():
            if regions[span].overrun():
                raise KernelError(f"{kernel.name} wrote beside the array '{kernel.parameters[i].name}'")
        for i, (span, _) in self.arrays.items():
            if not kernel.parameters[i].is_const:
                regions[span].write_back()


def _sizes(sizes, limits):
    if not isinstance(sizes, tuple) or not 1 <= len(sizes) <= 3:
        raise TypeError(f'{sizes} is not a tuple of one to three numbers')
    for size, limit in zip(sizes, limits):
        if not 1 <= size <= limit:
            raise ValueError(f'{sizes}: each number must be from 1, and no larger than in {limits}')
    return (*sizes, 1, 1)[:3]


class Region:
    """A piece of the device's memory; a kernel gets the copy of it, between two margins."""

    def __init__(self, start, stop):
        self.start, self.stop = start, stop

    def room(self):
        return self.stop - self.start + 2 * MARGIN + 256

    def copy(self, room):
        size = self.stop - self.start
        before = MARGIN + (self.start - room.ctypes.data - MARGIN) % 256        # as aligned as the original
        self.address = room.ctypes.data + before
        self.margins = room[:before], room[before + size:]
        for margin in self.margins:
            margin.fill(0xff)                                       # NaN to whoever reads it
        ctypes.memmove(self.address, self.start, size)

    def address_of(self, original):
        return self.address + original - self.start

    def overrun(self):
        return any((margin != 0xff).any() for margin in self.margins)

    def write_back(self):
        ctypes.memmove(self.start, self.address, self.stop - self.start)


def guarded_regions(spans):
    """{(start, stop): the region that holds these addresses}: one for those that overlap."""
    regions, last = {}, None
    for start, stop in sorted(spans):
        if last is None or start >= last.stop:
            last = Region(start, stop)
        last.stop = max(last.stop, stop)
        regions[start, stop] = last
    different = list(dict.fromkeys(regions.values()))
    memory = np.empty(sum(region.room() for region in different), np.uint8)
    at = 0
    for region in different:
        region.copy(memory[at:at + region.room()])
        at += region.room()
    return regions, memory


class Stream:
    """Work is done at once, whatever its stream, unless that is capturing."""
    _current = threading.local()                # each thread has its own
    null = None

    def __init__(self, null=False, non_blocking=False):
        self.ptr, self.capture, self.done, self.copies = 0 if null else id(self), None, 0, []

    def __enter__(self):
        self._current.streams = [*entered(), self]
        return self

    def __exit__(self, *_):
        self._current.streams = entered()[:-1]

    def synchronize(self):
        if self.is_capturing():
            self.capture.valid = False
            raise CUDARuntimeError('cudaErrorStreamCaptureUnsupported: '
                                   'operation not permitted when stream is capturing')
        note('syncs')

    def is_capturing(self):
        return self.capture is not None

    def begin_capture(self, mode=None):
        if self.ptr == 0:
            raise RuntimeError('cannot capture on the default (legacy) stream')
        if self.is_capturing():
            raise CUDARuntimeError('cudaErrorIllegalState: not while it captures')
        Capture().take_in(self)

    def end_capture(self):
        if not self.is_capturing():
            raise CUDARuntimeError('cudaErrorIllegalState: it does not capture')
        capture, done = self.capture, self.done
        capture.end()
        if not capture.valid:
            raise CUDARuntimeError('cudaErrorStreamCaptureInvalidated: '
                                   'operation failed due to a previous error during capture')
        if done != 2**len(capture.launches) - 1:
            raise CUDARuntimeError('cudaErrorStreamCaptureUnjoined: another stream has been taken in and not waited for')
        capture.check()
        graph = object.__new__(Graph)
        graph._launches = capture.launches
        return graph

    def record(self, event=None):
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event):
        if event.capture is not self.capture:
            if event.capture is None or self.is_capturing() or event.capture.ended:
                raise CUDARuntimeError('cudaErrorStreamCaptureIsolation: the event is not of this capture')
            event.capture.take_in(self)
        self.done |= event.done


Stream.null = Stream(null=True)


class Event:
    def __init__(self, block=False, disable_timing=False):
        self.capture, self.done, self.copies = None, 0, []

    def record(self, stream=None):
        stream = stream or get_current_stream()
        self.capture, self.done = stream.capture, stream.done
        self.copies, stream.copies = stream.copies, []

    def synchronize(self):
        """Only now does what was copied without waiting arrive, as it was when it was copied."""
        note('syncs')
        for target, numbers in self.copies:
            target[...] = numbers


class Capture:
    """Launches, and for each which others are certain to be done before it: bit i of a number stands for launch i.
    Streams and events have such numbers as well."""

    def __init__(self):
        self.launches, self.before, self.streams, self.valid, self.ended = [], [], [], True, False

    def take_in(self, stream):
        self.streams.append(stream)
        stream.capture, stream.done = self, 0

    def end(self):
        self.ended = True
        for stream in self.streams:
            stream.capture = None

    def add(self, launch, stream):
        self.before.append(stream.done)
        stream.done |= 1 << len(self.launches)
        self.launches.append(launch)

    def check(self):
        """Launches that may run at the same time must not touch what one of them changes."""
        for j, late in enumerate(self.launches):
            for i, early in enumerate(self.launches[:j]):
                if not self.before[j] >> i & 1 and (early.changes(late) or late.changes(early)):
                    raise KernelError(f'{early.kernel.name} and {late.kernel.name} may run at the same time, '
                                      'but use the same memory')


def get_current_stream(device_id=-1):
    return (entered() or [Stream.null])[-1]


def entered():
    return getattr(Stream._current, 'streams', [])


class Graph:
    def __init__(self):
        raise NotImplementedError('a graph is made by a capture')

    def launch(self, stream=None):
        note('graphs')
        for launch in self._launches:
            launch()

    def upload(self, stream=None):
        pass
