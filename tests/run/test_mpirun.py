"""One run in several processes that mpirun starts: what it leaves behind, who speaks, and every kind of end."""
import os
import re
import signal
import subprocess
import sys

import pytest
from commands import (DIVERGING, QUICK, ROOT, SMALL, TINY_DATA, begun, finish, load, metrics, one_line, own_cache,
                      same_arrays, start, wait_for)
from mpi import MPIRUN, OPEN_MPI, needs_mpi
from test_lanes import gone

from tinygan.run import mpirun

SCRIPT = str(ROOT / 'train_mnist.py')
OPTIONS = ['--data', 'digits', '--recipe', 'dcgan', '--batch-size', '12']                  # which 2, 3 and 4 divide
PID = '''
import os
rank = os.environ.get('PMI_RANK', os.environ.get('OMPI_COMM_WORLD_RANK'))
with open(f'pid{rank}', 'w') as file:
    file.write(str(os.getpid()))
'''


def program(*arguments, patch=None):
    """A command line of train_mnist.py, after a patch, Python code, if there is one."""
    run = ['-c', f'{patch}\nimport runpy; runpy.run_path({SCRIPT!r}, run_name="__main__")'] if patch else [SCRIPT]
    return [sys.executable, *run, *map(str, arguments)]


def launch(folder, *command, **environment):
    environment = {**os.environ, **OPEN_MPI, 'PYTHONPATH': QUICK, **environment}
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
    return begun([MPIRUN, *command], cwd=folder, env=environment, **pipes)


def begin(folder, count, *arguments, patch=None):
    return launch(folder, '-n', str(count), *program(*OPTIONS, *arguments, patch=patch))


def ended(process, check=0):
    """What our processes wrote, without the frames in which Open MPI's mpirun says that an exit code was not 0."""
    out, err = finish(process, check)
    return out, re.sub('-{50,}\n.*?\n-{50,}\n', '', err, flags=re.DOTALL)


def train(folder, count, *arguments, check=0, patch=None):
    return ended(begin(folder, count, *arguments, patch=patch), check)


@needs_mpi
@pytest.mark.skipif('openmpi' in os.path.realpath(str(MPIRUN)), reason="Open MPI's mpirun kills half a second after a signal")
def test_the_first_alone_speaks_and_a_run_that_signals_end_twice_becomes_the_unbroken_one_bit_for_bit(tmp_path):
    out, err = train(tmp_path, 2, '--max-steps', '30', '--out', 'unbroken')
    assert out.count('recipe dcgan') == 1 and 'cpu: NumPy, in 2 processes\n' in out and err == ''
    assert 'split among the 2 processes that mpirun started' in out
    assert [row['step'] for row in metrics(tmp_path / 'unbroken')] == list(range(1, 31))
    assert 'has made all its 30 steps' in train(tmp_path, 2, '--resume', 'unbroken')[0]

    step = 0
    for signum, code, *options in (signal.SIGINT, 130, '--out', 'run'), (signal.SIGTERM, 143, '--resume', 'run'):
        process = begin(tmp_path, 2, *options)
        wait_for(lambda: (tmp_path / 'run' / 'metrics.csv').exists() and len(metrics(tmp_path / 'run')) > step, process)
        process.send_signal(signum)
        out, err = ended(process, code)
        step = load(tmp_path / 'run')[1]
        assert f'step {step} saved' in out and 'go on with: mpirun -n 2 python train_mnist.py --resume run' in out
        assert err.strip() == 'saving; once more to stop at once'
    assert 0 < step < 30
    out, _ = train(tmp_path, 2, '--resume', 'run', '--max-steps', '30')
    assert 'last digits' not in out and same_arrays(tmp_path / 'unbroken' / 'checkpoint.npz', tmp_path / 'run' / 'checkpoint.npz')
    assert metrics(tmp_path / 'unbroken') == metrics(tmp_path / 'run')


@needs_mpi
@pytest.mark.parametrize('count, victim', [(2, 0), (3, 2)])
def test_one_that_is_killed_ends_all_with_a_line_and_the_run_goes_on_in_another_number(tmp_path, count, victim):
    process = begin(tmp_path, count, '--out', 'run', '--checkpoint-every', '2', patch=PID)
    wait_for(lambda: (tmp_path / 'run' / 'checkpoint.previous.npz').exists(), process)
    pids = [int((tmp_path / f'pid{rank}').read_text()) for rank in range(count)]
    os.kill(pids[victim], signal.SIGKILL)
    _, err = process.communicate(timeout=20)
    assert process.returncode > 0 and 'Traceback' not in err
    assert err.count(f'error: one of the {count} processes was ended from outside') == 1 and '--resume goes on' in err
    assert all(map(gone, pids))
    step = load(tmp_path / 'run')[1]
    out, err = train(tmp_path, count - 1, '--resume', 'run', '--max-steps', step + 3)
    assert f'processes: {count - 1}, not {count}: the last digits may differ' in out and err == ''
    assert [row['step'] for row in metrics(tmp_path / 'run')] == list(range(1, step + 4))


@needs_mpi
@pytest.mark.parametrize('count, options, said', [
    (3, ['--batch-size', '16'], 'minibatches of 16 cannot be divided among 3 processes: 2 can have them'),
    (2, ['--plain'], '--plain is the core as it stands'), (2, ['--device', 'gpu'], '--device gpu: only one process'),
    (2, ['--lr', 'x'], 'argument --lr: invalid float value'), (2, ['--resume', 'nowhere'], 'nowhere holds no checkpoint')])
def test_a_mistake_is_answered_once_and_nothing_is_left_behind(tmp_path, count, options, said):
    _, err = train(tmp_path, count, *options, check=2)
    assert one_line(err, said) and not list(tmp_path.iterdir())


