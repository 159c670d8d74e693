"""End to end, through the real command line: what a run leaves behind, what every kind of end leaves behind,
and what a mistake is answered with."""
import codecs
import contextlib
import csv
import fcntl
import json
import os
import pty
import random
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinygan import gradcheck
from tinygan.checkpoint import newest_checkpoint
from tinygan.digits import Digits
from tinygan.errors import UserError
from tinygan.losses import LOSSES

ROOT = Path(__file__).resolve().parent.parent
STEPS = 8                                         # of the run that most tests look at
SMALL = '--device', 'cpu', '--data', 'digits', '--batch-size', '8'
NO_NETWORK = {'https_proxy': 'http://127.0.0.1:9', 'no_proxy': '', 'TINYGAN_DATA': ''}

TINY_DATA = '''
import numpy as np
from tinygan import data
images = np.random.default_rng(0).integers(0, 256, (40, 28, 28, 1), dtype=np.uint8)
data.load = lambda name, folder, seed, shape: data.ImageSet(images, seed)
'''


def load(folder):
    """(config, step, state) of the newest checkpoint that can be read."""
    return newest_checkpoint(folder)[1:]


def start(folder, program, *arguments, patch=None, environment={}, **options):
    """A process that runs a real command line in the folder, after a patch, Python code, if there is one."""
    name, arguments = str(ROOT / program), list(map(str, arguments))
    if patch:
        go = 'run_module("tinygan"' if program == 'tinygan' else f'run_path({name!r}'
        code = f'{patch}\nimport runpy, sys\nsys.argv[0] = {name!r}\nrunpy.{go}, run_name="__main__")'
        arguments = ['-c', code, *arguments]
    else:
        arguments = [*(['-m', 'tinygan'] if program == 'tinygan' else [name]), *arguments]
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'MPLCONFIGDIR': str(folder / '.mpl'), **environment}
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
    return subprocess.Popen([sys.executable, *arguments], cwd=folder, env=environment, **pipes | options)


def finish(process, check=0):
    """What a process wrote to stdout and stderr until it ended, as it should, with exit code `check`."""
    try:
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == check, out + err
    assert 'Traceback' not in err
    return out, err


def train(folder, *arguments, check=0, **options):
    return finish(start(folder, 'train_mnist.py', *SMALL, *arguments, **options), check)


def one_line(err, *parts, program='train_mnist.py'):
    """All of stderr is one line, and says what it should."""
    assert err.startswith(f'{program}: error: ') and err.count('\n') == 1 and err.endswith('\n'), err
    for part in parts:
        assert part in err
    return True


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def metrics(run):
    with open(run / 'metrics.csv', newline='') as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def same_run(one, other):
    """Two runs are the same bit for bit: every array of the checkpoint, every metric and every picture."""
    with np.load(one / 'checkpoint.npz') as a, np.load(other / 'checkpoint.npz') as b:
        assert a.files == b.files
        for name in a.files:
            assert a[name].dtype == b[name].dtype and np.array_equal(a[name], b[name]), name
    a, b = ({name: content for name, content in contents(run).items() if not name.endswith('.npz')}
            for run in (one, other))
    assert a.keys() == b.keys()
    for name in a:
        assert a[name] == b[name], name
    return True


def wait_for(condition, process):
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, 'it ended, or never came so far'
        time.sleep(0.01)


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    """Such small products gain nothing from a second thread, and lose much where other work runs beside."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('OPENBLAS_NUM_THREADS', '1')
        yield


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """The run that most tests look at, and what it printed."""
    folder = tmp_path_factory.mktemp('trained')
    out, err = train(folder, '--max-steps', STEPS, '--out', 'run', '--seed', '5')
    return folder / 'run', out, err


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of that run, to go on with."""
    return shutil.copytree(trained[0], tmp_path / 'run')


# ---- what a run leaves behind

