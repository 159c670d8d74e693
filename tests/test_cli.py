"""End to end, through the real command line: what a run leaves behind, and what every kind of end leaves behind."""
import json
import shlex
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import train_mnist
from commands import (DIVERGING, LIMIT, MEASURED, ROOT, SMALL, STEPS, TINY_DATA, begun, contents, finish, load, metrics,
                      one_line, own_cache, same_arrays, same_run, start, train, wait_for)
from PIL import Image

from tinygan.arrays import random_stream
from tinygan.judge.frozen import shipped
from tinygan.recipes import RECIPES
from tinygan.run.checkpoint import open_checkpoint
from tinygan.run.generator import draw


# ---- what a run leaves behind

def test_a_run_fills_its_folder(trained):
    run, _, _ = trained
    assert set(contents(run)) == {
        '.lock', 'config.json', 'metrics.csv', 'samples.gif', 'curves.png', 'checkpoint.npz',
        'checkpoint.previous.npz', *(f'samples/step_{step:06d}.png' for step in (1, 2, 4, 8))}

    config = json.loads((run / 'config.json').read_text())
    versions = config.pop('versions')
    assert config == {'recipe': 'dcgan', 'data': 'digits', 'seed': 5, 'precision': None, 'plain': False, 'judge': None,
                      'background': 'white', 'flip': False, 'images': None, 'max_steps': STEPS, 'sample_every': None,
                      'checkpoint_every': None, 'evaluate_every': None, 'processes': 1,
                      'batch_size': 8, 'lr': 2e-4, 'lr_d': None,
                      'beta1': 0.5, 'beta2': 0.999, 'average': 0, 'instance_noise': 0, 'z_dim': 100, 'loss': 'bce', 'epochs': 10,
                      'penalty': None, 'penalty_weight': 10, 'penalty_every': 1, 'critic_steps': 1, 'steps_per_epoch': 7500}
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
    run, device, recipe, *progress, end = out.splitlines()
    assert run == 'run run' and device == 'cpu: NumPy, as asked'
    assert recipe.endswith('10 epochs of 7500 steps, until step 8')
    assert recipe.startswith('recipe dcgan, data digits: G 759,681 and D 138,689 parameters')
    assert progress[-1].startswith('step 8/8  epoch 1/10  loss D ') and progress[-1].endswith(' steps/s')
    assert 'D(x) ' in progress[-1] and 'D(G(z)) ' in progress[-1]
    assert end.startswith('run: step 8 saved')


def test_the_same_command_line_trains_the_same_run(trained, tmp_path):
    train(tmp_path, '--max-steps', STEPS, '--out', 'run', '--seed', '5', curves=True)
    assert same_run(tmp_path / 'run', trained[0])


def test_another_seed_trains_another_run(trained, tmp_path):
    train(tmp_path, '--max-steps', 1, '--out', 'run', '--seed', '6')
    assert metrics(tmp_path / 'run')[0] != metrics(trained[0])[0]
    first_grid = 'samples/step_000001.png'
    assert (tmp_path / 'run' / first_grid).read_bytes() != (trained[0] / first_grid).read_bytes()


def test_short_epochs_share_their_grids_and_the_gif_has_them_in_order(tmp_path):
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


def test_a_dry_run_touches_everything_and_leaves_nothing_behind(tmp_path):
    (tmp_path / 'tmp').mkdir()
    out, err = train(tmp_path, '--dry-run', '--evaluate-every', 1, environment={'TMPDIR': str(tmp_path / 'tmp')},
                     patch=MEASURED, curves=True)
    assert out.count(' Frechet ') == 3 and 'step 3/3' in out and err == ''
    assert out.splitlines()[-1].startswith('dry run: ')
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
    finish(start(tmp_path, 'train_mnist.py', '--resume', run, '--max-steps', STEPS, '--device', 'cpu', curves=True))
    assert same_run(run, trained[0])


