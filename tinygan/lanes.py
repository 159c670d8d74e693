"""The cores of a CPU share a minibatch: each takes its part of the images through the whole step, in its own process.

It is data parallelism as frameworks have it for several GPUs. All processes run GAN.step on the same parameters, which
lie in memory that all of them see, and on different images. What belongs to the whole minibatch is a mean over it, so
over the lanes as well: BatchNorm's statistics, the gradients, the losses. For these the lanes meet in `mean`.

BLAS could divide each product among the cores instead, but gathering patches, BatchNorm and the rest would then leave
all cores but one idle. Threads cannot do it either: only one at a time runs Python.
"""
import contextlib
import ctypes
import math
import mmap
import os
import signal
import sys
import time
import traceback
from multiprocessing import Pipe

import numpy as np

from .arrays import IN_CACHE
from .errors import UserError

FEWEST = 4                          # images that justify a lane
MOST = 8                            # lanes: the first must listen to all others
PATIENCE = 0.0005                   # seconds for which a lane polls before it sleeps
together = None                     # the Lanes that this process is taking a step with


def mean(*arrays):
    """[the mean of each array over all lanes], the same in every lane: what holds for the whole minibatch."""
    return together.mean(arrays) if together else arrays


def wait():
    """Until all lanes have come this far."""
    if together:
        together.mean([np.zeros(1)])


def count():
    return together.count if together else 1


def is_first():
    """Is this the first lane, or the only one? What is to be done once for the whole minibatch, it does."""
    return together is None or together.lane == 0


def share(vector):
    """The slices of a long vector that are this lane's to work on, each short enough to stay in a core's cache. A GPU
    takes the whole vector at once."""
    if not isinstance(vector, np.ndarray):
        return [slice(None)]
    lane = together.lane if together else 0
    return [slice(start, start + IN_CACHE) for start in range(lane * IN_CACHE, len(vector), count() * IN_CACHE)]


def gradient(network, piece):
    """A piece of the gradient of the loss, which is a mean over the minibatch."""
    return network.gradients_by_lane[:, piece].mean(axis=0) if together else network.gradients[piece]


class Lanes:
    """Takes the steps of a GAN, with minibatches of N images, on all cores; `step` is GAN.step.

    The vectors of the GAN's state move to memory that all processes see; load a state before the first step. There are
    as many lanes as cores that BLAS may use, if N can be divided by that; else fewer. Where processes cannot be forked
    with their memory there is one.
    Raises UserError when another lane has ended: where there is too little memory, the system kills processes.
    """

    def __init__(self, gan, N, cores=None):
        from threadpoolctl import ThreadpoolController
        self.gan, self.blas, self.lane, self.pipes, self.children = gan, ThreadpoolController(), 0, [], []
        on_cpu = isinstance(gan.G.parameters, np.ndarray)
        self.count = divide(N, cores or blas_threads(self.blas)) if on_cpu else 1
        if self.count > 1:
            share_memory(gan, self.count)
        keep_freed_memory()

    def step(self, x, z, number=1, image_noise=None):
        if self.count == 1:
            return self.gan.step(x, z, number, image_noise)
        global together
        try:
            if not self.children:
                self.start()
            mine, *theirs = self.parts(x, z, number, image_noise)
            for pipe, part in zip(self.pipes, theirs):
                pipe.send(part)
            together = self
            with self.blas.limit(limits=1, user_api='blas'):
                return self.take(mine)
        except (EOFError, ConnectionError):
            self.close()
            raise UserError('a process that had a part of the minibatch has ended: is there too little memory?') from None
        except BaseException:
            self.close()                          # the others stand somewhere in the middle of the step
            raise
        finally:
            together = None

    def parts(self, x, z, number, image_noise):
        """The arguments of GAN.step for each lane."""
        if len(x) % self.count:
            raise ValueError(f'{len(x)} images cannot be divided among {self.count} lanes')
        size = len(x) // self.count
        for start in range(0, len(x), size):
            part = slice(start, start + size)
            yield x[part], z[part], number, None if image_noise is None else image_noise[:, part]

    def take(self, part):
        metrics = self.gan.step(*part)
        return dict(zip(metrics, mean(*metrics.values())))

    def mean(self, arrays):
        """The first lane adds up what all others send it, and sends them the mean."""
        flat = np.concatenate([np.ravel(array) for array in arrays])
        if self.lane:
            self.pipes[0].send_bytes(flat)
            flat = np.frombuffer(receive(self.pipes[0]), flat.dtype)
        else:
            for pipe in self.pipes:
                flat += np.frombuffer(receive(pipe), flat.dtype)
            flat /= self.count
            for pipe in self.pipes:
                pipe.send_bytes(flat)
        ends = np.cumsum([np.size(array) for array in arrays])
        return [part.reshape(np.shape(array)) for part, array in zip(np.split(flat, ends[:-1]), arrays)]

    def start(self):
        for lane in range(1, self.count):
            ours, theirs = Pipe()
            child = os.fork()
            if child == 0:
                for pipe in (*self.pipes, ours):
                    pipe.close()                  # or it would never see the first lane end
                self.lane, self.pipes = lane, [theirs]
                self.serve()
            theirs.close()
            self.pipes.append(ours)
            self.children.append(child)

    def serve(self):
        """The life of another lane: until the first one closes its end of the pipe or ends, in whatever way."""
        global together
        together = self
        code = 1
        try:
            for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(signum, signal.SIG_IGN)             # the first lane decides what they mean
            use_own_gradients(self.gan, self.lane)
            self.blas.limit(limits=1, user_api='blas')
            while True:
                self.take(self.pipes[0].recv())
        except (EOFError, ConnectionError):
            code = 0
        except MemoryError:
            pass                                  # the first lane will say it
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def close(self):
        for pipe in self.pipes:
            pipe.close()
        for child in self.children:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(child, signal.SIGKILL)    # nothing is lost: all that lasts is in memory of the first lane too
                os.waitpid(child, 0)
        self.pipes, self.children = [], []


