"""The gradient of a gradient: tangents and whole penalties against finite differences, and PyTorch's double backward."""
import numpy as np
import pytest

from tinygan.gradcheck import LAYERS, TOLERANCE, away_from_zero, nearest_kink, numeric_gradient, relative_error
from tinygan.recipes.labels import LabelPlanes
from tinygan.layers import (BatchNorm2d, Conv2d, ConvTranspose2d, Flatten, GlobalAvgPool2d, LeakyReLU, Linear, ReLU, Reshape,
                            Sigmoid, Tanh)
from tinygan.network import Sequential
from tinygan.penalties import PENALTIES, GradientPenalty, between, first_curved, r1, wgan_gp
from tinygan.recipes import RECIPES

CONVOLUTIONS = ['1100', '3110', '4210', '3211', '2302', '5321', '5240']     # kernel, stride, padding, output padding


def convolution(kind, setting):
    K, S, P, O = map(int, setting)
    extra = {'output_padding': O} if kind is ConvTranspose2d else {}
    return lambda **new: kind(2, 3, K, stride=S, padding=P, bias=S > 1, **extra, **new), (2, 5, 6, 2)


def told(rng=None, dtype=np.float64):
    planes = LabelPlanes(3)
    planes.labels = np.eye(3, dtype=dtype)
    return planes


STRAIGHT = {name: of for name, of in LAYERS.items() if not first_curved(of[0]())} | {
    f'{kind.__name__} {setting}': convolution(kind, setting) for kind in (Conv2d, ConvTranspose2d) for setting in CONVOLUTIONS} | {
    'Linear without a bias': (lambda **new: Linear(5, 4, bias=False, **new), (3, 5)), 'LabelPlanes': (told, (3, 2, 4, 2))}
WEIGHTED = [name for name, (make, _) in STRAIGHT.items() if make().parameter_names]


def tried(name, rng, dtype=np.float64):
    """A layer after a forward and a backward, with gradients of zero; its x and dy, and a v."""
    make, shape = STRAIGHT[name]
    layer, x = make(rng=rng, dtype=dtype), away_from_zero(rng, shape).astype(dtype)
    if getattr(layer, 'b', None) is not None:
        layer.b[:] = rng.standard_normal(layer.b.shape)
    dy = rng.standard_normal(layer(x).shape).astype(dtype)
    layer.backward(dy)
    layer.zero_grad()
    return layer, x, dy, rng.standard_normal(shape).astype(dtype)


def test_a_tangent_belongs_to_the_latest_forward_and_a_backward_after_it(rng):
    layer = Linear(2, 2, rng=rng, dtype=np.float64)
    for before in (lambda: None, lambda: layer(np.ones((1, 2))), lambda: (layer.backward(layer(np.ones((1, 2)))), layer(np.ones((1, 2))))):
        before()
        with pytest.raises(RuntimeError, match='Linear.tangent needs a backward first'):
            layer.tangent(np.ones((1, 2)))


def test_of_a_d_that_is_frozen_in_part_the_rest_learns(rng):
    D = networks(rng)['two convolutions and a Linear']
    D.layers[0].freeze()
    GradientPenalty(r1, 1)(D, rng.standard_normal((2, 6, 6, 2)))
    assert not D.layers[0].dw.any() and D.layers[2].dw.any()
    assert [leaf.frozen for leaf in D.leaves()] == [True] + 5 * [False] and not D.frozen


# ---- layers

def test_which_layers_are_straight_between_kinks():
    kinds = {type(make()) for make, _ in STRAIGHT.values()}
    assert kinds == {Conv2d, ConvTranspose2d, Linear, LeakyReLU, ReLU, GlobalAvgPool2d, Reshape, Flatten, LabelPlanes}


@pytest.mark.parametrize('name', STRAIGHT)
def test_a_tangent_is_how_y_moves_with_x(rng, name):
    layer, x, dy, v = tried(name, rng)
    u, h = layer.tangent(v), 1e-5
    assert relative_error(u, (layer(x + h * v) - layer(x - h * v)) / (2 * h)) < 1e-8


@pytest.mark.parametrize('name', WEIGHTED)
def test_the_gradient_of_a_tangent_is_that_of_the_move_of_y(rng, name):
    """y is linear in x, so it moves by layer(x + v) - layer(x): no tangent is asked."""
    layer, x, dy, v = tried(name, rng)
    layer.tangent(v)
    found = {parameter: getattr(layer, 'd' + parameter).copy() for parameter in layer.parameter_names}
    numeric = numeric_gradient(lambda: ((layer(x + v) - layer(x)) * dy).sum(), layer.w)
    assert relative_error(found.pop('w'), numeric) < 1e-8
    for gradient in found.values():               # the bias's
        np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize('name', STRAIGHT)