def test_the_plain_core_alone_trains_a_run_and_goes_on_with_it_bit_for_bit(trained, tmp_path):
    plain = tmp_path / 'plain'
    out, _ = train(tmp_path, '--plain', '--max-steps', STEPS, '--out', plain, '--seed', '5')
    assert 'training with the plain core' in out and 'plain core' not in trained[1]
    for mine, engine in zip(metrics(plain), metrics(trained[0]), strict=True):
        assert mine == pytest.approx(engine, rel=2e-2)       # float32's rounding, and what training makes of it
    train(tmp_path, '--plain', '--max-steps', 3, '--out', 'broken', '--seed', '5')
    out, _ = train(tmp_path, '--max-steps', STEPS, '--resume', 'broken')
    assert 'training with the plain core' in out
    for name, array in load(plain)[2].items():
        np.testing.assert_array_equal(array, load(tmp_path / 'broken')[2][name], err_msg=name)
    assert (plain / 'metrics.csv').read_bytes() == (tmp_path / 'broken' / 'metrics.csv').read_bytes()


def test_a_gpu_s_run_in_tf32_goes_on_on_a_cpu(copy, tmp_path):
    for path in copy / 'checkpoint.npz', copy / 'checkpoint.previous.npz':
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        np.savez(path, **arrays | {'about': np.array(str(arrays['about']).replace('"precision": null', '"precision": "tf32"'))})
    train(tmp_path, '--resume', copy, '--max-steps', STEPS + 1)
    assert load(copy)[:2] == ({**load(copy)[0], 'precision': 'tf32'}, STEPS + 1)


def test_a_run_of_an_older_version_goes_on(trained, copy, tmp_path):
    """Whose settings were fewer."""
    for path in copy / 'checkpoint.npz', copy / 'checkpoint.previous.npz':
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(str(arrays['about']))
        del about['config']['plain'], about['config']['precision']
        np.savez(path, **arrays | {'about': np.array(json.dumps(about))})
    train(tmp_path, '--resume', copy, '--max-steps', STEPS + 1)
    assert load(copy)[1] == STEPS + 1 and len(metrics(copy)) == STEPS + 1


def test_options_that_agree_with_the_run_may_be_repeated(copy, tmp_path):
    train(tmp_path, '--resume', copy, '--seed', '5', '--lr', '2e-4', '--max-steps', STEPS + 1)
    assert load(copy)[1] == STEPS + 1


def test_a_run_that_has_made_its_steps_says_how_to_go_on_and_mends_its_pictures(copy, trained, tmp_path):
    for name in ('samples.gif', 'curves.png'):        # killed after the last checkpoint, before these
        (copy / name).unlink()
    out, err = train(tmp_path, '--resume', copy, '--max-steps', STEPS, curves=True)
    assert 'has made all its 8 steps; raise --max-steps to go on' in out and err == ''
    assert same_run(copy, trained[0])


def test_a_checkpoint_cut_short_by_a_power_cut_costs_only_the_steps_since_the_one_before(trained, tmp_path):
    run = tmp_path / 'run'
    train(tmp_path, '--max-steps', 5, '--checkpoint-every', 1, '--out', run, '--seed', '5')
    newest = run / 'checkpoint.npz'
    newest.write_bytes(newest.read_bytes()[:-1000])
    assert load(run)[1] == 4
    _, err = train(tmp_path, '--max-steps', STEPS, '--resume', run, curves=True)
    assert err.count('checkpoint.npz is damaged') == 1 and err.endswith('run/checkpoint.previous.npz\n'), err
    assert same_run(run, trained[0])


