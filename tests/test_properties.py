"""What holds for every shape, every layout in memory and every number, tried on those that Hypothesis draws."""
import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, example, given, strategies as st
from hypothesis.extra import numpy as hnp
from strategies import CURVED, FEWER, KINDS, SEEDS, can_train, close, geometries, made, some_arrays
from test_conv import loops, scatter_loops

from tinygan import conv, losses, optim
from tinygan.gradcheck import TOLERANCE, check_layer
from tinygan.layers import BatchNorm2d, Conv2d, ConvTranspose2d, LeakyReLU, Tanh
from tinygan.network import Sequential
from tinygan.penalties import PENALTIES


def of_each(layer, prefix):
    return {name: getattr(layer, prefix + name).copy() for name in layer.parameter_names}


# ---- convolutions

@given(geometries(), some_arrays())
def test_the_three_products_are_their_definitions(g, arrays):
    x, w, dy = arrays(*g.x), arrays(*g.w), arrays(*g.y)
    y, dx = conv.forward(x, w, g.S, g.P), conv.input_grad(dy, w, x.shape[1:3], g.S, g.P)
    dw = conv.weight_grad(x, dy, g.K, g.S, g.P)
    assert close(y, loops(x, w, g.S, g.P)) and close(dx, scatter_loops(dy, w, x.shape[1:3], g.S, g.P))
    assert y.dtype == dx.dtype == dw.dtype == arrays.dtype and dw.shape == w.shape
    assert close((w * dw).sum(), (y * dy).sum()) and close((x * dx).sum(), (y * dy).sum())


@given(geometries(), some_arrays())
def test_a_convolution_and_the_transposed_one_are_each_other_s_backward(g, arrays):
    down = Conv2d(g.C, g.F, g.K, g.S, g.P, bias=False, dtype=arrays.dtype)
    up = ConvTranspose2d(g.F, g.C, g.K, g.S, g.P, g.O, bias=False, dtype=arrays.dtype)
    up.w = down.w = arrays(*g.w)
    y = arrays(*g.y)
    image = up(y)
    v = arrays(*image.shape)
    assert image.shape == (g.N, *((size - 1) * g.S - 2 * g.P + g.K + g.O for size in y.shape[1:3]), g.C)
    np.testing.assert_array_equal(down(v), up.backward(v))
    np.testing.assert_array_equal(down.backward(y), image)
    np.testing.assert_array_equal(down.dw, up.dw)
    assert close((down(v) * y).sum(), (v * image).sum())


# ---- every layer

@pytest.mark.parametrize('kind', KINDS)
@FEWER
@given(geometries(), some_arrays())
def test_a_backward_adds_its_gradients_and_changes_nothing_else_in_whatever_layout_its_arrays_are(kind, g, arrays):
    layer, x = made(kind, g, arrays)              # arrays are read-only
    assume(can_train(layer, x))
    plain = copy.deepcopy(layer)
    y = layer(x)
    dy = arrays(*y.shape)
    dx = layer.backward(dy)
    once = of_each(layer, 'd')
    assert y.dtype == dx.dtype == arrays.dtype and dx.shape == x.shape and y.shape[0] == g.N
    assert close(y, plain(x.copy('C'))) and close(dx, plain.backward(dy.copy('C')))
    layer.backward(dy)
    layer.freeze().backward(dy)
    for name, gradient in once.items():
        assert close(gradient, getattr(plain, 'd' + name)) and gradient.dtype == arrays.dtype and (g.N or not gradient.any())
        np.testing.assert_array_equal(getattr(layer, 'd' + name), 2 * gradient)


@pytest.mark.parametrize('kind', KINDS)
@FEWER
@given(geometries(), some_arrays(np.float64))
def test_a_backward_is_the_gradient_of_its_forward(kind, g, arrays):
    layer, x = made(kind, g, arrays)
    assume(g.N > 0 and can_train(layer, x))
    if isinstance(layer, BatchNorm2d):            # near a constant channel its curve is too sharp for finite differences
        assume(x.size >= 3 * g.C and x.std(axis=tuple(range(x.ndim - 1))).min() > 0.3)
    errors = check_layer(layer, x, arrays.rng)
    assert set(errors) == {'dx', *('d' + name for name in layer.parameter_names)} and max(errors.values()) < TOLERANCE, errors


