"""Every layer against finite differences, against PyTorch, and at the edges where either is silent."""
import re

import numpy as np
import pytest

from tinygan.gradcheck import LAYERS, TOLERANCE, away_from_zero, check_layer, relative_error
from tinygan.layers import (BatchNorm2d, Conv2d, ConvTranspose2d, Flatten, GlobalAvgPool2d, LeakyReLU, Linear, ReLU,
                            Reshape, Sigmoid, Tanh)
from tinygan.network import Sequential

CONVOLUTIONS = ['1100', '3110', '4210', '3211', '2302', '5321', '5240']     # kernel, stride, padding, output padding


@pytest.mark.parametrize('name', LAYERS)
def test_backward_is_the_gradient_of_forward(rng, name):
    make, shape = LAYERS[name]
    layer = make(rng=rng, dtype=np.float64)
    errors = check_layer(layer, away_from_zero(rng, shape), rng)
    assert set(errors) == {'dx', *('d' + name for name in layer.parameter_names)}
    assert max(errors.values()) < TOLERANCE, errors


@pytest.mark.parametrize('name', [name for name in LAYERS if name.startswith('Conv')])
def test_a_check_of_a_convolution_is_called_what_it_checks(rng, name):
    layer, said = LAYERS[name][0](rng=rng), dict(re.findall(r', (stride|padding) (\d)', name))
    assert [type(layer).__name__, f'{layer.kernel_size}x{layer.kernel_size}'] == re.findall(r'\w+', name)[:2]
    assert said == {option: str(getattr(layer, option)) for option in said} and (layer.b is None) == name.endswith('no bias')


@pytest.mark.parametrize('setting', CONVOLUTIONS)
@pytest.mark.parametrize('kind', [Conv2d, ConvTranspose2d])
def test_convolutions_of_every_setting_pass_the_gradient_check(rng, kind, setting):
    K, S, P, O = map(int, setting)
    extra = {'output_padding': O} if kind is ConvTranspose2d else {}
    layer = kind(2, 3, K, stride=S, padding=P, rng=rng, dtype=np.float64, **extra)
    errors = check_layer(layer, rng.standard_normal((2, 5, 6, 2)), rng)
    assert max(errors.values()) < TOLERANCE, errors


@pytest.mark.parametrize('setting', CONVOLUTIONS)
@pytest.mark.parametrize('kind', [Conv2d, ConvTranspose2d])
def test_convolutions_agree_with_pytorch(reference, kind, setting):
    K, S, P, O = map(int, setting)
    want = reference(f'{kind.__name__}/{setting}')
    extra = {'output_padding': O} if kind is ConvTranspose2d else {}
    layer = kind(3, 2, K, stride=S, padding=P, dtype=np.float64, **extra)
    assert layer.w.shape == want['w'].shape and layer.b.shape == want['b'].shape
    layer.w, layer.b = want['w'], want['b']
    np.testing.assert_allclose(layer(want['x']), want['y'], rtol=0, atol=1e-12)
    np.testing.assert_allclose(layer.backward(want['dy']), want['dx'], rtol=0, atol=1e-12)
    np.testing.assert_allclose(layer.dw, want['dw'], rtol=0, atol=1e-12)
    np.testing.assert_allclose(layer.db, want['db'], rtol=0, atol=1e-12)


def test_batchnorm_agrees_with_pytorch_running_statistics_and_evaluation_included(reference):
    layer = BatchNorm2d(3, dtype=np.float64)
    for step in range(3):
        want = reference(f'BatchNorm2d/{step}')
        layer.gamma, layer.beta = want['gamma'], want['beta']
        layer.dgamma, layer.dbeta = np.zeros(3), np.zeros(3)
        np.testing.assert_allclose(layer(want['x']), want['y'], rtol=0, atol=1e-12)
        np.testing.assert_allclose(layer.backward(want['dy']), want['dx'], rtol=0, atol=1e-12)
        for name in 'dgamma', 'dbeta', 'running_mean', 'running_var':
            np.testing.assert_allclose(getattr(layer, name), want[name], rtol=0, atol=1e-12, err_msg=name)
    want = reference('BatchNorm2d/eval')
    layer.training = False
    np.testing.assert_allclose(layer(want['x']), want['y'], rtol=0, atol=1e-12)


