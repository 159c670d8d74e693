"""What is drawn beside the training on a GPU, and without it: the samples, the health of a run, the metrics."""
import errno
import math
import os
import signal
import sys
import threading
from functools import partial

import cuda_on_host
import fake_cupy
import numpy as np
import pytest
import threadpoolctl
import train_mnist
from commands import metrics, one_line, threads
from PIL import Image
from test_cuda import captured_gan, narrow, small_gan

from tinygan import data
from tinygan.arrays import to_numpy
from tinygan.data.minibatches import Minibatches
from tinygan.engines.cuda import step as captured_step
from tinygan.engines.threads import one_thread
from tinygan.errors import one_line_errors
from tinygan.recipes import RECIPES
from tinygan.run import worker as worker_module
from tinygan.run.checkpoint import Run, open_checkpoint
from tinygan.run.generator import draw, load_with_config, preview
from tinygan.run import health as health_module
from tinygan.run.health import Health
from tinygan.run.pictures import grid, to_pillow
from tinygan.run.worker import Worker

needs_compiler = pytest.mark.skipif(cuda_on_host.COMPILER is None, reason='no C++ compiler to run the kernels on the CPU')


@pytest.fixture
def cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, 'cupy', fake_cupy)
    fake_cupy.count.clear()
    return fake_cupy


# ---- a worker

@pytest.mark.parametrize('beside', [True, False])
def test_what_is_called_is_done_in_order_and_beside_only_if_asked(beside):
    done, worker = [], Worker(beside)
    for i in range(20):
        worker.call(lambda i: done.append((i, threading.current_thread() is threading.main_thread())), i)
    worker.wait()
    worker.close()
    assert done == [(i, not beside) for i in range(20)]


def test_a_call_waits_only_if_there_is_much_to_do_and_close_drops_what_is_left(monkeypatch):
    monkeypatch.setattr(worker_module, 'MOST', 2)
    worker, go, done = Worker(True), threading.Event(), []
    worker.call(go.wait, 30)
    worker.call(done.append, 'second')
    assert done == []
    threading.Timer(0.2, lambda: (done.append('first'), go.set())).start()
    worker.call(done.append, 'third')
    assert done[0] == 'first'
    worker.wait()
    go.clear()
    worker.call(go.wait, 0.2)
    worker.call(done.append, 'fourth')
    worker.close()
    assert done == ['first', 'second', 'third']


@pytest.mark.parametrize('later', [lambda worker: worker.call(print), lambda worker: worker.wait()], ids=['next call', 'wait'])
def test_what_it_raises_is_raised_once_by_a_later_call_or_wait(later, monkeypatch):
    monkeypatch.setattr(worker_module, 'MOST', 1)
    worker, error = Worker(True), OSError(errno.ENOSPC, 'No space left on device')

    def fail():
        raise error
    worker.call(fail)
    with pytest.raises(OSError) as raised:
        later(worker)
    assert raised.value is error
    worker.wait()
    worker.close()


def test_what_numpy_is_told_to_ignore_is_ignored_there_too():
    worker = Worker(True)
    with np.errstate(all='ignore'):
        worker.call(lambda: np.float32(1) / np.float32(0))
        worker.wait()
    worker.close()


def test_blas_has_one_thread_until_the_work_was_waited_for_and_then_as_many_as_before():
    worker, begun, go, left, seen = Worker(True), threading.Event(), threading.Event(), threading.Event(), []

    def work():
        begun.set()
        with one_thread():
            seen.append(threads())
            go.wait(30)
        left.set()
        seen.append(threads())
    with threadpoolctl.threadpool_limits(2, 'blas'):
        for end, earlier in (worker.wait, True), (worker.close, False):
            begun.clear(), go.clear(), left.clear()
            worker.call(work)
            begun.wait(30)
            with one_thread():                    # of the training, which the worker's ends earlier than, or later
                if earlier:
                    go.set(), left.wait(30)
            go.set()
            end()
            assert threads() == {2}
        assert seen == 4 * [{1}]
        Worker(False).call(lambda: seen.append(threads()))
        assert seen[-1] == {2}


# ---- a captured GAN

def images():
    return data.ImageSet(np.random.default_rng(0).integers(0, 256, (24, 28, 28, 1), np.uint8))


