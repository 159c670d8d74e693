"""Faster layers, optimisers and GANs against those of the core that they were made of, on the same vectors."""
import copy
import gc
from contextlib import closing
from functools import partial

import numpy as np
import pytest
import threadpoolctl
from commands import counting_threads, threads

from tinygan.data import ImageSet
from tinygan.data.minibatches import Minibatches
from tinygan.engines import Plain, convert, start, toomcook
from tinygan.engines.divided import Divided
from tinygan.engines.lanes import Lanes
from tinygan.engines.toomcook import Values
from tinygan.gan import generate
from tinygan.gradcheck import LAYERS, TOLERANCE, away_from_zero, check_layer
from tinygan.layers import BatchNorm2d, Conv2d, ConvTranspose2d, Flatten, LeakyReLU, Linear, Reshape, Tanh
from tinygan.network import Layer, Sequential
from tinygan.penalties import first_curved
from tinygan.recipes import RECIPES, make_gan

LAYERS = LAYERS | {                               # large enough for polynomials to pay; and a patch that is the whole image
    'Conv2d, Toom-Cook': (lambda **new: Conv2d(16, 17, 4, stride=2, padding=1, **new), (9, 17, 17, 16)),
    'ConvTranspose2d, Toom-Cook': (lambda **new: ConvTranspose2d(17, 16, 4, stride=2, padding=1, **new), (9, 8, 8, 17)),
    'Conv2d to 1x1': (lambda **new: Conv2d(3, 1, 4, **new), (5, 4, 4, 3)),
    'Conv2d to 1x1, several filters': (lambda **new: Conv2d(3, 2, 4, **new), (5, 4, 4, 3)),
    'ConvTranspose2d from 1x1': (lambda **new: ConvTranspose2d(3, 2, 4, **new), (5, 1, 1, 3)),
}


def network(rng, dtype=np.float64):
    return Sequential(Conv2d(1, 2, 3, bias=False, rng=rng, dtype=dtype), BatchNorm2d(2, rng=rng, dtype=dtype), Tanh(),
                      Sequential(Flatten(), Linear(8, 1, rng=rng, dtype=dtype)))


@pytest.mark.parametrize('name', LAYERS)
def test_a_converted_layer_computes_what_the_core_s_does(rng, name):
    make, shape = LAYERS[name]
    core = Sequential(make(rng=rng, dtype=np.float64))
    fast = convert(copy.deepcopy(core))
    for training in True, True, False:            # twice, as gradients add up and running statistics move
        for net in core, fast:
            net.set_flags(training=training)
        x = away_from_zero(rng, shape)
        y = core(x)
        dy = rng.standard_normal(y.shape)
        before = x.copy(), dy.copy()
        np.testing.assert_allclose(fast(x), y, rtol=0, atol=1e-9)
        if training:
            np.testing.assert_allclose(fast.backward(dy), core.backward(dy), rtol=0, atol=1e-9)
        for vector in 'gradients', 'statistics':
            np.testing.assert_allclose(getattr(fast, vector), getattr(core, vector), rtol=0, atol=1e-8)
        np.testing.assert_array_equal(x, before[0])
        np.testing.assert_array_equal(dy, before[1])


@pytest.mark.parametrize('name', [name for name in LAYERS if name != 'BatchNorm2d'])
def test_a_converted_layer_takes_no_images_too(rng, name):
    make, shape = LAYERS[name]
    core, x = make(rng=rng), np.zeros((0, *shape[1:]), 'f')
    fast, y = convert(core), core(x)
    assert fast(x).shape == y.shape and fast.backward(y).shape == x.shape
    assert not any(getattr(fast, 'd' + name).any() for name in fast.parameter_names)


@pytest.mark.parametrize('name', LAYERS)
def test_a_converted_layer_passes_the_gradient_check_frozen_adds_nothing_and_stays_float32(rng, name):
    make, shape = LAYERS[name]
    layer = convert(make(rng=rng))
    x = away_from_zero(rng, shape)
    errors = check_layer(layer, x, rng)
    assert set(errors) == {'dx', *('d' + name for name in layer.parameter_names)}
    assert max(errors.values()) < TOLERANCE, errors
    y = layer.freeze()(x.astype('f'))
    dx = layer.backward(y)
    assert y.dtype == dx.dtype == np.float32
    assert not any(getattr(layer, 'd' + name).any() for name in layer.parameter_names)