def test_a_run_fills_its_folder(trained):
    run, _, _ = trained
    assert set(contents(run)) == {
        'config.json', 'metrics.csv', 'samples.gif', 'curves.png', 'checkpoint.npz',
        'checkpoint.previous.npz', *(f'samples/step_{step:06d}.png' for step in (1, 2, 4, 8))}

    config = json.loads((run / 'config.json').read_text())
    versions = config.pop('versions')
    assert config == {'recipe': 'dcgan', 'data': 'digits', 'seed': 5, 'batch_size': 8, 'lr': 2e-4,
                      'beta1': 0.5, 'beta2': 0.999, 'z_dim': 100, 'loss': 'bce', 'epochs': 10,
                      'steps_per_epoch': 7500}
    assert versions['numpy'] == np.__version__ and versions['python'].count('.') == 2
    assert set(versions) == {'tinygan', 'python', 'numpy', 'platform'}

    rows = metrics(run)
    assert [row['step'] for row in rows] == list(range(1, STEPS + 1))
    assert all(set(row) == {'step', 'loss_D', 'loss_G', 'D_x', 'D_G_z1', 'D_G_z2'} for row in rows)
    assert all(0 < row[name] < 1 for row in rows for name in ('D_x', 'D_G_z1', 'D_G_z2'))
    assert all(row['D_G_z2'] < row['D_G_z1'] for row in rows)     # D learns: it likes the same fakes less

    _, step, state = load(run)
    assert step == state['G.t'] == state['D.t'] == STEPS
    assert np.abs(state['G.m']).max() > 0 and np.abs(state['D.statistics']).max() > 0


def test_the_sample_grids_are_64_images_and_the_gif_shows_each_of_them(trained):
    run, _, _ = trained
    pictures = [np.asarray(Image.open(run / 'samples' / f'step_{step:06d}.png')) for step in (1, 2, 4, 8)]
    assert all(picture.shape == (2 * (8 * 30 + 2), 2 * (8 * 30 + 2)) for picture in pictures)
    assert len({picture.tobytes() for picture in pictures}) == 4
    with Image.open(run / 'samples.gif') as gif:
        assert gif.n_frames == 4
        for frame, picture in enumerate(pictures):
            gif.seek(frame)
            assert np.array_equal(np.asarray(gif.convert('L')), picture)
    with Image.open(run / 'curves.png') as curves:
        assert curves.format == 'PNG'


def test_in_a_log_file_the_output_is_plain_lines(trained):
    _, out, err = trained
    assert err == ''
    assert '\r' not in out and '\x1b' not in out
    device, recipe, *progress, end = out.splitlines()
    assert device == 'cpu: NumPy, as asked'
    assert recipe.startswith('recipe dcgan, data digits: G 759,681 and D 138,689 parameters')
    assert progress[-1].startswith('step 8/8  epoch 1  loss D ') and progress[-1].endswith(' steps/s')
    assert 'D(x) ' in progress[-1] and 'D(G(z)) ' in progress[-1]
    assert end.startswith('run: step 8 saved')


def test_the_same_command_line_trains_the_same_run(trained, tmp_path):
    train(tmp_path, '--max-steps', STEPS, '--out', 'run', '--seed', '5')
    assert same_run(tmp_path / 'run', trained[0])


def test_another_seed_trains_another_run(trained, tmp_path):
    train(tmp_path, '--max-steps', 1, '--out', 'run', '--seed', '6')
    assert metrics(tmp_path / 'run')[0] != metrics(trained[0])[0]
    first_grid = 'samples/step_000001.png'
    assert (tmp_path / 'run' / first_grid).read_bytes() != (trained[0] / first_grid).read_bytes()


def test_epochs_have_their_grids_and_checkpoints_whatever_the_steps(tmp_path):
    out, _ = train(tmp_path, '--batch-size', '16', '--epochs', '3', '--sample-every', '5', '--out', 'run',
                   patch=TINY_DATA)
    run = tmp_path / 'run'
    assert '3 epochs of 2 steps' in out               # 40 images: the last 8 of each epoch are dropped
    order = ['step_000001', 'epoch_001', 'epoch_002', 'step_000005', 'epoch_003']
    assert {path.stem for path in (run / 'samples').iterdir()} == set(order)
    with Image.open(run / 'samples.gif') as gif:
        assert gif.n_frames == 5
        for frame, name in enumerate(order):
            gif.seek(frame)
            picture = np.asarray(Image.open(run / 'samples' / f'{name}.png'))
            assert np.array_equal(np.asarray(gif.convert('L')), picture)
    assert load(run)[1] == 6
    (run / 'checkpoint.npz').unlink()
    assert load(run)[1] == 4                          # the epoch before


