"""Convolutions from the values of polynomials, against conv.py, which is tested against loops."""
import numpy as np
import pytest

from tinygan import conv
from tinygan.engines import convert, patches, toomcook
from tinygan.engines.toomcook import Plan, Values
from tinygan.models import dcgan_discriminator

#           H, K, S, P: one tile and several, the last one full or not, pixels left over at the edge, two and more taps
SETTINGS = [(14, 4, 2, 1), (32, 4, 2, 1), (8, 4, 2, 1), (15, 4, 2, 1), (22, 4, 2, 1), (9, 3, 1, 1), (7, 3, 1, 0), (12, 2, 1, 0),
            (13, 6, 2, 2), (14, 6, 3, 1), (16, 6, 3, 0), (11, 4, 1, 3)]


def arrays_of(rng, setting, N=33, C=16, F=17):
    H, K, S, P = setting
    x, w = rng.standard_normal((N, H, H, C)), rng.standard_normal((K, K, C, F))
    size = conv.output_size(H, K, S, P)
    return x, w, rng.standard_normal((N, size, size, F)), S, P


@pytest.mark.parametrize('setting', SETTINGS)
def test_all_three_are_those_of_conv(rng, setting):
    x, w, dy, S, P = arrays_of(rng, setting)
    y, X = toomcook.forward(x, w, S, P)
    dx, Y = toomcook.input_grad(dy, w, x.shape[1:3], S, P)
    assert isinstance(X, Values) and isinstance(Y, Values)
    np.testing.assert_allclose(y, conv.forward(x, w, S, P), rtol=0, atol=1e-9)
    np.testing.assert_allclose(dx, conv.input_grad(dy, w, x.shape[1:3], S, P), rtol=0, atol=1e-9)
    dw = conv.weight_grad(x, dy, len(w), S, P)
    for some_x, some_dy in (X, Y), (X, dy), (x, Y):
        np.testing.assert_allclose(toomcook.weight_grad(some_x, some_dy, len(w), S, P), dw, rtol=0, atol=1e-8)


@pytest.mark.parametrize('in_cache', [1, 2**11, 2**30])
@pytest.mark.parametrize('setting', SETTINGS[:2])
def test_in_smaller_and_larger_pieces_the_same(rng, setting, in_cache, monkeypatch):
    x, w, dy, S, P = arrays_of(rng, setting)
    plan = toomcook.find_plan(x, w, x.shape[1:3], dy.shape[1], S, P)
    monkeypatch.setattr(toomcook, 'IN_CACHE', in_cache)
    X, Y = plan.of_images(x), plan.of_outputs(dy)
    y = plan.to_outputs(plan.multiply(X, w), len(x))
    dx = plan.to_images(plan.multiply(Y, w, transposed=True), x.shape)
    np.testing.assert_allclose(y, conv.forward(x, w, S, P), rtol=0, atol=1e-9)
    np.testing.assert_allclose(dx, conv.input_grad(dy, w, x.shape[1:3], S, P), rtol=0, atol=1e-9)
    np.testing.assert_allclose(plan.to_weight(X, Y), conv.weight_grad(x, dy, len(w), S, P), rtol=0, atol=1e-8)


def test_results_and_values_are_not_overwritten_by_the_next_call(rng):
    x, w, dy, S, P = arrays_of(rng, SETTINGS[0])

    def everything(x, dy):
        y, X = toomcook.forward(x, w, S, P)
        dx, Y = toomcook.input_grad(dy, w, x.shape[1:3], S, P)
        return y, dx, X.array, Y.array, toomcook.weight_grad(X, Y, len(w), S, P)
    first = everything(x, dy)
    kept = [array.copy() for array in first]
    everything(-x, 2 * dy)
    for one, other in zip(first, kept):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize('size, digits', [(4, 2e-6), (7, 2e-5)])
def test_float32_keeps_its_digits(rng, size, digits):
    """The root of the mean squared error, relative to the mean square of the result; conv.py has up to 4e-7."""
    x, w, dy, S, P = (value if isinstance(value, int) else value.astype(np.float32)
                      for value in arrays_of(rng, (2 * size, 4, 2, 1), C=64, F=64))
    y, X = toomcook.forward(x, w, S, P)
    dx, Y = toomcook.input_grad(dy, w, x.shape[1:3], S, P)
    dw = toomcook.weight_grad(X, Y, 4, S, P)
    x, w, dy = (value.astype(np.float64) for value in (x, w, dy))
    for found, right in ((y, conv.forward(x, w, S, P)), (dx, conv.input_grad(dy, w, x.shape[1:3], S, P)),
                         (dw, conv.weight_grad(x, dy, 4, S, P))):
        assert found.dtype == np.float32
        assert np.sqrt(np.mean((found - right) ** 2) / np.mean(right ** 2)) < digits


