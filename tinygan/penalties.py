"""Gradient penalties: D pays for steep slopes, by the gradient of a gradient.

g = dD(x)/dx is what backward makes of dscore = 1 (row n of it is the slope of score n, as no score depends on another's
image, unless there is BatchNorm). A penalty is a loss of g: it moves by sum(dg * the move of g), where dg = dpenalty/dg. So
hold v = dg fixed, and its gradient by D's parameters is that of

    s = sum(v * g)                   how the scores move, all together, when x moves by v

Now s is linear in v, and has the same value wherever in D it is taken. Between two layers, let dy be what backward sends down
from the scores, and u what v has become on its way up through D, each layer replaced by its slope at x. Then s = sum(dy * u).
At a layer u = v @ w, below dy, only this w is the layer's own: dy depends on the layers above, v on those below. So
ds/dw = v.T @ dy, and the bias, which does not move with x, gets nothing. That is all that `tangent` does.

A layer whose slope moves with x (BatchNorm, tanh, sigmoid) would change dy too. LeakyReLU's slope only jumps.
"""
from typing import Callable, NamedTuple

from .arrays import array_module
from .network import Layer


def r1(g):
    """loss = mean over images of |g|^2 / 2, at real images; dg = g / N. Mescheder et al. 2018, "Which training methods for
    GANs do actually converge?", equation 9: where the fakes are like the real images, D shall be flat."""
    return (g * g).sum() / (2 * len(g)), g / len(g)


def wgan_gp(g):
    """loss = mean over images of (|g| - 1)^2; dg = 2 (|g| - 1) g / |g| / N. Gulrajani et al. 2017, "Improved training of
    Wasserstein GANs", equation 3, at points between real and fake images: D shall have a slope of 1 there."""
    size = array_module(g).sqrt((g * g).sum(axis=tuple(range(1, g.ndim)), keepdims=True) + 1e-12)
    return ((size - 1) ** 2).mean(), 2 * (size - 1) * g / size / len(g)


class GradientPenalty(NamedTuple):
    """weight * rule(g), on top of D's loss. penalty(D, x) adds its gradient to D's and returns its value.

    Raises TypeError when D has a layer that is curved.
    """
    rule: Callable
    weight: float

    def __call__(self, D, x):
        frozen = D.frozen
        D.freeze()                                # this backward is only to find g, and what each layer's dy is
        try:
            g = D.backward(array_module(x).ones_like(D(x)))
        finally:
            D.set_flags(frozen=frozen)
        loss, dg = self.rule(g)
        D.tangent(self.weight * dg)
        return self.weight * loss


def between(x, fake, epsilon):
    """epsilon * x + (1 - epsilon) * fake, with an epsilon (N, 1, 1, 1) for each image: the points of Gulrajani et al. 2017."""
    return epsilon * x + (1 - epsilon) * fake


def curved(network):
    """The first layer without a tangent, or None."""
    return next((leaf for leaf in network.leaves() if type(leaf).tangent is Layer.tangent), None)


PENALTIES = {'r1': r1, 'wgan_gp': wgan_gp}