def test_a_dry_run_touches_everything_and_leaves_nothing_behind(tmp_path):
    (tmp_path / 'tmp').mkdir()
    out, err = train(tmp_path, '--dry-run', environment={'TMPDIR': str(tmp_path / 'tmp')})
    assert 'step 3/3' in out and out.splitlines()[-1].startswith('dry run: ') and err == ''
    assert list((tmp_path / 'tmp').iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} <= {'tmp', '.mpl'}


def test_without_a_name_a_run_gets_a_folder_of_its_own(tmp_path):
    for expected in ('dcgan', 'dcgan-2'):
        out, _ = train(tmp_path, '--max-steps', 1)
        assert f'runs/{expected}: step 1 saved' in out and load(tmp_path / 'runs' / expected)[1] == 1


# ---- going on

def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(trained, tmp_path):
    run = tmp_path / 'run'
    train(tmp_path, '--max-steps', 3, '--out', run, '--seed', '5')
    assert load(run)[1] == 3
    finish(start(tmp_path, 'train_mnist.py', '--resume', run, '--max-steps', STEPS, '--device', 'cpu'))
    assert same_run(run, trained[0])


def test_options_that_agree_with_the_run_may_be_repeated(copy, tmp_path):
    train(tmp_path, '--resume', copy, '--seed', '5', '--lr', '2e-4', '--max-steps', STEPS + 1)
    assert load(copy)[1] == STEPS + 1


def test_a_run_that_has_made_its_steps_says_how_to_go_on_and_mends_its_pictures(copy, trained, tmp_path):
    for name in ('samples.gif', 'curves.png'):        # killed after the last checkpoint, before these
        (copy / name).unlink()
    out, err = train(tmp_path, '--resume', copy, '--max-steps', STEPS)
    assert 'has made its 8 steps; a larger --epochs or --max-steps goes on' in out and err == ''
    assert same_run(copy, trained[0])


def test_a_checkpoint_cut_short_by_a_power_cut_costs_only_the_steps_since_the_one_before(trained, tmp_path):
    run = tmp_path / 'run'
    train(tmp_path, '--max-steps', 5, '--checkpoint-every', 1, '--out', run, '--seed', '5')
    newest = run / 'checkpoint.npz'
    newest.write_bytes(newest.read_bytes()[:-1000])
    assert load(run)[1] == 4
    train(tmp_path, '--max-steps', STEPS, '--resume', run)
    assert same_run(run, trained[0])


def test_a_checkpoint_without_adam_s_memory_is_answered_with_one_line(copy, tmp_path):
    (copy / 'checkpoint.previous.npz').unlink()
    with np.load(copy / 'checkpoint.npz') as file:
        arrays = {name: file[name] for name in file.files if name != 'G.m'}
    np.savez(copy / 'checkpoint.npz', **arrays)
    _, err = train(tmp_path, '--resume', copy, check=2)
    assert one_line(err, 'checkpoint.npz', 'G.m')


def test_killed_again_and_again_a_run_still_becomes_the_unbroken_one(trained, tmp_path):
    run, seen, clock = tmp_path / 'run', [], random.Random(0)
    for attempt in range(60):
        there = list(run.glob('checkpoint*.npz'))
        if there:
            seen.append(load(run)[1])
        begin = ('--resume', run) if there else ('--out', run, '--seed', '5')
        process = start(tmp_path, 'train_mnist.py', *SMALL, *begin, '--max-steps', STEPS,
                        '--checkpoint-every', 1)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.25 + 0.025 * attempt + 0.05 * clock.random())
        process.kill()                                # SIGKILL
        _, err = process.communicate()
        assert err == '' and process.returncode in (0, -signal.SIGKILL)
        if process.returncode == 0:
            break
    assert process.returncode == 0 and attempt >= 4
    assert seen == sorted(seen) and set(seen) & set(range(1, STEPS))  # it went on from the middle
    leftovers = [name for name in contents(run) if name.endswith('.part')]
    assert leftovers == []
    assert same_run(run, trained[0])


# ---- signals

