"""python -m tinygan, through the real command line."""
import shutil
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl
from commands import counting_threads, finish, load, one_line, own_cache, same_run, start
from PIL import Image

import tinygan
from tinygan import gradcheck
from tinygan.__main__ import main, sample_noise
from tinygan.data import to_uint8
from tinygan.data.decode import is_ours
from tinygan.errors import UserError
from tinygan.judge.frozen import shipped
from tinygan.losses import LOSSES
from tinygan.recipes import RECIPES
from tinygan.recipes.vae import VAE


def test_samples_are_a_picture_and_if_asked_for_an_array(command, trained, tmp_path):
    done = command('tinygan', 'sample', trained[0], '--npy', 'samples.npy', '--out', 'grid.png', check=0)
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


def test_an_array_asked_for_comes_without_a_picture_and_a_picture_has_as_many_columns_as_rows(ask, tmp_path):
    done = ask('sample', '--npy', 'nine.npy', '-n', 9)
    assert done.stdout == 'nine.npy: uint8 (9, 28, 28)\n' and not list(tmp_path.glob('*.png'))
    done = ask('sample', '-n', 10, '--npy', 'ten.npy', '--out', 'ten.png')
    assert done.stdout.splitlines() == ['ten.png: 10 samples, 4 in a row', 'ten.npy: uint8 (10, 28, 28)']
    for columns, (across, down) in {(): (4, 3), ('--columns', 3): (3, 4), ('--columns', 20): (10, 1)}.items():
        ask('sample', '-n', 10, *columns)
        with Image.open(tmp_path / 'grid.png') as picture:
            assert picture.size == (2 * (30 * across + 2), 2 * (30 * down + 2))
    ask('sample', '--npy', 'more.npy', '-n', 9, '--columns', 9)
    with Image.open(tmp_path / 'grid.png') as picture:
        assert picture.size == (2 * (30 * 9 + 2), 2 * (30 + 2))


def test_without_a_run_the_trained_generator_draws(ask, tmp_path):
    """All ten digits, and judge 1 is sure of most."""
    away = {'TINYGAN_DATA': '', 'XDG_CACHE_HOME': own_cache(tmp_path)}
    ask('sample', '--npy', 'samples.npy', '-n', 200, **away)
    samples = np.load(tmp_path / 'samples.npy')
    z = sample_noise(0, 200, 16)
    assert abs((tinygan.load()(z)[..., 0] + 1) * 127.5 - samples).max() <= 0.6
    _, p = shipped('judge 1').look(samples[..., None])
    assert set(p.argmax(axis=1)) == set(range(10)) and np.median(p.max(axis=1)) > 0.99
    ask('interpolate', '--gif', 'ways.gif', **away)
    ask('arithmetic', '--digits', 9, 4, 6, **away)
    assert {path.name for path in tmp_path.iterdir()} == {'samples.npy', 'interpolation.png', 'ways.gif', 'arithmetic.png', 'cache'}
    assert [path.name for path in (tmp_path / 'cache' / 'tinygan').iterdir()] == ['c']


def test_the_command_train_is_the_script(command, tmp_path):
    """With the same options and the same run."""
    options = '--device cpu --data digits --batch-size 8 --seed 5 --out'.split()
    command('train_mnist.py', *options, 'script', '--max-steps', 2, check=0)
    command('tinygan', 'train', *options, 'command', '--max-steps', 2, check=0)
    assert same_run(tmp_path / 'script', tmp_path / 'command')
    assert command('tinygan', 'train', '--help', check=0).stdout.startswith('usage: tinygan train [-h]')
    assert one_line(command('tinygan', 'train', '--lr', 'x', check=2).stderr, '--lr', program='tinygan')
    assert ' train ' in command('tinygan', '--help', check=0).stdout


@pytest.mark.parametrize('arguments, name', [
    ('sample -n 2', 'grid.png'), ('interpolate --rows 1 --steps 2', 'interpolation.png'),
    ('sample -n 2 --out mine.png', 'mine.png'), ('interpolate --rows 1 --steps 2 --gif mine.gif', 'mine.gif'),
    ('arithmetic --a 1 2 3 --b 4 5 6 --c 7 8 9', 'arithmetic.png')])
