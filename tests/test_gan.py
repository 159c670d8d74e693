"""One step of training: whose gradients flow where, in which order, and against the same step by hand."""
import inspect
from functools import partial

import numpy as np
import pytest

from tinygan import gradcheck, losses
from tinygan.arrays import random_stream
from tinygan.gan import GAN, draw_epsilon, draw_z, generate
from tinygan.gradcheck import TOLERANCE, check_gan, numeric_gradient, relative_error
from tinygan.layers import BatchNorm2d
from tinygan.penalties import PENALTIES, GradientPenalty
from tinygan.recipes import RECIPES, make_gan
from tinygan.recipes.labels import ConditionalGAN, LabelPlanes, with_labels
from tinygan.optim import SGD, Adam

LEARN_D, LEARN_G = {'loss_D', 'D_x', 'D_G_z1'}, {'loss_G', 'D_G_z2'}


def small_gan(loss='bce', lr=0.01, dtype=np.float64, optimiser=SGD, D=None, **settings):
    rng = np.random.default_rng(3)
    G = RECIPES['dcgan'].generator(z_dim=3, width=2, rng=rng, dtype=dtype)
    D = D or RECIPES['dcgan'].discriminator(width=2, rng=rng, dtype=dtype)
    return GAN(G, D, losses.LOSSES[loss](), optimiser(G, lr), optimiser(D, lr), **settings)


def critic(recipe='wgan_gp'):
    """A small D of a recipe, whose parameters are large enough for its slope to matter."""
    rng = np.random.default_rng(4)
    D = RECIPES[recipe].discriminator(width=2, hidden=3, rng=rng, dtype=np.float64)
    D.parameters += rng.normal(0, 0.2, D.parameters.size)
    return D


def minibatch(rng, n=4, dtype=np.float64):
    return rng.uniform(-1, 1, (n, 28, 28, 1)).astype(dtype), rng.standard_normal((n, 3)).astype(dtype)


@pytest.mark.parametrize('recipe,loss', [('dcgan', loss) for loss in losses.LOSSES]
                         + [(name, RECIPES[name].loss) for name in RECIPES if name != 'dcgan'])
def test_the_gradients_of_a_step_are_those_of_the_losses(rng, recipe, loss, monkeypatch):
    """By finite differences: D on real and fake, and a penalty on D, G through D; or both networks of a VAE."""
    recipe = RECIPES[recipe]
    hidden = 'hidden' in inspect.signature(recipe.discriminator).parameters
    if hidden or recipe.shape[0] == 64:           # they are slow, and ten steps of those of 64x64 pixels are PyTorch's
        monkeypatch.setattr(gradcheck, 'MOST_OF_NETWORK', 600)
    if hidden:
        recipe = recipe._replace(discriminator=partial(recipe.discriminator, hidden=3)) if loss else recipe
    errors = check_gan(recipe, losses.LOSSES[loss](), rng) if loss else recipe.game.check(recipe, rng)
    assert len(errors) == 2
    assert max(errors.values()) < TOLERANCE, errors


def test_whole_networks_return_the_gradient_of_their_input(rng):
    gan = small_gan()
    for network, x in zip((gan.D, gan.G), minibatch(rng, 2)):
        r = rng.standard_normal(network(x).shape)
        dx = network.backward(r)
        assert relative_error(dx, numeric_gradient(lambda: (network(x) * r).sum(), x, h=1e-6)) < TOLERANCE


