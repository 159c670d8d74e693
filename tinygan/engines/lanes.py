"""The cores of a machine as a group: processes that share its memory.

BLAS could divide each product among the cores instead, but gathering patches, BatchNorm and the rest would then leave
all cores but one idle. Threads cannot do it either: only one at a time runs Python. The parameters, and the gradients of all
lanes, lie in memory that all lanes see. For what is a mean over the minibatch they meet in `mean`.
"""
import contextlib
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
from .group import Group, pack, unpack

FEWEST = 4                          # images that justify a lane
MOST = 8                            # lanes: the first must listen to all others
PATIENCE = 0.0005                   # seconds that a lane polls before it sleeps


class Lanes(Group):
    """A process for each of `count` cores, forked from the first. There, the vectors of the GAN's state move to memory that all
    of them see. Raises UserError when another lane has ended: a system that runs out of memory kills processes.
    """

    def __init__(self, count):
        self.count, self.pipes, self.children, self.gradients = count, [], [], {}

    @property
    def about(self):
        return f'minibatches are split among {self.count} processes (OPENBLAS_NUM_THREADS=1: just one)'

    @property
    def keeps_statistics(self):
        return self.index == 0

    @property
    def started(self):
        return bool(self.gradients)

    def hold(self, gan):
        if self.count > 1:
            share_memory(gan)

    def start(self, engine):
        self.gradients = {network: Shared.empty((self.count, network.gradients.size), network.gradients.dtype)
                          for network in (engine.gan.G, engine.gan.D)}
        self.use_own_gradients()
        for lane in range(1, self.count):
            ours, theirs = Pipe()
            child = os.fork()
            if child == 0:
                for pipe in (*self.pipes, ours):
                    pipe.close()                  # or it would never see the first lane end
                self.index, self.pipes = lane, [theirs]
                self.live(engine)
            theirs.close()
            self.pipes.append(ours)
            self.children.append(child)

    def use_own_gradients(self):
        for network, by_lane in self.gradients.items():
            network.gradients = lay_out(by_lane[self.index], network.owners('parameter_names', 'd'))

    def live(self, engine):
        """The life of another lane: until the first one closes its end of the pipe or ends, in whatever way."""
        code = 1
        try:
            for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(signum, signal.SIG_IGN)             # the first lane decides what they mean
            self.use_own_gradients()
            engine.serve()
        except (Ended, MemoryError):
            pass                                  # the first lane is no longer there, or will say it
        except BaseException:
            traceback.print_exc()
        else:
            code = 0
        finally:
            os._exit(code)

    def tell(self, number):
        with talking():
            for pipe in self.pipes:
                pipe.send(number)

    def hear(self):
        with contextlib.suppress(EOFError, ConnectionError):      # closed, or ended: it is the end in either case
            return self.pipes[0].recv()

    def mean(self, *arrays):
        """The first lane adds up what the others send, and sends them the mean."""
        if self.count == 1:
            return arrays
        flat = pack(arrays)
        with talking():
            if self.index:
                self.pipes[0].send_bytes(flat)
                return unpack(np.frombuffer(receive(self.pipes[0]), flat.dtype), arrays)
            for pipe in self.pipes:
                flat += np.frombuffer(receive(pipe), flat.dtype)
            flat /= self.count
            for pipe in self.pipes:
                pipe.send_bytes(flat)
        return unpack(flat, arrays)

    def wait(self):
        """Until all lanes have come this far."""
        self.mean(np.zeros(1))

    def collect(self, network):
        self.wait()
        by_lane = self.gradients[network]
        return by_lane[:, self.share(network.gradients.size)]

    def spread(self, network):
        self.wait()                               # all see the parameters

    def gather(self):
        pass                                      # the first sees all

    def close(self):
        for pipe in self.pipes:
            pipe.close()
        for child in self.children:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(child, signal.SIGKILL)    # nothing is lost: all that lasts is in memory of the first lane too
                os.waitpid(child, 0)
        self.pipes, self.children, self.gradients = [], [], {}


class Ended(UserError):
    """Another lane has."""


@contextlib.contextmanager
def talking():
    try:
        yield
    except (EOFError, ConnectionError):
        raise Ended('a process that had a part of the minibatch has ended: is there too little memory?') from None


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
