"""Each optimiser's trajectory over ten steps, beside PyTorch's, with gradients from 1e-6 to 1000."""
from types import SimpleNamespace

import numpy as np
import pytest

from tinygan import optim

MAKERS = {'SGD': lambda n: optim.SGD(n, 0.1), 'Momentum': lambda n: optim.Momentum(n, 0.1),
          'RMSprop': lambda n: optim.RMSprop(n, 0.1), 'Adam': lambda n: optim.Adam(n, 2e-4, 0.5, 0.999)}


@pytest.mark.parametrize('name', MAKERS)
def test_ten_steps_are_pytorchs_ten_steps(reference, name):
    want = reference(name)
    network = SimpleNamespace(parameters=want['start'].copy(), gradients=None)
    optimiser = MAKERS[name](network)
    for g, theta in zip(want['gradients'], want['path']):
        network.gradients = g
        optimiser.step()
        np.testing.assert_allclose(network.parameters, theta, rtol=1e-11, atol=1e-14)


def test_adams_first_step_is_the_learning_rate_whatever_the_gradient():
    network = SimpleNamespace(parameters=np.zeros(3), gradients=np.array([1e-3, -1., 1e3]))
    optim.Adam(network, lr=0.1).step()
    np.testing.assert_allclose(network.parameters, [-0.1, 0.1, -0.1], rtol=1e-4)


@pytest.mark.parametrize('name', MAKERS)
def test_an_optimiser_updates_in_place_in_float32_and_leaves_the_gradient_alone(rng, name):
    theta, g = rng.standard_normal((2, 5)).astype('f')
    network = SimpleNamespace(parameters=theta, gradients=g.copy())
    optimiser = MAKERS[name](network)
    before = theta.copy()
    optimiser.step()
    assert network.parameters is theta and theta.dtype == np.float32 and (theta != before).all()
    np.testing.assert_array_equal(network.gradients, g)
    assert all(getattr(optimiser, v).dtype == np.float32 for v in optimiser.state_names)


def test_an_average_starts_where_the_network_is_and_follows_ever_more_slowly():
    def network():
        return SimpleNamespace(parameters=np.zeros(1), statistics=np.zeros(1))
    original, expected = network(), None
    average = optim.Average(network(), original, decay=0.25)
    for t, rate in enumerate([1, 10 / 11, 10 / 12, 10 / 13, 0.75, 0.75], 1):
        original.parameters[:], original.statistics[:] = t, -t
        average.step(t)
        expected = t if t == 1 else (1 - rate) * expected + rate * t
        assert average.network.parameters == pytest.approx(expected) == -average.network.statistics
    assert average.original is original and original.parameters == 6