@pytest.mark.parametrize('number, code', [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_first_and_the_run_goes_on_as_if_nothing_had_been(tmp_path, number, code):
    run = tmp_path / 'run'
    process = start(tmp_path, 'train_mnist.py', *SMALL, '--out', 'run', '--seed', '5')
    wait_for((run / 'samples' / 'step_000002.png').exists, process)
    process.send_signal(number)
    out, err = finish(process, code)
    step = load(run)[1]
    assert step >= 2 and [row['step'] for row in metrics(run)] == list(range(1, step + 1))
    assert (run / 'samples.gif').exists() and (run / 'curves.png').exists()
    assert out.splitlines()[-1] == 'go on with: python train_mnist.py --resume run'
    assert err.strip() == 'saving; once more to stop at once'

    train(tmp_path, '--resume', 'run', '--max-steps', step + 2)
    train(tmp_path, '--out', 'unbroken', '--seed', '5', '--max-steps', step + 2)
    assert same_run(run, tmp_path / 'unbroken')


def test_a_second_ctrl_c_does_not_wait_for_the_first_one_s_checkpoint(tmp_path):
    endless = '''
import time
from tinygan.checkpoint import Run
save = Run.save
Run.save = lambda run, step, state: time.sleep(60) if step else save(run, step, state)
'''
    process = start(tmp_path, 'train_mnist.py', *SMALL, '--out', 'run', patch=endless)
    wait_for((tmp_path / 'run' / 'samples' / 'step_000001.png').exists, process)
    process.send_signal(signal.SIGINT)
    while 'saving' not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    finish(process, -signal.SIGINT)
    assert load(tmp_path / 'run')[1] == 0


def test_a_signal_that_comes_when_a_step_has_just_not_been_saved_still_saves_it(tmp_path):
    """Ctrl-C between "is a checkpoint due?" and "did a signal come?"."""
    late = f'''
import os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
import train_mnist
is_due = train_mnist.is_due
def then_a_signal(step, every):
    if step == 3 and every == 1000:
        os.kill(os.getpid(), signal.SIGINT)
    return is_due(step, every)
train_mnist.is_due = then_a_signal
sys.exit(train_mnist.main())
'''
    _, err = train(tmp_path, '--out', 'run', '--checkpoint-every', 1000, patch=late, check=130)
    assert 'saving' in err
    assert load(tmp_path / 'run')[1] == len(metrics(tmp_path / 'run')) >= 3


# ---- what goes wrong while training

DIVERGING = '''
import numpy as np
from tinygan.gan import GAN
step = GAN.step
def diverging(self, *arguments):
    metrics = step(self, *arguments)
    return metrics | {'loss_G': np.float32('nan')} if self.optim_G.t == 5 else metrics
GAN.step = diverging
'''
OVERFLOWING = '''
import numpy as np
from tinygan.gan import GAN
step = GAN.step
def overflowing(self, *arguments):
    metrics = step(self, *arguments)
    if self.optim_G.t == 5:
        self.D.parameters[:] = np.inf
    return metrics
GAN.step = overflowing
'''


def test_a_run_whose_loss_is_no_number_stops_with_one_line_and_a_sound_checkpoint(tmp_path):
    _, err = train(tmp_path, '--max-steps', 20, '--checkpoint-every', 2, '--out', 'run', patch=DIVERGING,
                   check=2)
    assert one_line(err, 'training diverged: step 5 ', 'checkpoint of step 4 in run is sound', '--lr')
    assert load(tmp_path / 'run')[1] == 4
    train(tmp_path, '--resume', 'run', '--max-steps', 6)              # without the patch, it goes on
    assert [row['step'] for row in metrics(tmp_path / 'run')] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize('every, sound', [(1, 4), (100, 0)])
def test_a_run_whose_weights_overflow_never_saves_them_and_ends_with_one_line(tmp_path, every, sound):
    """The metrics of step 5 are sound, its weights are not any more."""
    _, err = train(tmp_path, '--max-steps', 20, '--checkpoint-every', every, '--out', 'run',
                   patch=OVERFLOWING, check=2)
    assert one_line(err, 'training diverged', f'checkpoint of step {sound} in run is sound')
    _, step, state = load(tmp_path / 'run')
    assert step == sound and all(np.isfinite(array).all() for array in state.values())


def test_a_full_disk_is_answered_with_one_line_and_the_last_checkpoint_stays(copy, tmp_path):
    before = load(copy)
    small_disk = 'import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))'
    _, err = train(tmp_path, '--resume', copy, '--max-steps', STEPS + 2, patch=small_disk, check=2)
    assert one_line(err, 'File too large', 'checkpoint.npz')
    after = load(copy)
    assert after[:2] == before[:2]
    assert all(np.array_equal(before[2][name], after[2][name]) for name in before[2])
    train(tmp_path, '--resume', copy, '--max-steps', STEPS + 1)       # with room again, it goes on
    assert len(metrics(copy)) == STEPS + 1

    _, err = train(tmp_path, '--out', 'new', patch=small_disk, check=2)
    assert one_line(err, 'File too large')
    assert 'checkpoint.npz' not in contents(tmp_path / 'new')
    train(tmp_path, '--out', 'new', '--max-steps', 1)


# ---- mistakes

@pytest.mark.parametrize('arguments, parts', [
    ('--bogus', ['unrecognized arguments: --bogus', '--help']),
    ('stray', ['unrecognized arguments: stray']),
    ('--epochs 0', ['--epochs', '0']),
    ('--epochs 1.5', ['--epochs', "invalid int value: '1.5'"]),
    ('--lr -1', ['--lr', '-1']),
    ('--lr nan', ['--lr', 'nan']),
    ('--lr inf', ['--lr', 'inf']),
    ('--lr fast', ['--lr', "invalid float value: 'fast'"]),
    ('--beta1 1', ['--beta1', '1']),
    ('--beta2 -0.1', ['--beta2', '-0.1']),
    ('--batch-size x', ['--batch-size', "invalid int value: 'x'"]),
    ('--batch-size', ['--batch-size', 'expected one argument']),
    ('--seed -1', ['--seed', '-1']),
    ('--max-steps 0', ['--max-steps', '0']),
    ('--loss hinge', ['--loss', 'hinge', 'bce']),
    ('--recipe biggan', ['--recipe', 'biggan', 'dcgan']),
    ('--device tpu', ['--device', 'tpu', 'gpu']),
    ('--resume absent', ['absent holds no checkpoint', 'train_mnist.py']),
    ('--resume empty', ['empty holds no checkpoint']),
    ('--resume file', ['file holds no checkpoint']),
    ('--resume empty --out new', ['--resume', '--out']),
    ('--dry-run --out new', ['--dry-run', '--out']),
    ('--data digits --data-dir empty', ['--data digits', '--data-dir']),
    ('--data digits --out file', ['file', 'irectory']),
    ('--data digits --out file/deeper', ['file', 'irectory']),
    ('--data digits --z-dim 2000000000', ['memory']),
    ('--data nonsense', ['nonsense']),
])
def test_a_mistake_is_answered_with_one_line_and_nothing_is_made(command, tmp_path, arguments, parts):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'file').write_text('in the way')
    done = command('train_mnist.py', *arguments.split(), check=2)
    assert one_line(done.stderr, *parts)
    assert set(contents(tmp_path)) == {'file'} and not (tmp_path / 'new').exists()


def test_a_folder_that_holds_a_run_is_refused_with_a_hint_and_not_touched(command, copy):
    before = contents(copy)
    done = command('train_mnist.py', '--data', 'digits', '--out', copy, check=2)
    assert one_line(done.stderr, f'{copy} already holds a run', f'--resume {copy}', 'another --out')
    assert contents(copy) == before


@pytest.mark.parametrize('arguments, was', [
    ('--batch-size 16', '--batch-size 8'), ('--lr 0.1', '--lr 0.0002'), ('--seed 0', '--seed 5'),
    ('--data mnist', '--data digits'), ('--beta1 0', '--beta1 0.5'), ('--z-dim 7', '--z-dim 100'),
    ('--loss lsgan', '--loss bce')])
def test_a_resumed_run_cannot_change_what_it_was_begun_with(command, trained, arguments, was):
    run = trained[0]
    before = contents(run)
    done = command('train_mnist.py', '--resume', run, *arguments.split(), check=2)
    flag, asked = arguments.split()
    assert one_line(done.stderr, f'was begun with {was} and cannot go on with {asked}', f'leave {flag} away')
    assert contents(run) == before


def test_a_minibatch_larger_than_the_data_is_refused(tmp_path):
    _, err = train(tmp_path, '--batch-size', '41', '--out', 'run', patch=TINY_DATA, check=2)
    assert one_line(err, '--batch-size 41: the dataset has only 40 images')
    assert not (tmp_path / 'run').exists()
    with pytest.raises(UserError, match='--batch-size 60001'):
        Digits().steps_per_epoch(60001)


def test_no_data_and_no_network_mean_drawn_digits_and_a_message_nobody_can_miss(command, tmp_path):
    arguments = '--device', 'cpu', '--batch-size', '8', '--max-steps', '1', '--out', 'run'
    done = command('train_mnist.py', *arguments, check=0, XDG_CACHE_HOME=str(tmp_path / 'cache'),
                   **NO_NETWORK)
    first, second, *_, last = done.stderr.splitlines()
    assert first == last == 100 * '*' and 'THIS IS NOT MNIST: training on DRAWN DIGITS instead.' in second
    assert 'Connection refused' in ' '.join(done.stderr.replace('*', ' ').split())
    assert 'data digits' in done.stdout
    assert json.loads((tmp_path / 'run' / 'config.json').read_text())['data'] == 'digits'


@pytest.mark.parametrize('arguments, folder', [('--data mnist', 'cache/tinygan/mnist'),
                                               ('--data-dir mine', 'mine')])
def test_mnist_asked_for_and_not_to_be_had_is_an_error(command, tmp_path, arguments, folder):
    done = command('train_mnist.py', *arguments.split(), '--out', 'run', check=2,
                   XDG_CACHE_HOME=str(tmp_path / 'cache'), **NO_NETWORK)
    assert one_line(done.stderr, f'{folder} holds no train-images-idx3-ubyte[.gz]', 'Connection refused',
                    '--data-dir', 'TINYGAN_DATA', '--data digits')
    assert not (tmp_path / 'run').exists()


# ---- CuPy that is not there, or explodes

def cupy_that(tmp_path, does):
    (tmp_path / 'fake').mkdir()
    (tmp_path / 'fake' / 'cupy.py').write_text(does + '\n')
    return f'{tmp_path / "fake"}{os.pathsep}{ROOT}'


def test_a_gpu_asked_for_without_cupy_is_refused_with_what_to_install(command, tmp_path):
    path = cupy_that(tmp_path, 'raise ModuleNotFoundError("No module named cupy", name="cupy")')
    for program, *arguments in (['train_mnist.py'], ['tinygan', 'gradcheck']):
        done = command(program, *arguments, '--device', 'gpu', check=2, PYTHONPATH=path)
        assert one_line(done.stderr, '--device gpu: CuPy is not installed', "pip install 'cupy-cuda12x[ctk]'",
                        '--device cpu', program=program)


@pytest.mark.parametrize('error', ['RuntimeError("no driver\\nmore of it")', 'RuntimeError()',
                                   'OSError("libcuda.so")'])
def test_whatever_a_broken_cupy_raises_auto_takes_numpy_and_says_why(command, tmp_path, error):
    path = cupy_that(tmp_path, f'raise {error}')
    done = command('train_mnist.py', '--resume', 'absent', check=2, PYTHONPATH=path)
    assert done.stdout.startswith('cpu: NumPy (CuPy found no usable GPU') and done.stdout.count('\n') == 1
    done = command('train_mnist.py', '--device', 'gpu', check=2, PYTHONPATH=path)
    assert one_line(done.stderr, '--device gpu: CuPy found no usable GPU', 'nvidia-smi')


def test_a_run_is_opened_and_trained_on_a_cpu_without_a_thought_of_cupy(command, copy, tmp_path):
    path = cupy_that(tmp_path, 'import os; os._exit(99)')
    command('tinygan', 'sample', copy, '-n', 1, check=0, PYTHONPATH=path)
    command('tinygan', 'interpolate', copy, check=0, PYTHONPATH=path)
    train(tmp_path, '--resume', copy, '--max-steps', STEPS + 1, environment={'PYTHONPATH': path})
    exploded = command('tinygan', 'gradcheck', '--device', 'auto', PYTHONPATH=path)
    assert exploded.returncode == 99


# ---- on a terminal

@pytest.fixture
def terminal(tmp_path):
    """Run a command on a pseudo-terminal of so many columns; all that it wrote there, and its exit code."""
    def run(*arguments, columns=100, then=lambda process: None, **options):
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack('HHHH', 24, columns, 0, 0))
        process = start(tmp_path, *arguments, stdin=slave, stdout=slave, stderr=slave, **options)
        os.close(slave)
        then(process)
        written = codecs.getincrementaldecoder('utf-8')()
        text = ''
        with contextlib.suppress(OSError):            # EIO: the last one who held the terminal has gone
            while chunk := os.read(master, 4096):
                text += written.decode(chunk)
        os.close(master)
        return text, process.wait()
    return run


