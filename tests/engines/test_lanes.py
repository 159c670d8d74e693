"""A minibatch divided among processes: the same results as in one piece, and nothing hangs or is lost."""
import contextlib
import os
import signal
import subprocess
import sys
import time
from contextlib import closing

import numpy as np
import pytest
import threadpoolctl
from commands import begun, threads

from tinygan import optim
from tinygan.engines import Plain, conversion
from tinygan.engines.divided import Divided
from tinygan.engines.lanes import Lanes, divide
from tinygan.engines.group import Group
from tinygan.errors import UserError
from tinygan.gan import GAN
from tinygan.layers import BatchNorm2d, Conv2d, ConvTranspose2d, Flatten, LeakyReLU, Linear, ReLU, Reshape, Tanh
from tinygan.losses import LOSSES
from tinygan.network import Sequential
from tinygan.penalties import GradientPenalty, r1, wgan_gp
from tinygan.recipes.labels import LabelPlanes
from tinygan.recipes.vae import VAE

pytestmark = pytest.mark.skipif(divide(8, 2) == 1, reason='processes cannot be forked here')
N = 12


def small_gan(loss='bce', **settings):
    new = dict(rng=np.random.default_rng(0), dtype=np.float64)

    def generator():
        return Sequential(Linear(3, 18, bias=False, **new), Reshape(3, 3, 2), BatchNorm2d(2, **new), ReLU(),
                          ConvTranspose2d(2, 1, 4, stride=2, padding=1, **new), Tanh())
    G = generator()
    D = Sequential(Conv2d(1, 2, 4, stride=2, padding=1, **new), LeakyReLU(0.2),
                   Sequential(Conv2d(2, 3, 3, padding=1, bias=False, **new), BatchNorm2d(3, **new), LeakyReLU(0.2)),
                   Flatten(), Linear(27, 1, **new))
    for network in G, D:                          # of N(0, 0.02) so little would be left that Adam divides noise by noise
        network.parameters += new['rng'].normal(0, 0.3, network.parameters.size)
    average = optim.Average(generator(), G, 0.9)
    return GAN(G, D, LOSSES[loss](), optim.Adam(G, 1e-3), optim.Adam(D, 1e-3), average=average, **settings)


def minibatch(number, N=N):
    rng = np.random.default_rng(number)
    return rng.uniform(-1, 1, (N, 6, 6, 1)), rng.standard_normal((N, 3)), number, rng.standard_normal((2, N, 6, 6, 1))


def train(engine, numbers=range(1, 5)):
    return [{name: float(value) for name, value in engine.step(number).items()} for number in numbers]


def train_plain(gan, numbers=range(1, 5)):
    return train(Plain(gan, minibatch), numbers)


@pytest.fixture
def in_lanes():
    """GANs in so many lanes, whose processes end with the test."""
    made = []

    def divided(gan, count=2, batches=minibatch):
        made.append(Divided(gan, batches, Lanes(count)))
        return made[-1]
    yield divided
    for each in made:
        each.close()


@pytest.mark.parametrize('count', [2, 3])
@pytest.mark.parametrize('loss, settings', [
    ('bce', {'instance_noise': 0.3}), ('lsgan', {}), ('mse', {'order': 'alternate', 'D_rests_at': 0.55})])
def test_lanes_compute_what_one_computes(in_lanes, count, loss, settings, monkeypatch):
    monkeypatch.setattr(conversion, 'IN_CACHE', 20)          # so that each lane has pieces of Adam's vectors
    whole, parts = small_gan(loss, **settings), small_gan(loss, **settings)
    for one, other in zip(train_plain(whole), train(in_lanes(parts, count)), strict=True):
        assert one == pytest.approx(other, rel=1e-9)
    assert settings.get('D_rests_at') is None or 0 < whole.optim_D.t <= 2
    for name, vector in whole.state().items():
        np.testing.assert_allclose(parts.state()[name], vector, rtol=1e-7, atol=1e-10, err_msg=name)


def told_gan(**settings):
    """With labels at the end of z, and a D without BatchNorm, whose slope can be punished."""
    new = dict(rng=np.random.default_rng(1), dtype=np.float64)
    gan = small_gan('wgan', critic_steps=2, **settings)
    D = Sequential(LabelPlanes(2), Conv2d(3, 3, 4, stride=2, padding=1, **new), LeakyReLU(0.2),
                   Sequential(Conv2d(3, 4, 3, padding=1, **new), LeakyReLU(0.2)), Flatten(), Linear(36, 1, **new))
    D.parameters += new['rng'].normal(0, 0.3, D.parameters.size)
    gan.D, gan.optim_D = D, optim.Adam(D, 1e-3)
    return gan