def test_a_picture_that_tinygan_did_not_make_is_never_written_over(tmp_path, monkeypatch, arguments, name):
    monkeypatch.chdir(tmp_path)
    for content in (b'no picture', None):
        if content:
            Path(name).write_bytes(content)
        else:
            Image.new('L', (8, 8)).save(name)
        before = Path(name).read_bytes()
        with pytest.raises(UserError, match=f'^{name} is there already, and tinygan did not make it: choose another name$'):
            main(arguments.split())
        assert Path(name).read_bytes() == before
    Path(name).unlink()
    main(arguments.split())
    main([*arguments.split(), '--seed', '1'])     # its own, it may
    with Image.open(name) as picture:
        assert is_ours(picture)


def test_an_array_is_never_written_over(tmp_path):
    np.save(tmp_path / 'mine.npy', np.zeros(3))
    before = (tmp_path / 'mine.npy').read_bytes()
    with pytest.raises(UserError, match='mine.npy is there already: choose another name'):
        main(['sample', '-n', '1', '--npy', str(tmp_path / 'mine.npy')])
    assert (tmp_path / 'mine.npy').read_bytes() == before


def test_an_array_in_a_run_s_place_is_answered_with_the_option_that_takes_it(tmp_path):
    for command in 'sample', 'evaluate':
        with pytest.raises(UserError, match='mine.npy is an array and no run: evaluate measures it with --npy .*mine.npy$'):
            main([command, str(tmp_path / 'mine.npy')])


def test_samples_depend_on_the_seed_alone_and_more_of_them_begin_with_the_same(ask, trained, tmp_path):
    runs = {'default': (), 'again': ('--seed', 0), 'other': ('--seed', 1), 'few': ('-n', 5)}
    for name, more in runs.items():
        files = '--out', f'{name}.png', '--npy', f'{name}.npy'
        ask('sample', trained[0], *files, *more)
    default, again, other, few = (np.load(tmp_path / f'{name}.npy') for name in runs)
    assert len(default) == 64 and np.array_equal(default, again) and not (default == other).all()
    assert abs(default[:5].astype(int) - few).max() <= 1      # a smaller product may round otherwise
    assert (tmp_path / 'default.png').read_bytes() == (tmp_path / 'again.png').read_bytes()


def test_samples_come_from_the_trained_weights(ask, trained, tmp_path):
    """In evaluation mode: with the generator's running statistics, image by image."""
    from tinygan.arrays import random_stream
    from tinygan.recipes import RECIPES
    config, _, state = load(trained[0])
    G = RECIPES['dcgan'].generator(config['z_dim'])
    G.parameters[:], G.statistics[:] = state['G.parameters'], state['G.statistics']
    G.eval()
    z = random_stream(0, 'sample').standard_normal((4, 100), np.float32)
    expected = np.concatenate([G(z[i:i + 1]) for i in range(4)])[..., 0]
    ask('sample', trained[0], '-n', 4, '--npy', 'four.npy')
    assert abs(np.load(tmp_path / 'four.npy') - (expected + 1) * 127.5).max() <= 0.6


