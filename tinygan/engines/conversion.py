"""The core's networks, optimisers and GAN are converted to faster ones on the same vectors.

These compute the same but for rounding. Parameters, statistics and what optimisers remember are shared with the core's
GAN, which can therefore be saved, or draw samples, at any time. Gradients stay with the converted one.
"""
import copy
from types import SimpleNamespace

from ..network import Sequential
from ..recipes.vae import VAE
from .group import Group
from .layers import FASTER
from .loops import library
from .toomcook import IN_CACHE


def convert(layer, group=Group()):
    """A layer or network that computes the same, faster, on the same parameters, gradients and statistics.

    Of a network or a layer in FASTER, backward(dy, to_input=False) leaves out the gradient of the input and returns None.
    """
    library()                                     # compiled now, by one, and not later by each of several threads or lanes
    fast = object.__new__(FASTER.get(type(layer), type(layer)))
    vars(fast).update(vars(layer), group=group)
    for name in 'cache', 'dy':
        vars(fast).pop(name, None)
    if isinstance(layer, Sequential):
        fast.layers = tuple(convert(inner, group) for inner in layer.layers)
    return fast


def convert_gan(gan, group):
    """A GAN that takes the steps of `gan`, on the same vectors, in a group that divides the minibatch."""
    fast = copy.copy(gan)
    fast.G, fast.D = convert(gan.G, group), convert(gan.D, group)
    fast.G.dx_is_read = isinstance(gan, VAE)      # whose encoder learns through it
    fast.D.dx_is_read = False                     # but while it is frozen, and G learns through it
    fast.optim_G, fast.optim_D = InPieces(gan.optim_G, fast.G, group), InPieces(gan.optim_D, fast.D, group)
    fast.average = gan.average and AverageInPieces(gan.average, group)
    if gan.D_rests_at is not None:                # D rests by the loss of the whole minibatch
        fast.loss = gan.loss._replace(real=mean_loss(gan.loss.real, group), fake=mean_loss(gan.loss.fake, group))
    return fast


def mean_loss(loss, group):
    def of_the_whole_group(score):
        own, dscore = loss(score)
        return group.mean(own)[0], dscore
    return of_the_whole_group


def pieces(size):
    """Slices of a vector of that size, each short enough to stay in a core's cache."""
    return [slice(start, start + IN_CACHE) for start in range(0, size, IN_CACHE)]


class InPieces:
    """An optimiser that steps through its vectors in pieces. Every process of the group takes its share of them."""

    def __init__(self, optimiser, network, group):
        self.optimiser, self.network, self.group = optimiser, network, group

    @property
    def t(self):
        return self.optimiser.t

    def step(self):
        whole, share = self.optimiser, self.group.share(self.network.parameters.size)
        theta, gradients = self.network.parameters[share], self.group.collect(self.network)
        for piece in pieces(theta.size):
            part = copy.copy(whole)               # the loss is a mean over the minibatch, and so is its gradient
            g = sum(of_one[piece] for of_one in gradients) / self.group.count         # .mean(axis=0) is slow
            part.network = SimpleNamespace(parameters=theta[piece], gradients=g)
            for name in whole.state_names:
                setattr(part, name, getattr(whole, name)[share][piece])
            part.step()
        whole.t += 1
        self.group.spread(self.network)


class AverageInPieces:
    """The same for an Average."""

    def __init__(self, average, group):
        self.average, self.group = average, group

    def step(self, t):
        network, original = self.average.network, self.average.original
        for average, newest in (network.parameters, original.parameters), (network.statistics, original.statistics):
            share = self.group.share(average.size)
            average, newest = average[share], newest[share]
            for piece in pieces(average.size):
                part = copy.copy(self.average)
                part.network = SimpleNamespace(parameters=average[piece], statistics=average[:0])
                part.original = SimpleNamespace(parameters=newest[piece], statistics=newest[:0])
                part.step(t)
