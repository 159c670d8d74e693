import contextlib
import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from commands import LIMIT, STEPS, leave_none, tinygan, train
from quick.matplotlib.figure import Figure

from tinygan.errors import one_line_errors
from tinygan.run import pictures

ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault('HYPOTHESIS_STORAGE_DIRECTORY', os.path.join(tempfile.gettempdir(), 'hypothesis'))          # not here


def pytest_xdist_auto_num_workers():
    """One more than there are cores: many tests wait for processes that they start."""
    return os.cpu_count() + 1


def pytest_collection_finish():
    """What has been imported stays, and so Python need not look for garbage in it again and again."""
    gc.freeze()


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope='session')
def reference():
    """What PyTorch computed: reference('Conv2d/3110') is a dictionary of arrays."""
    file = np.load(Path(__file__).with_name('reference.npz'), allow_pickle=False)
    arrays = {name: file[name] for name in file.files}

    def look_up(prefix):
        return {name.rpartition('/')[2]: array for name, array in arrays.items() if name.startswith(prefix + '/')}
    return look_up


@pytest.fixture
def command(tmp_path):
    """Run a real command line in an empty folder: command('train_mnist.py', '--dry-run')."""

    def run(program, *arguments, check=None, **environment):
        start = ['-m', 'tinygan'] if program == 'tinygan' else [str(ROOT / program)]
        environment = {**os.environ, 'PYTHONPATH': str(ROOT), **environment}
        done = subprocess.run([sys.executable, *start, *map(str, arguments)], cwd=tmp_path, env=environment,
                              capture_output=True, text=True, timeout=LIMIT)
        if check is not None:
            assert done.returncode == check, done.stderr
            assert 'Traceback' not in done.stderr
        return done
    return run


@pytest.fixture
def ask(tmp_path, monkeypatch, capsys):
    """What a command of tinygan writes in an empty folder, in this process, which is faster: ask('sample', '-n', 2)."""
    def run(*arguments, check=0, **environment):
        monkeypatch.chdir(tmp_path)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        with pytest.raises(SystemExit) as end, one_line_errors('tinygan'):
            sys.exit(tinygan(*arguments) or 0)
        out, err = capsys.readouterr()
        assert end.value.code == check, err
        return SimpleNamespace(stdout=out, stderr=err)
    return run


@pytest.fixture(scope='session', autouse=True)
def children_hear_signals():
    """What a process ignores, as in `nohup pytest &`, its children ignore as well; what it has a handler for, they do not."""
    with contextlib.ExitStack() as stack:
        for number in signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM:
            if signal.getsignal(number) is signal.SIG_IGN:
                signal.signal(number, lambda *_: None)
                stack.callback(signal.signal, number, signal.SIG_IGN)
        yield


@pytest.fixture(autouse=True)
def no_process_is_left():
    yield
    assert leave_none(), 'a process that this test started has ended, and nobody has waited for it'


@pytest.fixture(scope='session', autouse=True)
def environment(tmp_path_factory):
    """In the processes that tests start, such small products gain nothing from a second thread, and lose much where
    other work runs beside. And Matplotlib looks for the fonts of the system only once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('OPENBLAS_NUM_THREADS', '1')
        patch.setenv('MPLCONFIGDIR', str(tmp_path_factory.mktemp('matplotlib')))
        yield


@pytest.fixture(scope='session')
def trained(tmp_path_factory):
    """The run that most tests look at, and what it printed."""
    folder = tmp_path_factory.mktemp('trained')
    out, err = train(folder, '--max-steps', STEPS, '--out', 'run', '--seed', '5', curves=True)
    return folder / 'run', out, err


@pytest.fixture
def without_curves(monkeypatch):
    """The runs of this process have a stand-in for Matplotlib, too."""
    monkeypatch.setattr(pictures, 'matplotlib_figure', lambda: Figure)


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of that run, to go on with."""
    return shutil.copytree(trained[0], tmp_path / 'run')