@needs_mpi
def test_more_processes_than_images_are_refused(tmp_path):
    from PIL import Image
    (tmp_path / 'pictures').mkdir()
    for i in range(3):
        Image.linear_gradient('L').rotate(90 * i).save(tmp_path / 'pictures' / f'{i}.png')
    process = launch(tmp_path, '-n', '4', *program('--data', 'pictures', '--recipe', 'dcgan'), XDG_CACHE_HOME=own_cache(tmp_path))
    assert 'error: minibatches of 3 cannot be divided among 4 processes' in ended(process, 2)[1].splitlines()[-1]


OTHER_SOURCES = '''
from tinygan.run import mpirun
same_everywhere = mpirun.same_everywhere
mpirun.same_everywhere = lambda: (same_everywhere()[0], 'abc')
'''


@needs_mpi
@pytest.mark.parametrize('options, patch, said', [
    (['--lr', '1e-3'], None, 'it has other options: '), ([], OTHER_SOURCES, 'it has other sources: abc, and process 0 has '),
    ([], TINY_DATA, 'the 40 images of digits are not those of process 0')])
def test_processes_that_disagree_are_told_so_before_the_first_step(tmp_path, options, patch, said):
    one, other = program(*OPTIONS, '--out', 'run'), program(*OPTIONS, '--out', 'run', *options, patch=patch)
    process = launch(tmp_path, '-n', '1', *one, ':', '-n', '1', *other)
    assert one_line(ended(process, 2)[1], 'process 1, on ', said) and not list(tmp_path.iterdir())


def test_other_sources_are_those_of_the_package_alone(tmp_path, monkeypatch):
    package = tmp_path / 'tinygan'
    (package / 'run').mkdir(parents=True)
    monkeypatch.setattr(mpirun, '__file__', str(package / 'run' / 'mpirun.py'))
    found = set()
    for path in package / 'gan.py', package / 'run' / 'files.py', tmp_path / 'beside.py', package / 'data.json':
        path.write_text('1')
        found.add(mpirun.same_everywhere())
    assert len(found) == 2


@needs_mpi
def test_what_goes_wrong_with_the_first_alone_ends_all(tmp_path):
    _, err = train(tmp_path, 2, '--out', 'run', check=2, patch=DIVERGING)
    assert one_line(err, 'training diverged: step 5 has a loss that is not a number')


@needs_mpi
def test_an_error_of_another_process_alone_ends_all_and_is_heard(tmp_path):
    spoilt = '''
from tinygan.data import minibatches
draw_z = minibatches.draw_z
minibatches.draw_z = lambda seed, step, *shape: draw_z(seed, step, *shape)[:, :step % 5 and None or 1]
'''
    command = [program(*OPTIONS, '--out', 'run', patch=patch) for patch in ('pass', spoilt)]
    process = launch(tmp_path, '-n', '1', *command[0], ':', '-n', '1', *command[1])
    _, err = process.communicate(timeout=30)
    assert process.returncode > 0 and err.count('Traceback') == 1 and 'ValueError' in err
    assert load(tmp_path / 'run')[1] == 0


FAILS = '''
import os
from tinygan.data import minibatches
draw_z = minibatches.draw_z
def fails(seed, step, *shape):
    if step == 5 and os.environ.get('PMI_RANK', os.environ.get('OMPI_COMM_WORLD_RANK')) == '{}':
        raise MemoryError('no more')
    return draw_z(seed, step, *shape)
minibatches.draw_z = fails
'''


@needs_mpi
@pytest.mark.parametrize('victim, said', [(0, 'train_mnist.py: error: not enough memory: no more'),
                                          (3, ': not enough memory: no more')])
def test_no_memory_for_one_in_a_step_ends_all_on_two_machines_too(tmp_path, victim, said):
    """Hydra, MPICH's launcher, takes two names of this machine for two machines."""
    two = [] if 'openmpi' in os.path.realpath(MPIRUN) else ['-launcher', 'fork', '-hosts', 'localhost,127.0.0.1', '-ppn', '2']
    process = launch(tmp_path, *two, '-n', '4', *program(*OPTIONS, '--out', 'run', patch=FAILS.format(victim)))
    _, err = process.communicate(timeout=30)
    assert process.returncode > 0 and err.count(said) == 1 and 'Traceback' not in err
    assert load(tmp_path / 'run')[1] == 0


def test_without_mpi_one_line_says_what_to_install(tmp_path):
    without = 'import sys; sys.modules["mpi4py"] = None'
    one, other = (start(tmp_path, 'train_mnist.py', *SMALL, patch=without, environment={'PMI_SIZE': '2', 'PMI_RANK': rank})
                  for rank in '01')
    said = 'mpirun has started 2 processes, but'
    assert one_line(finish(one, 2)[1], said, "pip install 'mpi4py>=4.1' mpich")
    err = finish(other, -signal.SIGTERM)[1]       # by then, mpirun has ended it, unless only its machine lacks MPI
    assert err.startswith('error: on ') and said in err and err.count('\n') == 1


@needs_mpi
def test_an_mpirun_that_belongs_to_another_mpi_is_recognised(tmp_path):
    process = start(tmp_path, 'train_mnist.py', *SMALL, environment={'PMI_SIZE': '2', 'PMI_RANK': '0'})
    assert one_line(finish(process, 2)[1], 'mpirun has started 2 processes, but mpi4py uses another MPI (')


def test_one_process_of_mpirun_alone_is_as_good_as_none(tmp_path):
    without = 'import sys; sys.modules["mpi4py"] = None'
    process = start(tmp_path, 'train_mnist.py', *SMALL, '--dry-run', patch=without, environment={'PMI_SIZE': '1', 'PMI_RANK': '0'})
    assert 'dry run: data, training' in finish(process)[0]