def test_a_terminal_shows_a_bar_with_the_losses_and_the_speed(terminal):
    text, code = terminal('train_mnist.py', *SMALL, '--max-steps', '20', '--out', 'run', columns=140)
    assert code == 0
    states = [state for state in text.split('\r') if '/20' in state]  # tqdm draws each over the one before
    assert '0/20' in states[0] and '20/20' in states[-1]
    for part in ('loss D ', 'D(x) ', 'D(G(z)) ', 'step/s'):
        assert part in states[-1]
    assert '\nrun: step 20 saved' in text             # the next line begins at its beginning


def test_a_narrow_terminal_still_shows_the_losses(terminal):
    text, _ = terminal('train_mnist.py', *SMALL, '--max-steps', '20', '--out', 'run', columns=80)
    last = [state for state in text.replace('\n', '\r').split('\r') if '20/20' in state][-1]
    assert len(last) <= 80 and 'D(x) ' in last and 'D(G(z)) ' in last


def test_on_a_terminal_an_error_stands_on_a_line_of_its_own(terminal):
    text, code = terminal('train_mnist.py', *SMALL, '--max-steps', '40', '--out', 'run',
                          patch=DIVERGING.replace('== 5', '== 15'))
    assert code == 2
    lines = text.replace('\r', '\n').split('\n')
    assert [line for line in lines if line][-1].startswith('train_mnist.py: error: training diverged'), text


