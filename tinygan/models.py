"""The recipes: each network is one Sequential expression, each with its source.

Every generator takes (z_dim, width) and makes images of its recipe's shape, every discriminator takes (width) and
gives one score an image. width is the number of channels next to the image; deeper layers have multiples of it.
`new` holds rng and dtype of the layers.
"""
from functools import partial
from typing import Callable, NamedTuple

from .errors import UserError
from .layers import (BatchNorm2d, Conv2d, ConvTranspose2d, Flatten, GlobalAvgPool2d, LeakyReLU, Linear, ReLU,
                     Reshape, Sigmoid, Tanh)
from .network import Sequential


class Recipe(NamedTuple):
    """Two networks and how they are trained. Images are shape (H, W, C), with black at `black` and white at 1."""
    generator: Callable
    discriminator: Callable
    shape: tuple = (28, 28, 1)
    black: float = -1
    z_dim: int = 100
    loss: str = 'bce'
    order: str = 'both'             # of the updates: see GAN
    D_rests_at: float | None = None
    lr: float = 2e-4
    beta1: float = 0.5
    beta2: float = 0.999
    batch_size: int = 128
    epochs: int = 10


def up(in_channels, out_channels, bias=False, stride=2, padding=1, **new):
    """Twice the sides (with stride 1 and no padding, from 1x1 to 4x4): transposed convolution, BatchNorm, ReLU."""
    return (ConvTranspose2d(in_channels, out_channels, 4, stride=stride, padding=padding, bias=bias, **new),
            BatchNorm2d(out_channels, **new), ReLU())


def down(in_channels, out_channels, **new):
    """Half the sides: convolution, BatchNorm, LeakyReLU."""
    return (Conv2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False, **new),
            BatchNorm2d(out_channels, **new), LeakyReLU(0.2))


def dcgan_generator(z_dim=100, width=64, **new):
    """z (N, z_dim) -> images (N, 28, 28, 1) in (-1, 1), over 7x7 and 14x14 pixels.

    The guidelines of Radford et al. 2016, section 3, for MNIST's 28x28: transposed convolutions instead of
    upsampling, BatchNorm after all but the last, ReLU, tanh. A bias before BatchNorm would be subtracted again.
    """
    return Sequential(
        Reshape(1, 1, z_dim),
        ConvTranspose2d(z_dim, 2 * width, 7, bias=False, **new), BatchNorm2d(2 * width, **new), ReLU(),
        *up(2 * width, width, **new),
        ConvTranspose2d(width, 1, 4, stride=2, padding=1, **new), Tanh())


def dcgan_discriminator(width=64, **new):
    """images (N, 28, 28, 1) -> scores (N, 1): the mirror image of the generator.

    Strided convolutions instead of pooling, LeakyReLU 0.2, BatchNorm in the middle only (Radford et al. 2016,
    section 3). The score is a logit: the sigmoid is part of the loss.
    """
    return Sequential(
        Conv2d(1, width, 4, stride=2, padding=1, **new), LeakyReLU(0.2),
        *down(width, 2 * width, **new),
        Conv2d(2 * width, 1, 7, **new), Flatten())


def dcgan_gap_discriminator(width=64, **new):
    """As dcgan_discriminator, but one score from the mean of every channel: global average pooling, which
    Radford et al. 2016, section 3, found "increased model stability but hurt convergence speed"."""
    return Sequential(
        Conv2d(1, width, 4, stride=2, padding=1, **new), LeakyReLU(0.2),
        *down(width, 2 * width, **new),
        GlobalAvgPool2d(), Linear(2 * width, 1, **new))


def lsgan_generator(z_dim=62, width=64, **new):
    """z (N, z_dim) -> images (N, 28, 28, 1) in (-1, 1): Mao et al. 2017's design, cut to MNIST's size.

    A linear layer spreads z over 7x7 pixels, two transposed convolutions double the sides; BatchNorm in between.
    """
    return Sequential(
        Linear(z_dim, 7 * 7 * 2 * width, bias=False, **new), Reshape(7, 7, 2 * width),
        BatchNorm2d(2 * width, **new), ReLU(),
        *up(2 * width, width, **new),
        ConvTranspose2d(width, 1, 4, stride=2, padding=1, **new), Tanh())


def lsgan_discriminator(width=64, **new):
    """images (N, 28, 28, 1) -> scores (N, 1), any real number: no activation at the end (Mao et al. 2017)."""
    return Sequential(
        Conv2d(1, width, 4, stride=2, padding=1, **new), LeakyReLU(0.2),
        *down(width, 2 * width, **new),
        Flatten(), Linear(7 * 7 * 2 * width, 1, **new))


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


def lsgan64_generator(z_dim=100, width=64, **new):
    """z (N, z_dim) -> images (N, 64, 64, 3) in (0, 1): tutorial64's way up, narrower at its start, into a sigmoid."""
    return Sequential(
        Reshape(1, 1, z_dim),
        *up(z_dim, 4 * width, stride=1, padding=0, **new),
        *up(4 * width, 4 * width, **new),
        *up(4 * width, 2 * width, **new),
        *up(2 * width, width, **new),
        ConvTranspose2d(width, 3, 4, stride=2, padding=1, bias=False, **new), Sigmoid())


def lsgan64_discriminator(width=64, **new):
    """images (N, 64, 64, 3) -> scores (N, 1) in (0, 1): unlike in the LSGAN paper, D ends in a sigmoid
    in the introduction that this follows."""
    return Sequential(
        Conv2d(3, width, 4, stride=2, padding=1, bias=False, **new), LeakyReLU(0.2),
        *down(width, 2 * width, **new),
        *down(2 * width, 4 * width, **new),
        *down(4 * width, 4 * width, **new),
        Conv2d(4 * width, 1, 4, bias=False, **new), Flatten(), Sigmoid())


RECIPES = {
    'dcgan': Recipe(dcgan_generator, dcgan_discriminator),
    'dcgan_gap': Recipe(dcgan_generator, dcgan_gap_discriminator),
    'lsgan': Recipe(lsgan_generator, lsgan_discriminator, z_dim=62, loss='lsgan', epochs=30),
    'dcgan64': Recipe(partial(generator64, channels=1, bias=True), dcgan64_discriminator, shape=(64, 64, 1),
                      z_dim=20),
    'tutorial64': Recipe(generator64, tutorial64_discriminator, shape=(64, 64, 3)),
    'lsgan64': Recipe(lsgan64_generator, lsgan64_discriminator, shape=(64, 64, 3), black=0, loss='mse',
                      order='alternate', D_rests_at=0.1, lr=1e-3, beta1=0.9, batch_size=10),
}


def find_recipe(name):
    """The recipe of that name; UserError when there is none, as when a run is of somebody's own."""
    if name not in RECIPES:
        raise UserError(f'there is no recipe {name}; choose from {", ".join(RECIPES)}')
    return RECIPES[name]
