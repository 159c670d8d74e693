"""The cores of a CPU share a minibatch: each takes its part of the images through all layers, in a lane of its own.

BLAS could divide each product among the cores instead, but gathering patches, BatchNorm and the rest would then leave
all cores but one idle. Lanes meet only where a layer needs the whole minibatch: see all_reduce.
"""
import ctypes
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

PIECE = 2**16                       # numbers of a long vector that are in a core's cache together
workers, count = None, 1            # the threads of all lanes but the first, and how many lanes there are
here = threading.local()            # the meeting that this thread takes part in, and the number of its lane


def start_workers():
    """A lane for each core that BLAS would use, and for BLAS one thread in each. For the whole process and for good:
    BLAS's own threads, once woken, would spin beside ours for a while after every product."""
    global workers, count
    if workers:
        return
    from threadpoolctl import ThreadpoolController
    blas = ThreadpoolController()
    count = max((library['num_threads'] for library in blas.info() if library['user_api'] == 'blas'), default=1)
    blas.limit(limits=1, user_api='blas')
    # every thread has error settings of its own: training looks for numbers that are none by itself
    workers = ThreadPoolExecutor(max(count - 1, 1), initializer=np.seterr, initargs=('ignore',))
    keep_freed_memory()


def keep_freed_memory():
    """Let the C library keep what arrays leave behind, for the next ones. By itself glibc gives it back to the system,
    which must then zero every page anew and stop all cores for a moment. Other libraries are left as they are."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
    mallopt(M_MMAP_THRESHOLD, 2**25)              # more it does not take
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def divide(x):
    """Slices of the minibatch x, one for each lane; all of it where x is on a GPU or this is one of the lanes."""
    N = len(x)
    parts = min(count, N) if isinstance(x, np.ndarray) and meeting() is None else 1
    return [slice(N * lane // parts, N * (lane + 1) // parts) for lane in range(parts)]


def in_lanes(function, *items):
    """[function(...) of the first item of each, of the second ...], each in a lane of its own, the first in this one."""
    first, *rest = zip(*items)
    if not rest:
        return [function(*first)]
    met = Meeting(1 + len(rest))
    others = [workers.submit(met.run, lane, function, *those) for lane, those in enumerate(rest, 1)]
    try:
        result = met.run(0, function, *first)
    except threading.BrokenBarrierError:
        result = None                             # another lane has failed, and its own error is the one to raise
    return [result, *(other.result() for other in others)]


class Meeting:
    """Where lanes wait for each other to add up what each has found."""

    def __init__(self, lanes):
        self.brought, self.barrier = [None] * lanes, threading.Barrier(lanes)

    def run(self, lane, function, *items):
        here.meeting, here.lane = self, lane
        try:
            return function(*items)
        except BaseException:
            self.barrier.abort()                  # nobody waits for a lane that has failed
            raise
        finally:
            here.meeting = None

    def add_up(self, values):
        self.brought[here.lane] = values
        self.barrier.wait()
        total = [sum(of_all) for of_all in zip(*self.brought)]
        self.barrier.wait()                       # nobody brings the next values before all have added these
        return total


def meeting():
    return getattr(here, 'meeting', None)


def all_reduce(*values):
    """[the sum of each value over all lanes], the same in every lane: what holds for the whole minibatch."""
    return meeting().add_up(values) if meeting() else values


def is_first():
    """Is this the first lane, or the only one? What is to be done once for the whole minibatch, it does."""
    return meeting() is None or here.lane == 0


def in_pieces(function, vector):
    """function(slice) for slices of a long vector that are short enough to stay in a core's cache whatever is done
    with them, a few in each lane. A GPU takes the whole vector at once."""
    if not isinstance(vector, np.ndarray) or len(vector) <= PIECE:
        function(slice(None))
        return

    def every_so_many(lane):
        for start in range(lane * PIECE, len(vector), count * PIECE):
            function(slice(start, start + PIECE))
    in_lanes(every_so_many, range(count))