def test_a_checkpoint_without_adam_s_memory_or_of_other_networks_is_answered_with_one_line(copy, tmp_path):
    (copy / 'checkpoint.previous.npz').unlink()
    with np.load(copy / 'checkpoint.npz') as file:
        arrays = {name: file[name] for name in file.files if name != 'G.m'}
        adam = file['G.m']
    np.savez(copy / 'checkpoint.npz', **arrays)
    _, err = train(tmp_path, '--resume', copy, check=2)
    assert one_line(err, 'checkpoint.npz', 'G.m')
    np.savez(copy / 'checkpoint.npz', **arrays, **{'G.m': adam[1:]})
    _, err = train(tmp_path, '--resume', copy, check=2)
    assert one_line(err, f'run: recipe dcgan has other networks now (G.m: {len(adam) - 1} values were saved, ')


# ---- the distance from MNIST

@pytest.fixture(scope='module')
def measured(trained, tmp_path_factory):
    """A folder with three runs: `trained` measured on its way, unbroken and broken, and measured once it was there. And
    what they printed. One process makes them all, which is faster."""
    folder = tmp_path_factory.mktemp('measured')
    shutil.copytree(trained[0], folder / 'later')
    lines = (f'--out unbroken --seed 5 --evaluate-every 3 --max-steps {STEPS}',
             '--out broken --seed 5 --evaluate-every 3 --max-steps 4',
             f'--resume broken --evaluate-every 3 --max-steps {STEPS}',
             f'--resume later --evaluate-every 1 --max-steps {STEPS + 1}',
             f'--resume later --evaluate-every 0 --max-steps {STEPS + 2}')
    out, _ = finish(start(folder, 'train_mnist.py', curves=True, patch=f'''{MEASURED}
import sys
sys.path.insert(0, {str(ROOT)!r})
import train_mnist
sys.exit(any([train_mnist.main([*{SMALL}, *line.split()]) for line in {lines}]))
'''))
    return folder, out


def distances(run):
    return {row['step']: row['frechet'] for row in metrics(run) if 'frechet' in row}


def test_measuring_changes_nothing_but_its_column_its_panel_and_what_is_kept(measured, trained):
    run = measured[0] / 'unbroken'
    assert distances(run).keys() == {3, 6}
    assert [{name: row[name] for name in row if name != 'frechet'} for row in metrics(run)] == metrics(trained[0])
    for name in 'checkpoint.npz', 'checkpoint.previous.npz':
        assert same_arrays(run / name, trained[0] / name)
    assert load(run)[0] == load(trained[0])[0] | {'judge': str(shipped('judge 1')), 'evaluate_every': 3}
    with_it, without = contents(run), contents(trained[0])
    assert with_it.keys() - without.keys() == {'best.npz'}
    assert {name for name in without if with_it[name] != without[name]} == {
        'metrics.csv', 'curves.png', 'config.json', 'checkpoint.npz', 'checkpoint.previous.npz'}
    with Image.open(run / 'curves.png') as three, Image.open(trained[0] / 'curves.png') as two:
        assert three.height == two.height * 3 // 2


def test_a_distance_is_shown_as_soon_as_it_is_measured(measured):
    folder, out = measured
    for step, distance in distances(folder / 'unbroken').items():
        line, = (line for line in out.partition('unbroken: ')[0].splitlines() if line.startswith(f'step {step:.0f}/8 '))
        assert f' Frechet {distance:.1f} ' in line


def test_the_best_generator_is_that_of_the_lowest_distance_and_its_samples_have_it(measured):
    run = measured[0] / 'unbroken'
    _, config, step, state = open_checkpoint(run / 'best.npz')
    assert step == state['G.t'] == min(distances(run), key=distances(run).get)

    G = RECIPES['dcgan'].generator(config['z_dim'])
    G.parameters[:], G.statistics[:] = state['G.parameters'], state['G.statistics']
    z = random_stream(5, 'evaluation').standard_normal((64, 100), np.float32)
    assert shipped('judge 1').distance(draw(G, z, -1)) == pytest.approx(distances(run)[step], rel=1e-3)


