"""What a step of training takes, as arrays on the device."""
import copy

import numpy as np

from ..gan import draw_epsilon, draw_image_noise, draw_z
from ..recipes.labels import with_labels
from .images import fit, normalise


class Minibatches:
    """batches(number) returns the arguments of GAN.step in step `number`: x (N, *shape); z (N, z_dim), behind which the labels
    of the images x stand, if the recipe has classes; the number; the instance noise and the epsilon of a penalty, or None where
    the recipe has none. They depend only on the dataset `images`, the recipe, the seed and the number."""

    def __init__(self, images, recipe, seed=0, xp=np):
        self.images, self.seed, self.xp = images, seed, xp
        self.N, self.z_dim, self.shape, self.black = recipe.batch_size, recipe.z_dim, recipe.shape, recipe.black
        self.classes, self.noisy, self.mixed = recipe.classes, recipe.instance_noise > 0, recipe.penalty == 'wgan_gp'

    def on(self, xp):
        """The same minibatches, on another device."""
        twin = copy.copy(self)
        twin.xp = xp
        return twin

    def __call__(self, number):
        x = normalise(fit(self.images.batch(number - 1, self.N), self.shape), self.xp, self.black)
        z = draw_z(self.seed, number, self.N, self.z_dim)
        if self.classes:
            z = with_labels(z, self.images.batch_labels(number - 1, self.N), self.classes)
        noise = self.xp.asarray(draw_image_noise(self.seed, number, x.shape)) if self.noisy else None
        epsilon = self.xp.asarray(draw_epsilon(self.seed, number, self.N)) if self.mixed else None
        return x, self.xp.asarray(z), number, noise, epsilon
