"""The recipes: two networks each, and the settings they are trained with."""
from functools import partial
from typing import Callable, NamedTuple

import numpy as np

from .. import models
from ..arrays import random_stream
from ..errors import UserError
from ..gan import GAN
from ..losses import LOSSES
from ..optim import Adam, Average
from . import networks


class Recipe(NamedTuple):
    """Two networks and how they are trained. Images have the given shape (H, W, C), with black at `black`, white at 1."""
    generator: Callable
    discriminator: Callable
    shape: tuple = (28, 28, 1)
    black: float = -1
    z_dim: int = 100
    loss: str = 'bce'
    order: str = 'both'             # of the updates: see GAN
    D_rests_at: float | None = None
    lr: float = 2e-4
    lr_d: float | None = None       # D's own, if it has one
    beta1: float = 0.5
    beta2: float = 0.999
    instance_noise: float = 0       # on the images that D sees: see GAN
    average: float = 0              # decay of the moving average of G that samples are drawn from: see Average
    batch_size: int = 128
    epochs: int = 10


RECIPES = {
    'dcgan': Recipe(models.dcgan_generator, models.dcgan_discriminator),
    'dcgan_gap': Recipe(models.dcgan_generator, networks.dcgan_gap_discriminator),
    'lsgan': Recipe(models.lsgan_generator, models.lsgan_discriminator, z_dim=62, loss='lsgan', epochs=30),
    'dcgan64': Recipe(partial(networks.generator64, channels=1, bias=True), networks.dcgan64_discriminator,
                      shape=(64, 64, 1), z_dim=20),
    'tutorial64': Recipe(networks.generator64, networks.tutorial64_discriminator, shape=(64, 64, 3)),
    'lsgan64': Recipe(networks.lsgan64_generator, networks.lsgan64_discriminator, shape=(64, 64, 3), black=0,
                      loss='mse', order='alternate', D_rests_at=0.1, lr=1e-3, beta1=0.9, batch_size=10),
    'fast': Recipe(models.dcgan_generator, networks.dcgan_hidden_discriminator, z_dim=32, lr=4e-3, lr_d=8e-4, beta2=0.99,
                   instance_noise=0.5, average=0.999, batch_size=64),
}


def find_recipe(name):
    """The recipe of that name; UserError when there is none, as for a run of a custom recipe."""
    if name not in RECIPES:
        raise UserError(f'there is no recipe {name}; choose from {", ".join(RECIPES)}')
    return RECIPES[name]


def make_gan(recipe, seed=0, xp=np):
    """The recipe's GAN, with weights drawn from the seed, on xp's device."""
    def generator():
        return recipe.generator(recipe.z_dim, rng=random_stream(seed, 'G weights')).to(xp)
    G, D = generator(), recipe.discriminator(rng=random_stream(seed, 'D weights')).to(xp)
    optim_G = Adam(G, recipe.lr, recipe.beta1, recipe.beta2)
    optim_D = Adam(D, recipe.lr_d or recipe.lr, recipe.beta1, recipe.beta2)
    average = Average(generator(), G, recipe.average) if recipe.average else None
    return GAN(G, D, LOSSES[recipe.loss](), optim_G, optim_D, recipe.order, recipe.D_rests_at, average,
               recipe.instance_noise)
