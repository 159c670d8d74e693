"""Gradient penalties: D pays for its slope, and so it learns by the gradient of a gradient.

g = dD(x)/dx is what backward makes of dscore = 1: row n is the slope of score n, which depends on no other image (there is
no BatchNorm). A penalty is a loss R of g, and returns dg = dR/dg. When a parameter moves, R moves by sum(dg * the move of g).
So with v = dg held fixed, R has the same gradient by the parameters as

    s = sum(v * g)

which is how the scores move, all together, when x moves by v. To find it, send v forward through D, each layer replaced by
its slope at x. Anywhere between two layers, s = sum(dy * u): u is what v has become on its way up, dy what backward has made
of the ones on its way down. Just above a layer with the weight w, u = v @ w for the v that arrives there. That v depends on
the layers below. dy depends on those above and on which side of 0 the input of each LeakyReLU there lies, which a small move
of w does not change. So ds/dw = v.T @ dy. The bias, which does not move with x, gets nothing. That is what `tangent` adds.

The slope of a LeakyReLU jumps at 0 and is constant elsewhere. Where the slope itself moves with x (BatchNorm, tanh, sigmoid),
dy depends on the layers below too, and ds/dw has a further term: these layers refuse.
"""
from typing import Callable, NamedTuple

from .arrays import array_module
from .network import Layer


def r1(g):
    """g (N, ...): loss = mean over images of |g|^2 / 2, at real images; dg = g / N. Mescheder et al. 2018, "Which training
    methods for GANs do actually converge?", equation 9: once the fakes are like the real images, D should be flat there."""
    return (g * g).sum() / (2 * len(g)), g / len(g)


def wgan_gp(g):
    """g (N, ...): loss = mean over images of (|g| - 1)^2; dg = 2 (|g| - 1) g / |g| / N. Gulrajani et al. 2017, "Improved
    training of Wasserstein GANs", equation 3, at points between real and fake images: D should have a slope of 1 there.
    1e-12 is for g = 0, where |g| has no gradient."""
    size = array_module(g).sqrt((g * g).sum(axis=tuple(range(1, g.ndim)), keepdims=True) + 1e-12)
    return ((size - 1) ** 2).mean(), 2 * (size - 1) * g / size / len(g)


class GradientPenalty(NamedTuple):
    """weight * R, where rule(g) returns (R, dR/dg), on top of D's loss. penalty(D, x) adds its gradient to D's and returns its
    value.

    Raises TypeError when D has a layer that is curved.
    """
    rule: Callable
    weight: float

    def __call__(self, D, x):
        frozen = {layer: layer.frozen for layer in (D, *D.leaves())}
        D.freeze()                                # this backward is only to find g, and what each layer's dy is
        try:
            g = D.backward(array_module(x).ones_like(D(x)))
        finally:
            for layer in frozen:
                layer.frozen = frozen[layer]
        loss, dg = self.rule(g)
        D.tangent(self.weight * dg)
        return self.weight * loss


def between(x, fake, epsilon):
    """epsilon * x + (1 - epsilon) * fake, with an epsilon (N, 1, 1, 1) for each image: the points of Gulrajani et al. 2017."""
    return epsilon * x + (1 - epsilon) * fake


def first_curved(network):
    """The first layer without a tangent, or None."""
    return next((leaf for leaf in network.leaves() if type(leaf).tangent is Layer.tangent), None)


PENALTIES = {'r1': r1, 'wgan_gp': wgan_gp}