@needs_compiler
@pytest.mark.parametrize('name', ['dcgan', 'fast'])
def test_samples_and_health_are_those_of_a_copy_on_the_cpu_and_need_no_kernel_of_cupy(cupy, monkeypatch, name):
    recipe = narrow(RECIPES[name]) if name == 'fast' else RECIPES[name]
    captured, on_cpu = captured_gan(cupy, recipe, 8, images=images()), small_gan(np, recipe)
    of_run = recipe._replace(batch_size=8, z_dim=5)
    batches = Minibatches(images(), of_run, 0, cupy)
    z, first = np.random.default_rng(1).standard_normal((3, 5), np.float32), []
    for number in 1, 2:
        captured.step(number)
        with monkeypatch.context() as patch:      # what computes, or makes an array of zeros; copies are allowed
            patch.setattr(fake_cupy, '_launch', lambda host: pytest.fail('that would be a kernel of CuPy'))
            seen = Health(captured.gan, batches, captured.state).measure(number)
            drawn = draw(captured.snapshot()(), z, recipe.black)
        on_cpu.load_state(captured.state())
        assert seen == Health(on_cpu, batches.on(np), on_cpu.state).measure(number) and np.isfinite(list(seen.values())).all()
        np.testing.assert_array_equal(drawn, draw(on_cpu.sampler, z, recipe.black))
        first = first or [captured.snapshot(), drawn]
    np.testing.assert_array_equal(draw(first[0](), z, recipe.black), first[1])   # as of its step, however late it is called
    assert (first[1] != drawn).any()


@needs_compiler
def test_metrics_are_those_of_the_log_which_is_fetched_once_for_all(cupy, monkeypatch, tmp_path):
    monkeypatch.setattr(captured_step, 'LOG_ROWS', 4)
    recipe = narrow(RECIPES['fast'])
    captured = captured_gan(cupy, recipe)
    run = Run.start(tmp_path / 'run', {'recipe': 'fast', 'penalty': 'r1', 'steps_per_epoch': 9}, captured.state(), {})
    names, expected = list(captured_step.METRICS), []
    for number in range(1, 8):
        run.log(number, captured.step(number))
        turns = captured_step.turns_of(captured.gan, number)
        row = dict(zip(names, to_numpy(captured.log)[(number - 1) % 4].tolist()))
        expected.append({'step': number} | {name: row[name] for name in names if captured_step.METRICS[name] in turns})
        if number in (3, 7):
            cupy.count.clear()
            assert run.flush() == expected[-3 if number == 3 else -4:]
            assert cupy.count == {'copies': 1, 'syncs': 1}
    assert len({*map(len, expected)}) == 2        # with the penalty, and without
    assert [list(row.values()) for row in metrics(tmp_path / 'run')] == [
        [float(f'{row[name]:.9g}') for name in run.columns if name in row] for row in expected]


@needs_compiler
def test_a_look_takes_the_metrics_that_are_on_their_way_and_the_gpu_goes_on(cupy, monkeypatch, tmp_path):
    monkeypatch.setattr(captured_step.CapturedGAN, 'log_every', 4)
    monkeypatch.setattr(captured_step.CapturedGAN, 'lag', 2)
    captured, sent = captured_gan(cupy, RECIPES['dcgan']), []
    send = captured.send
    captured.send = lambda *arrays: sent.append(captured.newest) or send(*arrays)
    run = Run.start(tmp_path / 'run', {'recipe': 'dcgan', 'steps_per_epoch': 9}, captured.state(), {})
    losses = []
    for number in range(1, 8):
        run.log(number, captured.step(number))
        losses.append(float(to_numpy(captured.log)[number - 1, 0]))
        if number == 4:
            looked = run.flush(4 - captured.lag)
            assert sent == [2]                    # a look makes the GPU wait for nothing that comes later
    assert sent == [2, 6]
    rest = run.flush()
    assert [row['loss_D'] for row in looked + rest] == losses and len(looked) == 2 and sent == [2, 6, 7]
    assert [float(row['loss_D']) for row in metrics(tmp_path / 'run')] == pytest.approx(losses)


# ---- a run

@pytest.fixture
def train(cupy, monkeypatch, tmp_path, without_curves):
    """Train a run of so many steps, of narrow networks, on the stand-in; its exit code."""
    recipe = RECIPES['dcgan']
    G, D = (partial(network, width=4) for network in (recipe.generator, recipe.discriminator))
    monkeypatch.setitem(RECIPES, 'dcgan', recipe._replace(generator=G, discriminator=D))

    def run(steps, *options):
        return train_mnist.main(['--recipe', 'dcgan', '--device', 'gpu', '--data', 'digits', '--batch-size', '2', *options,
                                 '--max-steps', str(steps), '--out', str(tmp_path / 'run')])
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def last_frame(run):
    with Image.open(run / 'samples.gif') as gif:
        gif.seek(gif.n_frames - 1)
        return gif.n_frames, np.asarray(gif.convert('L'))


