"""The checker itself: somebody's own layer in two lines, and that nothing wrong passes."""
import numpy as np
import pytest

from tinygan import BatchNorm2d, Layer, Linear, Sequential, Tanh, check_layer
from tinygan.gradcheck import TOLERANCE, all_checks, away_from_zero, in_float64, numeric_gradient, relative_error


class Scale(Layer):
    """y = a * x, one a for each channel."""

    def __init__(self, features):
        self.add_parameter('a', np.full(features, 0.5, np.float32))

    def forward(self, x):
        self.cache = x
        return self.a * x

    def backward(self, dy):
        x = self.cache
        if not self.frozen:
            self.da += (dy * x).sum(0)
        return self.a * dy


class Forgetful(Scale):
    """Whose parameter gets a gradient from the first image alone."""

    def backward(self, dy):
        self.da += dy[0] * self.cache[0]
        return self.a * dy


def test_a_layer_of_one_s_own_is_checked_in_two_lines_and_stays_as_it_was():
    layer = Scale(3)
    errors = check_layer(layer, np.random.randn(4, 3))
    assert set(errors) == {'dx', 'da'} and max(errors.values()) < TOLERANCE
    assert layer.a.dtype == np.float32 and not layer.da.any() and (layer.a == 0.5).all()


def test_what_is_random_in_a_check_comes_from_the_generator_that_it_is_given(rng):
    layer, x = Linear(3, 4, rng=rng), rng.standard_normal((2, 3))
    before = rng.bit_generator.state
    check_layer(layer, x)
    assert rng.bit_generator.state == before
    check_layer(layer, x, rng=rng)
    assert rng.bit_generator.state != before


def test_neither_frozen_layers_nor_older_gradients_disturb_the_check(rng):
    layer = Scale(3).freeze()
    layer.da += 7
    assert max(check_layer(layer, rng.standard_normal((4, 3))).values()) < TOLERANCE
    assert layer.frozen and (layer.da == 7).all()


def test_a_layer_with_statistics_is_checked_in_float64(rng):
    layer = BatchNorm2d(3, rng=rng)
    assert max(check_layer(layer, rng.standard_normal((6, 3))).values()) < TOLERANCE
    assert in_float64(layer).running_mean.dtype == np.float64 and layer.running_mean.dtype == np.float32


def test_a_wrong_gradient_is_found_and_the_right_one_beside_it_passes(rng):
    errors = check_layer(Forgetful(3), rng.standard_normal((4, 3)))
    assert errors['dx'] < TOLERANCE and errors['da'] > 0.1


def test_of_a_network_each_layer_s_gradients_have_a_row_of_their_own(rng):
    errors = check_layer(Sequential(Linear(3, 4, rng=rng), Tanh(), Linear(4, 2, rng=rng), Forgetful(2)),
                         rng.standard_normal((5, 3)))
    assert set(errors) == {'dx', '0 Linear dw', '0 Linear db', '2 Linear dw', '2 Linear db', '3 Forgetful da'}
    assert errors.pop('3 Forgetful da') > 0.1 and max(errors.values()) < TOLERANCE


def test_the_same_call_finds_the_same_errors():
    x = np.random.default_rng(0).standard_normal((4, 3))
    assert check_layer(Scale(3), x) == check_layer(Scale(3), x)


def test_differences_are_taken_where_they_are_asked_for_and_the_array_stays(rng):
    theta = rng.standard_normal((2, 3))
    before = theta.copy()
    np.testing.assert_allclose(numeric_gradient(lambda: (theta ** 3).sum(), theta), 3 * theta ** 2, rtol=1e-6)
    np.testing.assert_allclose(numeric_gradient(lambda: (theta ** 3).sum(), theta, places=[(1, 2)]), 3 * theta[1, 2:] ** 2,
                               rtol=1e-6)
    np.testing.assert_array_equal(theta, before)


def test_kinds_are_found_by_the_beginning_of_their_names():
    assert {what for what, _, _ in all_checks(kinds=['TANH', 'bce'])} == {
        'Tanh', 'bce_with_logits, real', 'bce_with_logits, fake', 'bce_with_logits, smoothed'}
    assert not list(all_checks(kinds=['conv2d x']))


def test_what_is_not_a_number_or_too_near_a_kink_is_not_passed_over(rng):
    assert relative_error(np.array([1, np.nan]), np.ones(2)) == np.inf
    assert abs(away_from_zero(rng, (100,))).min() >= 0.1


@pytest.mark.parametrize('factor, passes', [(1, True), (1 + 1e-5, False)])
def test_the_tolerance_is_no_wider_than_rounding(factor, passes, rng):
    class Off(Tanh):
        def backward(self, dy):
            return factor * super().backward(dy)
    assert (check_layer(Off(), rng.standard_normal((3, 4)))['dx'] < TOLERANCE) == passes