def test_a_measured_run_that_is_resumed_equals_an_unbroken_one_bit_for_bit(measured):
    broken, unbroken = (measured[0] / name for name in ('broken', 'unbroken'))
    assert same_run(broken, unbroken) and same_arrays(broken / 'best.npz', unbroken / 'best.npz')


def test_a_run_may_be_measured_only_later_and_then_no_more(measured):
    assert distances(measured[0] / 'later').keys() == {STEPS + 1}
    assert open_checkpoint(measured[0] / 'later' / 'best.npz')[2] == STEPS + 1


def test_a_run_that_another_judge_has_measured_is_measured_no_more_but_goes_on(copy, tmp_path):
    shutil.copy(copy / 'checkpoint.npz', copy / 'best.npz')       # as of a version that had other judges
    _, err = train(tmp_path, '--resume', copy, '--evaluate-every', 1, '--max-steps', STEPS + 1, check=2)
    assert one_line(err, f"was measured by another judge than {shipped('judge 1')}", '--evaluate-every 0 goes on without')
    train(tmp_path, '--resume', copy, '--max-steps', STEPS + 1)


# ---- signals

@pytest.mark.parametrize('number, code, program', [
    (signal.SIGINT, 130, 'python train_mnist.py'), (signal.SIGTERM, 143, 'tinygan train'),
    (signal.SIGHUP, 129, 'python train_mnist.py')])
def test_a_signal_saves_first_and_the_run_goes_on_as_if_nothing_had_been(tmp_path, number, code, program):
    run = tmp_path / 'run'
    process = start(tmp_path, *program.removeprefix('python ').split(), *SMALL, '--out', 'run', '--seed', '5')
    wait_for((run / 'samples' / 'step_000002.png').exists, process)
    process.send_signal(number)
    if number == signal.SIGHUP:                   # closed terminals send more than one
        process.send_signal(number)
    out, err = finish(process, code)
    step = load(run)[1]
    assert step >= 2 and [row['step'] for row in metrics(run)] == list(range(1, step + 1))
    assert (run / 'samples.gif').exists() and (run / 'curves.png').exists()
    assert out.splitlines()[-1] == f'go on with: {program} --resume run'
    assert err.strip() == 'saving; once more to stop at once'

    train(tmp_path, '--resume', 'run', '--max-steps', step + 2)
    train(tmp_path, '--out', 'unbroken', '--seed', '5', '--max-steps', step + 2)
    assert same_run(run, tmp_path / 'unbroken')


