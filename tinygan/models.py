"""The recipes: each network is one Sequential expression, each with its source."""
from typing import Callable, NamedTuple

import numpy as np

from .layers import BatchNorm2d, Conv2d, ConvTranspose2d, Flatten, LeakyReLU, ReLU, Reshape, Tanh
from .network import Sequential


class Recipe(NamedTuple):
    """Two networks and the settings they are trained with. Images are shape (H, W, C), in [-1, 1]."""
    generator: Callable
    discriminator: Callable
    shape: tuple
    z_dim: int
    loss: str = 'bce'
    lr: float = 2e-4
    beta1: float = 0.5
    beta2: float = 0.999
    batch_size: int = 128
    epochs: int = 10


def dcgan_generator(z_dim=100, width=64, rng=None, dtype=np.float32):
    """z (N, z_dim) -> images (N, 28, 28, 1) in (-1, 1), over 7x7 and 14x14 pixels.

    The guidelines of Radford et al. 2016, section 3, for MNIST's 28x28: transposed convolutions instead of
    upsampling, BatchNorm after all but the last, ReLU, tanh. A bias before BatchNorm would be subtracted again.
    """
    new = dict(rng=rng, dtype=dtype)
    return Sequential(
        Reshape(1, 1, z_dim),
        ConvTranspose2d(z_dim, 2 * width, 7, bias=False, **new),
        BatchNorm2d(2 * width, **new),
        ReLU(),
        ConvTranspose2d(2 * width, width, 4, stride=2, padding=1, bias=False, **new),
        BatchNorm2d(width, **new),
        ReLU(),
        ConvTranspose2d(width, 1, 4, stride=2, padding=1, **new),
        Tanh())


def dcgan_discriminator(width=64, rng=None, dtype=np.float32):
    """images (N, 28, 28, 1) -> scores (N, 1): the mirror image of the generator.

    Strided convolutions instead of pooling, LeakyReLU 0.2, BatchNorm in the middle only (Radford et al. 2016,
    section 3). The score is a logit: the sigmoid is part of the loss.
    """
    new = dict(rng=rng, dtype=dtype)
    return Sequential(
        Conv2d(1, width, 4, stride=2, padding=1, **new),
        LeakyReLU(0.2),
        Conv2d(width, 2 * width, 4, stride=2, padding=1, bias=False, **new),
        BatchNorm2d(2 * width, **new),
        LeakyReLU(0.2),
        Conv2d(2 * width, 1, 7, **new),
        Flatten())


RECIPES = {
    'dcgan': Recipe(dcgan_generator, dcgan_discriminator, shape=(28, 28, 1), z_dim=100),
}
