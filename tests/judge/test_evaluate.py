"""Do the numbers that judge a generator deserve it? Each on sets whose answer is known; then the whole command."""
import json

import numpy as np
import pytest
import threadpoolctl
from commands import NO_NETWORK, counting_threads, one_line
from PIL import Image

from tinygan import data
from tinygan.__main__ import main
from tinygan.data.digits import draw
from tinygan.errors import UserError
from tinygan.judge import evaluate
from tinygan.judge.evaluate import (apply_classifier, build_classifier, classifier_score, density_and_coverage,
                                    frechet_distance, interval, load_classifier, moved, nearest, save_neighbours,
                                    train_classifier)
from tinygan.layers import Flatten, Linear
from tinygan.network import Sequential
from tinygan.recipes import RECIPES
from tinygan.run.checkpoint import Run


def quiet(line):
    pass


def gaussian(rng, mean, covariance, n=400):
    """n points whose mean and covariance are these, not nearly but exactly."""
    points = rng.standard_normal((n, len(mean)))
    points -= points.mean(axis=0)
    points = np.linalg.solve(np.linalg.cholesky(np.cov(points, rowvar=False)), points.T)
    return (np.linalg.cholesky(covariance) @ points).T + mean


# ---- Frechet distance

def test_the_frechet_distance_of_two_gaussians_is_the_closed_form(rng):
    a = gaussian(rng, [1, 2, 3], np.diag([1, 4, 9]))
    b = gaussian(rng, [1, 0, 4], np.diag([16, 4, 1]), n=700)
    assert frechet_distance(a, b) == pytest.approx((0 + 4 + 1) + (9 + 0 + 4), rel=1e-12)


def test_it_is_right_for_covariances_that_do_not_commute_too(rng):
    """A 2x2 matrix M with positive eigenvalues has tr M^(1/2) = sqrt(tr M + 2 sqrt(det M))."""
    A, B = np.array([[2, 1], [1, 3]]), np.array([[5, -2], [-2, 1]])
    assert abs(A @ B - B @ A).max() > 1
    trace_of_root = np.sqrt(np.trace(A @ B) + 2 * np.sqrt(np.linalg.det(A @ B)))
    found = frechet_distance(gaussian(rng, [0, 0], A), gaussian(rng, [3, 4], B))
    assert found == pytest.approx(25 + 5 + 6 - 2 * trace_of_root, rel=1e-12)


def test_a_set_has_no_distance_from_itself_and_a_shift_adds_its_square(rng):
    a = rng.standard_normal((50, 8)) * np.arange(8)             # one feature never changes, as a dead ReLU's
    assert frechet_distance(a, a[::-1]) == pytest.approx(0, abs=1e-12)
    for shift in 1, 2, 5:
        assert frechet_distance(a, a + shift) == pytest.approx(8 * shift ** 2)
        assert frechet_distance(a + shift, a) == pytest.approx(8 * shift ** 2)


# ---- classifier score

@pytest.mark.parametrize('digits, score', [(range(10), 10), (range(5), 5), ([7], 1)])
def test_a_classifier_that_is_sure_of_each_image_scores_the_number_of_its_digits(digits, score):
    assert classifier_score(np.eye(10)[list(digits) * 3]) == pytest.approx(score, rel=1e-12)


def test_one_that_says_the_same_of_every_image_scores_1(rng):
    assert classifier_score(np.tile(rng.dirichlet(np.ones(10)), (20, 1))) == pytest.approx(1, rel=1e-12)


def test_the_score_is_the_published_formula(rng):
    p = rng.dirichlet(np.ones(10), 30)
    marginal = sum(p) / 30
    divergences = [sum(px[y] * (np.log(px[y]) - np.log(marginal[y])) for y in range(10)) for px in p]
    assert classifier_score(p) == pytest.approx(np.exp(sum(divergences) / 30), rel=1e-12)


# ---- density and coverage

