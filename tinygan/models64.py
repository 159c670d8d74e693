"""The networks for images of 64x64 pixels, as models.py has them for 28x28."""
import math

import numpy as np

from .layers import BatchNorm2d, Conv2d, ConvTranspose2d, Flatten, LeakyReLU, Reshape, Sigmoid, Tanh
from .models import down, up
from .network import Sequential


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
    """images (N, 64, 64, 1) -> scores (N, 1): four convolutions with LeakyReLU 0.1 and no BatchNorm, and one more,
    as one of the introductions that this project follows has it."""
    return Sequential(
        Conv2d(1, width, 4, stride=2, padding=1, **new), LeakyReLU(0.1),
        Conv2d(width, 2 * width, 4, stride=2, padding=1, **new), LeakyReLU(0.1),
        Conv2d(2 * width, 4 * width, 4, stride=2, padding=1, **new), LeakyReLU(0.1),
        Conv2d(4 * width, 8 * width, 4, stride=2, padding=1, **new), LeakyReLU(0.1),
        Conv2d(8 * width, 1, 4, **new), Flatten())


def tutorial64_discriminator(width=64, **new):
    """images (N, 64, 64, 3) -> scores (N, 1): netD of PyTorch's DCGAN tutorial (ndf = width), its
    sigmoid in the loss."""
    return Sequential(
        Conv2d(3, width, 4, stride=2, padding=1, bias=False, **new), LeakyReLU(0.2),
        *down(width, 2 * width, **new),
        *down(2 * width, 4 * width, **new),
        *down(4 * width, 8 * width, **new),
        Conv2d(8 * width, 1, 4, bias=False, **new), Flatten())


def framework_weights(network, rng=None):
    """The same network with weights as PyTorch draws them where nothing is said, and nothing is in lsgan64's source:
    uniform in (-1, 1) / sqrt(fan_in), fan_in = K * K * C for w (K, K, C, F); and gamma = 1. With N(0, 0.02) instead its
    D, at a learning rate of 1e-3, is sure of everything after two steps, and its sigmoid lets no gradient through."""
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
        Conv2d(4 * width, 1, 4, bias=False, **new), Flatten(), Sigmoid()), new.get('rng'))
