"""The networks are the published ones: layer shapes and parameter counts."""
import numpy as np
import pytest

from tinygan.errors import UserError
from tinygan.gan import draw_z
from tinygan.layers import BatchNorm2d, Conv2d, ConvTranspose2d, GlobalAvgPool2d, LeakyReLU, Linear, Sigmoid
from tinygan.recipes import RECIPES, find_recipe, make_gan
from tinygan.recipes.labels import LabelPlanes

SHAPES = {
    'dcgan': ([(1, 1, 100), (7, 7, 128), (14, 14, 64), (28, 28, 1)],
              [(14, 14, 64), (7, 7, 128), (1, 1, 1), (1,)]),
    'dcgan_gap': ([(1, 1, 100), (7, 7, 128), (14, 14, 64), (28, 28, 1)],
                  [(14, 14, 64), (7, 7, 128), (128,), (1,)]),
    'lsgan': ([(6272,), (7, 7, 128), (14, 14, 64), (28, 28, 1)],
              [(14, 14, 64), (7, 7, 128), (6272,), (1,)]),
    'dcgan64': ([(1, 1, 20), (4, 4, 512), (8, 8, 256), (16, 16, 128), (32, 32, 64), (64, 64, 1)],
                [(32, 32, 64), (16, 16, 128), (8, 8, 256), (4, 4, 512), (1, 1, 1), (1,)]),
    'tutorial64': ([(1, 1, 100), (4, 4, 512), (8, 8, 256), (16, 16, 128), (32, 32, 64), (64, 64, 3)],
                   [(32, 32, 64), (16, 16, 128), (8, 8, 256), (4, 4, 512), (1, 1, 1), (1,)]),
    'lsgan64': ([(1, 1, 100), (4, 4, 256), (8, 8, 256), (16, 16, 128), (32, 32, 64), (64, 64, 3)],
                [(32, 32, 64), (16, 16, 128), (8, 8, 256), (4, 4, 256), (1, 1, 1), (1,)]),
}
SHAPES['fast'] = ([(1, 1, 16), (7, 7, 96), (14, 14, 48), (28, 28, 1)], [(14, 14, 16), (7, 7, 48), (1, 1, 128), (128,), (1,)])
SHAPES['wgan_gp'] = (SHAPES['dcgan'][0], [(14, 14, 64), (7, 7, 128), (1, 1, 128), (128,), (1,)])
SHAPES['conditional'] = ([(1, 1, 42), *SHAPES['dcgan'][0][1:]],
                         [(28, 28, 11), (14, 14, 60), (7, 7, 120), (1, 1, 128), (128,), (1,)])
SHAPES['vae'] = ([(1, 1, 16), *SHAPES['dcgan'][0][1:]], [(14, 14, 64), (7, 7, 128), (1, 1, 128), (128,), (32,)])
PARAMETERS = {          # of G and D: kernels (4x4 unless said), biases, and two for each channel that is normalised
    'dcgan': (7 * 7 * 100 * 128 + 16 * 128 * 64 + 16 * 64 + 1 + 2 * (128 + 64),
              16 * 64 + 64 + 16 * 64 * 128 + 7 * 7 * 128 + 1 + 2 * 128),
    'dcgan_gap': (7 * 7 * 100 * 128 + 16 * 128 * 64 + 16 * 64 + 1 + 2 * (128 + 64),
                  16 * 64 + 64 + 16 * 64 * 128 + 128 + 1 + 2 * 128),
    'lsgan': (62 * 6272 + 16 * 128 * 64 + 16 * 64 + 1 + 2 * (128 + 64),
              16 * 64 + 64 + 16 * 64 * 128 + 6272 + 1 + 2 * 128),
    'dcgan64': (16 * (20 * 512 + 512 * 256 + 256 * 128 + 128 * 64 + 64) + 3 * (512 + 256 + 128 + 64) + 1,
                16 * (64 + 64 * 128 + 128 * 256 + 256 * 512 + 512) + 64 + 128 + 256 + 512 + 1),
    'tutorial64': (3_576_704, 2_765_568),         # as PyTorch counts netG's and netD's of its tutorial
    'lsgan64': (16 * (100 * 256 + 256 * 256 + 256 * 128 + 128 * 64 + 64 * 3) + 2 * (256 + 256 + 128 + 64),
                16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 256 + 256) + 2 * (128 + 256 + 256)),
}
PARAMETERS['fast'] = (7 * 7 * 16 * 96 + 16 * 96 * 48 + 16 * 48 + 1 + 2 * (96 + 48),
                      16 * 16 + 16 + 16 * 16 * 48 + 48 + 7 * 7 * 48 * 128 + 128 + 128 + 1)