def test_density_and_coverage_are_what_their_definitions_say_however_many_rows_at_a_time(rng):
    real, samples = rng.standard_normal((40, 2)), 0.7 * rng.standard_normal((30, 2)) + 0.3
    k = 3
    radii = [sorted(np.linalg.norm(x - other) for other in real)[k] for x in real]
    inside = np.array([[np.linalg.norm(x - y) <= radius for y in samples] for x, radius in zip(real, radii)])
    assert 0 < inside.any(axis=1).mean() < 1
    for rows in 1, 7, 40:
        density, covered = density_and_coverage(real, samples, k, rows)
        np.testing.assert_allclose(density, inside.sum(axis=0) / k, rtol=1e-12)
        np.testing.assert_array_equal(covered, inside.any(axis=1))


def test_the_real_points_cover_themselves_and_each_lies_in_about_k_balls_beside_its_own(rng):
    real = rng.standard_normal((300, 4))
    density, covered = density_and_coverage(real, real, k=5)
    assert covered.all() and density.mean() == pytest.approx((5 + 1) / 5)


def test_other_points_from_where_the_real_ones_come_from_are_as_dense_and_cover_nearly_all(rng):
    """Naeem et al. 2020 expect a density of 1 and, of many points, a coverage of 1 - 1 / 2^k."""
    real, samples = rng.standard_normal((2, 2000, 4))
    density, covered = density_and_coverage(real, samples, k=5)
    assert density.mean() == pytest.approx(1, abs=0.05) and covered.mean() == pytest.approx(1 - 1 / 32, abs=0.02)


def test_points_from_elsewhere_are_in_no_ball_and_cover_nothing(rng):
    real, samples = rng.standard_normal((2, 100, 4))
    density, covered = density_and_coverage(real, samples + 50)
    assert not density.any() and not covered.any()


def test_a_collapse_to_one_of_four_modes_is_dense_but_covers_a_quarter(rng):
    modes = np.repeat(100 * np.eye(4), 200, axis=0)
    real, samples = modes + rng.standard_normal((800, 4)), modes[:200] + 0.5 * rng.standard_normal((200, 4))
    density, covered = density_and_coverage(real, samples)
    assert density.mean() > 1 and covered[:200].mean() > 0.5 and not covered[200:].any()


# ---- the bootstrap interval

