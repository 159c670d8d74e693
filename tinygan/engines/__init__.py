"""The same arithmetic, faster: engines take the steps of a GAN made of the core's layers, and change its vectors.

    engine = start(gan, batches)      the fastest there is for this GAN, on the device where it is
    engine.step(number)               GAN.step on minibatch `number`; returns the metrics
    engine.state()                    GAN.state, as of the last step
    engine.snapshot()                 a function that returns the network that draws samples: GAN.sampler or, where engine.beside, a
                                      copy of it on the CPU, as of the last step, to be called beside the next ones
    engine.close()                    until then, this engine alone trains the GAN

On a CPU they are layers that multiply less (conversion.py, layers.py, toomcook.py), in a process for each core that takes part of
the minibatch (divided.py, lanes.py; ranks.py for several machines); on a GPU kernels of our own (cuda/). Every engine agrees with
GAN.step but for rounding, and tests hold it to that.
"""
import numpy as np

from ..errors import UserError
from .conversion import convert
from .cuda import CapturedGAN, NotCovered
from .divided import Divided
from .lanes import Lanes, divide
from .threads import core_count, one_thread

OURS = 'tinygan.gan', 'tinygan.layers', 'tinygan.network', 'tinygan.optim', 'tinygan.recipes.labels', 'tinygan.recipes.vae'


def start(gan, batches, first=1, plain=False, precision='fp32', ranks=None):
    """An engine for a GAN and its minibatches, whose first step has the number `first`. Plain is GAN.step itself;
    precision is that of products on a GPU. ranks are the processes that divide each minibatch, if mpirun has started several:
    UserError when the GAN has a part that may need all of it. engine.about is a line about what was chosen, or None."""
    if plain:
        return Plain(gan, batches)
    if isinstance(gan.G.parameters, np.ndarray):
        if foreign := somebody_s_own(gan):
            if ranks:
                raise UserError(f'{foreign} is not ours, and may need the whole minibatch: start it without mpirun')
            return Plain(gan, batches, f'{foreign} is not ours: training with the plain core')
        return Divided(gan, batches, ranks or Lanes(divide(batches.N, core_count())))
    try:
        return CapturedGAN(gan, batches, precision, first)
    except NotCovered as what:
        return Plain(gan, batches, f'there are no kernels for {what}: going on layer by layer, in float32')


def somebody_s_own(gan):
    """The name of a GAN, layer or optimiser that is not ours, if there is one. It may need the whole minibatch, as
    BatchNorm does, or whole vectors, of which a lane sees but a part."""
    parts = gan, gan.G, gan.D, *gan.G.leaves(), *gan.D.leaves(), gan.optim_G, gan.optim_D, gan.average
    return next((type(part).__name__ for part in parts if part and type(part).__module__ not in OURS), None)


class Plain:
    """GAN.step, as the core has it."""
    log_every = 10                  # steps between two looks at the metrics, which wait for the device
    lag = 0                         # steps, the last ones, that a look may leave out
    beside = False

    def __init__(self, gan, batches, about='training with the plain core'):
        self.gan, self.batches, self.about = gan, batches, about

    @one_thread()
    def step(self, number):
        return self.gan.step(*self.batches(number))

    def state(self):
        return self.gan.state()

    def snapshot(self):
        return lambda: self.gan.sampler

    def close(self):
        pass
