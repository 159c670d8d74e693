"""benchmarks/scale.py: what it counts, and what it makes of its measurements."""
import json
import sys
from functools import partial

import pytest
from commands import ROOT

from tinygan import models
from tinygan.recipes import RECIPES, Recipe, make_gan
from tinygan.recipes.networks import critic

sys.path.insert(0, str(ROOT / 'benchmarks'))
import scale  # noqa: E402

SENT = {'means': 4, 'bytes of means': 4000, 'vectors': 2, 'bytes of vectors': 16000}
NETWORK = 0.01, 1e5                 # seconds that a message takes, and bytes a second


@pytest.fixture
def small(monkeypatch):
    """Names of two small recipes: D has a BatchNorm in one, and none in the other."""
    G = partial(models.dcgan_generator, width=2)
    monkeypatch.setitem(RECIPES, 'with', Recipe(G, partial(models.dcgan_discriminator, width=2)))
    monkeypatch.setitem(RECIPES, 'without', Recipe(G, partial(critic, width=2)))
    return 'with', 'without'


@pytest.mark.parametrize('k, ranks, means, vectors', [
    (1, 1, 0, 0),
    (2, 1, 4 * 0.01 + 0.04, 2 * 0.01 + 0.08),               # half of the vectors
    (2, 3, 4 * 0.01 + 0.12, 2 * 0.01 + 0.08),               # three ranks have means, but one sum
    (4, 1, 8 * 0.01 + 0.12, 6 * 0.01 + 0.12),               # two rounds for a mean, three other machines for a vector
    (5, 1, 12 * 0.01 + 0.16, 8 * 0.01 + 0.128)])
def test_messages_take_what_a_calculation_by_hand_says(k, ranks, means, vectors):
    assert scale.communication(k, SENT, ranks, *NETWORK) == pytest.approx((means, vectors))


def test_the_model_adds_messages_to_what_a_machine_computes():
    one, two = scale.model({1: 1000, 2: 600}, SENT, 1, NETWORK)
    assert one == {'number': 1, 'compute ms': 1000, 'ms a step': 1000, 'speed-up': 1, 'messages': 0}
    assert two == {'number': 2, 'compute ms': 600, 'ms a step': 780, 'speed-up': 1.28, 'messages': 0.231}


def test_latency_and_bandwidth_are_those_that_make_two_ranks_take_what_was_measured():
    latency, bandwidth = scale.memory(SENT, 0.08, 0.04)
    assert (latency, bandwidth) == (0.02, 2e5)


def test_without_messages_the_speed_up_is_that_of_computing():
    rows = scale.model({1: 1000, 2: 500, 4: 400}, SENT, 2, (0, float('inf')))
    assert [(row['speed-up'], row['messages']) for row in rows] == [(1, 0), (2, 0), (2.5, 0)]


@pytest.mark.parametrize('ms, machines', [
    ([1000, 769, 600], 2), ([1000, 770, 770], 1), ([1000, 500, 250], 4), ([1000, 1100, 800], 4), ([1000], 1)])
def test_machines_pay_while_twice_as_many_make_a_step_so_much_shorter(ms, machines):
    assert scale.stops_paying([{'number': 2 ** i, 'ms a step': each} for i, each in enumerate(ms)]) == machines


def test_the_vectors_of_a_step_are_the_gradients_and_the_parameters_of_both_networks(small):
    for recipe in small:
        gan, found = make_gan(RECIPES[recipe]), scale.sent(recipe)
        assert found['vectors'] == 4 and found['bytes of vectors'] == 2 * (gan.G.parameters.nbytes + gan.D.parameters.nbytes)


def test_batchnorm_takes_two_means_forward_and_one_backward_and_the_metrics_one(small):
    """G goes forward and back once, D three times: on real images, on fakes, and when G learns. A mean has one number for
    each channel or, backward, two, in float32."""
    G, D, metrics = 2 * 3, 3 * 3, 1
    with_D, without_D = (scale.sent(recipe) for recipe in small)
    assert (with_D['means'], without_D['means']) == (G + D + metrics, G + metrics)
    assert with_D['bytes of means'] - without_D['bytes of means'] == 3 * 4 * 4 * 4


def test_contenders_take_turns_and_ratios_are_taken_round_by_round(monkeypatch):
    asked, ms = [], {(1, 1, 1): [10, 30], (1, 2, 1): [8, 10], (2, 2, 1): [4, 20], (1, 2, 2): [5, 7], (1, 2, 4): [3, 3],
                 (1, 1, 2): [6, 6], (1, 1, 4): [5, 5], (1, 1, 8): [4, 4]}

    def child(ranks, what, recipe, N, k, n, steps):
        asked.append((ranks, n, k))
        return [ms[ranks, n, k].pop(0) / 1e3]
    monkeypatch.setattr(scale, 'child', child)
    rows = {(row['group'], row['processes'], row['machines']): row
            for row in scale.measure('dcgan', 8, cores=2, most=3, rounds=2, steps=1)}
    assert set(asked[:8]) == set(asked[8:]) == set(ms)
    ranks = rows['ranks', 2, 1]
    assert (ranks['ms a step'], ranks['min'], ranks['max']) == (12, 4, 20)
    assert (ranks['speed-up'], ranks['ranks / lanes']) == (2, 1.25)
    assert rows['lanes', 2, 4]['ms a step'] == 3 and ('lanes', 2, 8) not in rows


def test_a_worker_takes_so_many_steps_of_its_part(capsys, small, monkeypatch):
    steps = []
    monkeypatch.setattr(scale.Divided, 'step', lambda engine, number: steps.append(engine.batches(number)))
    scale.worker('take_steps', 'with', '8', '4', '1', '3')
    assert len(json.loads(capsys.readouterr().out)) == 3
    assert [(len(x), len(z), number) for x, z, number in steps] == [(2, 2, number) for number in (1, 2, 3, 4)]


def test_a_table_is_aligned(capsys):
    scale.show('title', [{'a': 'x', 'ms': 1.5}, {'a': 'long', 'ms': 12.25}])
    assert capsys.readouterr().out == '\ntitle\n\n   a     ms\n   x   1.50\nlong  12.25\n'