def test_ctrl_c_on_a_terminal_leaves_a_tidy_screen(terminal, tmp_path):
    def interrupt(process):
        wait_for((tmp_path / 'run' / 'samples' / 'step_000004.png').exists, process)
        process.send_signal(signal.SIGINT)
    text, code = terminal('train_mnist.py', *SMALL, '--out', 'run', then=interrupt)
    assert code == 130
    assert 'saving; once more to stop at once' in text and 'Traceback' not in text
    assert text.splitlines()[-1] == 'go on with: python train_mnist.py --resume run'


# ---- python -m tinygan

def test_samples_are_a_picture_and_if_asked_for_an_array(command, trained, tmp_path):
    done = command('tinygan', 'sample', trained[0], '--npy', 'samples.npy', check=0)
    first, second = done.stdout.splitlines()
    assert first.startswith('grid.png: 64 samples') and second == 'samples.npy: uint8 (64, 28, 28)'
    samples = np.load(tmp_path / 'samples.npy', allow_pickle=False)
    assert samples.shape == (64, 28, 28) and samples.dtype == np.uint8
    assert len({sample.tobytes() for sample in samples}) == 64
    with Image.open(tmp_path / 'grid.png') as picture:
        pixels = np.asarray(picture)[::2, ::2]
    assert pixels.shape == (8 * 30 + 2, 8 * 30 + 2)
    for i, sample in enumerate(samples):
        y, x = 2 + i // 8 * 30, 2 + i % 8 * 30
        assert np.array_equal(pixels[y:y + 28, x:x + 28], sample)


