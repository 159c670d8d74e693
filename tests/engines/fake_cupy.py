"""A strict stand-in for CuPy 14: NumPy underneath, but it refuses what CuPy refuses, and counts.

A test puts it into sys.modules as 'cupy'. Its rules were read in the source of CuPy 14.2.0, but it is
narrower: only the names and arguments below exist. `count` holds
    launches    kernels, fills and copies on the device; a view is free, and the end of `a[k] += b`
    syncs       waits for the device: float(), bool(), int(), .get(), .item(), a boolean mask, an event's synchronize()
    copies      to the computer's memory that nobody waits for: they arrive when an event after them is waited for
    h2d         copies from the computer's memory to the device's
    graphs      launches of a captured graph, each of whose kernels is one of the launches too
While the current stream captures a graph, only RawKernels are recorded, and whatever else would run, wait or
take new memory raises. (CuPy records its own kernels too, and may hand the memory out again afterwards.)
With `driver_error` set to an exception, whatever needs a GPU raises it, as CuPy does without a driver.
"""
from collections import Counter
from types import SimpleNamespace

import cuda_on_host as _on_host
import numpy as np

__name__ = 'cupy'                       # the module's and so its classes': array_module() looks there
__version__ = '14.2.0'
count = Counter()
driver_error = None
RawKernel, RawModule = _on_host.RawKernel, _on_host.RawModule
float32, float64 = np.float32, np.float64
uint8, uint16, int32, uint32, int64 = np.uint8, np.uint16, np.int32, np.uint32, np.int64


def _note(what):
    _refuse_in_capture(what)
    if driver_error is not None:
        raise driver_error
    count[what] += 1


def _refuse_in_capture(what):
    """As CuPy does what it refuses, and in its words; what the stand-in refuses in its own."""
    if not _on_host.get_current_stream().is_capturing():
        return
    if what == 'cuBLAS':
        raise NotImplementedError('calling cuBLAS API during stream capture is currently unsupported')
    if what in ('syncs', 'h2d'):
        raise RuntimeError('the current stream is capturing, so synchronous API calls are disallowed')
    raise RuntimeError(f'the current stream is capturing, and only RawKernels are recorded here, not {what}')


_on_host.note = _note


def _host(x, scalars=True):
    """The numbers behind x, of the device or, where CuPy takes one, a scalar. Nothing else gets in."""
    if isinstance(x, ndarray):
        return x._host
    if scalars and (type(x) in (bool, int, float) or isinstance(x, np.generic)):
        return x
    raise TypeError(f'Unsupported type {type(x)}')


def _new(host):
    """An array of the device, even of one number, where NumPy has made a scalar."""
    new = object.__new__(ndarray)
    new._host = np.asarray(host)
    return new


def _launch(host):
    _note('launches')
    return _new(host)


def _ufunc(name):
    def call(*args, out=None, dtype=None, casting='same_kind', **wrong):
        if wrong:
            raise TypeError(f'Wrong arguments {wrong}')
        _refuse_in_capture(name)
        target = None if out is None else _host(out, scalars=False)
        new = _launch(getattr(np, name)(*map(_host, args), out=target, dtype=dtype, casting=casting))
        return new if out is None else out
    return call


for _name in ('add subtract multiply divide floor_divide remainder power negative absolute abs sqrt exp log '
              'log1p logaddexp tanh sign maximum minimum greater greater_equal less less_equal equal '
              'not_equal bitwise_and bitwise_or invert').split():
    globals()[_name] = _ufunc(_name)


def matmul(a, b, out=None):
    a, b = _host(a, scalars=False), _host(b, scalars=False)
    _refuse_in_capture('cuBLAS')
    new = _launch(np.matmul(a, b, out=None if out is None else _host(out, scalars=False)))
    return new if out is None else out


def _reduction(name):
    def call(a, axis=None, *, keepdims=False):
        return _launch(getattr(np, name)(_host(a, scalars=False), axis=axis, keepdims=keepdims))
    return call


sum, mean, max, min, any, all = map(_reduction, ('sum', 'mean', 'max', 'min', 'any', 'all'))