def test_a_checkpoint_file_takes_a_run_s_place(trained, copy, tmp_path, monkeypatch, capsys):
    """Of two files of different steps each shows its own."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(copy / 'checkpoint.previous.npz', copy / 'best.npz')
    (copy / 'checkpoint.previous.npz').rename(copy / 'checkpoint.npz')
    concepts = [word for concept in 'abc' for word in (f'--{concept}', '0', '1', '2')]
    for command, *more in (['sample', '-n', '4'], ['interpolate', '--rows', '1'], ['arithmetic', *concepts]):
        for name, run in ('best', copy / 'best.npz'), ('its run', copy), ('last', trained[0]):
            main([command, str(run), *more, '--out', f'{name}.png'])
        best, its_run, last = ((tmp_path / f'{name}.png').read_bytes() for name in ('best', 'its run', 'last'))
        assert best == its_run != last
    capsys.readouterr()


def test_interpolation_strips_lead_from_one_image_to_another_by_small_steps(ask, trained, tmp_path):
    done = ask('interpolate', trained[0])
    assert done.stdout.startswith('interpolation.png: ') and done.stderr == ''
    ask('interpolate', trained[0], '--rows', 2, '--steps', 20, '--out', 'ways.png')
    with Image.open(tmp_path / 'interpolation.png') as default, Image.open(tmp_path / 'ways.png') as picture:
        assert default.size == (2 * (12 * 30 + 2), 2 * (6 * 30 + 2))
        pixels = np.asarray(picture)[::2, ::2].astype(float)
    assert pixels.shape == (2 * 30 + 2, 20 * 30 + 2)
    for y in (2, 32):
        images = [pixels[y:y + 28, x:x + 28] for x in range(2, 20 * 30, 30)]
        pace = max(abs(a - b).mean() for a, b in zip(images, images[1:]))
        assert 0 < 4 * pace < abs(images[0] - images[-1]).mean()


def test_the_straight_way_differs_from_the_great_circle_between_its_ends(ask, trained, tmp_path):
    for path in 'linear', 'spherical':
        ask('interpolate', trained[0], '--path', path, '--rows', 1, '--steps', 5, '--out', f'{path}.png')
    straight, curved = (np.asarray(Image.open(tmp_path / f'{path}.png')).astype(int) for path in ('linear', 'spherical'))
    ends = np.r_[0:60, 4 * 60 + 4:5 * 60 + 4]
    assert abs(straight - curved)[:, ends].max() <= 1 < abs(straight - curved).max()


def test_an_interpolation_can_move(ask, trained, tmp_path):
    done = ask('interpolate', trained[0], '--rows', 3, '--steps', 7, '--gif', 'ways.gif')
    assert done.stdout.splitlines()[1] == 'ways.gif: all the paths at once'
    with Image.open(tmp_path / 'ways.gif') as picture:
        assert picture.n_frames == 7 and picture.size == (2 * (3 * 30 + 2), 2 * (30 + 2))


def test_arithmetic_shows_the_concepts_their_means_and_the_sum(ask, trained, tmp_path):
    """a - a + a is a: the middle of the nine is then the mean of the first column."""
    same = [word for concept in 'abc' for word in (f'--{concept}', 3, 1, 4)]
    ask('arithmetic', trained[0], *same)
    ask('sample', trained[0], '-n', 5, '--npy', 'five.npy')
    with Image.open(tmp_path / 'arithmetic.png') as picture:
        pixels = np.asarray(picture)[::2, ::2].astype(int)
    tile = {(row, column): pixels[2 + row * 30:30 + row * 30, 2 + column * 30:30 + column * 30]
            for row in range(4) for column in range(7)}
    for row, sample in zip(range(3), np.load(tmp_path / 'five.npy').astype(int)[[3, 1, 4]]):
        for column in range(3):
            assert abs(tile[row, column] - sample).max() <= 1
    assert abs(tile[1, 5] - tile[3, 0]).max() <= 1
    assert all(abs(tile[1, 5] - tile[row, column]).max() > 1 for row in range(3) for column in (4, 6))


def test_arithmetic_with_digits_takes_those_the_judge_is_surest_of(trained, tmp_path, monkeypatch):
    p = np.full((1000, 10), 0.01)
    for digit, places in {7: (5, 900, 31), 1: (8, 9, 10), 0: (999, 0, 2)}.items():
        p[list(places), digit] = 0.9, 0.8, 0.7
    monkeypatch.setattr('tinygan.judge.frozen.look', lambda classifier, images: (None, p[:len(images)]))
    pictures = []
    for flags in (['--digits', '7', '1', '0'], '--a 5 900 31 --b 8 9 10 --c 999 0 2'.split()):
        main(['arithmetic', str(trained[0]), *flags, '--out', str(tmp_path / 'sum.png')])
        pictures.append((tmp_path / 'sum.png').read_bytes())
    assert pictures[0] == pictures[1]


def test_every_gradient_is_checked_in_a_table(monkeypatch, capsys):
    monkeypatch.setattr(gradcheck, 'check_gan', lambda *_: {'D gradients': 1e-9, 'G gradients': 1e-9})         # as test_gan.py does
    monkeypatch.setattr(VAE, 'check', lambda *_: {'E gradients': 1e-9})
    assert main(['gradcheck']) == 0
    what, *rows, verdict = [line for line in capsys.readouterr().out.splitlines() if line][1:]
    assert what.split() == ['layer,', 'loss', 'or', 'network', 'gradient', 'rel.', 'error', 'verdict']
    assert verdict == 'every backward checked is the gradient of its forward'
    for name in (*gradcheck.LAYERS, *gradcheck.LOSSES, *(f'dcgan, {loss}' for loss in LOSSES),
                 *(f'{name}, {recipe.loss}' if recipe.loss else name for name, recipe in RECIPES.items())):
        assert any(row.startswith(name + '  ') for row in rows), name
    for row in rows:
        *_, error, passed = row.split()
        assert passed == 'ok' and 0 <= float(error) < 1e-6
    for gradient in ('dx', 'dw', 'db', 'dgamma', 'dbeta', 'dscore', 'D gradients', 'G gradients', 'E gradients'):
        assert any(f' {gradient} ' in row for row in rows)


def test_one_kind_can_be_checked_alone(ask):
    done = ask('gradcheck', 'conv2d', 'BCE')
    rows = [line for line in done.stdout.splitlines() if line.endswith('  ok')]
    assert {row.split()[0].rstrip(',') for row in rows} == {'Conv2d', 'bce_with_logits'} and len(rows) == 17
    done = ask('gradcheck', 'linear', 'conv3d', check=2)
    assert one_line(done.stderr, 'nothing to check is called conv3d: choose from Conv2d, ConvTranspose2d, ', ', fast',
                    program='tinygan')


@pytest.mark.parametrize('arguments', ['sample RUN -n 2', 'gradcheck linear'])
def test_small_products_are_left_to_one_thread(trained, arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    seen = set()
    monkeypatch.setattr('tinygan.run.generator.to_uint8', counting_threads(to_uint8, seen))
    monkeypatch.setattr(gradcheck, 'check_layer', counting_threads(gradcheck.check_layer, seen))
    with threadpoolctl.threadpool_limits(2, 'blas'):
        main([str(trained[0]) if word == 'RUN' else word for word in arguments.split()])
    assert seen == {1}
    capsys.readouterr()


def test_a_wrong_backward_is_found_named_and_makes_the_exit_code_1(tmp_path):
    wrong = '''
from tinygan.layers import Tanh
backward = Tanh.backward
Tanh.backward = lambda self, dy: 1.001 * backward(self, dy)
'''
    out, _ = finish(start(tmp_path, 'tinygan', 'gradcheck', 'linear', 'tanh', 'lsgan', 'dcgan_gap', patch=wrong), check=1)
    found = [(line[:48].strip(), line[48:63].strip()) for line in out.splitlines() if line.endswith('WRONG')]
    assert set(found) == {('Tanh', 'dx'), ('lsgan, lsgan', 'G gradients'), ('dcgan_gap, bce', 'G gradients')}
    assert out.splitlines()[-1] == f'{len(found)} wrong'


@pytest.mark.parametrize('arguments, parts', [
    ('', ['COMMAND']),
    ('dream', ['dream', 'sample', 'interpolate', 'gradcheck']),
    ('sample absent', ['absent holds no checkpoint']),
    ('interpolate file', ['file holds no checkpoint']),
    ('sample RUN -n 0', ['-n', '0']),
    ('arithmetic RUN --a 1 2 --b 1 2 3 --c 1 2 3', ['--a', '3']),
    ('arithmetic RUN --a 1 2 3 --b 1 2 3', ['--c']),
    ('arithmetic RUN', ['--digits', '--a']),
    ('arithmetic RUN --digits 1 2 3 --a 1 2 3 --b 1 2 3 --c 1 2 3', ['--digits', '--a']),
    ('arithmetic RUN --digits 1 2 10', ['10']),
    ('arithmetic RUN --a 1 2 -3 --b 1 2 3 --c 1 2 3', ['--a']),
    ('interpolate RUN --path bent', ['bent', 'linear', 'spherical']),
    ('sample RUN --seed -1', ['--seed', '-1']),
    ('sample RUN --out RUN/checkpoint.npz', ["checkpoint.npz' does not end in .png"]),
    ('interpolate RUN --gif paths.mp4', ["'paths.mp4' does not end in .gif"]),
    ('sample RUN --out absent/picture.png', ['absent/picture.png: No such file or directory']),
    ('sample RUN --out file/picture.png', ['file/picture.png: Not a directory']),
    ('sample RUN --npy absent/array.npy', ['absent/array.npy: No such file or directory']),
    ('sample RUN -n 2000000000 --npy array.npy', ['memory']),
    ('sample RUN -n 2000000000', ['2,000,000,000 images would have', 'pixels: lower -n, or use --npy FILE without --out']),
    ('interpolate --rows 1000 --steps 1000', ['pixels: lower --rows or --steps']),
    ('sample absent.npz', ['absent.npz holds no checkpoint']),
    ('interpolate damaged.npz', ['damaged.npz is damaged (']),
])
def test_a_mistake_with_a_run_is_answered_with_one_line(ask, trained, tmp_path, arguments, parts):
    (tmp_path / 'file').write_text('in the way')
    (tmp_path / 'damaged.npz').write_bytes((trained[0] / 'checkpoint.npz').read_bytes()[:-1000])
    done = ask(*(trained[0] if word == 'RUN' else word for word in arguments.split()), check=2)
    assert one_line(done.stderr, *parts, program='tinygan')