@pytest.mark.parametrize('loss', losses.LOSSES)
def test_a_step_updates_d_on_both_halves_and_then_g_through_the_updated_d(rng, loss):
    """The step, written out a second time from the definitions, on a copy."""
    gan, copy = small_gan(loss), small_gan(loss)
    x, z = minibatch(rng)
    metrics = gan.step(x, z)

    G, D, rules = copy.G, copy.D, copy.loss
    fake = G(z)
    D.backward(rules.real(D(x))[1])
    D.backward(rules.fake(D(fake))[1])
    real_loss, fake_loss = rules.real(D(x))[0], rules.fake(D(fake))[0]
    D.parameters -= 0.01 * D.gradients
    score = D(fake)
    G.backward(D.backward(rules.generator(score)[1]))
    G.parameters -= 0.01 * G.gradients
    np.testing.assert_allclose(gan.D.parameters, D.parameters, rtol=1e-12)
    np.testing.assert_allclose(gan.G.parameters, G.parameters, rtol=1e-12)
    assert metrics['loss_D'] == pytest.approx(real_loss + fake_loss)
    assert metrics['D_G_z2'] == pytest.approx(rules.output(score).mean())
    assert set(metrics) == set(GAN.metrics)


def test_training_d_gives_g_no_gradient_and_training_g_gives_d_none(rng):
    gan = small_gan()
    x, z = minibatch(rng)
    gan.step(x, z)
    G_gradients = gan.G.gradients.copy()
    fake = gan.G(z)
    gan.update_D(x, fake)
    np.testing.assert_array_equal(gan.G.gradients, G_gradients)
    D_gradients, D_parameters = gan.D.gradients.copy(), gan.D.parameters.copy()
    gan.update_G(fake)
    np.testing.assert_array_equal(gan.D.gradients, D_gradients)
    np.testing.assert_array_equal(gan.D.parameters, D_parameters)
    assert (gan.G.gradients != G_gradients).any()
    assert not any(leaf.frozen for leaf in gan.D.leaves())


def test_a_step_starts_from_fresh_gradients(rng):
    gan, x_z = small_gan(lr=0), minibatch(rng)
    gan.step(*x_z)
    once = gan.D.gradients.copy(), gan.G.gradients.copy()
    gan.step(*x_z)
    np.testing.assert_allclose(gan.D.gradients, once[0], rtol=1e-12)
    np.testing.assert_allclose(gan.G.gradients, once[1], rtol=1e-12)


def test_d_sees_real_and_fake_in_minibatches_of_their_own(rng):
    """BatchNorm's statistics move three times in a step: on real, on fake, and on fake for G."""
    gan = small_gan(lr=0)
    norm = next(leaf for leaf in gan.D.leaves() if isinstance(leaf, BatchNorm2d))
    x, z = minibatch(rng)
    gan.step(x, z)
    after = norm.running_mean.copy()
    norm.running_mean[:] = 0
    for images in x, gan.G(z), gan.G(z):
        gan.D(images)
    np.testing.assert_allclose(after, norm.running_mean, rtol=1e-12)


def test_alternating_updates_move_d_in_odd_steps_and_g_in_even_ones(rng):
    gan = small_gan()
    gan.order = 'alternate'
    x, z = minibatch(rng)
    for number, moves, rests in ((1, gan.D, gan.G), (2, gan.G, gan.D), (3, gan.D, gan.G)):
        moving, resting = moves.parameters.copy(), rests.parameters.copy()
        metrics = gan.step(x, z, number)
        assert (moves.parameters != moving).any() and (rests.parameters == resting).all()
        assert set(metrics) == (LEARN_D if moves is gan.D else LEARN_G)


def test_d_learns_in_every_step_and_g_in_every_third(rng):
    gan = small_gan('wgan', critic_steps=3)
    x, z = minibatch(rng)
    for number in range(1, 8):
        D, G = gan.D.parameters.copy(), gan.G.parameters.copy()
        metrics = gan.step(x, z, number)
        assert (gan.D.parameters != D).any() and (gan.G.parameters != G).any() == (number in (3, 6))
        assert set(metrics) == LEARN_D | (LEARN_G if number in (3, 6) else set())


