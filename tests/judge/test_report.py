"""`tinygan evaluate`: by judges that are easily followed, and by those that ship."""
import json
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl
from commands import counting_threads, one_line, own_cache
from PIL import Image

from tinygan import data
from tinygan.__main__ import main
from tinygan.engines import convert
from tinygan.judge import classifier, frozen, measures
from tinygan.judge.frozen import SHIPPED, Judge, shipped
from tinygan.judge.report import evaluate, save_neighbours
from tinygan.layers import Flatten, Linear
from tinygan.network import Sequential
from tinygan.recipes import RECIPES
from tinygan.run.checkpoint import Run


# ---- by a judge that takes the brightest of the first ten pixels for the digit

@pytest.fixture
def eye(rng):
    body, head = Linear(784, 10, bias=False, dtype=np.float64), Linear(10, 10, dtype=np.float64)
    body.w[...], head.w[...] = np.eye(784, 10), 10 * np.eye(10)
    judge = object.__new__(Judge)
    judge.name, judge.sha256, judge.about = 'an eye', 'abc', {'accuracy': 1, 'test_images': 7, 'data': 'pixels'}
    judge.classifier = convert(Sequential(Sequential(Flatten(), body), head))
    judge.mean, judge.covariance = np.zeros(10), np.eye(10)
    return judge


def pixels(rng, labels, bright=250):
    """Images for it: no two alike."""
    images = rng.integers(0, 30, (len(labels), 28, 28, 1), np.uint8)
    images[np.arange(len(labels)), 0, labels, 0] = bright - rng.integers(20, size=len(labels))
    return images


def test_digits_are_counted_and_those_that_are_missing_named(rng, eye):
    labels = np.repeat(np.arange(10), [30, 0, 5, 60, 5, 3, 62, 2, 33, 0])
    dim = pixels(rng, np.full(100, 3), bright=60)               # and of these it can not be sure
    result = evaluate(np.concatenate([pixels(rng, labels), dim]), eye)
    found = result['samples']
    assert found['n'] == 300
    assert found['digits'] == [30, 0, 5, 160, 5, 3, 62, 2, 33, 0] and found['missing'] == [1, 7, 9]
    assert found['confident'] == 200 / 300
    assert result['judge'] == {'name': 'an eye', 'sha256': 'abc', 'accuracy': 1, 'test_images': 7, 'data': 'pixels'}
    assert found['interval'].keys() == {'frechet', 'score', 'confident'} and result.keys() == {'samples', 'judge'}


def test_real_images_are_measured_beside_the_samples_as_many_and_just_alike(rng, eye):
    labels = np.arange(100) % 10
    train, test = pixels(rng, labels), pixels(rng, labels)
    found = evaluate(train[::-1], eye, (train, test))
    samples, real = found['samples'], found['real']
    assert samples['n'] == real['n'] == 100 and samples['digits'] == real['digits'] == 10 * [10]
    assert samples['interval'].keys() == {'frechet', 'score', 'confident', 'density', 'coverage'}
    for name in samples['interval']:
        assert samples[name] == pytest.approx(real[name], rel=1e-6)
    share = samples['coverage']
    assert 0.5 < share < 1
    assert samples['interval']['coverage'] == pytest.approx(1.96 * (share * (1 - share) / 100) ** 0.5, rel=0.2)
    assert evaluate(train[:40], eye, (train, test))['real']['n'] == 40


