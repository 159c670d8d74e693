"""More networks in the style of models.py: discriminators for 28x28 pixels, and all networks for 64x64."""
import math

import numpy as np

from ..layers import (BatchNorm2d, Conv2d, ConvTranspose2d, Flatten, GlobalAvgPool2d, LeakyReLU, Linear, Reshape, Sigmoid,
                      Tanh)
from ..models import down, up
from ..network import Sequential
from .labels import LabelPlanes


def dcgan_hidden_discriminator(width=60, hidden=128, channels=1, **new):
    """As dcgan_discriminator, but with a hidden layer between what the filters found and the score. At width 60, D costs
    as many multiplications as dcgan_discriminator does at 64."""
    return Sequential(
        Conv2d(channels, width, 4, stride=2, padding=1, **new), LeakyReLU(0.2),
        *down(width, 2 * width, **new),
        Conv2d(2 * width, hidden, 7, **new), LeakyReLU(0.2), Flatten(),
        Linear(hidden, 1, **new))


def critic(width=64, growth=2, hidden=128, **new):
    """images (N, 28, 28, 1) -> scores (N, 1), without BatchNorm: for a gradient penalty, which asks for the slope at each
    image by itself (Gulrajani et al. 2017, section 4, "No critic batch normalization"). The second layer has growth * width
    channels."""
    return Sequential(
        Conv2d(1, width, 4, stride=2, padding=1, **new), LeakyReLU(0.2),
        Conv2d(width, growth * width, 4, stride=2, padding=1, **new), LeakyReLU(0.2),
        Conv2d(growth * width, hidden, 7, **new), LeakyReLU(0.2), Flatten(),
        Linear(hidden, 1, **new))


def conditional_discriminator(width=60, hidden=128, classes=10, **new):
    """As dcgan_hidden_discriminator, for images (N, 28, 28, 1) that should show a certain class."""
    return Sequential(LabelPlanes(classes), *dcgan_hidden_discriminator(width, hidden, 1 + classes, **new).layers)


def dcgan_gap_discriminator(width=64, **new):
    """As dcgan_discriminator, but one score from the mean of every channel: global average pooling, which
    Radford et al. 2016, section 3, found "increased model stability but hurt convergence speed"."""
    return Sequential(
        Conv2d(1, width, 4, stride=2, padding=1, **new), LeakyReLU(0.2),
        *down(width, 2 * width, **new),
        GlobalAvgPool2d(), Linear(2 * width, 1, **new))


def generator64(z_dim=100, width=64, channels=3, bias=False, **new):
    """z (N, z_dim) -> images (N, 64, 64, channels) in (-1, 1): from 4x4 pixels and 8 * width channels, twice the sides
    and half the channels each time (Radford et al. 2016, figure 1, with half its channels).

    With z 100, 3 channels and no bias it is netG of PyTorch's DCGAN tutorial (ngf = width).
    """
    return Sequential(
        Reshape(1, 1, z_dim),
        *up(z_dim, 8 * width, bias, stride=1, padding=0, **new),
        *up(8 * width, 4 * width, bias, **new),
        *up(4 * width, 2 * width, bias, **new),
        *up(2 * width, width, bias, **new),
        ConvTranspose2d(width, channels, 4, stride=2, padding=1, bias=bias, **new), Tanh())


def dcgan64_discriminator(width=64, **new):
    """images (N, 64, 64, 1) -> scores (N, 1): four convolutions with LeakyReLU 0.1 and no BatchNorm, and one more, as in
    one of the introductions that this project follows."""
    return Sequential(
        Conv2d(1, width, 4, stride=2, padding=1, **new), LeakyReLU(0.1),
        Conv2d(width, 2 * width, 4, stride=2, padding=1, **new), LeakyReLU(0.1),
        Conv2d(2 * width, 4 * width, 4, stride=2, padding=1, **new), LeakyReLU(0.1),
        Conv2d(4 * width, 8 * width, 4, stride=2, padding=1, **new), LeakyReLU(0.1),
        Conv2d(8 * width, 1, 4, **new), Reshape(1))


def tutorial64_discriminator(width=64, **new):
    """images (N, 64, 64, 3) -> scores (N, 1): netD of PyTorch's DCGAN tutorial (ndf = width), its
    sigmoid in the loss."""
    return Sequential(
        Conv2d(3, width, 4, stride=2, padding=1, bias=False, **new), LeakyReLU(0.2),
        *down(width, 2 * width, **new),
        *down(2 * width, 4 * width, **new),
        *down(4 * width, 8 * width, **new),
        Conv2d(8 * width, 1, 4, bias=False, **new), Reshape(1))


def framework_weights(network, rng=None):
    """The same network with PyTorch's default weights, which lsgan64's source uses: uniform in (-1, 1) / sqrt(fan_in),
    fan_in = K * K * C for w (K, K, C, F), and gamma = 1. With N(0, 0.02) and a learning rate of 1e-3, its D would be sure
    of everything after two steps, and its sigmoid would let no gradient through."""
    rng = np.random.default_rng() if rng is None else rng
    for leaf in network.leaves():
        if isinstance(leaf, BatchNorm2d):
            leaf.gamma[...] = 1
        elif 'w' in leaf.parameter_names:
            leaf.w[...] = rng.uniform(-1, 1, leaf.w.shape) / math.sqrt(math.prod(leaf.w.shape[:3]))
    return network


def lsgan64_generator(z_dim=100, width=64, **new):
    """z (N, z_dim) -> images (N, 64, 64, 3) in (0, 1): tutorial64's way up, narrower at its start, into a sigmoid."""
    return framework_weights(Sequential(
        Reshape(1, 1, z_dim),
        *up(z_dim, 4 * width, stride=1, padding=0, **new),
        *up(4 * width, 4 * width, **new),
        *up(4 * width, 2 * width, **new),
        *up(2 * width, width, **new),
        ConvTranspose2d(width, 3, 4, stride=2, padding=1, bias=False, **new), Sigmoid()), new.get('rng'))


def lsgan64_discriminator(width=64, **new):
    """images (N, 64, 64, 3) -> scores (N, 1) in (0, 1): unlike in the LSGAN paper, D ends in a sigmoid
    in the introduction that this follows."""
    return framework_weights(Sequential(
        Conv2d(3, width, 4, stride=2, padding=1, bias=False, **new), LeakyReLU(0.2),
        *down(width, 2 * width, **new),
        *down(2 * width, 4 * width, **new),
        *down(4 * width, 4 * width, **new),
        Conv2d(4 * width, 1, 4, bias=False, **new), Reshape(1), Sigmoid()), new.get('rng'))
