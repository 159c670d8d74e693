"""What a step of training takes, as arrays on the device."""
import numpy as np

from ..gan import draw_image_noise, draw_z
from .images import fit, normalise


class Minibatches:
    """batches(number) returns the arguments of GAN.step in step `number`: x (N, *shape), z (N, z_dim), the number and, with
    instance noise, that noise. They depend only on the dataset `images`, the recipe, the seed and the number."""

    def __init__(self, images, recipe, seed=0, xp=np):
        self.images, self.seed, self.xp = images, seed, xp
        self.N, self.z_dim, self.shape, self.black = recipe.batch_size, recipe.z_dim, recipe.shape, recipe.black
        self.noisy = recipe.instance_noise > 0

    def __call__(self, number):
        x = normalise(fit(self.images.batch(number - 1, self.N), self.shape), self.xp, self.black)
        z = self.xp.asarray(draw_z(self.seed, number, self.N, self.z_dim))
        return x, z, number, self.xp.asarray(draw_image_noise(self.seed, number, x.shape)) if self.noisy else None