class ndarray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array of the device. Only this module looks at `_host`, where its numbers really are."""
    __slots__ = ('_host',)
    shape, dtype, ndim, size, itemsize, nbytes, strides = (
        property(lambda self, _name=_name: getattr(self._host, _name))
        for _name in ('shape', 'dtype', 'ndim', 'size', 'itemsize', 'nbytes', 'strides'))
    flags = property(lambda self: SimpleNamespace(c_contiguous=self._host.flags.c_contiguous))
    data = property(lambda self: SimpleNamespace(ptr=self._host.ctypes.data, mem=_memory(self._host)))
    T = property(lambda self: _new(self._host.T))
    sum, mean, max, min, any, all = sum, mean, max, min, any, all

    def __array__(self, *_, **__):
        raise TypeError('Implicit conversion to a NumPy array is not allowed. '
                        'Please use `.get()` to construct a NumPy array explicitly.')

    def __array_ufunc__(self, ufunc, method, *inputs, out=(None,), **options):
        ours = globals().get(ufunc.__name__) if method == '__call__' else None
        return NotImplemented if ours is None else ours(*inputs, out=out[0], **options)

    def __array_function__(self, function, types, args, options):
        ours = globals().get(function.__name__) if function.__module__ == 'numpy' else None
        return NotImplemented if ours is None else ours(*args, **options)

    def __imatmul__(self, other):       # CuPy has none: Python binds the name to a new array instead
        return self @ other

    def get(self, *, out=None, blocking=True):
        if blocking:
            _note('syncs')
            return self._host.copy()
        if type(out) is not np.ndarray or not isinstance(out.base, _PinnedMemory):
            raise TypeError('only copies to pinned memory are not waited for')
        if (out.shape, out.dtype) != (self.shape, self.dtype):
            raise ValueError('Shape mismatch')
        _note('copies')
        out.fill(77)
        _on_host.get_current_stream().copies.append((out, self._host.copy()))
        return out

    item, __float__, __int__, __bool__, __repr__ = (
        lambda self, _read=_read: _read(self.get()) for _read in (np.ndarray.item, float, int, bool, repr))

    def __len__(self):
        return len(self._host)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key):
        key, gathers = _index(key)
        return (_launch if gathers else _new)(self._host[key])

    def __setitem__(self, key, value):
        key, gathers = _index(key)
        if not isinstance(value, ndarray) and np.ndim(value):
            raise ValueError('non-scalar numpy.ndarray cannot be used for fill')
        value = value._host if isinstance(value, ndarray) else value
        if not gathers and getattr(value, '__array_interface__', 0) == self._host[key].__array_interface__:
            return                      # `a[k] += b` assigns a[k] to itself
        _refuse_in_capture('a copy or a fill')
        self._host[key] = value
        _note('launches')

    def fill(self, value):
        self[...] = value

    def astype(self, dtype, copy=True):
        return self if not copy and dtype == self.dtype else _launch(self._host.astype(dtype))

    def copy(self):
        return _launch(self._host.copy())

    def reshape(self, *shape):
        host = self._host.reshape(*shape)
        return (_new if np.may_share_memory(host, self._host) else _launch)(host)

    def ravel(self):
        return self.reshape(-1)

    def view(self, dtype):
        return _new(self._host.view(dtype))

    def transpose(self, *axes):
        return _new(self._host.transpose(*axes))


def _memory(host):
    """The array that the memory of this one belongs to."""
    while getattr(host, 'base', None) is not None:
        host = host.base
    return host


def _index(key):
    """(key with which NumPy returns an array, whether it gathers numbers instead of making a view)."""
    gathers, parts = False, []
    for part in key if isinstance(key, tuple) else (key,):
        part = asarray(part) if isinstance(part, (list, np.ndarray)) else part
        if isinstance(part, ndarray):
            gathers = True
            count['syncs'] += part.dtype == bool        # how many are True decides the shape of the result
            part = part._host
        parts.append(part)
    return tuple(parts if [part for part in parts if part is ...] else [*parts, ...]), gathers


def asarray(a, dtype=None):
    if isinstance(a, ndarray):
        return a if dtype is None else a.astype(dtype, copy=False)
    _note('h2d')
    return _new(np.array(a, dtype))


def empty(shape, dtype=float):
    _refuse_in_capture('new memory')
    return _new(np.full(shape, 77, dtype))             # what lies there: nothing to rely on


def zeros(shape, dtype=float):
    return _launch(np.zeros(shape, dtype))


def ones(shape, dtype=float):
    return _launch(np.ones(shape, dtype))


def full(shape, fill_value, dtype=None):
    return _launch(np.full(shape, fill_value, dtype))


def stack(tup, axis=0):
    return _launch(np.stack([_host(a, scalars=False) for a in tup], axis))


def concatenate(tup, axis=0):
    return _launch(np.concatenate([_host(a, scalars=False) for a in tup], axis))


def split(ary, indices_or_sections, axis=0):
    return list(map(_new, np.split(_host(ary, scalars=False), indices_or_sections, axis)))


def arange(stop):
    return _launch(np.arange(stop))


def zeros_like(a):
    return zeros(a.shape, a.dtype)


def ones_like(a):
    return ones(a.shape, a.dtype)


def broadcast_to(array, shape):
    return _new(np.broadcast_to(_host(array, scalars=False), shape))


def _as_strided(x, shape=None, strides=None):
    return _new(np.lib.stride_tricks.as_strided(_host(x, scalars=False), shape, strides))


def _windows(x, window_shape, axis=None):
    """As CuPy does it: copy window_shape to the device, and ask there whether any number is negative."""
    for size in asarray(window_shape):
        bool(size < 0)
    return _new(np.lib.stride_tricks.sliding_window_view(_host(x, scalars=False), window_shape, axis))


lib = SimpleNamespace(stride_tricks=SimpleNamespace(as_strided=_as_strided, sliding_window_view=_windows))


class _PinnedMemory(bytearray):
    """Memory of the computer that the device can write to."""


def _alloc_pinned_memory(size):
    _refuse_in_capture('new memory')
    return _PinnedMemory(size)


class _Device:
    compute_capability = '89'           # at '90', launches go to the driver without CuPy

    def __init__(self, device=None):
        if driver_error is not None:
            raise driver_error

    def synchronize(self):
        _note('syncs')


cuda = SimpleNamespace(
    Device=_Device, Event=_on_host.Event, Graph=_on_host.Graph, Stream=_on_host.Stream,
    get_current_stream=_on_host.get_current_stream, alloc_pinned_memory=_alloc_pinned_memory,
    runtime=SimpleNamespace(CUDARuntimeError=_on_host.CUDARuntimeError,
                            getDeviceProperties=lambda device: {'name': b'a stand-in'}, driverGetVersion=lambda: 13020))
