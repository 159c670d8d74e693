"""Every loss: its gradient, its value as published, and that no score is too large for it."""
import numpy as np
import pytest

from tinygan import losses
from tinygan.gradcheck import LOSSES, TOLERANCE, check_loss


@pytest.mark.parametrize('name', LOSSES)
def test_dscore_is_the_gradient_of_the_loss(rng, name):
    assert check_loss(LOSSES[name], 3 * rng.standard_normal((5, 3)))['dscore'] < TOLERANCE


@pytest.mark.parametrize('target', [0, 0.9, 1])
def test_bce_agrees_with_pytorch_up_to_scores_of_a_thousand(reference, target):
    want = reference(f'bce/{target:g}')
    assert abs(want['s']).max() == 1000
    loss, ds = losses.bce_with_logits(want['s'], target)
    np.testing.assert_allclose(loss, want['loss'], rtol=1e-14)
    np.testing.assert_allclose(ds, want['ds'], rtol=1e-12, atol=1e-16)


def test_bce_keeps_its_last_digits_in_float32():
    """-log sigmoid(20) is 2.06e-9: taken as 20 + log1p(e^-20) - 20 it would round to 0."""
    loss, ds = losses.bce_with_logits(np.float32([20]), 1)
    assert loss == pytest.approx(2.0611537e-9, rel=1e-5) and loss.dtype == ds.dtype == np.float32


@pytest.mark.parametrize('loss', LOSSES.values(), ids=LOSSES)
def test_every_loss_is_finite_and_float32_at_extreme_scores(loss):
    value, ds = loss(np.float32([[-1000], [0], [1000]]))
    assert np.isfinite(value) and np.isfinite(ds).all()
    assert value.dtype == ds.dtype == np.float32 and ds.shape == (3, 1)


def test_least_squares_with_a_b_c_is_equation_2_of_the_paper(rng):
    real, fake = rng.standard_normal((2, 7, 1))
    loss = losses.lsgan(a=-1, b=1, c=0)
    D_loss = loss.real(real)[0] + loss.fake(fake)[0]
    assert D_loss == pytest.approx(0.5 * ((real - 1) ** 2).mean() + 0.5 * ((fake + 1) ** 2).mean(), rel=1e-14)
    assert loss.generator(fake)[0] == pytest.approx(0.5 * (fake ** 2).mean(), rel=1e-14)


def test_the_published_targets_of_least_squares(rng):
    """(a, b, c) = (0, 1, 1) and (-1, 1, 0); the frameworks' MSE is twice the first."""
    s = rng.standard_normal((5, 1))
    for name, (a, b, c), factor in (('lsgan', (0, 1, 1), 0.5), ('lsgan_chi2', (-1, 1, 0), 0.5), ('mse', (0, 1, 1), 1)):
        loss = losses.LOSSES[name]()
        for rule, target in ((loss.fake, a), (loss.real, b), (loss.generator, c)):
            value, ds = rule(s)
            assert value == pytest.approx(factor * ((s - target) ** 2).mean(), rel=1e-13)
            np.testing.assert_allclose(ds, 2 * factor * (s - target) / 5, rtol=1e-13)


def test_minimax_and_non_saturating_are_the_two_losses_of_the_gan_paper(rng):
    score = rng.standard_normal((6, 1))
    p = 1 / (1 + np.exp(-score))
    assert losses.minimax().generator(score)[0] == pytest.approx(np.log(1 - p).mean(), rel=1e-13)
    assert losses.non_saturating().generator(score)[0] == pytest.approx(-np.log(p).mean(), rel=1e-13)
    for loss in losses.minimax(), losses.non_saturating():
        assert loss.real(score)[0] + loss.fake(score)[0] == pytest.approx(-np.log(p).mean() - np.log(1 - p).mean())


def test_wasserstein_and_hinge_are_the_losses_of_their_papers(rng):
    real, fake = 2 * rng.standard_normal((2, 9, 1))
    wgan, hinge = losses.wgan(), losses.hinge_gan()
    assert wgan.real(real)[0] + wgan.fake(fake)[0] == pytest.approx(fake.mean() - real.mean(), rel=1e-13)
    assert hinge.real(real)[0] + hinge.fake(fake)[0] == pytest.approx(
        -np.minimum(0, real - 1).mean() - np.minimum(0, -fake - 1).mean(), rel=1e-13)
    for loss in wgan, hinge:                      # G has no margin
        assert loss.generator(fake)[0] == pytest.approx(-fake.mean(), rel=1e-13)
        np.testing.assert_allclose(loss.generator(fake)[1], np.full((9, 1), -1 / 9), rtol=1e-13)
        assert loss.output(fake) is fake


def test_a_score_beyond_the_margin_or_at_it_counts_for_nothing():
    score = np.array([[-2.], [0.9], [1.], [3.]])
    loss, ds = losses.hinge(score, 1)
    assert loss == pytest.approx(3.1 / 4) and ds.ravel().tolist() == [-0.25, -0.25, 0, 0]
    loss, ds = losses.hinge(-score, -1)
    assert loss == pytest.approx(3.1 / 4) and ds.ravel().tolist() == [0.25, 0.25, 0, 0]


def test_where_d_is_sure_of_a_fake_minimax_starves_g_and_non_saturating_does_not():
    sure = np.full((1, 1), -10.)
    starved = abs(losses.minimax().generator(sure)[1]).item()
    fed = abs(losses.non_saturating().generator(sure)[1]).item()
    assert starved < 1e-4 and fed > 0.9999


def test_smoothed_labels_are_0_9_for_real_images_alone():
    rules = losses.LOSSES['bce_smooth']()
    targets = [rule.keywords['target'] for rule in (rules.real, rules.fake, rules.generator)]
    assert targets == [0.9, 0, 1]


def test_the_reported_output_is_a_probability_for_bce_and_the_score_itself_for_least_squares():
    score = np.array([[0.], [1000.], [-1000.]])
    assert losses.LOSSES['bce']().output(score).ravel().tolist() == [0.5, 1, 0]
    assert losses.LOSSES['minimax']().output(score).ravel().tolist() == [0.5, 1, 0]
    assert losses.LOSSES['lsgan']().output(score).ravel().tolist() == [0, 1000, -1000]


def test_softmax_cross_entropy_is_minus_the_mean_log_probability_of_the_labels(rng):
    logits, labels = 3 * rng.standard_normal((6, 4)), np.array([0, 3, 3, 1, 2, 0])
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    loss, dlogits = losses.softmax_cross_entropy(logits, labels)
    assert loss == pytest.approx(-np.mean([np.log(p[i, label]) for i, label in enumerate(labels)]), rel=1e-13)
    np.testing.assert_allclose(dlogits, (p - np.eye(4)[labels]) / 6, rtol=1e-12)


def test_softmax_cross_entropy_is_exact_at_logits_of_a_thousand():
    logits = np.float32([[1000, -1000, 0], [1000, -1000, 0], [-1000, -1000, -1000]])
    loss, dlogits = losses.softmax_cross_entropy(logits, np.array([0, 1, 2], np.uint8))
    assert loss == pytest.approx((0 + 2000 + np.log(3)) / 3) and loss.dtype == dlogits.dtype == np.float32
    np.testing.assert_allclose(3 * dlogits, [[0, 0, 0], [1, -1, 0], [1 / 3, 1 / 3, -2 / 3]], rtol=1e-6)
