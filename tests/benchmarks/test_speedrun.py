"""benchmarks/speedrun.py: what it makes of its measurements."""
import json
import sys
from types import SimpleNamespace

from commands import ROOT

sys.path.insert(0, str(ROOT / 'benchmarks'))
import speedrun  # noqa: E402

ROWS = {'0': [{'step': 1, 'seconds': 2.0, 'it': 30.0}, {'step': 2, 'seconds': 4.0, 'it': 4.0}, {'step': 2, 'whole_run': 9.0}],
        '1': [{'step': 1, 'seconds': 3.0, 'it': 10.0}, {'step': 2, 'seconds': 5.0, 'it': 5.0}, {'step': 2, 'whole_run': 9.0}]}


def test_a_distance_is_reached_where_the_mean_over_the_seeds_is_as_small():
    assert speedrun.reached(ROWS, 'it') == {40: 2.5, 20: 2.5, 5: 4.5, 2: None, 1: None}


def test_the_clock_stands_still_while_samples_are_judged(monkeypatch, capsys):
    now = SimpleNamespace(time=lambda: now.seconds, seconds=105.0)
    monkeypatch.setattr(speedrun, 'time', now)
    monkeypatch.setattr(speedrun, 'draw', lambda *_: setattr(now, 'seconds', 137.0))
    monkeypatch.setattr(speedrun, 'judges', dict)
    clock = speedrun.Clock(100)
    clock.judge(7, None, speedrun.RECIPES['fast'])
    assert json.loads(capsys.readouterr().out) == {'step': 7, 'seconds': 5}
    assert clock.seconds() == 5


def test_on_a_gpu_the_clock_starts_with_the_first_step(monkeypatch, capsys):
    now = SimpleNamespace(time=lambda: now.seconds, seconds=105.0)
    monkeypatch.setattr(speedrun, 'time', now)
    clock = speedrun.Clock(100)
    clock.restart()
    now.seconds = 105.25
    assert json.loads(capsys.readouterr().out) == {'start': 5} and clock.seconds() == 0.25
    rows = {'0': [{'start': 5.0}, {'step': 1, 'seconds': 0.25, 'it': 4.0}]}
    assert speedrun.reached(rows, 'it')[5] == 0.25


def test_each_contender_is_run_by_what_it_is_called_after(monkeypatch):
    found = []
    for what in 'ours', 'pytorch', 'pytorch_on_gpu':
        monkeypatch.setattr(speedrun, what, lambda clock, recipe, marks, seed, how, what=what: found.append((what, recipe, how)))
    for device, contenders in speedrun.CONTENDERS.items():
        for name in contenders:
            monkeypatch.setattr(sys, 'argv', ['speedrun.py', 'child', 'run', device, name, '0', 'tuned', '0'])
            speedrun.main()
    assert found == [('ours', 'fast', 'cpu'), ('pytorch', 'fast', 'tuned'), ('pytorch', 'dcgan', 'tuned'),
                     ('ours', 'fast', 'gpu'), ('pytorch_on_gpu', 'dcgan', 'tuned')]