def test_a_lazy_penalty_is_taken_in_the_first_of_every_few_updates_of_d(rng):
    one, every = [small_gan(D=critic(), penalty=GradientPenalty(PENALTIES['r1'], 3), penalty_every=n) for n in (1, 3)]
    x, z = minibatch(rng)
    for number in range(1, 6):
        every.D.parameters[:], every.G.parameters[:] = one.D.parameters, one.G.parameters
        taken = 'penalty' in every.step(x, z, number)
        one.step(x, z, number)
        assert taken == (number in (1, 4)) == np.array_equal(one.D.parameters, every.D.parameters)


def test_a_lazy_penalty_of_a_recipe_weighs_as_much_as_one_in_every_update():
    lazy = RECIPES['fast']._replace(penalty_weight=2, penalty_every=5)
    assert (make_gan(lazy).penalty.weight, make_gan(lazy).penalty_every) == (10, 5)


def test_a_lazy_penalty_goes_on_where_it_was_and_when_updates_alternate(rng):
    def game():
        return small_gan(D=critic(), penalty=GradientPenalty(PENALTIES['r1'], 3), penalty_every=2, order='alternate')
    gan, resumed = game(), game()
    x, z = minibatch(rng)
    taken = [number for number in range(1, 8) if 'penalty' in gan.step(x, z, number)]
    assert taken == [1, 5]                        # D has its third update in step 5
    resumed.load_state(gan.state())
    assert [number for number in range(8, 14) if 'penalty' in resumed.step(x, z, number)] == [9, 13]


@pytest.mark.parametrize('rule, mixed', [('r1', False), ('wgan_gp', True), ('wgan_gp', False)])
def test_a_step_with_a_penalty_on_the_slope_of_d(rng, rule, mixed):
    """Written out a second time from the definitions: at points between real and fake images or, without epsilon, at real ones.
    The penalty's gradient by the parameters is found by moving them."""
    gan, copy = small_gan('wgan', D=critic(), penalty=GradientPenalty(PENALTIES[rule], 3)), small_gan('wgan', D=critic())
    x, z = minibatch(rng)
    epsilon = rng.random((4, 1, 1, 1)) if mixed else None
    metrics = gan.step(x, z, epsilon=epsilon)

    G, D, rules = copy.G, copy.D, copy.loss
    fake = G(z)
    D.backward(rules.real(D(x))[1])
    D.backward(rules.fake(D(fake))[1])
    gradients, at = D.gradients.copy(), epsilon * x + (1 - epsilon) * fake if mixed else x

    def penalty():
        g = D.backward(np.ones_like(D(at)))
        size = np.sqrt((g ** 2).sum((1, 2, 3)))
        return 3 * {'r1': (size ** 2).mean() / 2, 'wgan_gp': ((size - 1) ** 2).mean()}[rule]
    value, places = penalty(), [(i,) for i in rng.permutation(D.parameters.size)[:80]]
    moved = (gan.D.parameters - D.parameters) / -0.01 - gradients
    numeric = numeric_gradient(penalty, D.parameters, h=1e-6, places=places)
    assert relative_error(moved[tuple(np.transpose(places))], numeric) < TOLERANCE
    assert metrics['penalty'] == pytest.approx(value, rel=1e-9) and set(metrics) == LEARN_D | LEARN_G | {'penalty'}
    assert metrics['loss_D'] == pytest.approx(rules.real(D(x))[0] + rules.fake(D(fake))[0], rel=1e-9)         # without it
    D.parameters[:] = gan.D.parameters            # and G learns through the updated D
    G.backward(D.backward(rules.generator(D(fake))[1]))
    np.testing.assert_allclose(gan.G.parameters, G.parameters - 0.01 * G.gradients, rtol=1e-12)
    assert not any(leaf.frozen for leaf in gan.D.leaves())


