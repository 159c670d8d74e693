"""benchmarks/provenance.py: what a result says of itself, and whether its sources are still the same."""
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from commands import ROOT

sys.path.insert(0, str(ROOT / 'benchmarks'))
import provenance  # noqa: E402
import runs  # noqa: E402
import speedrun  # noqa: E402


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A folder whose sources are measured."""
    monkeypatch.setattr(provenance, 'ROOT', tmp_path)
    monkeypatch.setattr(provenance, 'RESULTS', tmp_path)
    monkeypatch.delenv('TINYGAN_COMMIT', raising=False)
    for name in 'a.py', 'b.py', 'c.cu':
        (tmp_path / name).write_text(f'# {name}\n')
    return tmp_path


def test_where_nothing_has_changed_nothing_is_said_to_have(sources):
    origin = provenance.provenance(['*', '*.cu'])
    (sources / 'notes.txt').write_text('no source')
    (sources / '__pycache__').mkdir()
    assert origin['sources'].keys() == {'*', '*.cu'} and provenance.changed(origin) == []


@pytest.mark.parametrize('change', [
    lambda folder: (folder / 'a.py').write_text('# another\n'), lambda folder: (folder / 'b.py').rename(folder / 'd.py'),
    lambda folder: (folder / 'd.py').write_text(''), lambda folder: (folder / 'a.py').unlink()])
def test_a_source_that_is_changed_renamed_added_or_removed_is_noticed(sources, change):
    origin = provenance.provenance(['*.py', '*.cu'])
    change(sources)
    assert provenance.changed(origin) == ['*.py']


def test_a_copy_without_history_is_told_its_commit_or_has_none(sources, monkeypatch):
    assert provenance.commit() is None
    monkeypatch.setenv('TINYGAN_COMMIT', 'abc1234')
    assert provenance.provenance([])['commit'] == 'abc1234'


@pytest.mark.skipif(shutil.which('git') is None, reason='needs git')
def test_a_source_that_is_not_committed_makes_a_commit_dirty_and_a_result_does_not(sources):
    environment = {name: value for name, value in os.environ.items() if not name.startswith('GIT_')}
    environment |= {'GIT_CONFIG_GLOBAL': os.devnull, 'GIT_CONFIG_SYSTEM': os.devnull}

    def git(*arguments):
        subprocess.run(['git', '-c', 'user.name=n', '-c', 'user.email=e', *arguments], cwd=sources, env=environment, check=True,
                       capture_output=True)
    git('init')
    git('add', '.')
    git('commit', '-m', 'one')
    (sources / 'x.json').write_text('{}')
    clean = provenance.commit()
    assert re.fullmatch('[0-9a-f]{7}', clean)
    (sources / 'a.py').write_text('# another\n')
    assert provenance.commit() == f'{clean}-dirty'


def test_the_command_is_the_one_that_runs(monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['/somewhere/benchmarks/cpu.py', '--rounds', '7'])
    assert provenance.provenance([])['command'] == 'python benchmarks/cpu.py --rounds 7'


def test_results_are_listed_with_what_has_changed_since(sources, capsys):
    one, other = ({'commit': commit, 'date': '2026-11-27', 'sources': {'*.py': provenance.digest('*.py'), '*.cu': cu}}
                  for commit, cu in (('abc1234', provenance.digest('*.cu')), ('def5678', 'of another')))
    (sources / 'x.json').write_text(json.dumps({'trained': {'abc1234': one, 'def5678': other}, 'ms': 3}))
    provenance.main()
    same, changed = capsys.readouterr().out.splitlines()
    assert same.split() == ['x.json', 'abc1234', '2026-11-27', 'changed', 'since:', 'nothing']
    assert changed.split() == ['x.json', 'def5678', '2026-11-27', 'changed', 'since:', '*.cu']


@pytest.mark.parametrize('other, said', [({'sources': {'tinygan/[a-z]*.py': 'of another'}}, r'tinygan/\[a-z\]\*\.py'),
                                         ({'device': 'another'}, 'device'), ({'versions': {'numpy': '2.0'}}, 'versions')])
def test_a_speed_run_is_not_added_to_one_of_other_sources_or_machines(tmp_path, monkeypatch, other, said):
    monkeypatch.setitem(speedrun.RESULTS, 'cpu', tmp_path / 'speedrun.json')
    before = provenance.provenance([], torch=provenance.version('torch')) | {'commit': 'abc1234'} | other
    speedrun.RESULTS['cpu'].write_text(json.dumps({'provenance': before}))
    with pytest.raises(SystemExit, match=f'is of commit abc1234, and {said} changed since: move it away'):
        speedrun.run('cpu', [0], [])


def test_a_run_keeps_where_it_comes_from_for_whoever_judges_it_later(tmp_path, monkeypatch):
    for commit in 'abc1234', 'def5678':
        monkeypatch.setenv('TINYGAN_COMMIT', commit)
        runs.note_origin(tmp_path / 'run')        # only at its beginning
        runs.note_origin(tmp_path / commit)
    trained = {}
    assert runs.commit_of([tmp_path / 'run', tmp_path / 'abc1234'], trained) == 'abc1234' and trained.keys() == {'abc1234'}
    assert runs.commit_of([tmp_path / 'run', tmp_path / 'def5678'], trained) == 'abc1234, def5678'
    assert trained['def5678']['sources'].keys() > {'tinygan/[a-z]*.py', 'benchmarks/runs.py'}
