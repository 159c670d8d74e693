"""What people install: the wheel is built, installed away from the checkout, and its commands are run there."""
import os
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(*command, folder, **environment):
    done = subprocess.run(list(map(str, command)), cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp('wheel')
    ignored = shutil.ignore_patterns('.*', 'build', 'dist', 'runs', '*.egg-info', '__pycache__')
    shutil.copytree(ROOT, folder / 'source', ignore=ignored)
    run(sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '-w', folder, folder / 'source',
        folder=folder)
    return next(folder.glob('tinygan-*.whl'))


@pytest.fixture(scope='module')
def installed(wheel):
    """A function that runs the command `tinygan` in an empty folder, where neither MNIST nor the checkout is to be found."""
    place, folder = wheel.parent / 'installed', wheel.parent / 'elsewhere'
    folder.mkdir()
    run(sys.executable, '-m', 'pip', 'install', '--no-deps', '--target', place, wheel, folder=folder)
    away = {'PYTHONPATH': str(place), 'TINYGAN_DATA': '', 'XDG_CACHE_HOME': str(folder / 'cache')}
    code = 'import tinygan, train_mnist; print(tinygan.__file__, train_mnist.__file__, sep="\\n")'
    for line in run(sys.executable, '-c', code, folder=folder, **away).splitlines():
        assert place in Path(line).parents
    return lambda *arguments: run(place / 'bin' / 'tinygan', *arguments, folder=folder, **away), folder


def test_the_wheel_holds_all_that_is_needed_and_nothing_else_and_is_small(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if '.dist-info/' not in name}
    files = [path for path in (ROOT / 'tinygan').rglob('*') if path.suffix in ('.py', '.c', '.h', '.cu', '.cuh', '.npz', '.html')]
    assert names == {'train_mnist.py', *(str(path.relative_to(ROOT)) for path in files)}
    assert len([name for name in names if name.endswith('.npz')]) == 3 and wheel.stat().st_size < 3e6


def test_its_metadata_say_what_an_index_shows(wheel):
    with zipfile.ZipFile(wheel) as file:
        name, = (name for name in file.namelist() if name.endswith('.dist-info/METADATA'))
        metadata = Parser().parsestr(file.read(name).decode())
        assert any(name.endswith('/licenses/LICENSE') for name in file.namelist())
    assert metadata['License-Expression'] == 'MIT' and metadata['Requires-Python'] == '>=3.11'
    assert metadata['Description-Content-Type'] == 'text/markdown' and metadata.get_payload().startswith('# tinygan\n')
    assert set(metadata.get_all('Provides-Extra')) == {'cuda12', 'cuda13', 'mpi', 'test'}
    assert metadata['Summary'] and metadata['Keywords'] and metadata.get_all('Classifier')


def test_sample_draws_digits(installed):
    tinygan, folder = installed
    said = tinygan('sample', '-n', 100, '--npy', 'samples.npy', '--out', 'grid.png')
    assert said == 'grid.png: 100 samples, 10 in a row\nsamples.npy: uint8 (100, 28, 28)\n'
    assert (folder / 'grid.png').stat().st_size > 10000


def test_evaluate_measures_them(installed):
    tinygan, folder = installed
    tinygan('sample', '-n', 100, '--npy', 'hundred.npy')
    assert 'Measured by judge 1 (' in tinygan('evaluate', '--npy', 'hundred.npy')
    assert {path.name for path in (folder / 'cache' / 'tinygan').glob('*')} <= {'c'}       # nothing is fetched


def test_gradcheck_checks(installed):
    assert installed[0]('gradcheck', 'linear').endswith('every backward checked is the gradient of its forward\n')


def test_train_trains(installed):
    assert 'dry run: ' in installed[0]('train', '--data', 'digits', '--batch-size', 8, '--dry-run')