def test_a_conditional_d_sees_planes_of_the_labels_at_the_end_of_z(rng):
    seen = []

    class Watched(LabelPlanes):
        def forward(self, x):
            y = super().forward(x)
            seen.append(y)
            return y
    gan = small_gan(D=critic('conditional'))
    gan.D.layers[0].__class__, gan.__class__ = Watched, ConditionalGAN
    gan.G = RECIPES['dcgan'].generator(z_dim=13, width=2, rng=rng, dtype=np.float64)
    x, z = minibatch(rng)
    z, labels = with_labels(z, np.array([7, 0, 9, 7]), 10), np.eye(10)[[7, 0, 9, 7]]
    assert z.shape == (4, 13) and z.dtype == np.float64
    fake = gan.G(z)
    gan.step(x, z)
    for images, y in zip((x, fake, fake), seen, strict=True):
        np.testing.assert_array_equal(y[..., :1], images)
        np.testing.assert_array_equal(y[..., 1:], np.broadcast_to(labels[:, None, None], (4, 28, 28, 10)))


def test_d_rests_while_its_loss_is_at_most_the_threshold(rng):
    gan = small_gan()
    x, z = minibatch(rng)
    before = gan.D.parameters.copy()
    gan.D_rests_at = gan.update_D(x, gan.G(z))['loss_D']
    assert (gan.D.parameters != before).any()
    gan.D.parameters[:] = before
    gan.update_D(x, gan.G(z))
    np.testing.assert_array_equal(gan.D.parameters, before)
    gan.D_rests_at *= 0.999
    gan.update_D(x, gan.G(z))
    assert (gan.D.parameters != before).any()


@pytest.mark.parametrize('loss', losses.LOSSES)
def test_d_learns_to_tell_two_kinds_of_image_apart(rng, loss):
    gan = small_gan(loss, lr=2e-3, optimiser=Adam)
    x, z = minibatch(rng, 8)
    first, *_, last = [gan.update_D(x, gan.G(z)) for _ in range(60)]
    assert last['loss_D'] < 0.5 * first['loss_D'] and last['D_x'] > last['D_G_z1'] + 0.5


def test_g_learns_to_please_a_fixed_d(rng):
    gan = small_gan(lr=2e-3, optimiser=Adam)
    _, z = minibatch(rng, 8)
    first, *_, last = [gan.update_G(gan.G(z)) for _ in range(60)]
    assert last['loss_G'] < 0.8 * first['loss_G']


def test_generating_uses_the_running_statistics_and_disturbs_nothing(rng):
    gan = small_gan(dtype=np.float32)
    x, z = minibatch(rng, dtype=np.float32)
    gan.step(x, z)
    before = {name: vector.copy() for name, vector in gan.vectors().items()}
    images = generate(gan.G, z, batch_size=3)
    np.testing.assert_allclose(images[:1], generate(gan.G, z[:1]), rtol=0, atol=1e-6)    # no neighbour plays a part
    assert images.shape == (4, 28, 28, 1) and abs(images).max() <= 1
    for name, vector in gan.vectors().items():
        np.testing.assert_array_equal(vector, before[name])
    assert all(leaf.training for leaf in gan.G.leaves())


def test_d_sees_noisy_images_and_g_is_judged_by_the_same_fakes(rng):
    noisy, plain = small_gan(lr=1e-2, optimiser=Adam), small_gan(lr=1e-2, optimiser=Adam)
    noisy.instance_noise = 0.3
    x, z = minibatch(rng)
    noise = rng.standard_normal((2, *x.shape))
    metrics = noisy.step(x, z, 1, noise)
    fake = plain.G(z) + 0.3 * noise[1]
    expected = plain.update_D(x + 0.3 * noise[0], fake) | plain.update_G(fake)
    assert metrics == expected
    np.testing.assert_array_equal(noisy.G.parameters, plain.G.parameters)


