"""What GAN.step is given in each step."""
import numpy as np

from tinygan.data import ImageSet, to_uint8
from tinygan.data.minibatches import Minibatches
from tinygan.gan import draw_image_noise, draw_z
from tinygan.recipes import RECIPES


def test_the_first_step_has_the_first_minibatch_and_each_its_own_noise(rng):
    pixels = rng.integers(0, 256, (12, 28, 28, 1), dtype=np.uint8)
    recipe, images = RECIPES['dcgan']._replace(batch_size=4, instance_noise=0.3), ImageSet(pixels, seed=3)
    batches = Minibatches(images, recipe, seed=3)
    for step in 1, 2, 3, 4:
        x, z, number, noise, _ = batches(step)
        np.testing.assert_array_equal(to_uint8(x), images.batch(step - 1, 4))
        np.testing.assert_array_equal(z, draw_z(3, step, 4, 100))
        np.testing.assert_array_equal(noise, draw_image_noise(3, step, x.shape))
        assert number == step and x.dtype == np.float32
    first, last = (set(map(bytes, to_uint8(batches(step)[0]))) for step in (1, 3))
    assert not first & last                       # an epoch has no image twice


def test_images_are_as_the_recipe_s_networks_want_them(rng):
    images = ImageSet(rng.integers(0, 256, (4, 28, 28, 1), dtype=np.uint8))
    x, z, _, noise, _ = Minibatches(images, RECIPES['lsgan64']._replace(batch_size=2))(1)
    assert x.shape == (2, 64, 64, 3) and 0 <= x.min() < x.max() <= 1 and noise is None and z.shape == (2, 100)