@pytest.mark.parametrize('kind', [kind for kind in KINDS if kind not in CURVED])
@FEWER
@given(geometries(), some_arrays(np.float64))
def test_a_tangent_is_how_y_moves_when_x_does(kind, g, arrays):
    layer, x = made(kind, g, arrays)
    dy, v, h = arrays(*layer(x).shape), arrays(*x.shape), 1e-3
    dx = layer.backward(dy)
    layer.zero_grad()
    u, gradients = layer.tangent(v), of_each(layer, 'd')
    s = (dy * u).sum()
    assert close((dx * v).sum(), s) and not gradients.pop('b', np.zeros(1)).any()
    for name, gradient in gradients.items():      # s is linear in w
        assert close((getattr(layer, name) * gradient).sum(), s)
    assert close(u, (layer(x + h * v) - layer(x - h * v)) / (2 * h), digits=1e6)


def batchnorm(x, dy, gamma, beta, eps):
    """Ioffe & Szegedy 2015, Algorithm 1 and the gradients of section 3, as they stand there: y, dx, dgamma, dbeta."""
    m = len(x)
    mu = x.sum(0) / m
    var = ((x - mu) ** 2).sum(0) / m
    xhat = (x - mu) / np.sqrt(var + eps)
    dxhat = dy * gamma
    dvar = (dxhat * (x - mu)).sum(0) * -1 / 2 * (var + eps) ** np.longdouble(-1.5)
    dmu = (dxhat * -1 / np.sqrt(var + eps)).sum(0) + dvar * (-2 * (x - mu)).sum(0) / m
    return gamma * xhat + beta, dxhat / np.sqrt(var + eps) + dvar * 2 * (x - mu) / m + dmu / m, (dy * xhat).sum(0), dy.sum(0)


@given(geometries(), some_arrays(), st.sampled_from([0, 1e-3, 1, 1e3]), st.floats(-1e6, 1e6))
def test_batchnorm_is_its_definition_at_constant_channels_and_large_offsets_too(g, arrays, spread, offset):
    layer, x = made('BatchNorm2d', g, arrays)
    x = (spread * x + offset).astype(arrays.dtype)
    if not can_train(layer, x):
        with pytest.raises(ValueError, match='more than one value per channel'):
            layer(x)
        assert not layer.running_mean.any()
        return
    dy = arrays(*x.shape)
    y, dx = layer(x), layer.backward(dy)
    flat = [a.reshape(-1, g.C).astype(np.longdouble) for a in (x, dy)]
    exact = batchnorm(*flat, layer.gamma, layer.beta, layer.eps)
    rstd = 1 / np.sqrt(flat[0].var(0).min() + layer.eps)
    lost = 30 * np.finfo(arrays.dtype).eps * (1 + abs(x).max() * rstd)        # of xhat
    for found, right, scale in zip((y, dx, layer.dgamma, layer.dbeta), exact, (1, 10 * rstd, len(flat[0]), len(flat[0]))):
        np.testing.assert_allclose(found.reshape(right.shape), right, rtol=0, atol=lost * scale * 4)
    np.testing.assert_allclose(layer.running_mean, 0.1 * flat[0].mean(0), rtol=0, atol=lost / rstd)
    np.testing.assert_allclose(layer.running_var, 0.9 + 0.1 * flat[0].var(0, ddof=1), rtol=1e-5, atol=(lost / rstd) ** 2)


# ---- networks

SAME_SIZE = {       # name: layer that leaves (N, H, W, C) as it is
    'Conv2d': lambda C, **new: Conv2d(C, C, 3, padding=1, **new),
    'ConvTranspose2d': lambda C, **new: ConvTranspose2d(C, C, 3, padding=1, bias=False, **new),
    'BatchNorm2d': lambda C, **new: BatchNorm2d(C, **new),
    'LeakyReLU': lambda C, **new: LeakyReLU(0.2),
    'Tanh': lambda C, **new: Tanh()}