def mixed_minibatch(number):
    *others, noise = minibatch(number)
    return *others, noise, np.random.default_rng(number).random((N, 1, 1, 1))


@pytest.mark.parametrize('count', [2, 3])
@pytest.mark.parametrize('rule, settings, batches', [
    (wgan_gp, {}, mixed_minibatch), (r1, {'instance_noise': 0.3, 'D_rests_at': -0.5}, minibatch),
    (r1, {'penalty_every': 3}, minibatch)], ids=['wgan_gp', 'r1', 'lazy r1'])
def test_lanes_share_a_penalty_and_what_d_is_told(in_lanes, count, rule, settings, batches, monkeypatch):
    monkeypatch.setattr(conversion, 'IN_CACHE', 20)
    whole, parts = (told_gan(penalty=GradientPenalty(rule, 10), **settings) for _ in range(2))
    lanes = in_lanes(parts, count, batches)
    for number, (one, other) in enumerate(zip(train(Plain(whole, batches)), train(lanes), strict=True)):
        assert one == pytest.approx(other, rel=1e-9)
        assert one['penalty'] > 0.01 if number % whole.penalty_every == 0 else 'penalty' not in one
    for name, vector in whole.state().items():
        np.testing.assert_allclose(parts.state()[name], vector, rtol=1e-7, atol=1e-10, err_msg=name)
    assert whole.optim_G.t == 2 and (0 < whole.optim_D.t < 4 if whole.D_rests_at else whole.optim_D.t == 4)


def small_vae():
    gan, new = small_gan(), dict(rng=np.random.default_rng(1), dtype=np.float64)
    E = Sequential(Conv2d(1, 3, 4, stride=2, padding=1, **new), BatchNorm2d(3, **new), LeakyReLU(0.2), Flatten(),
                   Linear(27, 6, **new))
    E.parameters += new['rng'].normal(0, 0.3, E.parameters.size)
    return VAE(gan.G, E, None, gan.optim_G, optim.Adam(E, 1e-3), average=gan.average)


@pytest.mark.parametrize('count', [2, 3])
def test_lanes_train_a_vae_as_one_does(in_lanes, count):
    whole, parts = small_vae(), small_vae()
    for one, other in zip(train_plain(whole), train(in_lanes(parts, count)), strict=True):
        assert one == pytest.approx(other, rel=1e-9) and set(one) == {'reconstruction', 'divergence'}
    for name, vector in whole.state().items():
        np.testing.assert_allclose(parts.state()[name], vector, rtol=1e-7, atol=1e-10, err_msg=name)


@pytest.mark.parametrize('factor, updates', [(0.9999, 1), (1.0001, 0)])
def test_d_rests_by_the_loss_of_the_whole_minibatch(in_lanes, factor, updates):
    """Which lies between those of the lanes, so that by its own one of them would rest and the other not."""
    loss, = train_plain(small_gan(), [1])
    whole, parts = (small_gan(D_rests_at=factor * loss['loss_D']) for _ in range(2))
    train_plain(whole, [1])
    train(in_lanes(parts), [1])
    assert whole.optim_D.t == parts.optim_D.t == updates
    np.testing.assert_allclose(parts.D.parameters, whole.D.parameters, rtol=1e-7, atol=1e-10)


def test_lanes_give_the_same_bits_every_time(in_lanes):
    first, second = small_gan(), small_gan()
    assert train(in_lanes(first)) == train(in_lanes(second))
    for name, vector in first.state().items():
        np.testing.assert_array_equal(second.state()[name], vector)


def test_lanes_go_on_from_a_loaded_state(in_lanes):
    unbroken = small_gan()
    train(in_lanes(unbroken), range(1, 6))
    begun, resumed = small_gan(), small_gan()
    train(in_lanes(begun), range(1, 4))
    resumed.load_state(begun.state())
    train(in_lanes(resumed), [4, 5])
    for name, vector in unbroken.state().items():
        np.testing.assert_array_equal(resumed.state()[name], vector)


@pytest.mark.parametrize('images, cores, parts', [(128, 2, 2), (128, 6, 4), (10, 2, 2), (9, 2, 1), (7, 3, 1), (4, 2, 1), (128, 1, 1),
                                                  (128, 64, 8)])
def test_images_are_divided_into_equal_parts_and_not_too_small_ones(images, cores, parts):
    assert divide(images, cores) == parts


def test_where_processes_cannot_be_forked_there_is_one_lane(monkeypatch):
    monkeypatch.delattr(os, 'fork')
    with closing(Divided(small_gan(), minibatch, Lanes(divide(N, 2)))) as engine:
        assert engine.group.count == 1 and engine.about is None and not engine.group.children
        for one, other in zip(train(engine), train_plain(small_gan()), strict=True):
            assert one == pytest.approx(other, rel=1e-9)
        assert list(engine.group.mean(2, 3)) == [2, 3] and engine.group.keeps_statistics


