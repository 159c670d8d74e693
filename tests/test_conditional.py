"""The digit that you ask for: runs that are told classes, and what can be asked of them."""
import json
import shlex
import shutil

import numpy as np
import pytest
from commands import load, own_cache, same_run
from PIL import Image

import tinygan
import train_mnist
from tinygan import data
from tinygan.__main__ import main, sample_noise
from tinygan.arrays import random_stream
from tinygan.data import digits
from tinygan.data.minibatches import Minibatches
from tinygan.errors import UserError, one_line_errors
from tinygan.judge.frozen import shipped
from tinygan.learn.xray import before
from tinygan.recipes import RECIPES, make_gan
from tinygan.recipes.labels import with_labels
from tinygan.run import generator
from tinygan.run.health import Health
from tinygan.run.settings import recipe_of

NAMES = ['ape', 'bat', 'cow']


def go(line, *more):
    assert train_mnist.main(['--device', 'cpu', *shlex.split(line), *map(str, more)]) == 0


def animals(folder, names=NAMES, n=3):
    for i, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for j in range(n):
            Image.new('L', (9, 9), 100 * i + j).save(folder / name / f'{j}.png')
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch, without_curves):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('XDG_CACHE_HOME', own_cache(tmp_path))


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """A run that was told digits, and one that was told animals."""
    folder = tmp_path_factory.mktemp('runs')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', own_cache(folder))
        go('--recipe conditional --data digits --batch-size 8 --max-steps 2 --seed 5 --out', folder / 'digits')
        go('--recipe conditional --batch-size 4 --max-steps 2 --flip --out', folder / 'animals', '--data', animals(folder / 'zoo'))
    return folder


@pytest.fixture
def asked(monkeypatch):
    """What G is given, (z, labels) for each picture; instead of drawing it makes images of the shade 20 * label."""
    given = []

    def draw(G, z, black):
        given.append((z[:, :32], z[:, 32:].argmax(axis=1)))
        np.testing.assert_array_equal(z[:, 32:], np.eye(z.shape[1] - 32)[given[-1][1]])
        return np.broadcast_to(20 * given[-1][1].astype(np.uint8)[:, None, None, None], (len(z), 28, 28, 1))
    monkeypatch.setattr(generator, 'draw', draw)
    return given


