"""The processes that mpirun has started as a group: on one machine or on several, they send each other messages by MPI.

A step sends what belongs to the whole minibatch: BatchNorm's means, in small messages, and two large ones for each update. An
Allreduce of the gradients would have two halves: each rank adds up its share of them, and all hand each other the sums. Here the
optimiser stands between the two. In as many bytes, each rank has only its share to step through, and all have the same parameters,
bit for bit, whatever MPI does. Of several machines, each first adds up the gradients of its own ranks, so that the network carries
them once and not for every core.
"""
import math
import os
import time

import numpy as np

from .group import Group, pack, unpack

END = 'END'                         # of the program


class Ranks(Group):
    """The ranks of comm, a communicator of mpi4py; those on this one's machine are in `near`. The first leads: it says what all do
    next, and the others hear it. No wait in training is left to MPI, which would keep Python from hearing a signal."""

    def __init__(self, comm, near):
        self.comm, self.index, self.count, self.ended = comm, comm.rank, comm.size, False
        self.near = near
        self.end = comm.Dup()                     # where no barrier meets what is left of a step that was broken off
        if len(set(comm.allgather(near.size))) > 1:               # then no rank has its like on every other machine
            near = comm.Split(comm.rank)
        self.levels = [level for level in (near, comm.Split(near.rank)) if level.size > 1]

    @property
    def about(self):
        return f'minibatches are split among the {self.count} processes that mpirun started'

    def hold(self, gan):
        self.gan = gan

    def start(self, engine):
        self.started = True
        self.tell('share_state')
        self.share_state()

    def share_state(self):
        """All get the GAN of the first."""
        optimisers = self.gan.optim_G, self.gan.optim_D
        steps = np.array([optimiser.t for optimiser in optimisers])
        for vector in (steps, *self.gan.vectors().values()):
            finish(self.comm.Ibcast(vector))
        for optimiser, t in zip(optimisers, steps):
            optimiser.t = int(t)

    def tell(self, message):
        for request in [self.comm.isend(message, rank) for rank in range(1, self.count)]:
            finish(request)

    def hear(self):
        """What the first says next; None, too, when the program ends. What concerns nobody but this group is done here."""
        while not self.ended:
            message = self.receive(0)
            if message in ('share_state', 'collect_state'):
                getattr(self, message)()
            elif message == END:
                self.ended = True
            else:
                return message

    def receive(self, rank):
        """It may take minutes until a message comes, so this process sleeps for a twentieth of the time that it has waited so
        far, between one look and the next."""
        begin = time.perf_counter()
        while not (message := self.comm.improbe(rank)):
            time.sleep(min((time.perf_counter() - begin) / 20, 0.05))
        return message.recv()

    def mean(self, *arrays):
        own = pack(arrays)
        of_all = np.empty((self.count, own.size), own.dtype)
        finish(self.comm.Iallgather(own, of_all))
        return unpack(sum(of_all) / self.count, arrays)

    def share(self, size):
        return self.parts(size)[-1]

    def parts(self, size):
        """Of a vector of that size: all of it, which the ranks of the first level have among them; what this one and those of the
        next level have among them; and at last its own share."""
        parts = [slice(0, size)]
        for level in self.levels:
            ends = parts[-1].start + np.cumsum([0, *cut(parts[-1], level)])
            parts.append(slice(ends[level.rank], ends[level.rank + 1]))
        return parts

    def collect(self, network):
        of_all = [network.gradients]
        for level, part in zip(self.levels, self.parts(network.gradients.size)):
            own, sizes = sum(of_all[1:], of_all[0]), cut(part, level)
            of_all = np.empty((level.size, sizes[level.rank]), own.dtype)
            finish(level.Ialltoallv([own, sizes], [of_all, [sizes[level.rank]] * level.size]))
        return of_all

    def spread(self, network):
        self.join(network.parameters, lambda level, own, whole: level.Iallgatherv(own, whole))

    def gather(self):
        if self.started:
            self.tell('collect_state')
            self.collect_state()

    def collect_state(self):
        for vector in self.gan.vectors().values():
            self.join(vector, lambda level, own, whole: level.Igatherv(own, None if level.rank else whole))

    def join(self, vector, send):
        """Put the shares of all together, from the last level up."""
        *parts, own = self.parts(vector.size)
        for level, part in zip(reversed(self.levels), reversed(parts)):
            finish(send(level, vector[own].copy(), [vector[part], cut(part, level)]))
            own = part

    def leave(self, patience):
        """The first ends the program. Have all come to that end, within so many seconds?"""
        if self.index == 0:
            self.tell(END)
        while not (self.index == 0 or self.ended):
            self.hear()
        return all_in(self.end, patience)

    def close(self):
        if self.started:
            self.started = False
            self.tell(None)


def cut(part, level):
    """How many entries of a part of a vector each rank of a level has."""
    return np.diff((part.stop - part.start) * np.arange(level.size + 1) // level.size)


def all_in(comm, patience=math.inf):
    """Have all ranks of comm come to this call, within so many seconds?"""
    here, begin = comm.Ibarrier(), time.perf_counter()
    while not (all_here := here.Test()) and time.perf_counter() - begin < patience:
        time.sleep(0.001)
    return all_here


def finish(request):
    """Until a message has passed. Its parts pass only while somebody looks, so this does not sleep, but it lets others work."""
    while not request.Test():
        os.sched_yield()
