"""The networks of DCGAN and LSGAN for images of 28x28 pixels: each is one Sequential expression, with its source.

Every generator takes (z_dim, width) and makes images of its recipe's shape, every discriminator takes (width) and
gives one score an image. width is the number of channels of the layer next to the image; deeper layers have multiples.
`new` holds rng and dtype of the layers.
"""
from .layers import BatchNorm2d, Conv2d, ConvTranspose2d, Flatten, LeakyReLU, Linear, ReLU, Reshape, Tanh
from .network import Sequential


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
        Conv2d(2 * width, 1, 7, **new), Reshape(1))


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
