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

from ..errors import UserError
from ..network import lay_out
from .conversion import convert, convert_gan
from .threads import core_count, one_thread

FEWEST = 4                          # images that justify a lane
MOST = 8                            # lanes: the first must listen to all others
PATIENCE = 0.0005                   # seconds that a lane polls before it sleeps


class Lanes:
    """Takes the steps of a GAN on all cores: step(number) is GAN.step on the minibatch batches(number), of N images.

    The vectors of the GAN's state move to memory that all processes see. Load a state, and choose learning rates and other
    settings, before the first step: afterwards the other lanes would not see that they change. There are as many lanes as
    BLAS may use cores, or fewer if N cannot be divided by that, and only one where processes cannot be forked with their
    memory. During a step BLAS has one thread. Raises UserError when another lane has ended: a system that runs out of
    memory kills processes.
    """
    log_every, lag, beside = 10, 0, False

    def __init__(self, gan, batches, N, cores=None):
        self.batches, self.lane, self.pipes, self.children = batches, 0, [], []
        self.count = divide(N, cores or core_count())
        if self.count > 1:
            share_memory(gan)
        self.original, self.gan, self.sampler = gan, convert_gan(gan, self), convert(gan.sampler)
        self.gradients = {network: Shared.empty((self.count, network.gradients.size), network.gradients.dtype)
                          for network in (self.gan.G, self.gan.D)}
        self.use_own_gradients()
        keep_freed_memory()

    @property
    def about(self):
        if self.count > 1:
            return f'minibatches are split among {self.count} processes (OPENBLAS_NUM_THREADS=1: just one)'

    def state(self):
        return self.original.state()

    def snapshot(self):
        return lambda: self.sampler

    def __deepcopy__(self, memo):                 # of a layer, whose copy stays in the same lanes
        return self

    @one_thread()
    def step(self, number):
        try:
            if not self.children:
                self.start()
            mine, *theirs = self.parts(*self.batches(number))
            for pipe, part in zip(self.pipes, theirs):
                pipe.send(part)
            return self.take(mine)
        except (EOFError, ConnectionError):
            self.close()
            raise UserError('a process that had a part of the minibatch has ended: is there too little memory?') from None
        except BaseException:
            self.close()                          # the others stand somewhere in the middle of the step
            raise

    def parts(self, x, z, number, image_noise=None, epsilon=None):
        """The arguments of GAN.step for each lane."""
        if len(x) % self.count:
            raise ValueError(f'{len(x)} images cannot be divided among {self.count} lanes')
        size = len(x) // self.count
        for start in range(0, len(x), size):
            part = slice(start, start + size)
            yield (x[part], z[part], number, None if image_noise is None else image_noise[:, part],
                   None if epsilon is None else epsilon[part])

    def take(self, part):
        metrics = self.gan.step(*part)
        return dict(zip(metrics, self.mean(*metrics.values())))

    @property
    def is_first(self):
        """The first lane does what is to be done once for the whole minibatch."""
        return self.lane == 0

    def share(self, size, at_once):
        """This lane's share of a vector of that size, in slices of at_once entries at most."""
        return [slice(start, start + at_once) for start in range(self.lane * at_once, size, self.count * at_once)]

    def gradient(self, network, piece):
        """A piece of the gradient of the loss, which is a mean over the minibatch and so over the lanes."""
        return sum(by_lane[piece] for by_lane in self.gradients[network]) / self.count      # .mean(axis=0) is slow

    def use_own_gradients(self):
        for network, by_lane in self.gradients.items():
            network.gradients = lay_out(by_lane[self.lane], network.owners('parameter_names', 'd'))

    def wait(self):
        """Until all lanes have come this far."""
        self.mean(np.zeros(1))

    def mean(self, *arrays):
        """The mean of each array over all lanes, the same in every lane: it holds for the whole minibatch. The first lane
        adds up what the others send, and sends them the mean."""
        if self.count == 1:
            return arrays
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
        code = 1
        try:
            for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(signum, signal.SIG_IGN)             # the first lane decides what they mean
            self.use_own_gradients()
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


class Shared:
    """As much of NumPy as Sequential.to needs; its new arrays are shared with all processes that will be forked."""
    asarray = staticmethod(np.asarray)

    @staticmethod
    def empty(shape, dtype):
        size = math.prod(np.atleast_1d(shape))
        memory = mmap.mmap(-1, max(1, size * np.dtype(dtype).itemsize))
        return np.frombuffer(memory, dtype, size).reshape(shape)


def share_memory(gan):
    """Move all that a step changes to memory that the processes share."""
    for network in (gan.G, gan.D, *([gan.average.network] if gan.average else [])):
        network.to(Shared)
    for optimiser in gan.optim_G, gan.optim_D:
        for name in optimiser.state_names:
            vector = getattr(optimiser, name)
            setattr(optimiser, name, Shared.empty(vector.shape, vector.dtype))
            getattr(optimiser, name)[...] = vector


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
