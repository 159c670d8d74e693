"""The core's networks, optimisers and GAN are converted to faster ones on the same vectors.

These compute the same but for rounding. Parameters, statistics and what optimisers remember are shared with the core's
GAN, which can therefore be saved, or draw samples, at any time. Gradients stay with the converted one.
"""
import copy
from types import SimpleNamespace

from ..network import Sequential
from ..recipes.vae import VAE
from .layers import FASTER
from .toomcook import IN_CACHE


class Alone:
    """Lanes, where there is only one."""
    count, is_first = 1, True

    @staticmethod
    def mean(*arrays):
        return arrays


def convert(layer, lanes=Alone):
    """A layer or network that computes the same, faster, on the same parameters, gradients and statistics.

    Of a network or a layer in FASTER, backward(dy, to_input=False) leaves out the gradient of the input and returns None.
    """
    fast = object.__new__(FASTER.get(type(layer), type(layer)))
    vars(fast).update(vars(layer), lanes=lanes)
    for name in 'cache', 'dy':
        vars(fast).pop(name, None)
    if isinstance(layer, Sequential):
        fast.layers = tuple(convert(inner, lanes) for inner in layer.layers)
    return fast


def convert_gan(gan, lanes):
    """A GAN that takes the steps of `gan`, on the same vectors, in lanes that each have a part of the minibatch."""
    fast = copy.copy(gan)
    fast.G, fast.D = convert(gan.G, lanes), convert(gan.D, lanes)
    fast.G.dx_is_read = isinstance(gan, VAE)      # whose encoder learns through it
    fast.D.dx_is_read = False                     # but while it is frozen, and G learns through it
    fast.optim_G, fast.optim_D = InPieces(gan.optim_G, fast.G, lanes), InPieces(gan.optim_D, fast.D, lanes)
    fast.average = gan.average and AverageInPieces(gan.average, lanes)
    if gan.D_rests_at is not None:                # D rests by the loss of the whole minibatch
        fast.loss = gan.loss._replace(real=mean_loss(gan.loss.real, lanes), fake=mean_loss(gan.loss.fake, lanes))
    return fast


def mean_loss(loss, lanes):
    def of_all_lanes(score):
        own, dscore = loss(score)
        return lanes.mean(own)[0], dscore
    return of_all_lanes


class InPieces:
    """An optimiser that steps through its vectors in pieces, each short enough to stay in a core's cache. Every lane takes
    its share of them."""

    def __init__(self, optimiser, network, lanes):
        self.optimiser, self.network, self.lanes = optimiser, network, lanes

    @property
    def t(self):
        return self.optimiser.t

    def step(self):
        whole, theta = self.optimiser, self.network.parameters
        self.lanes.wait()                         # for the gradients of all lanes
        for piece in self.lanes.share(theta.size, IN_CACHE):
            part = copy.copy(whole)
            part.network = SimpleNamespace(parameters=theta[piece], gradients=self.lanes.gradient(self.network, piece))
            for name in whole.state_names:
                setattr(part, name, getattr(whole, name)[piece])
            part.step()
        whole.t += 1
        self.lanes.wait()                         # for the other pieces


class AverageInPieces:
    """The same for an Average."""

    def __init__(self, average, lanes):
        self.average, self.lanes = average, lanes

    def step(self, t):
        network, original = self.average.network, self.average.original
        for average, newest in (network.parameters, original.parameters), (network.statistics, original.statistics):
            for piece in self.lanes.share(average.size, IN_CACHE):
                part = copy.copy(self.average)
                part.network = SimpleNamespace(parameters=average[piece], statistics=average[:0])
                part.original = SimpleNamespace(parameters=newest[piece], statistics=newest[:0])
                part.step(t)
