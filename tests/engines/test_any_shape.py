"""The engine's layers and convolutions beside the core's, on shapes and layouts in memory that Hypothesis draws."""
import copy

import numpy as np
import pytest
from hypothesis import assume, example, given, strategies as st
from strategies import CURVED, FEWER, KINDS, Arrays, Geometry, can_train, close, geometries, made, some_arrays

from tinygan import conv
from tinygan.engines import convert, patches, toomcook
from tinygan.engines.toomcook import Values

TILED = st.sampled_from([(K, S) for S in (1, 2, 3) for K in (2 * S, 3 * S, 4 * S)])       # kernels that polynomials can take


@pytest.fixture(scope='module', autouse=True)
def however_small():
    """Polynomials are taken wherever they can be, even if they do not pay."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toomcook, 'FEWEST_CHANNELS', 1)
        patch.setattr(toomcook, 'FEWEST_ROWS', 1)
        yield


@pytest.mark.parametrize('kind', KINDS)
@FEWER
@given(geometries() | geometries(TILED, 20, square=True), some_arrays())
def test_a_converted_layer_is_that_of_the_core(kind, g, arrays):
    core, x = made(kind, g, arrays)
    assume(can_train(core, x))
    fast = convert(copy.deepcopy(core))
    y, fast_y, digits = core(x), fast(x), 1e4     # polynomials lose some
    dy = arrays(*y.shape)
    dx, fast_dx = core.backward(dy), fast.backward(dy)
    assert close(fast_y, y, digits) and close(fast_dx, dx, digits) and fast_y.dtype == fast_dx.dtype == arrays.dtype
    if kind not in CURVED:
        v = arrays(*x.shape)
        assert close(fast.tangent(v), core.tangent(v), digits)
    for name in core.parameter_names:
        assert close(getattr(fast, 'd' + name), getattr(core, 'd' + name), digits)
    for name in core.statistic_names:
        assert close(getattr(fast, name), getattr(core, name), digits)
    assert close(fast.eval()(x), core.eval()(x), digits)


@given(geometries(TILED, 20, square=True), some_arrays(np.float64))
def test_polynomials_give_the_three_products(g, arrays):
    x, w, dy = arrays(*g.x), arrays(*g.w), arrays(*g.y)
    y, X = toomcook.forward(x, w, g.S, g.P)
    dx, Y = toomcook.input_grad(dy, w, x.shape[1:3], g.S, g.P)
    assert isinstance(X, Values) == (g.N > 0)
    assert close(y, conv.forward(x, w, g.S, g.P), 1e4) and close(dx, conv.input_grad(dy, w, x.shape[1:3], g.S, g.P), 1e4)
    for some_x, some_dy in (X, Y), (X, dy), (x, Y):
        assert close(toomcook.weight_grad(some_x, some_dy, g.K, g.S, g.P), conv.weight_grad(x, dy, g.K, g.S, g.P), 1e4)


@example(Geometry(2, 1, 1, 3, 1, 1, 1, 0, 0), Arrays(np.float32, ['with new axes'], 0))
@example(Geometry(1, 1, 1, 2, 1, 1, 1, 0, 0), Arrays(np.float64, ['backwards'], 0))
@given(geometries(), some_arrays())
def test_patches_are_those_of_the_core(g, arrays):
    x = arrays(*g.x)
    np.testing.assert_array_equal(patches.gather(x, g.K, g.S, g.P)[0], conv.im2col(x, g.K, g.S, g.P))
