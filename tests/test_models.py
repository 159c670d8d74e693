"""The networks are the published ones: layer shapes and parameter counts."""
import numpy as np
import pytest

from tinygan.gan import GAN, noise
from tinygan.models import RECIPES

SHAPES = {
    'dcgan': ([(1, 1, 100), (7, 7, 128), (14, 14, 64), (28, 28, 1)],
              [(14, 14, 64), (7, 7, 128), (1, 1, 1), (1,)]),
}
PARAMETERS = {          # transposed convolutions and BatchNorms of G; convolutions and BatchNorm of D
    'dcgan': (7 * 7 * 128 * 100 + 2 * 128 + 4 * 4 * 64 * 128 + 2 * 64 + 4 * 4 * 64 + 1,
              4 * 4 * 64 + 64 + 4 * 4 * 64 * 128 + 2 * 128 + 7 * 7 * 128 + 1),
}


def shapes(network, x):
    """The shape of an example after each layer that changes it."""
    found = []
    for layer in network.layers:
        before, x = x.shape, layer(x)
        if x.shape != before:
            found.append(x.shape[1:])
    return found


@pytest.mark.parametrize('name', RECIPES)
def test_layers_have_the_published_shapes_and_parameters(name):
    recipe = RECIPES[name]
    gan = GAN.from_recipe(recipe)
    z = noise(0, 0, 2, recipe.z_dim)
    assert (shapes(gan.G, z), shapes(gan.D, gan.G(z))) == SHAPES[name]
    assert (gan.G.parameters.size, gan.D.parameters.size) == PARAMETERS[name]
    assert gan.G(z).shape[1:] == recipe.shape


@pytest.mark.parametrize('name', RECIPES)
def test_a_seed_makes_the_same_networks_and_another_seed_others(name):
    a, b, c = (GAN.from_recipe(RECIPES[name], seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a.G.parameters, b.G.parameters)
    assert (a.D.parameters != c.D.parameters).any() and (a.G.parameters != c.G.parameters).any()


def test_dcgan_has_the_settings_of_the_paper():
    recipe = RECIPES['dcgan']
    assert (recipe.lr, recipe.beta1, recipe.beta2, recipe.batch_size, recipe.loss) == (2e-4, 0.5, 0.999, 128, 'bce')
    assert [layer.slope for layer in recipe.discriminator().layers if hasattr(layer, 'slope')] == [0.2, 0.2]