@given(st.lists(st.sampled_from(list(SAME_SIZE)), min_size=1, max_size=5), st.integers(0, 5), geometries(), some_arrays())
def test_a_network_is_its_layers_in_a_row_nested_or_not(names, cut, g, arrays):
    layers = [SAME_SIZE[name](g.C, dtype=arrays.dtype) for name in names]
    x, dy = arrays(*g.x), arrays(*g.x)
    assume(all(can_train(layer, x) for layer in layers))
    network = copy.deepcopy(Sequential(*layers[:cut], Sequential(*layers[cut:])))
    network.parameters[:] = arrays(network.parameters.size)
    start = 0
    for layer in layers:
        for name in layer.parameter_names:
            array = getattr(layer, name)
            array[...] = network.parameters[start:start + array.size].reshape(array.shape)
            start += array.size
    y, dx = x, dy
    for layer in layers:
        y = layer(y)
    for layer in reversed(layers):
        dx = layer.backward(dx)
    np.testing.assert_array_equal(network(x), y)
    np.testing.assert_array_equal(network.backward(dy), dx)
    gradients = [getattr(layer, 'd' + name).ravel() for layer in layers for name in layer.parameter_names]
    np.testing.assert_array_equal(network.gradients, np.concatenate([*gradients, []]))
    assert network.gradients.size == start


# ---- losses

def scores(*sizes):
    def of(dtype):
        width = np.finfo(dtype).bits
        elements = st.floats(-1e4, 1e4, width=width) | st.sampled_from([-1e4, -100., -1., 0., 1., 100., 1e4])
        return hnp.arrays(dtype, st.tuples(*sizes), elements=elements)
    return st.sampled_from([np.float32, np.float64]).flatmap(of)


def log1p_exp(s):
    return np.logaddexp(0, s)


TARGETS = st.sampled_from([-1, 0, 0.9, 1])
DEFINITIONS = {     # name: (loss of (score, target), what it is the mean of, the derivative of that, and a bound of it)
    'bce_with_logits': (losses.bce_with_logits, lambda s, t: t * log1p_exp(-s) + (1 - t) * log1p_exp(s),
                        lambda s, t: 1 / (1 + np.exp(-s)) - t, 1),
    'minimax_generator': (lambda s, t: losses.minimax_generator(s), lambda s, t: -log1p_exp(s),
                          lambda s, t: -1 / (1 + np.exp(-s)), 1),
    'least_squares': (losses.least_squares, lambda s, t: (s - t) ** 2 / 2, lambda s, t: s - t, 10001),
    'mean_squared_error': (losses.mean_squared_error, lambda s, t: (s - t) ** 2, lambda s, t: 2 * (s - t), 20002),
    'wasserstein': (losses.wasserstein, lambda s, t: -t * s, lambda s, t: -t + 0 * s, 1),
    'hinge': (losses.hinge, lambda s, t: np.maximum(0, 1 - t * s), lambda s, t: np.where(t * s < 1, -t, 0), 1)}


@pytest.mark.parametrize('name', DEFINITIONS)
@FEWER
@example(np.float32([[-92]]), 0)                  # for which cross-entropy is 1e-40, and float32 has few digits
@given(scores(st.integers(1, 5), st.integers(1, 3)), TARGETS)
def test_a_loss_is_its_definition_and_its_gradient_bounded_up_to_scores_of_ten_thousand(name, score, target):
    rule, loss_of, slope_of, bound = DEFINITIONS[name]
    target = {'bce_with_logits': abs(target), 'wasserstein': target or 1, 'hinge': math.copysign(1, target)}.get(name, target)
    loss, dscore = rule(score, target)
    s, t = score.astype(np.longdouble), np.dtype(score.dtype).type(target).astype(np.longdouble)
    eps, tiny = np.finfo(score.dtype).eps, np.finfo(score.dtype).tiny
    assert loss.dtype == dscore.dtype == score.dtype and dscore.shape == score.shape
    np.testing.assert_allclose(loss, loss_of(s, t).mean(), rtol=20 * eps, atol=20 * eps * abs(loss_of(s, t)).mean() + tiny)
    np.testing.assert_allclose(dscore * score.size, slope_of(s, t), rtol=10 * eps, atol=10 * eps)
    assert (abs(dscore) <= bound / score.size * (1 + eps)).all()


@given(scores(st.integers(1, 20)))
def test_sigmoid_and_softplus_keep_their_digits_far_out(score):
    """The logarithm of sigmoid is as exact as a number of its size can be."""
    s, limits = score.astype(np.longdouble), np.finfo(score.dtype)
    for found, exact, lost in ((losses.softplus(score), log1p_exp(s), 4),
                               (losses.sigmoid(score), 1 / (1 + np.exp(-s)), 4 + log1p_exp(-s))):
        assert found.dtype == score.dtype and (abs(found - exact) <= lost * limits.eps * exact + limits.tiny).all()