def shown(path):
    """The labels in a picture that `asked` drew, by its rows; None where there is no image."""
    with Image.open(path) as picture:
        middle = np.asarray(picture)[32::60, 32::60].astype(int)
    return [[None if shade == 64 else shade // 20 for shade in row] for row in middle.tolist()]


# ---- training

def test_a_run_that_was_told_classes_goes_on_bit_for_bit(tmp_path, runs):
    shutil.copytree(runs / 'animals', 'parts')
    go('--resume parts --max-steps 3')
    go('--recipe conditional --batch-size 4 --max-steps 3 --flip --out whole --data', runs / 'zoo')
    assert same_run(tmp_path / 'whole', tmp_path / 'parts')


def test_a_run_remembers_its_classes_and_its_generator_takes_them_behind_z(runs):
    for name, names in {'digits': list('0123456789'), 'animals': NAMES}.items():
        config, _, state = load(runs / name)
        assert config['class_names'] == names and recipe_of(config).classes == len(names)
        assert json.loads((runs / name / 'config.json').read_text())['class_names'] == names
        z = with_labels(sample_noise(0, 3, 32), np.array([2, 0, 1]), len(names))
        G = tinygan.load(runs / name)
        np.testing.assert_array_equal(G.parameters, state['average.parameters'])
        images = G(with_labels(z[[0, 0], :32], np.arange(2), len(names)))              # of one z, told two classes
        assert G(z).shape == (3, 28, 28, 1) and (images[0] != images[1]).any()
    assert load(runs / 'digits')[0]['labels'] is None and len(load(runs / 'animals')[0]['labels']) == 64


def test_a_run_that_was_told_nothing_has_no_word_of_classes(trained):
    config = load(trained[0])[0]
    assert not {'labels', 'class_names', 'classes'} & set(config) and recipe_of(config).classes == 0
    assert generator.load_with_config(trained[0])[1]['class_names'] == []


def test_previews_have_a_row_for_each_class_and_measured_samples_the_classes_in_turn(runs, asked):
    config = load(runs / 'animals')[0]
    generator.preview(None, config)
    generator.samples_of(None, config, 'evaluation', 7)
    (z, rows), (_, turns) = asked
    assert rows.reshape(3, 8).tolist() == [[0] * 8, [1] * 8, [2] * 8] and turns.tolist() == [0, 1, 2, 0, 1, 2, 0]
    np.testing.assert_array_equal(z, random_stream(0, 'preview').standard_normal((24, 32), np.float32))
    with Image.open(runs / 'digits' / 'samples' / 'step_000002.png') as picture:
        assert picture.size == (2 * (8 * 30 + 2), 2 * (10 * 30 + 2))


def test_a_run_does_not_go_on_with_other_labels_or_classes(tmp_path, runs):
    zoo, resume = animals(tmp_path / 'zoo'), '--resume run --data zoo --max-steps'
    shutil.copytree(runs / 'animals', 'run')
    go(f'{resume} 2')                             # these are as good: their pixels and labels are the same
    (zoo / 'ape' / '2.png').rename(zoo / 'bat' / '-.png')
    with pytest.raises(UserError, match='the 9 images of .*zoo are not those that the run began with; --new-images goes on'):
        go(f'{resume} 3')
    go(f'{resume} 3 --new-images')
    (zoo / 'cow').rename(zoo / 'yak')
    for more in '', '--new-images':
        with pytest.raises(UserError, match='its classes are ape, bat, cow, and those of .*zoo are ape, bat, yak: begin a new run'):
            go(f'{resume} 4 {more}')


def test_a_step_of_such_a_run_can_be_looked_into(runs, monkeypatch):
    gan, config, (x, z, number, *_) = before(str(runs / 'digits'))
    assert number == 3 and z.shape == (8, 42) and config['class_names'] == list('0123456789')
    assert np.isfinite(gan.step(x, z, number, 0 * np.stack([x, x]))['loss_D'])
    monkeypatch.setattr(data.ImageSet, 'labels_digest', 'of others')
    with pytest.raises(UserError, match='the images of .*zoo are not those that it was trained on'):
        before(str(runs / 'animals'))


def test_the_health_of_such_a_run_is_looked_at():
    recipe = RECIPES['conditional']._replace(batch_size=8)
    gan, batches = make_gan(recipe), Minibatches(digits.Digits(), recipe)
    health = Health(gan, batches, gan.state)
    gan.step(*batches(1))
    assert 0 < health.measure(1)['spread'] < 1 and np.isfinite(list(health.measure(1).values())).all()


# ---- samples

@pytest.mark.parametrize('line, rows', [
    ('animals', [[0] * 8, [1] * 8, [2] * 8]),
    ('animals -n 7', [[0] * 3, [1] * 3, [2, None, None]]),
    ('animals --columns 2 -n 7', [[0] * 2, [1] * 2, [2] * 2, [0, None]]),
    ('animals --class bat -n 5', [[1] * 3, [1, 1, None]]),
    ('digits', [[digit] * 8 for digit in range(10)]),
    ('digits --digit 7', [[7] * 8] * 8),
    ('digits --digit 7 --columns 5 -n 5', [[7] * 5]),
])
def test_samples_are_rows_of_one_class_each_or_all_of_the_one_asked_for(runs, asked, capsys, line, rows):
    run, *more = line.split()
    main(['sample', str(runs / run), *more, '--seed', '4', '--out', 'it.png', '--npy', 'it.npy'])
    assert shown('it.png') == rows
    labels = [label for row in rows for label in row if label is not None]
    assert (np.load('it.npy')[:, 0, 0] // 20).tolist() == labels
    np.testing.assert_array_equal(asked[0][0], sample_noise(4, len(labels), 32))
    said = capsys.readouterr().out
    assert ('all of class' if 'digit 7' in line or 'class' in line else 'each row of one class: ') in said


@pytest.mark.parametrize('line, labels', [('', [0, 1, 2, 0]), ('--class cow', [2] * 4)])
def test_on_its_way_from_one_z_to_the_next_a_row_keeps_its_class(runs, asked, line, labels):
    main(['interpolate', str(runs / 'animals'), *line.split(), '--rows', '4', '--steps', '3'])
    assert shown('interpolation.png') == [[label] * 3 for label in labels]
    np.testing.assert_allclose(asked[0][0][[0, 3, 6, 9]], sample_noise(0, 4, 32), atol=1e-6)


@pytest.mark.parametrize('line, complaint', [
    ('sample RUNS/digits --digit 11', "digits has no class '11': choose from 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"),
    ('interpolate RUNS/animals --class dog', "animals has no class 'dog': choose from ape, bat, cow"),
    ('sample --digit 7', 'the trained generator was not told classes: train with --recipe conditional'),
    ('interpolate RUN --class 7', 'run was not told classes: train with --recipe conditional'),
    ('arithmetic RUNS/digits --digits 1 2 3', 'digits was told classes, and arithmetic is for runs that'),
    ('evaluate RUNS/animals', 'animals shows images of your own, and the judges that ship know only'),
])
def test_what_cannot_be_asked_for_is_refused_in_one_line(runs, trained, capsys, line, complaint):
    with pytest.raises(SystemExit) as end, one_line_errors('tinygan'):
        main([word.replace('RUNS', str(runs)).replace('RUN', str(trained[0])) for word in line.split()])
    err = capsys.readouterr().err
    assert end.value.code == 2 and complaint in err and err.startswith('tinygan: error: ') and err.count('\n') == 1


# ---- how often they are what was asked for

@pytest.fixture(scope='module')
def readable():
    """Drawn digits, 40 of each, that judge 1 reads as what they are."""
    images, labels = digits.draw(random_stream(0, 'readable'), 600)
    right = shipped('judge 1').look(images)[1].argmax(axis=1) == labels
    return np.stack([images[right & (labels == digit)][:40] for digit in range(10)])


@pytest.fixture
def obeying(monkeypatch, readable):
    """G draws the digit that it is asked for but, of every fifth round of the ten, the next one."""
    def draw(G, z, black):
        labels = (z[:, 32:].argmax(axis=1) + (np.arange(len(z)) // 10 % 5 == 0)) % 10
        return readable[labels, np.arange(len(z)) // 10 % 40]
    monkeypatch.setattr(generator, 'draw', draw)
    images = readable.swapaxes(0, 1).reshape(-1, 28, 28, 1)
    monkeypatch.setattr(data.mnist, 'load_images', lambda split, download: images)
    monkeypatch.setattr(data.mnist, 'load_labels', lambda split, download: np.arange(len(images)) % 10)


def evaluated(capsys, *arguments):
    capsys.readouterr()
    main(['evaluate', *map(str, arguments)])
    return capsys.readouterr().out


def test_evaluate_says_how_often_the_digit_asked_for_is_read_and_the_same_of_real_images(runs, obeying, capsys, monkeypatch):
    found = json.loads(evaluated(capsys, runs / 'digits', '--samples', '200', '--json'))
    assert found['samples']['asked'] == 0.8 and found['real']['asked'] == 1
    assert found['samples']['digits'] == [20] * 10
    assert found['samples']['interval']['asked'] == pytest.approx(1.96 * (0.8 * 0.2 / 200) ** 0.5, rel=0.2)
    line, = (line for line in evaluated(capsys, runs / 'digits', '--samples', '200').splitlines() if 'asked for' in line)
    assert line.split() == ['share', 'read', 'as', 'the', 'digit', 'asked', 'for', '0.800', '+-',
                            f'{found["samples"]["interval"]["asked"]:.3f}', '1.000', '+-', '0.000']

    def missing(split, download):
        raise data.mnist.Unavailable('not here')
    monkeypatch.setattr(data.mnist, 'load_labels', missing)
    found = json.loads(evaluated(capsys, runs / 'digits', '--samples', '20', '--json'))
    assert found['samples']['asked'] == 0.5 and 'asked' not in found['real']


def test_where_no_digit_was_asked_for_nothing_is_said_of_it(runs, trained, obeying, readable, capsys, monkeypatch):
    images = readable.reshape(-1, 28, 28, 1)
    found = json.loads(evaluated(capsys, runs / 'animals', '--judge', 'judge 1', '--samples', 20, '--json'))
    assert 'asked' not in found['samples']
    monkeypatch.setattr(generator, 'draw', lambda G, z, black: images[:len(z)])
    assert 'asked' not in json.loads(evaluated(capsys, trained[0], '--samples', 20, '--json'))['samples']


def test_the_recipe_is_told_ten_classes_unless_the_images_have_others():
    assert RECIPES['conditional'].classes == 10
    assert recipe_of({'recipe': 'conditional', 'class_names': NAMES}).classes == 3
    assert generator.in_turn(5, 2).tolist() == [0, 1, 0, 1, 0] and generator.in_turn(5, 0).tolist() == [0] * 5
