"""What every layer and network can do for whoever holds it: print itself, change its mode, refuse what it cannot take."""
import copy

import numpy as np
import pytest

import tinygan
from tinygan.layers import (BatchNorm2d, Conv2d, ConvTranspose2d, Flatten, GlobalAvgPool2d, LeakyReLU, Linear, ReLU,
                            Reshape, Sigmoid, Tanh)
from tinygan.models import dcgan_generator, lsgan_discriminator
from tinygan.network import Layer, Sequential
from tinygan.recipes.labels import LabelPlanes
from tinygan.recipes import RECIPES

MADE = {                        # how it prints itself: the layer
    'Conv2d(1, 64, 4, stride=2, padding=1)': Conv2d(1, 64, 4, stride=2, padding=1),
    'Conv2d(3, 2, 5, bias=False)': Conv2d(3, 2, 5, bias=False),
    'ConvTranspose2d(2, 3, 3, stride=2, output_padding=1)': ConvTranspose2d(2, 3, 3, 2, output_padding=1),
    'Linear(5, 4)': Linear(5, 4), 'BatchNorm2d(7, momentum=0.2)': BatchNorm2d(7, momentum=0.2),
    'LeakyReLU(slope=0.2)': LeakyReLU(0.2), 'ReLU()': ReLU(), 'Tanh()': Tanh(), 'Sigmoid()': Sigmoid(),
    'GlobalAvgPool2d()': GlobalAvgPool2d(), 'Reshape(7, 7, 2)': Reshape(7, 7, 2), 'Flatten()': Flatten(),
    'LabelPlanes(10)': LabelPlanes(10),
}


@pytest.mark.parametrize('text', MADE)
def test_a_layer_prints_itself_as_it_was_made(text):
    assert repr(MADE[text]) == text and repr(eval(text)) == text


def test_a_layer_of_one_s_own_prints_what_it_kept():
    class Scale(Layer):
        def __init__(self, factor, forgotten, *more, table=np.arange(2), power, **options):
            self.factor, self.table, self.power = factor, table, power
    assert repr(Scale(3, 4, power=2)) == 'Scale(3, ..., ..., power=2, ...)'



def test_a_network_prints_its_layers_with_their_parameters_and_given_an_input_the_shapes_in_between():
    G = dcgan_generator(10, 8)
    lines = G.summary(10).splitlines()
    assert lines[0].split() == ['Sequential', '10,065', '(N,', '10)']
    assert [line.split('(N')[0].split() for line in lines[1:5]] == [
        ['Reshape(1,', '1,', '10)'], ['ConvTranspose2d(10,', '16,', '7,', 'bias=False)', '7,840'],
        ['BatchNorm2d(16)', '32'], ['ReLU()']]
    assert [line.split('(N, ')[1] for line in lines] == [
        '10)', '1, 1, 10)', *['7, 7, 16)'] * 3, *['14, 14, 8)'] * 3, *['28, 28, 1)'] * 2]
    assert sum(int(word.replace(',', '')) for line in lines[1:] for word in line.split('(N')[0].split()[-1:]
               if word.replace(',', '').isdigit()) == G.parameters.size == 10065
    assert [line.split('  (N')[0].rstrip() for line in lines] == repr(G).splitlines()


def test_a_network_that_is_told_labels_prints_itself_whatever_it_was_told():
    D = RECIPES['conditional'].discriminator(width=2, hidden=3)
    lines, planes = D.summary(28, 28, 1), D.layers[0]
    assert lines.splitlines()[1].split() == ['LabelPlanes(10)', '(N,', '28,', '28,', '11)']
    planes.labels = np.eye(10, dtype='f')[:4]
    assert D.summary(28, 28, 1) == lines and len(planes.labels) == 4
    with pytest.raises(ValueError, match=r'LabelPlanes\(10\) has labels for 4 images, not for 3'):
        D(np.zeros((3, 28, 28, 1), 'f'))
    planes.labels = None
    assert not planes(np.ones((2, 5, 5, 1), 'f'))[..., 1:].any()


def test_to_look_at_a_network_changes_nothing(rng):
    D = lsgan_discriminator(2)
    x = rng.standard_normal((2, 28, 28, 1)).astype('f')
    dy = D(x)
    before, cache = [vector.copy() for vector in (D.parameters, D.statistics)], D.layers[0].cache
    assert lsgan_discriminator(2).eval().summary(28, 28, 1) == D.summary(28, 28, 1)
    assert D.layers[0].cache is cache and D.training and all(leaf.training for leaf in D.leaves())
    for vector, old in zip((D.parameters, D.statistics), before):
        np.testing.assert_array_equal(vector, old)
    D.backward(dy)


