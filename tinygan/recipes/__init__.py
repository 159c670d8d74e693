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
from ..penalties import PENALTIES, GradientPenalty, first_curved
from . import networks
from .labels import ConditionalGAN
from .vae import VAE, encoder


class Recipe(NamedTuple):
    """Two networks and how they are trained. Images have the given shape (H, W, C), with black at `black`, white at 1."""
    generator: Callable
    discriminator: Callable
    shape: tuple = (28, 28, 1)
    black: float = -1
    z_dim: int = 100
    classes: int = 0                # that both networks are told: the labels of the images
    game: type = GAN                # that trains them
    loss: str | None = 'bce'
    penalty: str | None = None      # on D's slope
    penalty_weight: float = 10
    penalty_every: int = 1          # taken in one of so many updates of D, and so many times as heavy: see GAN
    critic_steps: int = 1           # updates of D for each of G
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
    'fast': Recipe(partial(models.dcgan_generator, width=48), partial(networks.critic, width=16, growth=3), z_dim=16,
                   penalty='r1', penalty_weight=1, penalty_every=4, lr=4e-3, lr_d=8e-4, beta1=0, beta2=0.99, average=0.999,
                   batch_size=64),
    'wgan_gp': Recipe(models.dcgan_generator, networks.critic, loss='wgan', penalty='wgan_gp', critic_steps=5, lr=1e-4, beta1=0,
                      beta2=0.9, batch_size=64),
    'conditional': Recipe(models.dcgan_generator, networks.conditional_discriminator, z_dim=32, classes=10, game=ConditionalGAN,
                          lr=4e-3, lr_d=8e-4, beta2=0.99, instance_noise=0.5, average=0.999, batch_size=64),
    'vae': Recipe(models.dcgan_generator, encoder, z_dim=16, game=VAE, loss=None, lr=2e-3, beta1=0.9, batch_size=64),
}


def find_recipe(name):
    """The recipe of that name; UserError when there is none, as for a run of a custom recipe."""
    if name not in RECIPES:
        raise UserError(f'there is no recipe {name}; choose from {", ".join(RECIPES)}')
    return RECIPES[name]


def make_gan(recipe, seed=0, xp=np):
    """The recipe's GAN, with weights drawn from the seed, on xp's device. UserError when its settings do not go together."""
    if recipe.game is VAE and (recipe.loss or recipe.penalty or recipe.instance_noise or recipe.critic_steps > 1):
        raise UserError('a VAE has no D: leave out --loss, --penalty, --instance-noise and --critic-steps')
    if recipe.game is VAE and recipe.batch_size < 2:
        raise UserError('a VAE needs minibatches of two images or more, for BatchNorm: choose a larger --batch-size')
    if (recipe.classes > 0) != (recipe.game is ConditionalGAN):
        raise UserError('a recipe with classes needs the game ConditionalGAN, and only such a recipe')
    if recipe.loss == 'wgan' and not (recipe.penalty and recipe.penalty_weight):
        raise UserError("--loss wgan needs a --penalty, of a weight above 0: nothing else keeps D's scores from growing")
    if recipe.order == 'alternate' and recipe.critic_steps > 1:
        raise UserError('this recipe updates D and G in turn: leave out --critic-steps')

    def generator():
        return recipe.generator(recipe.z_dim + recipe.classes, rng=random_stream(seed, 'G weights')).to(xp)
    told = {'classes': recipe.classes} if recipe.classes else {'z_dim': recipe.z_dim} if recipe.game is VAE else {}
    G, D = generator(), recipe.discriminator(**told, rng=random_stream(seed, 'D weights')).to(xp)
    penalty = None
    if recipe.penalty and recipe.penalty_weight:
        if layer := first_curved(D):
            able = ', '.join(name for name in RECIPES if RECIPES[name].loss and not first_curved(RECIPES[name].discriminator()))
            raise UserError(f'--penalty needs a D whose layers are straight between kinks, and this one has a '
                            f'{type(layer).__name__}; the recipes that allow it: {able}')
        penalty = GradientPenalty(PENALTIES[recipe.penalty], recipe.penalty_weight * recipe.penalty_every)
    optim_G = Adam(G, recipe.lr, recipe.beta1, recipe.beta2)
    optim_D = Adam(D, recipe.lr_d or recipe.lr, recipe.beta1, recipe.beta2)
    average = Average(generator(), G, recipe.average) if recipe.average else None
    return recipe.game(G, D, LOSSES[recipe.loss]() if recipe.loss else None, optim_G, optim_D, recipe.order, recipe.D_rests_at,
                       average, recipe.instance_noise, penalty, recipe.critic_steps, recipe.penalty_every)