@pytest.mark.parametrize('name', [name for name in LAYERS if not first_curved(LAYERS[name][0]())])
def test_a_converted_layer_has_the_core_s_tangent(rng, name):
    make, shape = LAYERS[name]
    core = Sequential(make(rng=rng, dtype=np.float64))
    fast, x, v = convert(copy.deepcopy(core)), away_from_zero(rng, shape), rng.standard_normal(shape)
    dy, before = rng.standard_normal(core(x).shape), v.copy()
    for net in core, fast:
        net.freeze()(x)                           # as a penalty does
        net.backward(dy)
        net.unfreeze()
    for _ in range(2):                            # gradients add up
        u = core.tangent(v)
        np.testing.assert_allclose(fast.tangent(v), u, rtol=0, atol=1e-9)
        np.testing.assert_allclose(fast.gradients, core.gradients, rtol=0, atol=1e-8)
    gradients = fast.gradients.copy()
    np.testing.assert_allclose(fast.freeze().tangent(v), u, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(fast.gradients, gradients)
    np.testing.assert_array_equal(v, before)


@pytest.mark.parametrize('name', ['Conv2d, Toom-Cook', 'ConvTranspose2d, Toom-Cook', 'Linear'])
def test_the_tangent_of_a_converted_layer_stays_float32(rng, name):
    make, shape = LAYERS[name]
    fast = convert(make(rng=rng))
    x = rng.standard_normal(shape).astype('f')
    fast.backward(fast(x))
    assert fast.tangent(x).dtype == fast.dw.dtype == np.float32


def test_a_converted_network_has_the_same_vectors_and_leaves_the_core_s_network_as_it_was(rng):
    core = network(rng)
    x, dy = rng.standard_normal((3, 4, 4, 1)), rng.standard_normal((3, 1))
    layers = [type(leaf) for leaf in core.leaves()]
    fast = convert(core)
    fast(x)
    fast.backward(dy)
    assert core.gradients.all() and fast.gradients is core.gradients and fast.parameters is core.parameters
    assert [type(leaf) for leaf in core.leaves()] == layers != [type(leaf) for leaf in fast.leaves()]
    core.layers[0].w += 1
    np.testing.assert_array_equal(fast.layers[0].w, core.layers[0].w)
    with pytest.raises(RuntimeError, match='Sequential.backward needs a forward first'):
        core.backward(dy)
    assert repr(fast) == repr(core)


def test_a_gradient_that_nobody_reads_is_left_out_and_the_others_stay(rng):
    linear = Sequential(Reshape(16), Linear(16, 3, rng=rng, dtype=np.float64), Tanh())
    for core in network(rng), Sequential(Reshape(4, 4, 1), network(rng)), linear:
        fast = convert(core)
        x = rng.standard_normal((3, 4, 4, 1))
        dy = rng.standard_normal(fast(x).shape)
        assert fast.backward(dy).shape == x.shape
        gradients = fast.gradients.copy()
        fast.zero_grad()
        assert fast.backward(dy, to_input=False) is None
        np.testing.assert_array_equal(fast.gradients, gradients)
        assert gradients.all()


@pytest.mark.parametrize('name', LAYERS)
def test_a_frozen_layer_at_the_bottom_learns_nothing_either(rng, name):
    make, shape = LAYERS[name]
    fast = convert(Sequential(make(rng=rng, dtype=np.float64))).freeze()
    y = fast(away_from_zero(rng, shape))
    fast.backward(np.ones_like(y), to_input=False)
    assert not fast.gradients.any()


class Scale(Layer):
    """Somebody's own: it knows nothing of engines."""

    def __init__(self, dtype=np.float64):
        self.add_parameter('a', np.full(1, 0.5, dtype))

    def forward(self, x):
        self.cache = x
        return self.a * x

    def backward(self, dy):
        self.da += (dy * self.cache).sum()
        return self.a * dy


def test_somebody_s_own_layer_may_lie_at_the_bottom_of_a_network(rng):
    fast = convert(Sequential(Scale(), Tanh()))
    fast(rng.standard_normal((3, 2)))
    assert fast.backward(np.ones((3, 2)), to_input=False).shape == (3, 2) and fast.gradients.all()


def test_a_gan_s_networks_leave_out_what_nobody_reads_and_d_passes_on_what_g_learns_from(rng):
    recipe = RECIPES['dcgan']._replace(batch_size=8)
    with closing(Divided(make_gan(recipe), Minibatches(images(recipe), recipe), Lanes(1))) as lanes:
        D, x = lanes.gan.D, np.zeros((2, 28, 28, 1), 'f')
        dy = np.ones_like(D(x))
        assert D.backward(dy) is None and D.freeze().backward(dy).shape == x.shape


def test_a_forward_that_breaks_off_leaves_no_older_one_behind(rng):
    fast = convert(network(rng))
    dy = np.ones_like(fast(rng.standard_normal((3, 4, 4, 1))))
    fast.backward(dy)
    with pytest.raises(ValueError):
        fast(np.zeros((3, 4, 4, 2)))
    with pytest.raises(RuntimeError, match='BatchNorm2d.backward needs a forward first'):
        convert(fast).layers[1].backward(dy)


def test_a_network_in_lanes_can_be_looked_at_and_goes_on():
    recipe = RECIPES['dcgan']._replace(batch_size=8)
    with closing(Divided(make_gan(recipe), Minibatches(images(recipe), recipe), Lanes(2))) as lanes:
        lanes.step(1)
        assert lanes.gan.G.summary(100).splitlines()[-1].endswith('(N, 28, 28, 1)') and repr(lanes.gan.D)
        gc.collect()
        lanes.step(2)


def test_samples_are_drawn_from_what_was_learnt():
    recipe = RECIPES['fast']._replace(batch_size=8)
    batches, z = Minibatches(images(recipe), recipe), np.random.default_rng(0).standard_normal((3, 16)).astype('f')
    for engine in Divided(make_gan(recipe), batches, Lanes(2)), Plain(make_gan(recipe), batches):
        before = generate(engine.snapshot()(), z)
        engine.step(1)
        state = engine.state()
        sampler = engine.snapshot()()
        np.testing.assert_array_equal(sampler.parameters, state['average.parameters'])
        assert (generate(sampler, z) != before).any()
        engine.close()


def test_a_network_without_parameters_has_a_gradient_of_its_input():
    fast = convert(Sequential(LeakyReLU(0.2)))
    fast(np.ones((1, 2)))
    np.testing.assert_array_equal(fast.backward(np.ones((1, 2)), to_input=False), np.ones((1, 2)))


@pytest.mark.parametrize('training', [True, False])
def test_a_converted_layer_refuses_what_the_core_s_refuses(training):
    for layer, x in (Conv2d(2, 3, 3), np.zeros((1, 5, 5, 1), 'f')), (BatchNorm2d(3), np.zeros((4, 1), 'f')):
        fast = convert(layer.set_flags(training=training))
        with pytest.raises(ValueError) as ours:
            fast(x)
        with pytest.raises(ValueError) as core:
            layer(x)
        assert str(ours.value) == str(core.value)
    for N in 0, 1:
        with pytest.raises(ValueError, match='more than one value'):
            convert(BatchNorm2d(2))(np.zeros((N, 2), 'f'))
    norm = convert(BatchNorm2d(2)).eval()
    norm(np.zeros((3, 2), 'f'))
    with pytest.raises(RuntimeError, match='forward in training mode'):
        norm.backward(np.zeros((3, 2), 'f'))


def images(recipe):
    size = (24, *recipe.shape)
    return ImageSet(np.random.default_rng(1).integers(0, 256, size, dtype=np.uint8), labels=np.arange(24) % 10)


@pytest.mark.parametrize('name', RECIPES)
def test_ten_steps_of_the_engine_are_ten_of_the_plain_core(name, monkeypatch):
    """But for rounding: in float64, as training blows up that of float32."""
    monkeypatch.setattr(toomcook, 'FEWEST_CHANNELS', 4)      # polynomials, though the networks are small
    monkeypatch.setattr(toomcook, 'FEWEST_ROWS', 1)
    recipe = RECIPES[name]._replace(batch_size=8, z_dim=5)
    networks = {key: partial(getattr(recipe, key), width=4, dtype=np.float64) for key in ('generator', 'discriminator')}
    plain, fast = (make_gan(recipe._replace(**networks)) for _ in range(2))
    batches = Minibatches(images(recipe), recipe)
    with closing(Divided(fast, batches, Lanes(2))) as lanes:
        for number in range(1, 11):
            expected = {key: float(value) for key, value in Plain(plain, batches).step(number).items()}
            assert lanes.step(number) == pytest.approx(expected, rel=1e-6), number
        for key, vector in plain.state().items():
            np.testing.assert_allclose(lanes.state()[key], vector, rtol=1e-5, atol=1e-7, err_msg=key)
        convolutions = [leaf for leaf in (*lanes.gan.G.leaves(), *lanes.gan.D.leaves()) if hasattr(leaf, 'stride')]
        assert any(isinstance(part, Values) for leaf in convolutions for part in leaf.cache)


def test_an_engine_is_chosen_for_a_gan():
    recipe = RECIPES['dcgan']._replace(batch_size=8)
    batches = Minibatches(images(recipe), recipe)
    plain = start(make_gan(recipe), batches, plain=True)
    assert type(plain) is Plain and plain.about == 'training with the plain core'
    for cores, about in (1, None), (2, 'minibatches are split among 2 processes'):
        with threadpoolctl.threadpool_limits(cores, 'blas'), closing(start(make_gan(recipe), batches)) as lanes:
            assert lanes.group.count == cores and (lanes.about or '').startswith(about or '')


@pytest.mark.parametrize('part', [lambda gan: gan.optim_G, lambda gan: gan.optim_D, lambda gan: gan.average, lambda gan: gan.D,
                                  lambda gan: gan.G.layers[2]])
def test_an_optimiser_or_a_layer_of_one_s_own_sees_whole_vectors_and_minibatches(part):
    recipe = RECIPES['fast']._replace(batch_size=8)
    gan = make_gan(recipe)
    part(gan).__class__ = type('Own', (type(part(gan)),), {})
    engine = start(gan, Minibatches(images(recipe), recipe))
    assert type(engine) is Plain and engine.about == 'Own is not ours: training with the plain core'


def test_small_products_are_left_to_one_thread_with_the_plain_core_too():
    recipe = RECIPES['dcgan']._replace(batch_size=4)
    gan, seen = make_gan(recipe), set()
    gan.step = counting_threads(gan.step, seen)
    with threadpoolctl.threadpool_limits(2, 'blas'):
        Plain(gan, Minibatches(images(recipe), recipe)).step(1)
        assert threads() == {2}
    assert seen == {1}