@pytest.mark.parametrize('size, points', [(7, 8), (4, 5), (8, 10), (16, 20), (32, 40), (1, 2)])
def test_the_plan_with_the_fewest_points_is_taken(size, points):
    """points: in one dimension, for r = 2 taps; a 7x7 output has 8 * 8 products where conv.py has 7 * 7 * 2 * 2."""
    plan = Plan(4, 2, 1, size, np.float32)
    assert plan.T * plan.n == points and plan.T * plan.m >= size and plan.n <= toomcook.MOST_POINTS


def test_where_it_does_not_pay_conv_computes(rng):
    def taken_over(setting=SETTINGS[0], **sizes):
        x, w, _, S, P = arrays_of(rng, setting, **sizes)
        y, again = toomcook.forward(x, w, S, P)
        np.testing.assert_allclose(y, conv.forward(x, w, S, P), rtol=0, atol=1e-9)
        return isinstance(again, Values)
    assert taken_over()
    assert not taken_over(C=1) and not taken_over(F=1) and not taken_over(N=2)      # too small products
    assert not taken_over((14, 5, 2, 1)) and not taken_over((14, 2, 2, 0))          # taps that do not tile, or one only
    assert not taken_over((7, 7, 1, 0))                                             # more taps than points
    assert taken_over(N=9, C=64, F=64) and not taken_over(N=8, C=64, F=64)          # more values of w than that is worth


@pytest.mark.parametrize('height, width', [(14, 15), (15, 14), (10, 11), (12, 16)])
def test_images_that_are_not_square_are_left_to_conv(rng, height, width):
    """Their outputs may be square all the same."""
    x, w = rng.standard_normal((33, height, width, 16)), rng.standard_normal((4, 4, 16, 17))
    y, x_for_dw = toomcook.forward(x, w, 2, 0)
    dx, dy_for_dw = toomcook.input_grad(y, w, (height, width), 2, 0)
    np.testing.assert_array_equal(dx, conv.input_grad(y, w, (height, width), 2, 0))
    np.testing.assert_array_equal(toomcook.weight_grad(x_for_dw, dy_for_dw, 4, 2, 0), conv.weight_grad(x, y, 4, 2, 0))


@pytest.mark.parametrize('image, weight', [('i4', 'f8'), ('f4', 'f8'), ('f8', 'f4')])
def test_arrays_of_different_types_are_left_to_conv(rng, image, weight):
    x, w, _, S, P = arrays_of(rng, SETTINGS[0])
    x, w = (100 * x).astype(image), w.astype(weight)
    np.testing.assert_array_equal(toomcook.forward(x, w, S, P)[0], conv.forward(x, w, S, P))


def test_the_large_layer_of_dcgan_takes_it(rng):
    D = convert(dcgan_discriminator())
    D(rng.standard_normal((64, 28, 28, 1)).astype(np.float32))
    assert [isinstance(layer.cache[0], Values) for layer in D.layers if hasattr(layer, 'stride')] == [False, True, False]


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
@pytest.mark.parametrize('N, H, W, C, K, S, P', [(3, 8, 6, 1, 4, 2, 1), (2, 7, 9, 3, 3, 1, 2), (2, 5, 5, 2, 2, 3, 0),
                                                 (4, 4, 4, 5, 4, 1, 0)])
def test_patches_are_those_of_conv(rng, N, H, W, C, K, S, P, dtype):
    """Rows of 16 bytes and of others, and images that are not contiguous."""
    x = rng.standard_normal((N, H, W, C)).astype(dtype)
    for x in x, x[:, ::-1], x.swapaxes(1, 2):
        cols, (_, OH, OW) = patches.gather(x, K, S, P)
        np.testing.assert_array_equal(cols, conv.im2col(x, K, S, P))
        assert (OH, OW) == (conv.output_size(x.shape[1], K, S, P), conv.output_size(x.shape[2], K, S, P))


@pytest.mark.parametrize('x', [np.arange(6.).reshape(2, 3)[:, None, None], np.arange(12.).reshape(1, 1, 4, 3)[:, :, ::-4]],
                         ids=['added axes', 'the last pixel'])
def test_along_a_side_of_length_1_an_array_may_have_any_stride(x):
    assert x.flags.c_contiguous and x.strides[2] != x.shape[3] * x.itemsize
    np.testing.assert_array_equal(patches.gather(x, 1, 1, 0)[0], conv.im2col(x, 1, 1, 0))
