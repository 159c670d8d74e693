"""Files that are whole or not there, folders that one process at a time may change, arrays that are what they should be."""
import contextlib
import os
import weakref
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..layers import BatchNorm2d


@contextlib.contextmanager
def atomically(path, mode='wb', previous=None):
    """A file to write that appears at path, whole, when the block is done, or not at all.
    What stood at path before goes to the path `previous`, if one is given."""
    target = Path(path).resolve()                 # where a link leads, if it is one
    temporary = target.with_name(f'{target.name}.{os.urandom(4).hex()}.part')
    try:
        with open(temporary, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if previous and target.exists():
            os.replace(target, previous)
        os.replace(temporary, target)
    except OSError as error:                      # of a full disk it names no file, else the .part
        error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(OSError):        # it never was, or is renamed
            temporary.unlink()


locks = weakref.WeakValueDictionary()             # of this process, by folder


class Lock:
    """Keeps other processes from training the run in a folder until nobody holds it any more, or its process ends."""

    def __init__(self, folder):
        import fcntl                              # Windows has none
        file = os.open(folder / '.lock', os.O_RDWR | os.O_CREAT, 0o644)
        weakref.finalize(self, os.close, file)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f'{folder} is being trained by another process') from None


def lock(folder):
    """The Lock of a folder, one for the whole process; None where files cannot be locked. UserError if another has it."""
    place = Path(folder).resolve()
    with contextlib.suppress(ImportError, OSError):
        held = locks.get(place) or Lock(Path(folder))
        locks[place] = held
        return held


def finite(array, shape):
    """The array that a file holds, or a ValueError if it is not one of finite floats, of that shape."""
    if array.dtype.kind != 'f' or array.shape != shape:
        raise ValueError(f'floats {shape} are needed, not {array.dtype} {array.shape}')
    if not np.isfinite(array).all():
        raise ValueError(f'floats {shape} are not finite')
    return array


def fill(network, parameters, statistics):
    """The network with vectors that a file holds, in evaluation mode. ValueError when they cannot be its own."""
    network.parameters[...] = finite(parameters, network.parameters.shape)
    network.statistics[...] = finite(statistics, network.statistics.shape)
    if any((leaf.running_var < 0).any() for leaf in network.leaves() if isinstance(leaf, BatchNorm2d)):
        raise ValueError('a variance is negative')
    return network.eval()