def test_without_a_stderr_ctrl_c_saves_too(tmp_path):
    command = shlex.join([sys.executable, str(ROOT / 'train_mnist.py'), *SMALL, '--out', 'run'])
    process = begun(['bash', '-c', f'exec {command} 2>&-'], cwd=tmp_path, stdout=subprocess.DEVNULL)
    wait_for((tmp_path / 'run' / 'samples' / 'step_000002.png').exists, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(LIMIT) == 130
    assert load(tmp_path / 'run')[1] >= 2


def test_a_second_ctrl_c_does_not_wait_for_the_first_one_s_checkpoint(tmp_path):
    endless = '''
import time
from tinygan.run.checkpoint import Run
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
from tinygan.run.schedule import Schedule
checkpoint = Schedule.checkpoint
def then_a_signal(schedule, step):
    if step == 3:
        os.kill(os.getpid(), signal.SIGINT)
    return checkpoint(schedule, step)
Schedule.checkpoint = then_a_signal
sys.exit(train_mnist.main())
'''
    _, err = train(tmp_path, '--out', 'run', patch=late, check=130)
    assert 'saving' in err
    assert load(tmp_path / 'run')[1] == len(metrics(tmp_path / 'run')) >= 3


def test_a_run_whose_output_nobody_reads_on_saves_and_ends(tmp_path):
    """... | head."""
    at_every_look = f'import sys; sys.path.insert(0, {str(ROOT)!r}); import train_mnist; train_mnist.Progress.SECONDS = 0; '
    process = start(tmp_path, 'train_mnist.py', *SMALL, '--out', 'run', patch=at_every_look + 'sys.exit(train_mnist.main())')
    while 'step 10/' not in process.stdout.readline():
        assert process.poll() is None
    process.stdout.close()
    assert process.wait(LIMIT) == 128 + signal.SIGTERM
    assert process.stderr.read() == ''
    assert load(tmp_path / 'run')[1] == len(metrics(tmp_path / 'run')) > 10


# ---- what goes wrong while training

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


# ---- every recipe

@pytest.mark.parametrize('recipe', [name for name in RECIPES if name != 'dcgan'])
def test_every_recipe_trains_on_digits_of_its_size_and_goes_on(recipe, tmp_path):
    run = str(tmp_path / 'run')
    small = '--device', 'cpu', '--data', 'digits', '--batch-size', '2', '--recipe', recipe
    assert train_mnist.main([*small, '--max-steps', '1', '--out', run]) == 0
    assert train_mnist.main(['--device', 'cpu', '--max-steps', '2', '--resume', run]) == 0
    rows = (tmp_path / 'run' / 'metrics.csv').read_text().splitlines()[1:]
    assert [row.split(',')[0] for row in rows] == ['1', '2']
    of_one = RECIPES[recipe].order == 'alternate' or RECIPES[recipe].critic_steps > 2          # update, of D or of G
    lazy = RECIPES[recipe].penalty_every > 1      # and so with the penalty in the first row alone
    assert [row.count(',,') > 0 for row in rows] == [of_one, of_one or lazy]
    H, W, C = RECIPES[recipe].shape
    with Image.open(tmp_path / 'run' / 'samples' / 'step_000002.png') as picture:
        rows = RECIPES[recipe].classes or 8
        assert picture.size == (2 * (8 * (W + 2) + 2), 2 * (rows * (H + 2) + 2))
        assert picture.mode == {1: 'L', 3: 'RGB'}[C]


def test_a_folder_of_images_is_a_dataset_and_is_found_again_by_resume(tmp_path, rng):
    (tmp_path / 'photos' / 'inner').mkdir(parents=True)
    for i in range(6):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(tmp_path / 'photos' / 'inner' / f'{i}.png')
    small = '--device', 'cpu', '--data', 'photos', '--batch-size', '2'
    cache = {'XDG_CACHE_HOME': own_cache(tmp_path)}
    finish(start(tmp_path, 'train_mnist.py', *small, '--max-steps', 2, '--out', 'run', environment=cache))
    config = json.loads((tmp_path / 'run' / 'config.json').read_text())
    assert config['data'] == str(tmp_path / 'photos') and config['steps_per_epoch'] == 3
    out, _ = finish(start(tmp_path, 'train_mnist.py', '--resume', 'run', '--data', 'photos', '--max-steps', 4,
                          environment=cache))
    assert 'going on after step 2' in out
    (tmp_path / 'photos').rename(tmp_path / 'moved')
    _, err = finish(start(tmp_path, 'train_mnist.py', '--resume', 'run', '--max-steps', 5, environment=cache), check=2)
    assert 'its images are no longer at' in err and 'photos: name their place with --data' in err
    for where in ['--data', 'moved'], []:         # it is remembered
        out, _ = finish(start(tmp_path, 'train_mnist.py', '--resume', 'run', *where, '--max-steps', 5 + (not where),
                              environment=cache))
    assert 'going on after step 5' in out
    before = contents(tmp_path / 'run')
    for new in '6.png', '7.png':
        shutil.copy(tmp_path / 'moved' / 'inner' / '0.png', tmp_path / 'moved' / 'inner' / new)
    _, err = finish(start(tmp_path, 'train_mnist.py', '--resume', 'run', '--max-steps', 9, environment=cache), check=2)
    assert 'are not those that the run began with' in err and contents(tmp_path / 'run') == before