@needs_compiler
def test_grids_are_drawn_while_training_goes_on_and_the_last_is_in_the_gif(train, monkeypatch, tmp_path):
    begun, step = [], captured_step.CapturedGAN.step
    second = threading.Event()

    def stepping(self, number):
        begun.append(number)
        if number == 2:
            second.set()
        return step(self, number)

    def drawing(*arguments):
        assert second.wait(30)                    # would the step wait for the grid, this would never come
        return preview(*arguments)
    monkeypatch.setattr(captured_step.CapturedGAN, 'step', stepping)
    monkeypatch.setattr(train_mnist, 'preview', drawing)
    assert train(2) == 0 and begun == [1, 2]
    run = tmp_path / 'run'
    assert {path.name for path in (run / 'samples').iterdir()} == {'step_000001.png', 'step_000002.png'}
    expected = np.asarray(to_pillow(grid(preview(*load_with_config(run))), 2))
    np.testing.assert_array_equal(np.asarray(Image.open(run / 'samples' / 'step_000002.png')), expected)
    frames, last = last_frame(run)
    assert frames == 2
    np.testing.assert_array_equal(last, expected)
    assert len(metrics(run)) == 2


@needs_compiler
@pytest.mark.parametrize('share, saves, looks', [
    (math.inf, 0, {1: [1], 4: [], 8: [2, 3, 4, 5], 10: [6, 7, 8, 9, 10]}),
    (math.inf, 3, {1: [1], 3: [2, 3], 4: [], 6: [4, 5, 6], 8: [], 9: [7, 8, 9], 10: [10]}),
    (0, 0, {1: [1], 4: [2, 3, 4], 8: [5, 6, 7, 8], 10: [9, 10]})], ids=['as they are', 'with checkpoints', 'and at the networks'])
def test_looks_stay_behind_but_for_the_first_the_last_those_before_a_checkpoint_and_those_at_the_networks(
        train, monkeypatch, tmp_path, share, saves, looks):
    """Health looks at the networks when the losses of all steps so far are known: what it saw then was sound."""
    monkeypatch.setattr(captured_step.CapturedGAN, 'log_every', 4)
    monkeypatch.setattr(captured_step.CapturedGAN, 'lag', 3)
    monkeypatch.setattr(health_module, 'SHARE', share)
    look, seen, sound = Health.look, {}, []

    def looking(health, step, rows, whole):
        seen[step] = [row['step'] for row in rows]
        said = look(health, step, rows, whole)
        if health.sound[0] == step:
            sound.append(step)
        return said
    monkeypatch.setattr(Health, 'look', looking)
    assert train(10, '--checkpoint-every', str(saves)) == 0
    assert seen == looks and sound == ([1] if share else [1, 4, 8, 10])
    assert [int(row['step']) for row in metrics(tmp_path / 'run')] == list(range(1, 11))


@needs_compiler
@pytest.mark.parametrize('steps, failing', [(3, 2), (2, 2)], ids=['on the way', 'of the last step'])
def test_a_grid_that_cannot_be_written_is_answered_with_one_line_and_the_checkpoint_stays(train, monkeypatch, tmp_path, capsys,
                                                                                         steps, failing):
    save_sample = Run.save_sample

    def full(run, name, sheet):
        if name == f'step_{failing:06d}':
            raise OSError(errno.ENOSPC, 'No space left on device', f'{name}.png')
        save_sample(run, name, sheet)
    monkeypatch.setattr(Run, 'save_sample', full)
    with pytest.raises(SystemExit) as end, one_line_errors('train_mnist.py'):
        train(steps, '--checkpoint-every', '1')
    assert end.value.code == 2 and one_line(capsys.readouterr().err, f'step_{failing:06d}.png: No space left on device')
    assert open_checkpoint(tmp_path / 'run')[2] >= failing - 1       # the step before it, if it did not have to wait


@needs_compiler
def test_a_signal_during_a_grid_ends_the_run_in_order(train, monkeypatch, tmp_path):
    def interrupted(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        return preview(*arguments)
    monkeypatch.setattr(train_mnist, 'preview', interrupted)
    monkeypatch.setattr(signal, 'SIG_DFL', signal.SIG_IGN)           # what a second one does: there are as many as grids
    assert train(20) == 128 + signal.SIGINT
    run = tmp_path / 'run'
    step = open_checkpoint(run)[2]
    assert 1 <= step < 20 and len(metrics(run)) == step
    assert last_frame(run)[0] == len(list((run / 'samples').iterdir())) == step.bit_length()


def test_without_kernels_and_on_a_cpu_grids_are_drawn_in_line():
    from tinygan.engines import Divided, Plain
    from tinygan.engines.cuda import CapturedGAN
    assert [engine.beside for engine in (Plain, Divided, CapturedGAN)] == [False, False, True]
