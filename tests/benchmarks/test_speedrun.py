"""benchmarks/speedrun.py: what it makes of its measurements."""
import importlib
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from commands import ROOT

from tinygan.__main__ import sample_noise
from tinygan.recipes import make_gan
from tinygan.run.generator import draw

sys.path.insert(0, str(ROOT / 'benchmarks'))
import speedrun  # noqa: E402

ROWS = {'0': [{'step': 1, 'seconds': 2.0, 'it': 30.0}, {'step': 2, 'seconds': 4.0, 'it': 4.0}, {'step': 2, 'whole_run': 9.0}],
        '1': [{'step': 1, 'seconds': 3.0, 'it': 10.0}, {'step': 2, 'seconds': 5.0, 'it': 5.0}, {'step': 2, 'whole_run': 9.0}]}


def test_a_distance_is_reached_where_the_mean_over_the_seeds_is_as_small():
    assert speedrun.reached(ROWS, 'it') == {40: 2.5, 20: 2.5, 5: 4.5, 2: None, 1: None}


def test_the_clock_stands_still_while_what_draws_samples_is_kept_to_be_judged(monkeypatch, capsys, tmp_path):
    now = SimpleNamespace(time=lambda: now.seconds, seconds=105.0)
    monkeypatch.setattr(speedrun, 'time', now)
    monkeypatch.setattr(speedrun, 'np', SimpleNamespace(load=np.load, savez=lambda *a, **b: (
        setattr(now, 'seconds', 137.0), np.savez(*a, **b))))
    sampler = make_gan(speedrun.RECIPES['dcgan'], 3).sampler
    sampler.statistics[:] = np.linspace(0.1, 0.2, sampler.statistics.size)
    clock = speedrun.Clock(100, tmp_path)
    clock.keep(7, sampler)
    row = json.loads(capsys.readouterr().out)
    assert row == {'step': 7, 'seconds': 5} and clock.seconds() == 5

    monkeypatch.setattr(speedrun, 'SAMPLES', 20)
    monkeypatch.setattr(speedrun, 'judges', lambda: {'it': SimpleNamespace(distance=np.copy)})
    found = speedrun.judged(row, 'dcgan', tmp_path)
    assert found['seconds'] == 5
    np.testing.assert_array_equal(found['it'], draw(sampler, sample_noise(0, 20, 100), -1))
    assert speedrun.judged({'whole_run': 9}, 'fast', tmp_path) == {'whole_run': 9}


@pytest.mark.parametrize('device, called', [('cpu', ['keep 2']), ('gpu', ['restart', 'keep 2'])])
def test_an_engine_s_sampler_is_kept_at_its_marks_and_a_gpu_s_clock_starts_behind_the_first_step(device, called):
    found, sampler = [], object()
    clock = SimpleNamespace(restart=lambda: found.append('restart'),
                            keep=lambda step, kept: found.append(f'keep {step}' if kept is sampler else 'another'))
    engine = SimpleNamespace(step=lambda number: number * 10, snapshot=lambda: lambda: sampler, lag=50)
    watched = speedrun.Watched(engine, clock, (2,), device)
    assert [watched.step(number) for number in (1, 2, 3)] == [10, 20, 30] and watched.lag == 50
    assert found == called


def test_a_clock_that_starts_anew_says_after_how_long(monkeypatch, capsys, tmp_path):
    now = SimpleNamespace(time=lambda: now.seconds, seconds=105.0)
    monkeypatch.setattr(speedrun, 'time', now)
    clock = speedrun.Clock(100, tmp_path)
    clock.restart()
    now.seconds = 105.25
    assert json.loads(capsys.readouterr().out) == {'ready_after': 5} and clock.seconds() == 0.25
    rows = {'0': [{'ready_after': 5.0}, {'step': 1, 'seconds': 0.25, 'it': 4.0}]}
    assert speedrun.reached(rows, 'it')[5] == 0.25


def test_pytorch_on_a_gpu_is_kept_at_its_marks(monkeypatch, tmp_path, capsys):
    torch_gpu = pytest.importorskip('torch') and importlib.import_module('torch_gpu')
    load, made = torch_gpu.load, []
    monkeypatch.setattr(torch_gpu, 'load', lambda variant, precision, recipe, N, device, seed: made.append(
        load(variant, precision, recipe, 4, 'cpu', seed)) or made[0])
    monkeypatch.setattr(torch_gpu.Training, 'capture', lambda training: training.step())
    monkeypatch.setattr(torch_gpu, 'dataset', lambda recipe, download: SimpleNamespace(images=np.zeros((8, 28, 28, 1), np.uint8)))
    speedrun.pytorch_on_gpu(speedrun.Clock(0, tmp_path), 'dcgan', (2, 3), 1, 'graph bf16')
    _, *rows = map(json.loads, capsys.readouterr().out.splitlines())
    assert [row['step'] for row in rows] == [2, 3] and made[0].number == 3
    with np.load(tmp_path / '3.npz') as kept:
        weight = made[0].G[1].weight.detach().numpy()
        np.testing.assert_array_equal(kept['parameters'][:weight.size], weight.transpose(2, 3, 1, 0).ravel())


def test_what_a_device_does_not_run_is_refused_and_its_fastest_variant_is_what_was_measured(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, 'argv', ['speedrun.py', 'run', '--device', 'gpu', '--only', 'PyTorch, our settings'])
    with pytest.raises(SystemExit):
        speedrun.main()
    assert "on a GPU are only tinygan and PyTorch, its tutorial's settings" in capsys.readouterr().err
    monkeypatch.setattr(speedrun, 'FOLDER', tmp_path)
    rows = {'eager bf16': {'median': 3.0}, 'graph bf16': {'median': 1.0}, 'compile_graph bf16': {'failed': 'why'}}
    (tmp_path / 'gpu.json').write_text(json.dumps({'pytorch_ms': rows}))
    assert speedrun.fastest('gpu', speedrun.TUTORIAL, {}) == 'graph bf16'


def test_each_contender_is_run_by_what_it_is_called_after(monkeypatch):
    found = []
    for what in 'ours', 'pytorch', 'pytorch_on_gpu':
        monkeypatch.setattr(speedrun, what, lambda clock, recipe, marks, seed, how, what=what: found.append((what, recipe, how)))
    for device, contenders in speedrun.CONTENDERS.items():
        for name in contenders:
            monkeypatch.setattr(sys, 'argv', ['speedrun.py', 'child', 'run', device, 'folder', name, '0', 'tuned', '0'])
            speedrun.main()
    assert found == [('ours', 'fast', 'cpu'), ('pytorch', 'fast', 'tuned'), ('pytorch', 'dcgan', 'tuned'),
                     ('ours', 'fast', 'gpu'), ('pytorch_on_gpu', 'dcgan', 'tuned')]