def test_samples_depend_on_the_seed_alone_and_more_of_them_begin_with_the_same(command, trained, tmp_path):
    runs = {'default': (), 'again': ('--seed', 0), 'other': ('--seed', 1), 'few': ('-n', 5)}
    for name, more in runs.items():
        files = '--out', f'{name}.png', '--npy', f'{name}.npy'
        command('tinygan', 'sample', trained[0], *files, *more, check=0)
    default, again, other, few = (np.load(tmp_path / f'{name}.npy') for name in runs)
    assert len(default) == 64 and np.array_equal(default, again) and not (default == other).all()
    assert abs(default[:5].astype(int) - few).max() <= 1      # a smaller product may round otherwise
    assert (tmp_path / 'default.png').read_bytes() == (tmp_path / 'again.png').read_bytes()


def test_samples_come_from_the_trained_weights(command, trained, tmp_path):
    """In evaluation mode: with the generator's running statistics, image by image."""
    from tinygan.arrays import random_stream
    from tinygan.models import RECIPES
    config, _, state = load(trained[0])
    G = RECIPES['dcgan'].generator(config['z_dim'])
    G.parameters[:], G.statistics[:] = state['G.parameters'], state['G.statistics']
    G.eval()
    z = random_stream(0, 'sample').standard_normal((4, 100), np.float32)
    expected = np.concatenate([G(z[i:i + 1]) for i in range(4)])[..., 0]
    command('tinygan', 'sample', trained[0], '-n', 4, '--npy', 'four.npy', check=0)
    assert abs(np.load(tmp_path / 'four.npy') - (expected + 1) * 127.5).max() <= 0.6