def receive(pipe):
    """The next message. It is rarely far, and waking up takes longer than most waits: so poll first, but let others have
    the core if they need it."""
    end = time.perf_counter() + PATIENCE
    while not pipe.poll() and time.perf_counter() < end:
        os.sched_yield()
    return pipe.recv_bytes()


def divide(N, cores):
    """Into how many equal parts N images are best divided: each mean over the minibatch is the mean of theirs."""
    if not hasattr(os, 'fork') or sys.platform == 'darwin':       # where BLAS does not survive a fork
        return 1
    return max(parts for parts in range(1, max(1, min(cores, N // FEWEST, MOST)) + 1) if N % parts == 0)


def blas_threads(blas):
    return max((library['num_threads'] for library in blas.info() if library['user_api'] == 'blas'), default=1)


class Shared:
    """As much of NumPy as Sequential.to needs; its new arrays are shared with all processes that will be forked."""
    asarray = staticmethod(np.asarray)

    @staticmethod
    def empty(shape, dtype):
        size = math.prod(np.atleast_1d(shape))
        memory = mmap.mmap(-1, max(1, size * np.dtype(dtype).itemsize))
        return np.frombuffer(memory, dtype, size).reshape(shape)


def share_memory(gan, count):
    for network in gan.G, gan.D:
        network.to(Shared)
        network.gradients_by_lane = Shared.empty((count, len(network.gradients)), network.gradients.dtype)
    use_own_gradients(gan, 0)
    if gan.average:
        gan.average.network.to(Shared)
    for optimiser in gan.optim_G, gan.optim_D:
        for name in optimiser.state_names:
            vector = getattr(optimiser, name)
            setattr(optimiser, name, Shared.empty(vector.shape, vector.dtype))
            getattr(optimiser, name)[...] = vector


def use_own_gradients(gan, lane):
    for network in gan.G, gan.D:
        network.use_gradients(network.gradients_by_lane[lane])


def keep_freed_memory():
    """Let the C library keep the memory of freed arrays for the next ones. By default glibc returns it to the system,
    which must then zero every page again. Other C libraries are left as they are."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
    mallopt(M_MMAP_THRESHOLD, 2**25)              # more it does not take
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