def test_a_saved_state_goes_on_bit_for_bit(rng):
    one, other = (small_gan(dtype=np.float32, optimiser=Adam, lr=1e-3) for _ in range(2))
    batches = [minibatch(rng, dtype=np.float32) for _ in range(6)]
    for batch in batches[:3]:
        one.step(*batch)
    other.load_state(one.state())
    for batch in batches[3:]:
        one.step(*batch)
        other.step(*batch)
    a, b = one.state(), other.state()
    assert a.keys() == b.keys() and a['G.t'] == a['D.t'] == 6
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_each_optimiser_counts_its_own_steps():
    gan, again = small_gan(optimiser=Adam), small_gan(optimiser=Adam)
    gan.optim_G.t, gan.optim_D.t = 3, 5
    again.load_state(gan.state())
    assert (again.optim_G.t, again.optim_D.t) == (3, 5)


def test_a_step_that_is_broken_off_leaves_d_ready_to_learn(rng, monkeypatch):
    gan = small_gan()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(gan.G.layers[-1], 'backward', lambda dy: (_ for _ in ()).throw(KeyboardInterrupt))
        gan.step(*minibatch(rng))
    gan.D.zero_grad()
    gan.update_D(*[minibatch(rng)[0] for _ in range(2)])
    assert gan.D.gradients.any()


def test_networks_have_weights_of_streams_of_their_own():
    recipe = RECIPES['dcgan']
    gan = make_gan(recipe, 4)
    for network, build, purpose in ((gan.G, partial(recipe.generator, recipe.z_dim), 'G weights'),
                                    (gan.D, recipe.discriminator, 'D weights')):
        np.testing.assert_array_equal(network.parameters, build(rng=random_stream(4, purpose)).parameters)


def test_a_state_of_other_networks_is_refused():
    with pytest.raises(ValueError, match='average.parameters was not saved'):
        make_gan(RECIPES['fast']).load_state(make_gan(RECIPES['fast']._replace(average=0)).state())
    wider = make_gan(RECIPES['dcgan'])
    with pytest.raises(ValueError, match='values were saved, this network has'):
        wider.load_state(small_gan().state())


def test_noise_is_a_pure_function_of_seed_and_step():
    np.testing.assert_array_equal(draw_z(1, 5, 4, 3), draw_z(1, 5, 4, 3))
    draws = {draw_z(seed, step, 4, 3).tobytes() for seed in range(3) for step in range(3)}
    assert len(draws) == 9
    assert len({draw_epsilon(seed, step, 4).tobytes() for seed in range(3) for step in range(3)}) == 9
    epsilon = draw_epsilon(0, 1, 1000)
    assert epsilon.shape == (1000, 1, 1, 1) and epsilon.dtype == np.float32 and 0 <= epsilon.min() and epsilon.max() < 1
    assert epsilon.mean() == pytest.approx(0.5, abs=0.03)
    z = draw_z(0, 1, 1000, 100)
    assert z.dtype == np.float32 and abs(z.mean()) < 0.01 and z.std() == pytest.approx(1, abs=0.01)


def test_streams_of_different_purpose_do_not_meet():
    purposes = 'noise', 'image noise', 'epsilon', 'shuffle', 'preview', 'G weights'
    draws = {random_stream(0, purpose).random() for purpose in purposes}
    assert len(draws) == 6


def test_samples_come_from_the_average_where_a_recipe_has_one():
    gan = make_gan(RECIPES['fast'])
    gan.optim_D.t = 1000                          # G's steps count
    np.testing.assert_array_equal(gan.sampler.parameters, gan.G.parameters)
    weights = []
    for number in 1, 2, 3:
        x = np.zeros((2, 28, 28, 1), np.float32)
        gan.step(x, draw_z(0, number, 2, 16), number)
        weights.append(gan.G.parameters.copy())
    expected = (weights[0] / 11 + weights[1] * 10 / 11) / 6 + weights[2] * 5 / 6
    np.testing.assert_allclose(gan.sampler.parameters, expected, rtol=1e-4, atol=1e-7)
    again = make_gan(RECIPES['fast'], seed=1)
    again.load_state(gan.state())
    np.testing.assert_array_equal(again.sampler.parameters, gan.sampler.parameters)
    assert gan.optim_D.lr == 8e-4 and gan.optim_G.lr == 4e-3