def test_interpolation_strips_lead_from_one_image_to_another_by_small_steps(command, trained, tmp_path):
    done = command('tinygan', 'interpolate', trained[0], check=0)
    assert done.stdout.startswith('interpolation.png: ') and done.stderr == ''
    command('tinygan', 'interpolate', trained[0], '--rows', 2, '--steps', 20, '--out', 'ways.png', check=0)
    with Image.open(tmp_path / 'interpolation.png') as default, Image.open(tmp_path / 'ways.png') as picture:
        assert default.size == (2 * (12 * 30 + 2), 2 * (6 * 30 + 2))
        pixels = np.asarray(picture)[::2, ::2].astype(float)
    assert pixels.shape == (2 * 30 + 2, 20 * 30 + 2)
    for y in (2, 32):
        images = [pixels[y:y + 28, x:x + 28] for x in range(2, 20 * 30, 30)]
        pace = max(abs(a - b).mean() for a, b in zip(images, images[1:]))
        assert 0 < 4 * pace < abs(images[0] - images[-1]).mean()


def test_every_gradient_is_checked_in_a_table(command):
    done = command('tinygan', 'gradcheck', check=0)
    what, *rows, verdict = [line for line in done.stdout.splitlines() if line][1:]
    assert what.split() == ['layer,', 'loss', 'or', 'network', 'gradient', 'rel.', 'error', 'verdict']
    assert verdict == 'every backward is the gradient of its forward'
    for name in (*gradcheck.LAYERS, *gradcheck.LOSSES, *(f'dcgan, {loss}' for loss in LOSSES)):
        assert any(row.startswith(name + '  ') for row in rows), name
    for row in rows:
        *_, error, passed = row.split()
        assert passed == 'ok' and 0 <= float(error) < 1e-6
    for gradient in ('dx', 'dw', 'db', 'dgamma', 'dbeta', 'dscore', 'D gradients', 'G gradients'):
        assert any(f' {gradient} ' in row for row in rows)


def test_a_wrong_backward_is_found_named_and_makes_the_exit_code_1(tmp_path):
    wrong = '''
from tinygan.layers import Tanh
backward = Tanh.backward
Tanh.backward = lambda self, dy: 1.001 * backward(self, dy)
'''
    out, _ = finish(start(tmp_path, 'tinygan', 'gradcheck', patch=wrong), check=1)
    found = [(line[:48].strip(), line[48:63].strip()) for line in out.splitlines() if line.endswith('WRONG')]
    assert {('Tanh', 'dx'), *((f'dcgan, {loss}', 'G gradients') for loss in LOSSES)} <= set(found)
    assert {what for what, gradient in found if gradient != 'G gradients'} == {'Tanh'}
    assert out.splitlines()[-1] == f'{len(found)} wrong'


@pytest.mark.parametrize('arguments, parts', [
    ('', ['COMMAND']),
    ('dream', ['dream', 'sample', 'interpolate', 'gradcheck']),
    ('sample', ['required: RUN']),
    ('sample absent', ['absent holds no checkpoint']),
    ('interpolate file', ['file holds no checkpoint']),
    ('sample RUN -n 0', ['-n', '0']),
    ('sample RUN --seed -1', ['--seed', '-1']),
    ('sample RUN --out absent/picture.png', ['absent/picture.png: No such file or directory']),
    ('sample RUN --npy absent/array.npy', ['absent/array.npy: No such file or directory']),
    ('sample RUN -n 2000000000', ['memory']),
])
def test_a_mistake_with_a_run_is_answered_with_one_line(command, trained, tmp_path, arguments, parts):
    (tmp_path / 'file').write_text('in the way')
    done = command('tinygan', *(trained[0] if word == 'RUN' else word for word in arguments.split()), check=2)
    assert one_line(done.stderr, *parts, program='tinygan')
