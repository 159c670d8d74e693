"""What a mistake is answered with, and what a terminal shows."""
import codecs
import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import termios

import numpy as np
import pytest
from commands import (DIVERGING, LIMIT, MEASURED, NO_NETWORK, ROOT, SMALL, STEPS, TINY_DATA, contents, finish, one_line, start, train,
                      wait_for)

import train_mnist
from tinygan.__main__ import main
from tinygan.data.digits import Digits
from tinygan.errors import UserError, one_line_errors


# ---- mistakes

@pytest.mark.parametrize('arguments, parts', [
    ('--bogus', ['unrecognized arguments: --bogus', '--help']),
    ('stray', ['unrecognized arguments: stray']),
    ('--epochs 0', ['--epochs', '0']),
    ('--epochs 1.5', ['--epochs', "invalid int value: '1.5'"]),
    ('--lr -1', ['--lr', '-1']),
    ('--lr nan', ['--lr', 'nan']),
    ('--lr inf', ['--lr', 'must be at least 1e-12 and finite, not inf']),
    ('--lr fast', ['--lr', "invalid float value: 'fast'"]),
    ('--beta1 1', ['--beta1', '1']),
    ('--beta2 -0.1', ['--beta2', '-0.1']),
    ('--batch-size x', ['--batch-size', "invalid int value: 'x'"]),
    ('--batch-size', ['--batch-size', 'expected one argument']),
    ('--seed -1', ['--seed', '-1']),
    ('--max-steps -1', ['--max-steps', '-1']),
    ('--loss nonsense', ['--loss', 'nonsense', 'bce', 'hinge']),
    ('--data digits --recipe dcgan --penalty r1', ['--penalty needs a D', 'BatchNorm2d', 'recipes that allow it: dcgan64, fast, wgan_gp']),
    ('--data digits --recipe lsgan64 --penalty wgan_gp', ['--penalty needs a D', 'recipes that allow it']),
    ('--data digits --recipe dcgan --penalty-weight 5', ['--penalty-weight', 'name a --penalty']),
    ('--data digits --recipe dcgan --penalty-every 3', ['--penalty-every', 'name a --penalty']),
    ('--penalty-every 0', ['--penalty-every', '0']),
    ('--data digits --recipe dcgan --loss wgan', ['--loss wgan needs a --penalty']),
    ('--data digits --recipe vae --batch-size 1', ['a VAE needs minibatches of two images or more']),
    ('--data digits --recipe wgan_gp --penalty-weight 0', ['--loss wgan needs a --penalty']),
    ('--penalty-weight -1', ['--penalty-weight', '-1']),
    ('--data digits --recipe lsgan64 --critic-steps 2', ['updates D and G in turn', 'leave out --critic-steps']),
    ('--critic-steps 0', ['--critic-steps', '0']),
    *((f'--data digits --recipe vae {option}', ['a VAE has no D', 'leave out', option.split()[0]]) for option in (
        '--loss lsgan', '--instance-noise 0.3', '--critic-steps 2', '--penalty r1')),
    ('--recipe biggan', ['--recipe', 'biggan', 'dcgan']),
    ('--device tpu', ['--device', 'tpu', 'gpu']),
    ('--resume absent', ['absent holds no checkpoint', 'train_mnist.py']),
    ('--resume empty', ['empty holds no checkpoint']),
    ('--resume file', ['file holds no checkpoint']),
    ('--resume empty --out new', ['--resume', '--out']),
    ('--evaluate-every -1', ['--evaluate-every', '-1']),
    ('--evaluate-every 5 --recipe dcgan64 --out new', ['judges look at gray images of 28x28 pixels, and recipe dcgan64 makes gray ones of 64x64']),
    ('--dry-run --out new', ['--dry-run', '--out']),
    ('--data digits --data-dir empty', ['--data digits', '--data-dir']),
    ('--data digits --out file', ['file', 'irectory']),
    ('--data digits --out file/deeper', ['file', 'irectory']),
    ('--data digits --z-dim 2000000000', ['memory']),
    ('--data nonsense', ['nonsense']),
    ('--z-dim 10000000000000000000000', ['--z-dim', 'at least 1 and below 2147483648']),
    *((f'{flag}=', [f'{flag}: it is empty']) for flag in ('--resume', '--out', '--data', '--data-dir')),
])
def test_a_mistake_is_answered_with_one_line_and_nothing_is_made(tmp_path, monkeypatch, capsys, arguments, parts):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'file').write_text('in the way')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end, one_line_errors('train_mnist.py'):
        train_mnist.main(arguments.split())
    assert end.value.code == 2 and one_line(capsys.readouterr().err, *parts)
    assert set(contents(tmp_path)) == {'file'} and not (tmp_path / 'new').exists()


def test_a_folder_that_holds_a_run_is_refused_with_a_hint_and_not_touched(ask, copy):
    before = contents(copy)
    done = ask('train', '--device', 'cpu', '--data', 'digits', '--out', copy, check=2)
    assert one_line(done.stderr, f'{copy} already holds a run', f'--resume {copy}', 'another --out', program='tinygan')
    assert contents(copy) == before


@pytest.mark.parametrize('name', ['config.json', 'metrics.csv', 'curves.png'])
def test_a_folder_that_holds_somebody_s_files_is_refused_and_not_touched(ask, tmp_path, name):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / name).write_text('["mine"]')
    done = ask('train', '--device', 'cpu', '--data', 'digits', '--out', 'mine', check=2)
    assert one_line(done.stderr, f'mine already holds {name}', 'another --out', program='tinygan')
    assert contents(tmp_path / 'mine') == {name: b'["mine"]'}