def test_worse_images_have_worse_numbers_and_the_same_images_the_same(rng, eye):
    labels = np.arange(200) % 10
    mnist, images = (pixels(rng, labels), pixels(rng, labels)), pixels(rng, labels)
    features, _ = eye.look(mnist[1])
    eye.mean, eye.covariance = features.mean(axis=0), np.cov(features, rowvar=False)
    good, again, bad = (evaluate(images, eye, mnist)
                        for images in (images, images.copy(), pixels(rng, labels // 5, bright=70)))
    assert json.dumps(good) == json.dumps(again) and good['real'] == bad['real']
    assert bad['samples']['frechet'] > 100 * good['samples']['frechet']
    for name in 'score', 'confident', 'density', 'coverage':
        assert bad['samples'][name] < good['samples'][name] / 1.5


def test_large_products_are_divided_among_cores_that_each_have_one_thread_of_blas(rng, eye, monkeypatch):
    images, seen = pixels(rng, np.arange(300) % 10), set()
    monkeypatch.setattr(measures, 'squared_distances', counting_threads(measures.squared_distances, seen))
    with threadpoolctl.threadpool_limits(2, 'blas'):
        evaluate(images, eye, (images, images))
    assert seen == {1}


# ---- the picture

def test_the_picture_shows_each_sample_beside_its_neighbours(rng, tmp_path):
    train = rng.integers(0, 256, (30, 28, 28, 1), np.uint8)
    save_neighbours(tmp_path / 'picture.png', train[[4, 2, 8]], train, k=3)
    with Image.open(tmp_path / 'picture.png') as picture:
        sheet = np.asarray(picture)[::2, ::2]
    assert sheet.shape == (3 * 30 + 2, 4 * 30 + 2)
    for row, place in enumerate([4, 2, 8]):
        tiles = [sheet[2 + 30 * row:30 + 30 * row, 2 + 30 * column:30 + 30 * column] for column in range(4)]
        for column, tile in enumerate(tiles):
            assert np.array_equal(tile, train[place, ..., 0]) == (column < 2)
        assert any(np.array_equal(tiles[2], image[..., 0]) for image in train)


# ---- the command

def small_run(folder, recipe):
    """A run whose generator has never learnt, as its first checkpoint holds it."""
    G = RECIPES[recipe].generator(2, rng=np.random.default_rng(0))
    Run.start(folder, {'recipe': recipe, 'z_dim': 2}, {'G.parameters': G.parameters, 'G.statistics': G.statistics}, {})
    return str(folder)


@pytest.fixture
def drawn_mnist(digits, monkeypatch):
    """A few drawn digits stand in for MNIST."""
    (images, labels), test = digits
    mnist = {'train': (images[:400], labels[:400]), 'test': test}
    monkeypatch.setattr(data.mnist, 'load_images', lambda split, download: mnist[split][0])


@pytest.fixture
def no_mnist(tmp_path, monkeypatch):
    """Nor a network to fetch it through."""
    monkeypatch.setenv('XDG_CACHE_HOME', own_cache(tmp_path))
    monkeypatch.delenv('TINYGAN_DATA', raising=False)
    monkeypatch.setattr(data.mnist, 'MIRRORS', ())


def test_a_run_and_its_saved_samples_have_the_same_numbers_and_the_table_shows_them(drawn_mnist, tmp_path, capsys):
    run, array, picture = small_run(tmp_path / 'run', 'dcgan'), str(tmp_path / 'it.npy'), str(tmp_path / 'nearest.png')
    main(['sample', run, '-n', '60', '--npy', array])
    capsys.readouterr()

    main(['evaluate', f'{run}/checkpoint.npz', '--samples', '60', '--json'])
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert err == '' and found.keys() == {'samples', 'real', 'judge', 'second_judge'}
    assert found['samples']['n'] == found['real']['n'] == 60
    assert found['samples']['frechet'] > 3 * found['real']['frechet'] > 0
    for key, name in zip(('judge', 'second_judge'), SHIPPED):
        assert found[key]['name'] == name and found[key]['sha256'] == SHIPPED[name][1]

    main(['evaluate', '--npy', array, '--json'])
    assert capsys.readouterr() == (out, '')

    main(['evaluate', '--npy', array, '--neighbours', picture])
    table, err = capsys.readouterr()
    assert err == f'{picture}: samples on the left, beside each its nearest training images\n'
    with Image.open(picture) as opened:
        assert opened.size == (2 * (10 * 30 + 2), 2 * (12 * 30 + 2))
    for name, start in (('frechet', 'Frechet distance'), ('frechet_second', 'the same, second judge'),
                        ('score', 'classifier score'), ('confident', 'share with'), ('density', 'density'),
                        ('coverage', 'coverage')):
        row, = (line for line in table.splitlines() if line.startswith(start))
        for column in found['samples'], found['real']:
            assert f' {column[name]:.3f} +- {column["interval"][name]:.3f}' in row
    lines = table.splitlines()
    assert lines[1].split() == ['number', 'of', 'images', '60', '60']
    for digit in range(10):
        shares = [f'{found[who]["digits"][digit] / 60:.3f}' for who in ('samples', 'real')]
        assert f'share of {digit}'.split() + shares in [line.split() for line in lines]
    missing, = (line for line in lines if line.startswith('missing digits'))
    assert ' '.join(map(str, found['samples']['missing'])) in missing
    assert f'Measured by {shipped("judge 1")},' in table and f'{shipped("judge 1").about["accuracy"]:.2%}' in table


def test_without_mnist_the_distances_are_the_same_and_the_table_says_what_is_left_out(no_mnist, tmp_path, capsys, rng):
    np.save(tmp_path / 'it.npy', rng.integers(0, 256, (30, 28, 28), dtype=np.uint8))
    main(['evaluate', '--npy', str(tmp_path / 'it.npy'), '--json'])
    found = json.loads(capsys.readouterr().out)
    images = np.load(tmp_path / 'it.npy')[..., None]
    assert found['samples']['frechet'] == shipped('judge 1').distance(images)
    assert found['samples']['frechet_second'] == shipped('second judge 1').distance(images)
    assert 'real' not in found and 'density' not in found['samples']
    main(['evaluate', '--npy', str(tmp_path / 'it.npy')])
    *_, last = capsys.readouterr().out.splitlines()
    assert last.startswith('MNIST is not here: density, coverage and real images beside are left out')


def test_neighbours_need_mnist_which_then_serves_the_rest_too(drawn_mnist, tmp_path, capsys, monkeypatch):
    load, asked = data.mnist.load_images, []
    monkeypatch.setattr(data.mnist, 'load_images', lambda split, download: asked.append((split, download)) or load(split, download))
    for more, download in ([], False), (['--neighbours', str(tmp_path / 'nearest.png')], True):
        main(['evaluate', '--samples', '20', *more])
        assert asked == [('train', download), ('test', download)] and 'MNIST is not here' not in capsys.readouterr().out
        asked.clear()


def test_without_a_run_it_is_the_trained_generator_that_is_judged(no_mnist, capsys):
    main(['evaluate', '--samples', '500', '--json'])
    found = json.loads(capsys.readouterr().out)['samples']
    assert found['n'] == 500 and found['frechet'] < 6 and found['confident'] > 0.75 and found['missing'] == []


def test_a_judge_of_one_s_own_judges_alone_and_without_mnist(drawn_mnist, digits, tmp_path, capsys):
    (x_train, y_train), (x_test, y_test) = digits
    np.savez(tmp_path / 'mine.npz', x_train=x_train[..., 0], y_train=y_train, x_test=x_test[..., 0], y_test=y_test)
    np.save(tmp_path / 'it.npy', x_test[:50, ..., 0])
    mine, judge = str(tmp_path / 'mine.npz'), str(tmp_path / 'judge.npz')
    classifier.main([judge, '--data', mine, *'--width 2 --features 8 --epochs 1'.split()])
    capsys.readouterr()
    main(['evaluate', '--npy', str(tmp_path / 'it.npy'), '--judge', judge, '--json'])
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == {'samples', 'judge'} and found['judge']['name'] == judge
    assert found['samples']['frechet'] == Judge(judge).distance(x_test[:50])
    with np.load(judge) as file:                  # and whatever the file says, by its own name
        arrays = dict(file)
    about = json.loads(str(arrays['about'])) | {'name': 'judge 1', 'sha256': SHIPPED['judge 1'][1]}
    np.savez(tmp_path / 'false.npz', **arrays | {'about': json.dumps(about)})
    main(['evaluate', '--npy', str(tmp_path / 'it.npy'), '--judge', str(tmp_path / 'false.npz'), '--json'])
    assert json.loads(capsys.readouterr().out)['judge']['name'] == str(tmp_path / 'false.npz')
    main(['evaluate', '--npy', str(tmp_path / 'it.npy'), '--judge', judge])
    table = capsys.readouterr().out
    assert f'of {mine}' in table and f'Measured by {Judge(judge)},' in table and 'MNIST' not in table


def test_another_seed_draws_other_samples(no_mnist, tmp_path, capsys):
    run = small_run(tmp_path / 'run', 'dcgan')
    found = []
    for seed in '3', '4':
        main(['evaluate', run, '--samples', '20', '--json', '--seed', seed])
        found.append(json.loads(capsys.readouterr().out)['samples'])
    assert found[0] != found[1]


@pytest.mark.parametrize('arguments, parts', [
    ('evaluate RUN --npy gray.npy', ['either a RUN or --npy FILE, not both']),
    ('evaluate RUN --samples 1', ['--samples', 'must be at least 2 and below 2147483648, not 1']),
    ('evaluate absent', ['absent holds no checkpoint']),
    ('evaluate RUN', ['judges look at gray images of 28x28 pixels, and ', 'run makes gray ones of 64x64']),
    ('arithmetic RUN --digits 9 4 6', ['judges look at gray images of 28x28 pixels, and ', 'run makes gray ones of 64x64']),
    ('evaluate --npy header.npy', ['header.npy is not an array of numbers that np.save has written']),
    ('evaluate --npy huge.npy', ['huge.npy is not an array of numbers that np.save has written']),
    ('evaluate --npy absent.npy', ['absent.npy: No such file or directory']),
    ('evaluate --npy text.npy', ['text.npy is not an array of numbers that np.save has written (']),
    ('evaluate --npy objects.npy', ['objects.npy is not an array of numbers', 'allow_pickle=False']),
    ('evaluate --npy cut.npy', ['cut.npy is not an array of numbers that np.save has written (']),
    ('evaluate --npy gray.npz', ['gray.npz is not an array of numbers that np.save has written (']),
    ('evaluate --npy float.npy', ['float.npy: judges look at', 'uint8 (n, 28, 28), not float32 (3, 28, 28)']),
    ('evaluate --npy colour.npy', ['colour.npy: judges look at', 'not uint8 (3, 28, 28, 3)']),
    ('evaluate --npy one.npy', ['one.npy: judges look at', 'two or more', 'not uint8 (1, 28, 28)']),
    ('evaluate --npy number.npy', ['number.npy: judges look at', 'not uint8 ()']),
    ('evaluate --judge absent.npz', ['absent.npz: No such file or directory']),
    ('evaluate --judge gray.npz', ['gray.npz is no judge']),
    ('evaluate --judge judge.npz --neighbours picture.png', ['neighbours are images of MNIST, and judge.npz knows others']),
    ('evaluate --npy gray.npy --neighbours picture.png', ['holds no train-images', 'TINYGAN_DATA']),
])
def test_a_mistake_is_answered_with_one_line(ask, no_mnist, tmp_path, arguments, parts):
    gray = np.zeros((3, 28, 28), np.uint8)
    for name, array in {'gray': gray, 'float': gray.astype('f'), 'colour': np.zeros((3, 28, 28, 3), np.uint8),
                        'one': gray[:1], 'number': np.uint8(3), 'objects': np.array([{}])}.items():
        np.save(tmp_path / f'{name}.npy', array)
    np.savez(tmp_path / 'gray.npz', gray)
    (tmp_path / 'text.npy').write_text('not at all')
    gray = (tmp_path / 'gray.npy').read_bytes()
    (tmp_path / 'cut.npy').write_bytes(gray[:-1])
    (tmp_path / 'header.npy').write_bytes(gray.replace(b'(3, 28, 28), }', b'(3, 28, 28     '))
    (tmp_path / 'huge.npy').write_bytes(gray.replace(b'(3, 28, 28), }' + 17 * b' ', b'(%d, 28, 28), }' % 10 ** 18))
    with np.load(Path(frozen.__file__).with_name('second1.npz')) as file:
        np.savez(tmp_path / 'judge.npz', **dict(file) | {'about': str(file['about']).replace('MNIST', 'mine.npz')})
    run = small_run(tmp_path / 'run', 'dcgan64') if 'RUN' in arguments else ''
    done = ask(*(run if word == 'RUN' else word for word in arguments.split()), check=2)
    assert one_line(done.stderr, *parts, program='tinygan')
    assert done.stdout == '' and not (tmp_path / 'picture.png').exists()