def test_a_tangent_is_the_adjoint_of_backward_and_leaves_what_it_is_given(rng, name):
    layer, x, dy, v = tried(name, rng)
    dx, before = layer.backward(dy), (x.copy(), dy.copy(), v.copy())
    assert (layer.tangent(v) * dy).sum() == pytest.approx((v * dx).sum(), rel=1e-12)
    for array, old in zip((x, dy, v), before):
        np.testing.assert_array_equal(array, old)


@pytest.mark.parametrize('name', STRAIGHT)
def test_tangents_add_to_the_gradients_those_of_frozen_layers_add_nothing_and_float32_stays(rng, name):
    layer, x, dy, v = tried(name, rng, np.float32)
    u = layer.tangent(v)
    once = {parameter: getattr(layer, 'd' + parameter).copy() for parameter in layer.parameter_names}
    layer.tangent(v)
    np.testing.assert_array_equal(layer.freeze().tangent(v), u)
    assert u.dtype == np.float32
    for parameter, gradient in once.items():
        assert getattr(layer, 'd' + parameter).dtype == np.float32
        np.testing.assert_allclose(getattr(layer, 'd' + parameter), 2 * gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('layer', [BatchNorm2d(3), Tanh(), Sigmoid()], ids=lambda layer: type(layer).__name__)
def test_a_curved_layer_says_so_in_one_line(rng, layer):
    D = Sequential(Conv2d(1, 3, 3, rng=rng), layer)
    dy = D(np.ones((2, 4, 4, 1), 'f'))
    D.backward(dy)
    with pytest.raises(TypeError, match=rf'^{type(layer).__name__}\(.*\) is curved: its slope moves with x, and [^\n]*$'):
        D.tangent(np.ones((2, 4, 4, 1), 'f'))
    assert first_curved(D) is layer and first_curved(Sequential(LeakyReLU())) is None


# ---- penalties

@pytest.mark.parametrize('rule', PENALTIES.values(), ids=PENALTIES)
def test_dg_is_the_gradient_of_a_penalty_by_g(rng, rule):
    g = rng.standard_normal((4, 3, 2, 2))
    assert relative_error(rule(g)[1], numeric_gradient(lambda: rule(g)[0], g)) < TOLERANCE


def test_penalties_are_those_of_the_papers(rng):
    g = rng.standard_normal((5, 4, 3, 2))
    sizes = np.linalg.norm(g.reshape(5, -1), axis=1)
    assert r1(g)[0] == pytest.approx((sizes ** 2).mean() / 2) and wgan_gp(g)[0] == pytest.approx(((sizes - 1) ** 2).mean())
    assert wgan_gp(g / sizes[:, None, None, None])[0] == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize('rule', PENALTIES.values(), ids=PENALTIES)
def test_where_d_is_flat_a_penalty_is_a_number_and_in_float32(rule):
    loss, dg = rule(np.zeros((2, 3, 3, 1), 'f'))
    assert np.isfinite(loss) and not dg.any() and loss.dtype == dg.dtype == np.float32


def networks(rng, dtype=np.float64):
    new = dict(rng=rng, dtype=dtype)
    return {
        'two convolutions and a Linear': Sequential(
            Conv2d(2, 3, 4, stride=2, padding=1, **new), LeakyReLU(0.2), Conv2d(3, 4, 3, padding=1, **new), LeakyReLU(0.2),
            Flatten(), Linear(36, 1, **new)),
        'up and down, a part in a part, no bias': Sequential(
            Sequential(ConvTranspose2d(2, 3, 3, stride=2, padding=1, output_padding=1, bias=False, **new),
                       LeakyReLU(0.1)),
            Conv2d(3, 3, 4, stride=3, bias=False, **new), ReLU(), GlobalAvgPool2d(), Linear(3, 1, bias=False, **new)),
        'labels, and scores of a convolution': Sequential(
            told(dtype=dtype), Conv2d(5, 4, 3, **new), LeakyReLU(0.3), Conv2d(4, 1, 4, **new), Reshape(1)),
        'a line': Sequential(Flatten(), Linear(72, 1, **new)),
    }


NAMES = list(networks(None))


def random_D(name, rng, dtype=np.float64):
    """A network and an x that is at no kink of it."""
    kink = 0
    while kink < 1e-4:
        D = networks(rng, dtype)[name]
        D.parameters += rng.normal(0, 0.4, D.parameters.size)
        x = rng.standard_normal((3, 6, 6, 2)).astype(dtype)
        kink = nearest_kink(D, x)
    return D, x


def definition(rule, D, x):
    """The penalty, from the slopes that backward finds."""
    g = D.backward(np.ones((len(D(x)), 1)))
    sizes = np.sqrt((g * g).sum(axis=(1, 2, 3)))
    return {'r1': (sizes ** 2).mean() / 2, 'wgan_gp': ((sizes - 1) ** 2).mean()}[rule]


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('rule', PENALTIES)
def test_a_penalty_s_gradient_by_every_parameter_is_that_of_its_definition(rng, rule, name):
    D, x = random_D(name, rng)
    D.gradients[:] = 7                            # to which it adds
    penalty = GradientPenalty(PENALTIES[rule], 10)
    loss, gradients = penalty(D, x), D.gradients - 7
    assert all((leaf.db == 7).all() for leaf in D.leaves() if getattr(leaf, 'bias', False))
    assert loss == pytest.approx(10 * definition(rule, D, x), rel=1e-9)
    numeric = numeric_gradient(lambda: 10 * definition(rule, D, x), D.parameters, h=1e-6)
    assert relative_error(gradients, numeric) < TOLERANCE and gradients.any()


@pytest.mark.parametrize('rule', PENALTIES)
def test_a_frozen_d_has_the_same_penalty_and_learns_nothing_and_a_d_stays_as_frozen_as_it_was(rng, rule):
    D, x = random_D(NAMES[0], rng)
    penalty, before = GradientPenalty(PENALTIES[rule], 3), x.copy()
    loss = penalty(D, x)
    assert not D.frozen and not any(leaf.frozen for leaf in D.leaves())
    D.zero_grad()
    assert penalty(D.freeze(), x) == loss and not D.gradients.any()
    assert D.frozen and all(leaf.frozen for leaf in D.leaves())
    np.testing.assert_array_equal(x, before)


def test_a_penalty_that_breaks_off_leaves_d_ready_to_learn(rng, monkeypatch):
    D, x = random_D(NAMES[0], rng)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(D.layers[0], 'backward', lambda dy: (_ for _ in ()).throw(KeyboardInterrupt))
        GradientPenalty(r1, 1)(D, x)
    assert not D.frozen and not any(leaf.frozen for leaf in D.leaves())


@pytest.mark.parametrize('rule', PENALTIES.values(), ids=PENALTIES)
def test_a_penalty_in_float32_stays_float32(rng, rule):
    D, x = random_D(NAMES[0], rng, np.float32)
    assert GradientPenalty(rule, 10)(D, x).dtype == D.gradients.dtype == np.float32


def test_a_penalty_on_a_curved_d_is_refused(rng):
    D = RECIPES['dcgan'].discriminator(width=2, rng=rng)
    with pytest.raises(TypeError, match=r'BatchNorm2d\(4\) is curved'):
        GradientPenalty(r1, 1)(D, rng.standard_normal((2, 28, 28, 1)).astype('f'))


@pytest.mark.parametrize('rule', PENALTIES)
def test_penalties_agree_with_pytorch_which_differentiates_twice(reference, rule):
    D = Sequential(Conv2d(2, 3, 3, stride=2, padding=1, dtype=np.float64), LeakyReLU(0.2),
                   Conv2d(3, 2, 3, padding=1, dtype=np.float64), LeakyReLU(0.2), Conv2d(2, 1, 3, dtype=np.float64), Reshape(1))
    for i in 0, 2, 4:
        D.layers[i].w[...], D.layers[i].b[...] = reference(f'D/{i}').values()
    want = reference(rule)
    assert GradientPenalty(PENALTIES[rule], 10)(D, want['x']) == pytest.approx(want['loss'], rel=1e-10)
    for i in 0, 2, 4:
        of_torch = reference(f'{rule} of D/{i}')
        np.testing.assert_allclose(D.layers[i].dw, of_torch['dw'], rtol=1e-9, atol=1e-10)
        np.testing.assert_array_equal(D.layers[i].db, 0)


def test_the_points_of_wgan_gp_lie_between_real_and_fake(rng):
    x, fake = rng.standard_normal((2, 3, 4, 4, 1))
    points = between(x, fake, np.array([1, 0, 0.25])[:, None, None, None])
    np.testing.assert_array_equal(points[:2], [x[0], fake[1]])
    np.testing.assert_allclose(points[2], 0.25 * x[2] + 0.75 * fake[2], rtol=1e-14)