def test_a_copy_of_a_network_has_vectors_of_its_own(rng):
    inner = Sequential(Linear(3, 4, rng=rng), BatchNorm2d(4, rng=rng))
    G = Sequential(inner, Tanh()).eval()
    twin = copy.deepcopy(G)
    np.testing.assert_array_equal(twin.parameters, G.parameters)
    twin.parameters += 1
    assert (twin.leaves()[0].w == G.leaves()[0].w + 1).all() and twin.leaves()[0].w.base is twin.parameters
    assert not twin.training and not any(leaf.training for leaf in twin.leaves())


@pytest.mark.parametrize('layer', [Linear(3, 2), BatchNorm2d(3), Tanh(), Sequential(Linear(3, 2), Sequential(Tanh()))], ids=repr)
def test_every_layer_has_the_modes_of_a_network(rng, layer):
    assert layer.eval() is layer and not layer.training and not any(leaf.training for leaf in layer.leaves())
    assert layer.train() is layer and all(leaf.training for leaf in layer.leaves())
    assert layer.freeze() is layer and layer.frozen and all(leaf.frozen for leaf in layer.leaves())
    assert layer.unfreeze() is layer and not any(leaf.frozen for leaf in layer.leaves())
    y = layer(rng.standard_normal((4, 3)).astype('f'))
    layer.backward(rng.standard_normal(y.shape).astype('f'))
    gradients = [getattr(leaf, 'd' + name) for leaf in layer.leaves() for name in leaf.parameter_names]
    assert all(gradient.any() for gradient in gradients)
    layer.zero_grad()
    assert not any(gradient.any() for gradient in gradients)


def test_a_network_inside_another_has_its_modes():
    inner = Sequential(Linear(3, 2))
    outer = Sequential(inner, Tanh()).eval().freeze()
    assert not inner.training and inner.frozen
    outer.train().unfreeze()
    assert inner.training and not inner.frozen


def test_a_layer_stands_in_a_network_only_once():
    shared = Linear(3, 3)
    with pytest.raises(ValueError, match='a layer can stand in a network only once'):
        Sequential(shared, Sequential(Tanh(), shared))


def test_a_network_inside_another_forgets_its_gradients_too(rng):
    inner = Sequential(Linear(3, 2, rng=rng))
    outer = Sequential(inner, Tanh())
    outer.gradients += 1
    inner.zero_grad()
    assert not outer.gradients.any()


@pytest.mark.parametrize('layer, shape, takes', [
    (Conv2d(3, 2, 3), (1, 8, 8, 1), 'N, H, W, 3'), (Conv2d(3, 2, 3), (1, 3, 8, 8), 'N, H, W, 3'),
    (Conv2d(3, 2, 3), (8, 8, 3), 'N, H, W, 3'), (ConvTranspose2d(4, 2, 3), (1, 8, 8, 1), 'N, H, W, 4'),
    (Linear(5, 2), (3, 4), 'N, 5'), (Linear(5, 2), (3, 2, 5), 'N, 5'), (BatchNorm2d(3), (2, 1), '..., 3'),
    (BatchNorm2d(3), (), '..., 3')], ids=str)
def test_an_input_of_another_shape_is_one_clear_sentence(layer, shape, takes):
    with pytest.raises(ValueError) as error:
        Sequential(layer)(np.zeros(shape, 'f'))
    assert str(error.value) == f'{layer} takes x ({takes}), not {shape}'


def test_images_of_another_size_are_not_taken_for_more_scores():
    for name, recipe in tinygan.RECIPES.items():
        H, W, C = recipe.shape
        if name == 'dcgan_gap':                   # which takes a mean over pixels, however many there are
            continue
        with pytest.raises(ValueError, match=r'takes|does not fit'):
            recipe.discriminator(width=1)(np.zeros((2, 2 * H, 2 * W, C), 'f'))
        if name == 'dcgan':
            with pytest.raises(ValueError, match=r'Reshape\(1, 1, 5\) takes 5 entries of each example, not those of x \(3, 4\)'):
                recipe.generator(5, width=1)(np.zeros((3, 4), 'f'))


@pytest.mark.parametrize('layer', [*MADE.values(), Sequential(Tanh()), Sequential()], ids=str)
def test_a_backward_before_a_forward_is_one_clear_sentence(layer):
    with pytest.raises(RuntimeError) as error:
        copy.copy(layer).backward(np.zeros((1, 1), 'f'))
    assert str(error.value) == f'{type(layer).__name__}.backward needs a forward first'
    assert not hasattr(layer, 'cache')


def test_whoever_asks_a_layer_for_something_else_gets_the_usual_error():
    with pytest.raises(AttributeError, match='Conv2d has no attribute weight'):
        tinygan.Conv2d(1, 2, 3).weight