PARAMETERS['wgan_gp'] = (PARAMETERS['dcgan'][0], 16 * 64 + 64 + 16 * 64 * 128 + 128 + 7 * 7 * 128 * 128 + 128 + 128 + 1)
PARAMETERS['conditional'] = (7 * 7 * 42 * 128 + 16 * 128 * 64 + 16 * 64 + 1 + 2 * (128 + 64),
                             16 * 11 * 60 + 60 + 16 * 60 * 120 + 2 * 120 + 7 * 7 * 120 * 128 + 128 + 128 + 1)
PARAMETERS['vae'] = (7 * 7 * 16 * 128 + 16 * 128 * 64 + 16 * 64 + 1 + 2 * (128 + 64),
                     16 * 64 + 64 + 16 * 64 * 128 + 2 * 128 + 7 * 7 * 128 * 128 + 2 * 128 + 128 * 32 + 32)


UP, DOWN = ' ConvTranspose2d BatchNorm2d ReLU', ' Conv2d BatchNorm2d LeakyReLU'
ORDER = dict.fromkeys(RECIPES, (f'Reshape{UP}{UP} ConvTranspose2d Tanh', f'Conv2d LeakyReLU{DOWN} Conv2d Reshape'))
ORDER['dcgan_gap'] = ORDER['dcgan'][0], f'Conv2d LeakyReLU{DOWN} GlobalAvgPool2d Linear'
ORDER['lsgan'] = f'Linear Reshape BatchNorm2d ReLU{UP} ConvTranspose2d Tanh', f'Conv2d LeakyReLU{DOWN} Flatten Linear'
ORDER['tutorial64'] = f'Reshape{UP}{UP}{UP}{UP} ConvTranspose2d Tanh', f'Conv2d LeakyReLU{DOWN}{DOWN}{DOWN} Conv2d Reshape'
ORDER['dcgan64'] = ORDER['tutorial64'][0], f'{4 * "Conv2d LeakyReLU "}Conv2d Reshape'
ORDER['lsgan64'] = ORDER['tutorial64'][0].replace('Tanh', 'Sigmoid'), f'{ORDER["tutorial64"][1]} Sigmoid'
ORDER['fast'] = ORDER['wgan_gp'] = ORDER['dcgan'][0], f'{3 * "Conv2d LeakyReLU "}Flatten Linear'
ORDER['conditional'] = ORDER['dcgan'][0], f'LabelPlanes Conv2d LeakyReLU{DOWN} Conv2d LeakyReLU Flatten Linear'
ORDER['vae'] = ORDER['dcgan'][0], f'Conv2d LeakyReLU{DOWN}{DOWN} Flatten Linear'


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
    gan = make_gan(recipe)
    z = draw_z(0, 0, 2, recipe.z_dim + recipe.classes)
    assert (shapes(gan.G, z), shapes(gan.D, gan.G(z))) == SHAPES[name]
    assert (gan.G.parameters.size, gan.D.parameters.size) == PARAMETERS[name]
    assert gan.G(z).shape[1:] == recipe.shape


@pytest.mark.parametrize('name', RECIPES)
def test_layers_have_the_published_order(name):
    networks = RECIPES[name].generator(), RECIPES[name].discriminator()
    assert tuple(' '.join(kind.__name__ for kind in kinds(network)) for network in networks) == ORDER[name]


