"""The VAE: its two losses, the gradients of both networks, and that it trains."""
from functools import partial

import numpy as np
import pytest

from tinygan.arrays import random_stream
from tinygan.data import Digits
from tinygan.data.minibatches import Minibatches
from tinygan.gradcheck import TOLERANCE, numeric_gradient, relative_error
from tinygan.recipes import RECIPES, make_gan
from tinygan.recipes.vae import SD, VAE, divergence, reconstruction

SMALL = RECIPES['vae']._replace(z_dim=3, batch_size=6, generator=partial(RECIPES['vae'].generator, width=2),
                                discriminator=partial(RECIPES['vae'].discriminator, width=2, hidden=4))


def test_both_losses_have_the_gradients_that_they_return(rng):
    image, x = rng.standard_normal((2, 3, 4, 4, 1))
    assert relative_error(reconstruction(image, x)[1], numeric_gradient(lambda: reconstruction(image, x)[0], image)) < TOLERANCE
    mean, log_var = rng.standard_normal((2, 5, 3))
    for found, theta in zip(divergence(mean, log_var)[1:], (mean, log_var)):
        assert relative_error(found, numeric_gradient(lambda: divergence(mean, log_var)[0], theta)) < TOLERANCE


def test_reconstruction_is_minus_the_logarithm_of_a_gaussian_without_its_constant(rng):
    image, x = rng.standard_normal((2, 3, 4, 4, 1))
    log_p = -0.5 * ((x - image) / SD) ** 2 - np.log(SD * np.sqrt(2 * np.pi))
    constant = 16 * np.log(SD * np.sqrt(2 * np.pi))
    assert reconstruction(image, x)[0] == pytest.approx(-log_p.sum() / 3 - constant)


def test_divergence_is_that_of_two_gaussians(rng):
    """As the mean of log q(z) - log p(z) over many z of q, and zero only where q is N(0, 1)."""
    mean, log_var = rng.standard_normal((2, 2, 3))
    z = mean + np.exp(log_var / 2) * rng.standard_normal((200_000, 2, 3))
    log_q = -((z - mean) ** 2 / np.exp(log_var) + log_var) / 2
    assert divergence(mean, log_var)[0] == pytest.approx((log_q + z ** 2 / 2).sum(axis=(1, 2)).mean() / 2, rel=0.01)
    assert divergence(np.zeros((2, 3)), np.zeros((2, 3)))[0] == 0 < divergence(np.zeros((2, 3)), np.full((2, 3), 0.1))[0]


def test_a_step_moves_both_networks_by_their_gradients_and_the_average_follows(rng):
    vae = make_gan(SMALL._replace(average=0.5))
    assert type(vae) is VAE and vae.loss is None
    E, G = vae.D.parameters.copy(), vae.G.parameters.copy()
    metrics = vae.step(*Minibatches(Digits(0), SMALL)(1))
    assert set(metrics) == {'reconstruction', 'divergence'} and all(value.dtype == np.float32 for value in metrics.values())
    assert (vae.D.parameters != E).any() and (vae.G.parameters != G).any() and vae.optim_G.t == vae.optim_D.t == 1
    assert vae.sampler is vae.average.network and vae.D.gradients.any() and vae.G.gradients.any()
    gradients = vae.D.gradients.copy()
    again = make_gan(SMALL)
    again.D.gradients += 7                        # a step begins with fresh ones
    again.step(*Minibatches(Digits(0), SMALL)(1))
    np.testing.assert_array_equal(again.D.gradients, gradients)


def test_it_learns_to_make_an_image_again():
    vae, batches = make_gan(SMALL._replace(lr=3e-3)), Minibatches(Digits(0), SMALL._replace(batch_size=16))
    x, z, *_ = batches(1)
    first, *_, last = (vae.step(x, random_stream(0, 'noise', i).standard_normal(z.shape, np.float32)) for i in range(70))
    assert last['reconstruction'] + last['divergence'] < 0.5 * (first['reconstruction'] + first['divergence'])
