"""A minibatch is divided among processes: each takes its part of the images through the whole step.

It is data parallelism as frameworks have it for several GPUs. All processes run GAN.step on the same parameters and on
different images. What belongs to the whole minibatch is a mean over it, and so over the processes: BatchNorm's statistics,
the gradients, the losses. Adam steps through the parameters, not through images: of these, each process has its share.

group.py says what the processes must be able to do for that; lanes.py and ranks.py do it.
"""
import ctypes

from .conversion import convert, convert_gan
from .threads import one_thread


class Divided:
    """Takes the steps of a GAN in a group: step(number) is GAN.step on the minibatch batches(number).

    Load a state, and choose learning rates and other settings, before the first step: afterwards the others would not see
    that they change. During a step BLAS has one thread. Raises ValueError when the images cannot be divided equally.
    """
    log_every, lag, beside = 10, 0, False

    def __init__(self, gan, batches, group):
        group.hold(gan)
        self.original, self.batches, self.group = gan, batches, group
        self.gan, self.sampler = convert_gan(gan, group), convert(gan.sampler)
        keep_freed_memory()

    @property
    def about(self):
        return self.group.about if self.group.count > 1 else None

    @one_thread()
    def step(self, number):
        try:
            if not self.group.started:
                self.group.start(self)
            self.group.tell(number)
            return self.take(number)
        except BaseException:
            self.close()                          # the others stand somewhere in the middle of the step
            raise

    @one_thread()
    def serve(self):
        """What all but the first do, until it closes the group."""
        while (number := self.group.hear()) is not None:
            self.take(number)

    def take(self, number):
        metrics = self.gan.step(*self.part(*self.batches(number)))
        return dict(zip(metrics, self.group.mean(*metrics.values())))

    def part(self, x, z, number, image_noise=None, epsilon=None):
        """The arguments of GAN.step for this process's part of the images. Each process makes the whole minibatch by itself,
        which is done sooner than to receive a part of it."""
        if len(x) % self.group.count:
            raise ValueError(f'{len(x)} images cannot be divided among {self.group.count} processes')
        part = self.group.share(len(x))
        return (x[part], z[part], number, None if image_noise is None else image_noise[:, part],
                None if epsilon is None else epsilon[part])

    def state(self):
        self.group.gather()
        return self.original.state()

    def snapshot(self):
        self.group.gather()
        return lambda: self.sampler

    def close(self):
        self.group.close()


def keep_freed_memory():
    """Let the C library keep the memory of freed arrays for the next ones. By default glibc returns it to the system,
    which must then zero every page again. Other C libraries are left as they are."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
    mallopt(M_MMAP_MAX, 0)                        # no pages for one array alone, however large: they would go with it
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