def test_the_shares_of_all_cover_a_long_vector_once(monkeypatch):
    monkeypatch.setattr(conversion, 'IN_CACHE', 10)
    for size in 0, 1, 10, 11, 47, 60:
        for count in 1, 2, 3, 64:
            vector, group = np.zeros(size), Group()
            for group.index in range(count):
                group.count = count
                share = vector[group.share(size)]
                assert size // count <= len(share) <= size // count + 1
                for piece in conversion.pieces(len(share)):
                    share[piece] += 1
                    assert len(share[piece]) <= 10
            assert (vector == 1).all()


def test_an_error_in_a_step_is_raised_and_the_next_step_works(in_lanes):
    engine = in_lanes(small_gan(), batches=lambda number: (spoil if number == 2 else minibatch)(number))
    train(engine, [1])
    with pytest.raises(ValueError):
        engine.step(2)
    assert not engine.group.children
    train(engine, [3])
    assert len(engine.group.children) == 1


def spoil(number):
    x, z, number, noise = minibatch(number)
    return x, z[:, :2], number, noise


def test_images_that_cannot_be_divided_are_refused_and_none_is_left_out(in_lanes):
    with pytest.raises(ValueError, match='11 images cannot be divided among 2 processes'):
        in_lanes(small_gan(), batches=lambda number: minibatch(number, 11)).step(2)


def test_a_fork_that_fails_leaves_nothing_half_done(in_lanes, monkeypatch):
    engine, fork = in_lanes(small_gan(), 3), os.fork
    forks = iter([fork, lambda: 1 / 0])
    monkeypatch.setattr(os, 'fork', lambda: next(forks)())
    with pytest.raises(ZeroDivisionError):
        train(engine, [1])
    assert not engine.group.children and not engine.group.pipes
    monkeypatch.undo()
    assert train(engine, [1]) == train(in_lanes(small_gan(), 3), [1])


def test_an_error_of_another_lane_alone_is_not_waited_for(in_lanes, capfd):
    first = os.getpid()
    engine = in_lanes(small_gan(), batches=lambda number: (minibatch if os.getpid() == first else spoil)(number))
    with pytest.raises(UserError, match='part of the minibatch'):
        engine.step(1)
    assert 'ValueError' in capfd.readouterr().err                     # which it was, the lane has said itself


def test_a_killed_lane_is_one_clear_error_and_the_next_step_works(in_lanes):
    engine = in_lanes(small_gan())
    train(engine, [1])
    os.kill(engine.group.children[0], signal.SIGKILL)
    with pytest.raises(UserError, match='too little memory'):
        train(engine, [1])
    assert train(engine, [1])


def gone(pid):
    for _ in range(500):
        try:
            with open(f'/proc/{pid}/stat') as file:
                if file.read().rpartition(')')[2].split()[0] == 'Z':  # whoever is its parent now has not looked yet
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.skipif(not os.path.exists('/proc'), reason='looks at processes in /proc')
@pytest.mark.parametrize('how', ['closed', 'ended', 'killed'])
def test_the_other_lanes_end_with_the_first(how):
    end = {'closed': 'engine.close(); time.sleep(60)', 'ended': '', 'killed': 'time.sleep(60)'}[how]
    code = f"""if True:
        import sys, time
        sys.path[:] = {sys.path!r}
        from test_lanes import *
        engine = Divided(small_gan(), minibatch, Lanes(3))
        train(engine, [1])
        print(*engine.group.children, flush=True)
        {end}
        """
    first = begun([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)
    children = first.stdout.readline().split()
    assert len(children) == 2
    try:
        if how == 'killed':
            first.kill()
        assert all(map(gone, children))
    finally:
        for pid in map(int, children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_signals_are_for_the_first_lane_to_decide(in_lanes):
    engine = in_lanes(small_gan())
    train(engine, [1])
    for signum in signal.SIGINT, signal.SIGTERM, signal.SIGHUP:
        os.kill(engine.group.children[0], signum)
    assert train(engine, [1])


@pytest.mark.parametrize('count', [1, 2])
def test_blas_has_one_thread_in_a_step_and_all_of_them_after_it(count):
    seen = []
    with threadpoolctl.threadpool_limits(2, 'blas'):
        with closing(Divided(small_gan(), minibatch, Lanes(count))) as engine:
            step = engine.gan.step
            engine.gan.step = lambda *part: seen.append(threads()) or step(*part)
            train(engine, [1])
            assert threads() == {2}
    assert seen == [{1}]