@given(scores(st.integers(1, 5), st.integers(1, 4)), SEEDS)
def test_softmax_cross_entropy_is_its_definition_up_to_logits_of_ten_thousand(logits, seed):
    N, classes = logits.shape
    labels = np.random.default_rng(seed).integers(classes, size=N)
    loss, dlogits = losses.softmax_cross_entropy(logits, labels)
    e = np.exp(logits.astype(np.longdouble))
    assert loss.dtype == dlogits.dtype == logits.dtype
    assert close(loss, (np.log(e.sum(axis=1)) - logits[np.arange(N), labels]).mean(), digits=10)
    assert close(dlogits * N, e / e.sum(axis=1, keepdims=True) - np.eye(classes)[labels], digits=20000)
    assert (abs(dlogits) <= 1 / N).all()


# ---- penalties

@pytest.mark.parametrize('name', PENALTIES)
@FEWER
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), some_arrays(), st.booleans())
def test_a_penalty_is_its_definition_at_a_slope_of_zero_too(name, shape, arrays, flat):
    g = arrays(*shape).copy()
    g[0] *= not flat
    before = g.copy()
    R, dg = PENALTIES[name](g)
    norm = np.sqrt((g.astype(np.longdouble).reshape(len(g), -1) ** 2).sum(axis=1))
    assert R.dtype == dg.dtype == arrays.dtype
    if name == 'r1':
        assert close(R, (norm ** 2).mean() / 2) and close(dg, g / len(g))
    else:                                         # which adds 1e-12 to a square
        unit = g / np.maximum(norm, 1e-30).reshape(-1, *[1] * (g.ndim - 1))
        exact = (2 * (norm - 1)).reshape(-1, *[1] * (g.ndim - 1)) * unit / len(g)
        np.testing.assert_allclose(R, ((norm - 1) ** 2).mean(), rtol=1e-5)
        np.testing.assert_allclose(dg, exact, rtol=0, atol=1e-9 + 100 * np.finfo(arrays.dtype).eps)
    np.testing.assert_array_equal(g, before)


# ---- optimisers: one parameter after the other, in the words of the papers

def momentum(theta, gradients, alpha, mu=0):
    m = 0
    for g in gradients:
        m = mu * m + g
        theta = theta - alpha * m
    return theta


def rmsprop(theta, gradients, alpha, rho, eps=1e-8):
    v = 0
    for g in gradients:
        v = rho * v + (1 - rho) * g ** 2
        theta = theta - alpha * g / (math.sqrt(v) + eps)
    return theta


def adam(theta, gradients, alpha, beta1, beta2, eps=1e-8):
    """Kingma & Ba 2015, Algorithm 1."""
    m = v = t = 0
    for g in gradients:
        t = t + 1
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g ** 2
        m_hat = m / (1 - beta1 ** t)
        v_hat = v / (1 - beta2 ** t)
        theta = theta - alpha * m_hat / (math.sqrt(v_hat) + eps)
    return theta


OPTIMISERS = {      # kind: (what it does, the factors by which it forgets)
    optim.SGD: (momentum, []), optim.Momentum: (momentum, [st.floats(0, 0.99)]), optim.RMSprop: (rmsprop, [st.floats(0, 0.999)]),
    optim.Adam: (adam, [st.floats(0, 0.99), st.floats(0, 0.9999)])}
GRADIENTS = hnp.arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(1, 4)),
                       elements=st.sampled_from([0., 1e-30, -1e-30, 1e-8, 1e30, -1e30]) | st.floats(-1e3, 1e3))


@pytest.mark.parametrize('kind', OPTIMISERS)
@FEWER
@given(GRADIENTS, st.floats(1e-5, 1), st.data())
def test_an_optimiser_does_to_each_parameter_what_its_paper_says(kind, gradients, lr, data):
    by_paper, decays = OPTIMISERS[kind]
    decays = list(map(data.draw, decays))
    start = np.linspace(-1, 1, gradients.shape[1])
    network = SimpleNamespace(parameters=start.copy())
    optimiser = kind(network, lr, *decays)
    for g in gradients:
        network.gradients = g
        optimiser.step()
    exact = [by_paper(float(theta), map(float, column), lr, *decays) for theta, column in zip(start, gradients.T)]
    largest = abs(gradients).max(axis=0) if kind in (optim.SGD, optim.Momentum) else 0
    np.testing.assert_array_less(abs(network.parameters - exact), 1e-12 * (1 + largest))