@pytest.mark.parametrize('layer', [LeakyReLU(0.2), ReLU(), Tanh(), Sigmoid()], ids=lambda layer: type(layer).__name__)
def test_activations_agree_with_pytorch_at_zero_and_far_out(reference, layer):
    want = reference(type(layer).__name__)
    assert 0 in want['x'] and 1000 in want['x']
    np.testing.assert_allclose(layer(want['x']), want['y'], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(layer.backward(want['dy']), want['dx'], rtol=1e-12, atol=1e-15)


def test_the_gradient_at_a_kink_is_the_one_from_the_left():
    for layer, slope in ((LeakyReLU(0.2), 0.2), (ReLU(), 0.0)):
        layer(np.zeros(3))
        np.testing.assert_array_equal(layer.backward(np.ones(3)), np.full(3, slope))


def test_the_transposed_convolution_is_the_adjoint_of_the_convolution_with_its_weight(rng):
    """<conv(y), x> = <y, convT(x)>: what makes one the backward of the other."""
    convolution = Conv2d(3, 2, 4, stride=2, padding=1, bias=False, rng=rng, dtype=np.float64)
    transposed = ConvTranspose2d(2, 3, 4, stride=2, padding=1, bias=False, rng=rng, dtype=np.float64)
    transposed.w = convolution.w
    y, x = rng.standard_normal((2, 8, 6, 3)), rng.standard_normal((2, 4, 3, 2))
    assert (convolution(y) * x).sum() == pytest.approx((y * transposed(x)).sum(), rel=1e-12)


def test_output_padding_reaches_every_size_that_shrinks_to_the_same(rng):
    convolution = Conv2d(1, 1, 3, stride=2, rng=rng)
    for output_padding, size in ((0, 7), (1, 8)):
        transposed = ConvTranspose2d(1, 1, 3, stride=2, output_padding=output_padding, rng=rng)
        image = transposed(np.ones((1, 3, 3, 1), 'f'))
        assert image.shape == (1, size, size, 1) and convolution(image).shape == (1, 3, 3, 1)
    with pytest.raises(ValueError, match='output_padding must be at least 0 and below the stride 2, not 2'):
        ConvTranspose2d(1, 1, 3, stride=2, output_padding=2)


def test_batchnorm_whitens_each_channel_over_the_minibatch(rng):
    layer = BatchNorm2d(2, dtype=np.float64)
    layer.gamma[:], layer.beta[:] = 1, 0
    y = layer(rng.normal((5, -3), (2, 7), (8, 6, 5, 2)))
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(y.var((0, 1, 2)), 1, rtol=1e-4)       # eps takes its share


def test_batchnorm_in_evaluation_changes_nothing_and_has_no_backward(rng):
    layer = BatchNorm2d(2, rng=rng)
    layer.training = False
    before = layer.running_mean.copy(), layer.running_var.copy()
    layer(rng.standard_normal((4, 3, 3, 2), 'f'))
    np.testing.assert_array_equal(layer.running_mean, before[0])
    np.testing.assert_array_equal(layer.running_var, before[1])
    with pytest.raises(RuntimeError, match='needs a forward in training mode'):
        layer.backward(np.ones((4, 3, 3, 2), 'f'))


@pytest.mark.parametrize('N', [0, 1])
def test_batchnorm_refuses_to_train_on_fewer_than_two_numbers_per_channel(N):
    with pytest.raises(ValueError, match='more than one value per channel'):
        BatchNorm2d(2)(np.zeros((N, 1, 1, 2), 'f'))


def test_batchnorm_refuses_another_number_of_channels():
    for C in 1, 2:
        with pytest.raises(ValueError, match=rf'BatchNorm2d\(3\) takes x \(..., 3\), not \(4, 5, 5, {C}\)'):
            BatchNorm2d(3)(np.zeros((4, 5, 5, C), 'f'))


@pytest.mark.parametrize('slope', [1.5, 1, -0.1])
def test_a_slope_that_would_swap_the_two_branches_is_refused(slope):
    with pytest.raises(ValueError, match=rf'lies in \[0, 1\), not at {slope}'):
        LeakyReLU(slope)


@pytest.mark.parametrize('output_padding', [2, -1])
def test_an_output_padding_that_is_no_remainder_is_refused(output_padding):
    with pytest.raises(ValueError, match=f'output_padding must be at least 0 and below the stride 2, not {output_padding}'):
        ConvTranspose2d(1, 1, 4, stride=2, output_padding=output_padding)


def test_a_transposed_convolution_that_leaves_no_pixel_is_refused():
    assert ConvTranspose2d(1, 1, 4, padding=2)(np.ones((1, 2, 2, 1), 'f')).shape == (1, 1, 1, 1)
    with pytest.raises(ValueError, match='a transposed 4x4 kernel makes 0 pixels of 1 with padding 2'):
        ConvTranspose2d(1, 1, 4, padding=2)(np.ones((1, 1, 3, 1), 'f'))


def test_without_a_generator_no_two_layers_have_the_same_weights():
    assert (Linear(3, 4).w != Linear(3, 4).w).any()


@pytest.mark.parametrize('name', LAYERS)
def test_backward_adds_to_the_gradients_and_never_changes_what_it_is_given(rng, name):
    make, shape = LAYERS[name]
    layer = make(rng=rng, dtype=np.float64)
    x = away_from_zero(rng, shape)
    x_before = x.copy()
    y = layer(x)
    dy = rng.standard_normal(y.shape)
    dy_before = dy.copy()
    layer.backward(dy)
    once = {p: getattr(layer, 'd' + p).copy() for p in layer.parameter_names}
    layer.backward(dy)
    np.testing.assert_array_equal(dy, dy_before)
    np.testing.assert_array_equal(x, x_before)
    for p, gradient in once.items():
        np.testing.assert_allclose(getattr(layer, 'd' + p), 2 * gradient, rtol=1e-12)


@pytest.mark.parametrize('name', LAYERS)
def test_a_frozen_layer_passes_the_same_gradient_and_keeps_none(rng, name):
    make, shape = LAYERS[name]
    layer = make(rng=rng, dtype=np.float64)
    y = layer(away_from_zero(rng, shape))
    dy = rng.standard_normal(y.shape)
    dx = layer.backward(dy)
    gradients = {p: getattr(layer, 'd' + p).copy() for p in layer.parameter_names}
    layer.frozen = True
    np.testing.assert_array_equal(layer.backward(dy), dx)
    for p, gradient in gradients.items():
        np.testing.assert_array_equal(getattr(layer, 'd' + p), gradient)


@pytest.mark.parametrize('name', LAYERS)
def test_a_float32_layer_stays_float32(rng, name):
    make, shape = LAYERS[name]
    layer = make(rng=rng, dtype=np.float32)
    y = layer(away_from_zero(rng, shape).astype('f'))
    dx = layer.backward(y)
    arrays = [y, dx, *(getattr(layer, n) for n in layer.statistic_names),
              *(getattr(layer, d + p) for p in layer.parameter_names for d in ('', 'd'))]
    assert {array.dtype for array in arrays} == {np.dtype('f')}


def test_weights_start_as_the_dcgan_paper_says(rng):
    w = Conv2d(64, 128, 4, rng=rng).w
    assert w.std() == pytest.approx(0.02, rel=0.01) and abs(w.mean()) < 2e-4
    w = ConvTranspose2d(64, 128, 4, rng=rng).w
    assert w.std() == pytest.approx(0.02, rel=0.01)
    gamma = BatchNorm2d(10000, rng=rng).gamma
    assert gamma.mean() == pytest.approx(1, abs=1e-3) and gamma.std() == pytest.approx(0.02, rel=0.05)
    assert not Conv2d(1, 5, 3).b.any() and not BatchNorm2d(5).beta.any()


def test_shapes_of_the_layers_without_parameters():
    x = np.arange(48, dtype='f').reshape(2, 3, 4, 2)
    np.testing.assert_allclose(GlobalAvgPool2d()(x), x.reshape(2, 12, 2).mean(1))
    assert Flatten()(x).shape == (2, 24) and Flatten()(x[:0]).shape == (0, 24)
    assert Reshape(6, 2, 2)(x).shape == (2, 6, 2, 2)
    assert Linear(24, 5)(Flatten()(x)).shape == (2, 5)


def small_network(rng, dtype=np.float64):
    return Sequential(Conv2d(1, 2, 3, bias=False, rng=rng, dtype=dtype), BatchNorm2d(2, rng=rng, dtype=dtype), Tanh(),
                      Sequential(Flatten(), Linear(8, 1, rng=rng, dtype=dtype)))


def test_what_is_not_a_number_passes_no_gradient_check():
    assert relative_error(np.array([1, np.nan]), np.ones(2)) == np.inf


def test_a_network_passes_the_gradient_check_as_a_whole(rng):
    errors = check_layer(small_network(rng), rng.standard_normal((3, 4, 4, 1)), rng)
    assert len(errors) == 6 and max(errors.values()) < TOLERANCE, errors


def test_the_parameters_of_a_network_are_views_of_one_vector(rng):
    network = small_network(rng)
    conv, norm, linear = network.layers[0], network.layers[1], network.layers[3].layers[1]
    assert network.parameters.size == 18 + 2 + 2 + 8 + 1 and network.statistics.size == 4
    network.parameters[:] = np.arange(31)
    assert conv.w.ravel().tolist() == list(range(18)) and linear.b.tolist() == [30]
    norm.running_var[:] = 7
    assert network.statistics.tolist() == [0, 0, 7, 7]
    linear.dw += 1
    assert network.gradients.sum() == 8
    network.zero_grad()
    assert not linear.dw.any()


def test_a_network_refuses_a_gradient_of_another_shape(rng):
    network = small_network(rng)
    network(rng.standard_normal((3, 4, 4, 1)))
    with pytest.raises(ValueError, match=r'dy has shape \(3,\), the output it belongs to \(3, 1\)'):
        network.backward(np.ones(3))
