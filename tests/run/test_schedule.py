"""When something is due, by steps and by the clock, for sets of every size."""
import itertools

import pytest

from tinygan.run import schedule as module
from tinygan.run.schedule import Schedule


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets: clock.now, in seconds."""
    class Clock:
        now = 1000.

        def monotonic(self):
            return self.now
    clock = Clock()
    monkeypatch.setattr(module, 'time', clock)
    return clock


def grids(per_epoch, steps, **asked):
    schedule = Schedule({'steps_per_epoch': per_epoch, 'epochs': 10 ** 6, **asked})
    return {step: name for step in range(1, steps + 1) if (name := schedule.sample(step))}


def test_long_epochs_have_a_grid_each_and_the_first_some_more(clock):
    early = {2 ** i: f'step_{2 ** i:06d}' for i in range(9)}
    assert grids(468, 1500) == {**early, 468: 'epoch_001', 936: 'epoch_002', 1404: 'epoch_003'}


def test_short_epochs_share_a_grid_every_hundred_steps(clock):
    assert list(grids(1, 300)) == [1, 2, 4, 8, 16, 32, 64, 100, 200, 300]
    assert grids(1, 300)[300] == 'epoch_300'
    assert list(grids(30, 400)) == [1, 2, 4, 8, 16, 32, 64, 120, 240, 360] and grids(30, 400)[240] == 'epoch_008'


def test_what_a_run_has_come_to_is_seen_however_short_it_was(clock):
    assert list(grids(1, 41, epochs=41)) == [1, 2, 4, 8, 16, 32, 41] and grids(20, 60, epochs=3)[60] == 'epoch_003'


@pytest.mark.parametrize('per_epoch', [1, 7, 100, 468])
def test_however_long_a_run_is_its_grids_stay_few(clock, per_epoch):
    few = grids(per_epoch, 200_000)
    assert len(few) < 600
    gaps = [b - a for a, b in itertools.pairwise(few)]
    assert max(gaps) <= max(100, 200_000 // 50) + per_epoch
    assert all(step % per_epoch == 0 or name.startswith('step_') for step, name in few.items())


def test_grids_asked_for_are_never_left_out(clock):
    assert set(range(30, 3000, 30)) <= set(grids(10, 3000, sample_every=30))


def test_slow_steps_have_a_grid_every_ten_minutes(clock):
    schedule, due = Schedule({'steps_per_epoch': 100_000, 'epochs': 1}), []
    for step in range(3, 40):
        clock.now += 100
        due += [step] * bool(schedule.sample(step))
    assert due == [4, 8, 15, 16, 23, 30, 32, 39]


def checkpoints(clock, per_epoch, seconds, steps, **asked):
    schedule, due = Schedule({'steps_per_epoch': per_epoch, 'epochs': 10 ** 6, **asked}), []
    for step in range(1, steps + 1):
        clock.now += seconds
        due += [step] * schedule.checkpoint(step)
    return due


def test_checkpoints_of_short_epochs_are_a_minute_apart_and_of_long_ones_ten(clock):
    assert checkpoints(clock, 1, 2, 100) == [31, 62, 93]
    assert checkpoints(clock, 100, 2, 500) == [100, 200, 300, 400, 500]
    assert checkpoints(clock, 1000, 2, 1300) == [301, 602, 903, 1000]
    assert checkpoints(clock, 468, 0.001, 4680) == []             # all is over within a minute, and saved in the end


def test_checkpoints_asked_for_come_in_any_case(clock):
    assert checkpoints(clock, 1000, 0.001, 50, checkpoint_every=20) == [20, 40]


def test_never_is_never(clock):
    schedule = Schedule({'steps_per_epoch': 10, 'evaluate_every': 0, 'sample_every': 0, 'checkpoint_every': None})
    assert not any(schedule.asked(step, what) for step in range(1, 100) for what in ('evaluate', 'sample', 'checkpoint'))


def test_pictures_are_drawn_once_a_minute_and_more_rarely_if_they_take_long(clock):
    schedule, drawn, takes = Schedule({'steps_per_epoch': 10}), [], 1

    def draw():
        drawn.append(clock.now)
        clock.now += takes
    for _ in range(200):
        clock.now += 1
        schedule.draw(draw)
    assert [b - a for a, b in itertools.pairwise(drawn)] == [62, 62]
    takes, drawn = 10, []
    for _ in range(500):
        clock.now += 1
        schedule.draw(draw)
    assert [b - a for a, b in itertools.pairwise(drawn)] == [211, 211]