def test_a_recipe_that_is_not_here_is_answered_with_those_that_are():
    with pytest.raises(UserError, match='there is no recipe wgan; choose from dcgan, dcgan_gap, lsgan'):
        find_recipe('wgan')


@pytest.mark.parametrize('name', RECIPES)
def test_a_seed_makes_the_same_networks_and_another_seed_others(name):
    a, b, c = (make_gan(RECIPES[name], seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a.G.parameters, b.G.parameters)
    assert (a.D.parameters != c.D.parameters).any() and (a.G.parameters != c.G.parameters).any()


SETTINGS = {            # lr, beta1, beta2, batch size, loss, slopes of D's LeakyReLUs, as each source has them
    'dcgan': (2e-4, 0.5, 0.999, 128, 'bce', {0.2}),
    'dcgan_gap': (2e-4, 0.5, 0.999, 128, 'bce', {0.2}),
    'lsgan': (2e-4, 0.5, 0.999, 128, 'lsgan', {0.2}),
    'dcgan64': (2e-4, 0.5, 0.999, 128, 'bce', {0.1}),
    'tutorial64': (2e-4, 0.5, 0.999, 128, 'bce', {0.2}),
    'lsgan64': (1e-3, 0.9, 0.999, 10, 'mse', {0.2}),
    'fast': (4e-3, 0, 0.99, 64, 'bce', {0.2}),
    'wgan_gp': (1e-4, 0, 0.9, 64, 'wgan', {0.2}),
    'conditional': (4e-3, 0.5, 0.99, 64, 'bce', {0.2}),
    'vae': (2e-3, 0.9, 0.999, 64, None, {0.2}),
}


@pytest.mark.parametrize('name', RECIPES)
def test_a_recipe_has_the_settings_of_its_source(name):
    recipe = RECIPES[name]
    slopes = {layer.slope for layer in recipe.discriminator().layers if isinstance(layer, LeakyReLU)}
    assert (recipe.lr, recipe.beta1, recipe.beta2, recipe.batch_size, recipe.loss, slopes) == SETTINGS[name]


def kinds(network):
    return [type(layer) for layer in network.layers]


def test_what_sets_the_recipes_apart():
    assert BatchNorm2d not in kinds(RECIPES['dcgan64'].discriminator())
    assert all(layer.b is None for network in (RECIPES['tutorial64'].generator(), RECIPES['tutorial64'].discriminator())
               for layer in network.layers if isinstance(layer, (Conv2d, ConvTranspose2d)))
    assert kinds(RECIPES['lsgan64'].generator())[-1] is kinds(RECIPES['lsgan64'].discriminator())[-1] is Sigmoid
    assert (RECIPES['lsgan64'].order, RECIPES['lsgan64'].D_rests_at, RECIPES['lsgan64'].black) == ('alternate', 0.1, 0)
    assert GlobalAvgPool2d in kinds(RECIPES['dcgan_gap'].discriminator())
    assert RECIPES['lsgan'].z_dim == 62 and RECIPES['dcgan64'].z_dim == 20
    assert kinds(RECIPES['lsgan'].discriminator())[-1] is Linear
    assert [name for name, recipe in RECIPES.items() if recipe.lr_d or recipe.average] == ['fast', 'conditional']
    assert [name for name, recipe in RECIPES.items() if recipe.instance_noise] == ['conditional']
    assert {name: (recipe.penalty, recipe.penalty_weight, recipe.penalty_every, recipe.critic_steps)
            for name, recipe in RECIPES.items() if recipe.penalty} == {'wgan_gp': ('wgan_gp', 10, 1, 5), 'fast': ('r1', 1, 4, 1)}
    assert [name for name, recipe in RECIPES.items() if recipe.classes] == ['conditional'] == \
        [name for name, recipe in RECIPES.items() if isinstance(recipe.discriminator().layers[0], LabelPlanes)]
    assert RECIPES['fast'][-6:] == (0, 0.99, 0, 0.999, 64, 10)
    for recipe in RECIPES.values():               # nothing is normalised next to an image
        assert BatchNorm2d not in kinds(recipe.generator())[-2:] + kinds(recipe.discriminator())[:2]
