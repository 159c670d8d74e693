"""A gradient penalty as a row of kernel launches, as ../../penalties.py derives it."""
import numpy as np

from ...penalties import first_curved, r1, wgan_gp
from .device import NotCovered
from .network import Network, Stage
from .product import LINEAR

RULES = {r1: 0, wgan_gp: 1}                       # as in penalty.cu


class Penalty:
    """What GradientPenalty adds to the gradients of D, for N images x: at them or, if it is given `fake`, between them and those.

    It has a Network of its own, for N images: D's takes 2N, and its x holds the fakes that G's update still needs. `weights` are
    D's, as products take them.
    """

    def __init__(self, device, D, weights, penalty, x, fake=None, labels=None):
        if penalty.rule not in RULES:
            raise NotCovered('a penalty of your own')
        if layer := first_curved(D):
            raise NotCovered(f'a penalty on the slope of {layer}')
        self.N = len(x)
        self.device, self.rule, self.weight, self.x, self.fake = device, RULES[penalty.rule], float(penalty.weight), x, fake
        self.mixed = x if fake is None else device.numbers(*x.shape)
        self.g = device.numbers(*x.shape)
        self.D = Network(device, D, x.shape[1:], self.N, x=self.mixed, dx=self.g, weights=weights, labels=labels)
        last = self.D.stages[-1]
        if not isinstance(last, Stage) or last.activation != LINEAR:
            raise NotCovered('a penalty on a D that does not end in a product')
        ones = device.cupy.asarray(np.ones(self.D.dy.shape, np.float32))
        device.convert(ones, self.D.dy)           # once: nothing changes it where no activation follows
        self.moves = [device.numbers(self.N, *stage.shape) for stage in self.D.stages]

    def play(self, step_count, key, log, ends_step):
        """After D's backward, whose gradients it adds to. Its value goes into the last column of the log."""
        device, D, N, numbers = self.device, self.D, self.N, self.g.size // self.N
        if self.fake is not None:
            device.each('between', self.g.size, self.x, self.fake, self.mixed, numbers, self.g.size, step_count, *key)
        D.forward(N)
        D.backward(N, frozen=True)
        device.pointwise('penalty', (N,), (256,), self.g, numbers, self.rule, self.weight, device.shares.view(np.float64),
                         device.arrived, log, len(log), step_count, int(ends_step))
        v = self.g
        for stage, u in zip(D.stages, self.moves):
            stage.tangent(v, u, N, to_output=stage is not D.stages[-1])
            v = u
        device.join()