def test_the_interval_of_a_mean_is_that_of_the_textbook_and_always_the_same(rng):
    rows = rng.standard_normal(400)
    found = [interval(np.mean, rows, np.random.default_rng(seed), rounds=1000) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert found[0] == pytest.approx(1.96 * rows.std() / 20, rel=0.1)


# ---- the report, by a classifier that is easily followed: the digit is the brightest of the first ten pixels

@pytest.fixture
def eye():
    body, head = Linear(784, 10, bias=False), Linear(10, 10)
    body.w[...], head.w[...] = np.eye(784, 10), 10 * np.eye(10)
    return Sequential(Sequential(Flatten(), body), head)


def pixels(rng, labels, bright=250):
    """Images for it: no two alike."""
    images = rng.integers(0, 30, (len(labels), 28, 28, 1), np.uint8)
    images[np.arange(len(labels)), 0, labels, 0] = bright - rng.integers(20, size=len(labels))
    return images


def test_digits_are_counted_and_those_that_are_missing_named(rng, eye):
    labels = np.repeat(np.arange(10), [30, 0, 5, 60, 5, 5, 60, 1, 34, 0])
    images = pixels(rng, labels)
    dim = pixels(rng, np.full(50, 3), bright=60)                # and of these it can not be sure
    test = pixels(rng, np.arange(100) % 10), np.arange(100) % 10
    found = evaluate.evaluate(np.concatenate([images, dim]), eye, images, test)['samples']
    assert found['n'] == 250
    assert found['digits'] == [30, 0, 5, 110, 5, 5, 60, 1, 34, 0] and found['missing'] == [1, 7, 9]
    assert found['confident'] == 200 / 250


def test_real_images_are_measured_beside_the_samples_as_many_and_just_alike(rng, eye):
    labels = np.arange(100) % 10
    train, test = pixels(rng, labels), (pixels(rng, labels), np.where(labels == 4, 0, labels))
    found = evaluate.evaluate(train[::-1], eye, train, test)
    samples, real = found['samples'], found['real']
    assert samples['n'] == real['n'] == 100 and samples['digits'] == real['digits'] == 10 * [10]
    assert samples['interval'].keys() == {'frechet', 'score', 'confident', 'density', 'coverage'}
    for name in samples['interval']:
        assert samples[name] == pytest.approx(real[name], rel=1e-6)
    share = samples['coverage']
    assert 0.5 < share < 1
    assert samples['interval']['coverage'] == pytest.approx(1.96 * (share * (1 - share) / 100) ** 0.5, rel=0.2)
    assert evaluate.evaluate(train[:40], eye, train, test)['real']['n'] == 40
    assert found['classifier']['accuracy'] == 0.9 and found['classifier']['test_images'] == 100


def test_worse_images_have_worse_numbers_and_the_same_images_the_same(rng, eye):
    labels = np.arange(200) % 10
    train, test = pixels(rng, labels), (pixels(rng, labels), labels)
    images = pixels(rng, labels)
    good, again, bad = (evaluate.evaluate(images, eye, train, test)
                        for images in (images, images.copy(), pixels(rng, labels // 5, bright=70)))
    assert json.dumps(good) == json.dumps(again) and good['real'] == bad['real']
    assert bad['samples']['frechet'] > 100 * good['samples']['frechet']
    for name in 'score', 'confident', 'density', 'coverage':
        assert bad['samples'][name] < good['samples'][name] / 1.5


# ---- the classifier

def tiny(rng):
    return build_classifier(rng, width=2, features=8)


@pytest.fixture(scope='module')
def digits():
    """(images, labels), drawn: 1000 to train with and 300 to test."""
    rng = np.random.default_rng(7)
    return draw(rng, 1000), draw(rng, 300)


def test_a_moved_image_is_itself_up_to_two_pixels_away(rng):
    images = np.zeros((2000, 28, 28, 1), np.uint8)
    images[:, 10, 20], images[:, 27, 0] = 200, 100              # the second is often moved out of the picture
    after = moved(images, rng)
    assert after.shape == images.shape and after.dtype == np.uint8
    _, y, x, _ = np.nonzero(after == 200)
    assert len(y) == 2000 and {*zip(y, x)} == {(10 + i, 20 + j) for i in range(-2, 3) for j in range(-2, 3)}
    for image, i, j in zip(after[:50], y - 10, x - 20):
        if i <= 0 and j >= 0:
            assert image[27 + i, j] == 100
        assert np.count_nonzero(image) == 1 + (i <= 0 and j >= 0)


def test_the_classifier_learns_to_read_and_the_same_seed_makes_the_same_one(digits):
    train, (images, labels) = digits
    said = []
    classifier = train_classifier(*train, said.append, epochs=6)
    right = (apply_classifier(classifier, images)[1].argmax(axis=1) == labels).mean()
    assert right > 0.8
    assert len(said) == 6 and said[-1].startswith('classifier: epoch 6 of 6, loss ')
    one, same, other = (train_classifier(*train, quiet, tiny, seed=seed, epochs=1) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.parameters, same.parameters)
    assert (one.parameters != other.parameters).any()


def test_features_and_probabilities_are_those_of_the_network_in_any_batches(digits):
    images = digits[1][0][:50]
    classifier = train_classifier(*digits[0], quiet, tiny, epochs=1)
    before = classifier.statistics.copy()
    features, p = apply_classifier(classifier, images)
    assert features.shape == (50, 8) and features.dtype == p.dtype == np.float64
    for found, wanted in zip(apply_classifier(classifier, images, batch_size=7), (features, p)):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    x = images.astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(features, classifier.layers[0](x), rtol=1e-5, atol=1e-6)
    e = np.exp(classifier(x))
    np.testing.assert_allclose(p, e / e.sum(axis=1, keepdims=True), rtol=1e-5)
    np.testing.assert_array_equal(classifier.statistics, before)


def test_small_products_are_left_to_one_thread(digits, monkeypatch):
    (images, labels), test = digits
    seen = set()
    for name in 'softmax_cross_entropy', 'frechet_distance', 'squared_distances':
        monkeypatch.setattr(evaluate, name, counting_threads(getattr(evaluate, name), seen))
    monkeypatch.setattr(data.mnist, 'load', lambda split, folder: digits[split == 'test'])
    monkeypatch.setattr(evaluate, 'load_classifier', lambda show, given: classifier)
    for calls in (lambda: train_classifier(images[:256], labels[:256], quiet, tiny, epochs=1),
                  lambda: evaluate.evaluate(images[:20], classifier, images, test),
                  lambda: evaluate.distance_from_mnist((28, 28, 1))(images[:20])):
        classifier = train_classifier(images[:256], labels[:256], quiet, tiny, epochs=1)
        seen.clear()
        with threadpoolctl.threadpool_limits(2, 'blas'):
            calls()
        assert seen == {1}


# ---- and where it is kept

@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return tmp_path / 'cache' / 'tinygan' / 'classifiers'


def kept(digits, **settings):
    """(the classifier as kept or, if need be, trained; the first word of every line that this showed)."""
    said = []
    return load_classifier(said.append, digits[0], **{'build': tiny, 'epochs': 1} | settings), said


def test_a_classifier_is_trained_once_and_then_read(digits, cache):
    first, said = kept(digits)
    assert said[0] == 'classifier: trained once, which takes a minute or two, and then kept' and len(said) == 2
    second, said = kept(digits)
    assert said == []
    np.testing.assert_array_equal(first.parameters, second.parameters)
    for one, other in zip(apply_classifier(first, digits[1][0]), apply_classifier(second, digits[1][0])):
        np.testing.assert_array_equal(one, other)
    assert len(list(cache.iterdir())) == 1


def test_whatever_makes_it_another_one_makes_another_file(digits, cache):
    (images, labels), test = digits
    kept(digits)
    for others, settings in ((digits, {'seed': 1}), (digits, {'lr': 1e-3}), (digits, {'build': lambda rng: tiny(rng)}),
                             (((images[::-1], labels), test), {}), (((images, labels[::-1]), test), {})):
        assert kept(others, **settings)[1] != []
    assert len(list(cache.iterdir())) == 6


def spoil(path, **arrays):
    with np.load(path) as file:
        np.savez(path, **{**file, **arrays})


@pytest.mark.parametrize('damage, said', [
    (lambda path: path.write_bytes(b''), 'No data left in file'),
    (lambda path: path.write_bytes(b'garbage'), 'pickle'),
    (lambda path: path.write_bytes(path.read_bytes()[:-100]), 'not a zip file'),
    (lambda path: path.write_bytes(path.read_bytes()[:1000] + b'x' + path.read_bytes()[1001:]), 'Bad CRC-32'),
    (lambda path: spoil(path, parameters=np.zeros(1)), 'its parameters are not those of this classifier'),
    (lambda path: spoil(path, statistics=np.full(28, np.nan)), 'its statistics are not those of this classifier'),
], ids=['empty', 'garbage', 'cut off', 'a byte', 'shape', 'nan'])
def test_a_damaged_file_is_named_and_replaced_by_a_sound_one(digits, cache, damage, said):
    sound, _ = kept(digits)
    path, = cache.iterdir()
    damage(path)
    found, lines = kept(digits)
    assert lines[0].startswith(f'classifier: {path} cannot be read (') and said in lines[0]
    assert lines[0].endswith('), so it is trained again')
    np.testing.assert_array_equal(found.parameters, sound.parameters)
    assert kept(digits)[1] == [] and list(cache.iterdir()) == [path]


def test_where_no_cache_can_be_the_classifier_is_used_all_the_same(digits, cache):
    cache.parent.parent.write_text('in the way')
    classifier, said = kept(digits)
    assert said[-1] == f'classifier: not kept, {cache} cannot be written (Not a directory)'
    assert apply_classifier(classifier, digits[1][0])[1].shape == (300, 10)


# ---- while a generator learns

def test_the_distance_from_mnist_is_that_of_the_classifier_s_features_which_are_made_once(digits, monkeypatch):
    train, test = digits
    classifier, asked, made = train_classifier(*train, quiet, tiny, epochs=1), [], []
    mnist = {'train': train, 'test': test}

    def apply(network, images):
        made.append(len(images))
        return apply_classifier(network, images)
    monkeypatch.setattr(data.mnist, 'load', lambda split, folder: asked.append(folder) or mnist[split])
    monkeypatch.setattr(evaluate, 'load_classifier', lambda show, given: classifier if given is train else None)
    monkeypatch.setattr(evaluate, 'apply_classifier', apply)
    distance = evaluate.distance_from_mnist((28, 28, 1), 'here')
    assert set(asked) == {'here'} and made == [300]
    for images in train[0][:40], train[0][40:90]:
        features = [apply_classifier(classifier, each)[0] for each in (images, test[0])]
        assert distance(images) == frechet_distance(*features) > 0
    assert made == [300, 40, 50]


@pytest.mark.parametrize('shape', [(64, 64, 1), (28, 28, 3)])
def test_nothing_is_read_for_images_that_mnist_s_do_not_compare_with(shape, monkeypatch):
    monkeypatch.setattr(data.mnist, 'load', None)
    with pytest.raises(UserError, match='compares gray images of 28x28 pixels with MNIST.*leave out --evaluate-every'):
        evaluate.distance_from_mnist(shape)


def test_mnist_is_looked_for_before_a_classifier_is_trained_and_what_helps_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(data.mnist, 'MIRRORS', ())
    monkeypatch.setattr(evaluate, 'load_classifier', None)
    monkeypatch.setenv('TINYGAN_DATA', str(tmp_path / 'variable'))
    for folder, mend in (tmp_path / 'option', '--data-dir'), (None, 'TINYGAN_DATA'):
        with pytest.raises(UserError, match=f'^evaluation needs MNIST: .* the MNIST files with {mend}$') as error:
            evaluate.distance_from_mnist((28, 28, 1), folder)
        assert str(tmp_path / ('option' if folder else 'variable')) in str(error.value)


# ---- nearest training images

@pytest.mark.parametrize('rows', [1, 7, 100])
def test_the_nearest_images_are_found_in_order_and_a_copy_first(rng, rows):
    train = rng.integers(0, 256, (60, 6, 5, 1), np.uint8)
    images = np.concatenate([train[[17]], rng.integers(0, 256, (3, 6, 5, 1), np.uint8)])
    found = nearest(images, train, k=4, rows=rows)
    for image, places in zip(images, found):
        distances = [((image.astype(int) - other) ** 2).sum() for other in train]
        assert places.tolist() == sorted(range(60), key=distances.__getitem__)[:4]
    assert found[0, 0] == 17


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
def drawn_mnist(digits, cache, monkeypatch):
    """A few drawn digits stand in for MNIST."""
    (images, labels), test = digits
    mnist = {'train': (images[:400], labels[:400]), 'test': test}
    monkeypatch.setattr(data.mnist, 'load', lambda split, folder: mnist[split])


def test_a_run_and_its_saved_samples_have_the_same_numbers_and_the_table_shows_them(drawn_mnist, tmp_path, capsys):
    run, array, picture = small_run(tmp_path / 'run', 'dcgan'), str(tmp_path / 'it.npy'), str(tmp_path / 'nearest.png')
    main(['sample', run, '-n', '60', '--npy', array, '--out', str(tmp_path / 'grid.png')])
    capsys.readouterr()

    main(['evaluate', f'{run}/checkpoint.npz', '--samples', '60', '--json'])
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found['samples']['n'] == found['real']['n'] == 60 and found['classifier']['test_images'] == 300
    assert found['samples']['frechet'] > 3 * found['real']['frechet'] > 0
    assert [line.split()[0] for line in err.splitlines()] == 9 * ['classifier:']      # it learns for 8 epochs

    main(['evaluate', '--npy', array, '--json'])
    assert capsys.readouterr() == (out, '')

    main(['evaluate', '--npy', array, '--neighbours', picture])
    table, err = capsys.readouterr()
    assert err == f'{picture}: samples on the left, beside each its nearest training images\n'
    with Image.open(picture) as opened:
        assert opened.size == (2 * (10 * 30 + 2), 2 * (12 * 30 + 2))
    for name, start in (('frechet', 'Frechet distance'), ('score', 'classifier score'), ('confident', 'share with'),
                        ('density', 'density'), ('coverage', 'coverage')):
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
    assert found['classifier']['id'] in table and f'{found["classifier"]["accuracy"]:.2%}' in table


def test_another_seed_draws_other_samples(drawn_mnist, tmp_path, capsys):
    run = small_run(tmp_path / 'run', 'dcgan')
    found = []
    for seed in '3', '4':
        main(['evaluate', run, '--samples', '20', '--json', '--seed', seed])
        found.append(json.loads(capsys.readouterr().out))
    assert found[0]['samples'] != found[1]['samples'] and found[0]['real'] == found[1]['real']


@pytest.mark.parametrize('arguments, parts', [
    ('evaluate', ['needs either a RUN or --npy FILE']),
    ('evaluate RUN --npy gray.npy', ['needs either a RUN or --npy FILE']),
    ('evaluate RUN --samples 1', ['--samples', 'must be at least 2 and below 2147483648, not 1']),
    ('evaluate absent', ['absent holds no checkpoint']),
    ('evaluate RUN', ['run: evaluate compares gray images of 28x28 pixels', 'not uint8 (2, 64, 64)']),
    ('evaluate --npy absent.npy', ['absent.npy: No such file or directory']),
    ('evaluate --npy text.npy', ['text.npy is not an array of numbers that NumPy has saved (']),
    ('evaluate --npy objects.npy', ['objects.npy is not an array of numbers', 'allow_pickle=False']),
    ('evaluate --npy cut.npy', ['cut.npy is not an array of numbers that NumPy has saved (']),
    ('evaluate --npy gray.npz', ['gray.npz is not an array of numbers that NumPy has saved (']),
    ('evaluate --npy float.npy', ['float.npy: evaluate compares', 'uint8 (n, 28, 28), not float32 (3, 28, 28)']),
    ('evaluate --npy colour.npy', ['colour.npy: evaluate compares', 'not uint8 (3, 28, 28, 3)']),
    ('evaluate --npy one.npy', ['one.npy: evaluate compares', 'two or more', 'not uint8 (1, 28, 28)']),
    ('evaluate --npy number.npy', ['number.npy: evaluate compares', 'not uint8 ()']),
])
def test_a_mistake_is_answered_with_one_line_before_anything_is_trained(command, tmp_path, arguments, parts):
    gray = np.zeros((3, 28, 28), np.uint8)
    for name, array in {'gray': gray, 'float': gray.astype('f'), 'colour': np.zeros((3, 28, 28, 3), np.uint8),
                        'one': gray[:1], 'number': np.uint8(3), 'objects': np.array([{}])}.items():
        np.save(tmp_path / f'{name}.npy', array)
    np.savez(tmp_path / 'gray.npz', gray)
    (tmp_path / 'text.npy').write_text('not at all')
    (tmp_path / 'cut.npy').write_bytes((tmp_path / 'gray.npy').read_bytes()[:-1])
    run = small_run(tmp_path / 'run', 'dcgan64') if 'RUN' in arguments else ''
    done = command('tinygan', *(run if word == 'RUN' else word for word in arguments.split()), check=2,
                   XDG_CACHE_HOME=str(tmp_path / 'cache'))
    assert one_line(done.stderr, *parts, program='tinygan')
    assert done.stdout == '' and not (tmp_path / 'cache').exists()


def test_without_mnist_the_error_says_what_helps_here(command, tmp_path):
    np.save(tmp_path / 'gray.npy', np.zeros((3, 28, 28), np.uint8))
    done = command('tinygan', 'evaluate', '--npy', 'gray.npy', check=2, XDG_CACHE_HOME=str(tmp_path / 'cache'),
                   **NO_NETWORK)
    assert one_line(done.stderr, 'evaluation needs MNIST: ', 'holds no train-images', 'TINYGAN_DATA', program='tinygan')
    assert '--data' not in done.stderr
