"""A minibatch divided among lanes: the same results as in one piece, and errors that arrive."""
import contextlib
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tinygan import lanes, optim
from tinygan.gan import GAN
from tinygan.layers import BatchNorm2d, Conv2d, Flatten, LeakyReLU, Linear, ReLU, Reshape, Tanh
from tinygan.losses import LOSSES
from tinygan.network import Sequential


@contextlib.contextmanager
def divided_among(count):
    """So many lanes, with BLAS as it was."""
    with ThreadPoolExecutor(count - 1) as pool, pytest.MonkeyPatch.context() as patch:
        patch.setattr(lanes, 'workers', pool)
        patch.setattr(lanes, 'count', count)
        yield


@pytest.fixture(params=[2, 3])
def several(request):
    with divided_among(request.param):
        yield request.param


def network(seed=0):
    new = dict(rng=np.random.default_rng(seed), dtype=np.float64)
    return Sequential(Reshape(6, 6, 1), Conv2d(1, 2, 4, stride=2, padding=1, **new), LeakyReLU(0.2),
                      Sequential(Conv2d(2, 3, 3, padding=1, bias=False, **new), BatchNorm2d(3, **new), ReLU()),
                      Flatten(), Linear(27, 2, **new), BatchNorm2d(2, **new), Tanh())


def trained_once(seed=0, frozen=False):
    """What a forward and two backwards leave behind, of 7 images: no number of lanes here divides them."""
    made, rng = network(seed), np.random.default_rng(9)
    y = made(rng.standard_normal((7, 36)))
    dy = rng.standard_normal((7, 2))
    if frozen:
        made.freeze()
    made.backward(dy)
    dx = made.backward(2 * dy)
    return y, dx, made.gradients, made.statistics


@pytest.mark.parametrize('frozen', [False, True])
@pytest.mark.parametrize('count', [2, 3])
def test_lanes_compute_what_one_computes(count, frozen):
    whole = trained_once(frozen=frozen)
    with divided_among(count):
        parts = trained_once(frozen=frozen)
        made = network()
        made(np.zeros((7, 36)))
    assert len(made.replicas) == count
    for one, other in zip(whole, parts):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-13)
    assert bool(whole[2].any()) is not frozen


def test_evaluation_in_lanes_leaves_the_running_statistics_alone(several, rng):
    made = network()
    made(rng.standard_normal((7, 36)))
    before = made.statistics.copy()
    made.eval()
    x = rng.standard_normal((7, 36))
    np.testing.assert_allclose(made(x)[:1], made(x[:1]), rtol=1e-12)
    np.testing.assert_array_equal(made.statistics, before)
    assert len(made.replicas) == 1                        # fewer images than lanes: nothing to divide


def test_lanes_give_the_same_bits_every_time(several):
    for one, other in zip(trained_once(), trained_once()):
        np.testing.assert_array_equal(one, other)


def test_a_gan_trains_in_lanes_as_in_one():
    def perceptron(seed, inputs, outputs):
        new = dict(rng=np.random.default_rng(seed), dtype=np.float64)
        return Sequential(Linear(inputs, 8, bias=False, **new), BatchNorm2d(8, **new), ReLU(),
                          Linear(8, outputs, bias=False, **new))

    def train():
        G, D, rng = perceptron(0, 3, 4), perceptron(1, 4, 1), np.random.default_rng(5)
        gan = GAN(G, D, LOSSES['bce'](), optim.Adam(G, 1e-2), optim.Adam(D, 1e-2))
        metrics = [gan.step(rng.standard_normal((5, 4)), rng.standard_normal((5, 3))) for _ in range(4)]
        return [G.parameters, D.parameters, gan.optim_D.v, *(np.array(list(m.values())) for m in metrics)]
    whole = train()
    with divided_among(2):
        parts = train()
    for one, other in zip(whole, parts):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-12)


def test_caches_of_earlier_steps_are_let_go(several):
    made = network()
    made(np.zeros((7, 36)))
    old = weakref.ref(made.replicas[1])
    made(np.zeros((7, 36)))
    assert old() is None


def test_all_reduce_adds_up_over_lanes_and_alone_gives_back(several):
    assert list(lanes.all_reduce(2, 3)) == [2, 3] and lanes.is_first()

    def meet(i):
        totals = [lanes.all_reduce(10 ** i, np.full(2, round)) for round in range(50)]
        return lanes.is_first(), totals
    found = lanes.in_lanes(meet, range(several))
    assert [first for first, _ in found] == [True] + [False] * (several - 1)
    for _, totals in found:
        for round, (number, vector) in enumerate(totals):
            assert number == sum(10 ** i for i in range(several)) and vector.tolist() == [several * round] * 2


@pytest.mark.parametrize('failing', [0, 1])
def test_the_error_of_one_lane_is_raised_and_frees_the_others(several, failing):
    def fail(i):
        if i == failing:
            raise ValueError('this lane cannot go on')
        lanes.all_reduce(1)                               # would wait for ever
    with pytest.raises(ValueError, match='this lane cannot go on'):
        lanes.in_lanes(fail, range(several))
    assert len(lanes.in_lanes(lambda i: lanes.all_reduce(i), range(several))) == several       # and all goes on


def test_too_little_to_train_batchnorm_on_is_said_in_lanes_too(several):
    made = network()
    with pytest.raises(ValueError, match='more than one number per channel'):
        made(np.zeros((1, 36)))


def test_pieces_cover_a_long_vector_once(several, monkeypatch):
    monkeypatch.setattr(lanes, 'PIECE', 10)
    for size in 1, 10, 11, 47, 60:
        vector, threads = np.zeros(size), set()

        def add_one(piece):
            vector[piece] += 1
            assert len(vector[piece]) <= 10
            threads.add(threading.get_ident())
        lanes.in_pieces(add_one, vector)
        assert (vector == 1).all() and (size <= 10 or len(threads) > 1)


def test_workers_leave_blas_one_thread_and_start_once():
    """In a process of its own: it is for good."""
    code = """if True:
        import numpy, threadpoolctl
        from tinygan import lanes
        before = threadpoolctl.threadpool_info()[0]['num_threads']
        lanes.start_workers()
        pool = lanes.workers
        lanes.start_workers()
        assert lanes.workers is pool and lanes.count == before
        assert threadpoolctl.threadpool_info()[0]['num_threads'] == 1
        """
    subprocess.run([sys.executable, '-c', code], check=True)