@pytest.mark.parametrize('arguments, was', [
    ('--batch-size 16', 'with --batch-size 8'), ('--lr 0.1', 'with --lr 0.0002'), ('--seed 0', 'with --seed 5'),
    ('--data mnist', 'with --data digits'), ('--beta1 0', 'with --beta1 0.5'), ('--z-dim 7', 'with --z-dim 100'),
    ('--loss lsgan', 'with --loss bce'), ('--critic-steps 2', 'with --critic-steps 1'), ('--penalty r1', 'without --penalty')])
def test_a_resumed_run_cannot_change_what_it_was_begun_with(ask, trained, arguments, was):
    run = trained[0]
    before = contents(run)
    done = ask('train', '--device', 'cpu', '--resume', run, *arguments.split(), check=2)
    flag, asked = arguments.split()
    assert one_line(done.stderr, f'was begun {was} and cannot go on with {asked}', f'leave out {flag}', program='tinygan')
    assert contents(run) == before


def test_a_minibatch_larger_than_the_data_is_refused(tmp_path):
    _, err = train(tmp_path, '--batch-size', '41', '--out', 'run', patch=TINY_DATA, check=2)
    assert one_line(err, 'a minibatch of 41 is more than the 40 images there are', 'choose a smaller --batch-size')
    assert not (tmp_path / 'run').exists()
    with pytest.raises(UserError, match='a minibatch of 60001 is more than the 60000 images of an epoch'):
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
    (tmp_path / 'mine').mkdir()
    done = command('train_mnist.py', *arguments.split(), '--out', 'run', check=2,
                   XDG_CACHE_HOME=str(tmp_path / 'cache'), **NO_NETWORK)
    assert one_line(done.stderr, f'{folder} holds no train-images-idx3-ubyte[.gz]', 'Connection refused',
                    '--data-dir', 'TINYGAN_DATA', '--data digits')
    assert not (tmp_path / 'run').exists()


# ---- output that cannot be written

@pytest.mark.parametrize('arguments', [['tinygan', '--help'], ['tinygan', 'sample', '-n', 2], ['tinygan', 'gradcheck', 'linear'],
                                       ['train_mnist.py', *SMALL, '--max-steps', 1]], ids=lambda words: words[1])
def test_a_full_disk_under_stdout_is_an_error_of_one_line_and_a_closed_pipe_none(tmp_path, arguments):
    program = arguments[0]
    buffered = {'PYTHONUNBUFFERED': ''}
    with open('/dev/full', 'w') as full:
        process = start(tmp_path, *arguments, environment=buffered, stdout=full)
    assert one_line(finish(process, 2)[1], 'No space left on device', program=program)
    reader, writer = os.pipe()
    os.close(reader)
    process = start(tmp_path, *arguments, environment=buffered, stdout=writer)
    os.close(writer)
    assert finish(process, 1)[1] == ''


def test_a_full_disk_under_an_array_leaves_nothing_and_is_said(tmp_path, monkeypatch, capsys):
    """np.save's own error has neither a number nor a file."""
    array = tmp_path / 'samples.npy'
    monkeypatch.setattr(np, 'save', lambda *_, **__: (_ for _ in ()).throw(OSError('784 requested and 0 written')))
    with pytest.raises(SystemExit) as stopped, one_line_errors('tinygan'):
        main(['sample', '-n', '2', '--npy', str(array)])
    assert stopped.value.code == 2 and list(tmp_path.iterdir()) == []
    assert one_line(capsys.readouterr().err, f'{array}: 784 requested and 0 written', program='tinygan')


def test_an_interrupt_before_there_is_anything_to_save_is_one_line(capsys):
    with pytest.raises(SystemExit) as end, one_line_errors('tinygan'):
        raise KeyboardInterrupt
    assert end.value.code == 128 + signal.SIGINT and capsys.readouterr().err == 'tinygan: interrupted\n'


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
    assert done.stdout.startswith('run absent\ncpu: NumPy (CuPy found no usable GPU') and done.stdout.count('\n') == 2
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
        return text, process.wait(LIMIT)
    return run


def last_state(text):
    """The bar as it was in the end: tqdm draws each over the one before."""
    return [state for state in text.replace('\n', '\r').split('\r') if '100%' in state][-1]


def test_a_terminal_shows_a_bar_with_the_epoch_the_losses_and_the_speed(terminal):
    text, code = terminal('train_mnist.py', *SMALL, '--max-steps', '20', '--out', 'run', columns=140)
    assert code == 0 and ' 0%' in text
    for part in ('epoch 1/10 ', 'loss D ', 'D(x) ', 'D(G(z)) ', ' -> ', ' steps/s'):
        assert part in last_state(text)
    assert '\nrun: step 20 saved' in text             # the next line begins at its beginning


def test_eighty_columns_hold_the_epoch_the_losses_and_the_distance(terminal):
    text, _ = terminal('train_mnist.py', *SMALL, '--max-steps', '20', '--evaluate-every', '15', '--out', 'run', columns=80,
                       patch=MEASURED)
    last = last_state(text)
    assert len(last) <= 80 and last.startswith('epoch 1/10 100% ')
    assert re.search(r' D [\d.]+ G [\d.]+ D\(x\) [\d.]+ D\(G\(z\)\) [\d.]+ Frechet \d{4}\.\d$', last.rstrip()), last


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
