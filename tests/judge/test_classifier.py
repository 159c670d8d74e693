"""How a judge is made: the classifier learns to read, and what is frozen of it is what it was."""
import json
import os
import subprocess
import sys
from unittest.mock import Mock

import numpy as np
import pytest
import threadpoolctl
from commands import ROOT, counting_threads, one_line

from tinygan.errors import UserError
from tinygan.judge import classifier
from tinygan.judge.classifier import build_classifier, freeze, look, main, moved, read_digits, restore, train_classifier
from tinygan.judge.frozen import Judge, shipped

TINY = dict(width=2, features=8)


def trained(train, **settings):
    """As restore gives it back, but not rounded."""
    network = train_classifier(*train, **TINY | dict(seed=0, epochs=1) | settings)
    return restore(**TINY, parameters=network.parameters, statistics=network.statistics)


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


def test_the_classifier_learns_to_read(digits, capsys):
    train, (images, labels) = digits
    network = train_classifier(*train, width=32, features=128, seed=0, epochs=6)
    _, p = look(restore(32, 128, network.parameters, network.statistics), images)
    assert (p.argmax(axis=1) == labels).mean() > 0.8
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 6 and said[-1].startswith('epoch 6 of 6, loss ')


def test_the_same_seed_makes_the_same_one(digits):
    one, same, other = (train_classifier(*digits[0], **TINY, seed=seed, epochs=1) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.parameters, same.parameters)
    assert (one.parameters != other.parameters).any()


def test_features_and_probabilities_are_those_of_the_core_s_network_in_float64(digits, monkeypatch):
    images = digits[1][0][:50]
    network = train_classifier(*digits[0], **TINY, seed=0, epochs=1)
    core = build_classifier(**TINY, dtype=np.float64).eval()
    core.parameters[:], core.statistics[:] = network.parameters, network.statistics
    x = (images.astype(np.float32) / 127.5 - 1).astype(np.float64)
    wanted, e = core.layers[0](x), np.exp(core(x))
    for part in 7, 250:
        monkeypatch.setattr(classifier, 'PART', part)
        features, p = look(restore(**TINY, parameters=network.parameters, statistics=network.statistics), images)
        assert features.shape == (50, 8) and features.dtype == p.dtype == np.float64
        np.testing.assert_allclose(features, wanted, rtol=1e-5, atol=1e-6)       # the pixels are float32
        np.testing.assert_allclose(p, e / e.sum(axis=1, keepdims=True), rtol=1e-5)


def test_small_products_are_left_to_one_thread(digits, monkeypatch):
    seen = set()
    monkeypatch.setattr(classifier, 'softmax_cross_entropy', counting_threads(classifier.softmax_cross_entropy, seen))
    with threadpoolctl.threadpool_limits(2, 'blas'):
        train_classifier(digits[0][0][:256], digits[0][1][:256], **TINY, seed=0, epochs=1)
    assert seen == {1}


def save(path, digits, **others):
    (x_train, y_train), (x_test, y_test) = digits
    arrays = dict(x_train=x_train[..., 0], y_train=y_train, x_test=x_test[..., 0], y_test=y_test) | others
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def test_the_command_makes_a_judge_of_digits_of_one_s_own(digits, tmp_path, capsys):
    data, file = save(tmp_path / 'mine.npz', digits), tmp_path / 'judge.npz'
    settings = '--width 2 --features 8 --epochs 2 --seed 3'.split()
    main([str(file), '--data', str(data), *settings])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(',')[0] for line in lines[:2]] == ['epoch 1 of 2', 'epoch 2 of 2'] and len(lines) == 3

    judge = Judge(file)
    features, p = judge.look(digits[1][0])
    right = (p.argmax(axis=1) == digits[1][1]).mean()
    assert judge.about == dict(width=2, features=8, seed=3, epochs=2, data=str(data), accuracy=right, test_images=300)
    assert lines[2] == f'{file}: {json.dumps(judge.about)}'
    np.testing.assert_allclose(judge.mean, features.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(judge.covariance, np.cov(features, rowvar=False), rtol=1e-12)

    whole, _ = look(trained(digits[0], seed=3, epochs=2), digits[1][0])
    assert 0 < abs(features - whole).max() < 0.02 * abs(whole).max()             # the weights were rounded, to 11 bits


def test_without_data_it_is_made_of_mnist_and_says_so(digits, monkeypatch, tmp_path):
    monkeypatch.setattr(classifier.data.mnist, 'load', lambda split: digits[split == 'test'])
    main([str(tmp_path / 'judge.npz'), *'--width 2 --features 8 --epochs 1'.split()])
    assert Judge(tmp_path / 'judge.npz').about['data'] == 'MNIST'


def test_without_settings_it_is_made_as_judge_1_was(digits, monkeypatch, tmp_path):
    asked = Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr(classifier, 'train_classifier', asked)
    with pytest.raises(KeyboardInterrupt):
        main([str(tmp_path / 'judge.npz'), '--data', str(save(tmp_path / 'mine.npz', digits))])
    about = shipped('judge 1').about
    assert asked.call_args.kwargs == {name: about[name] for name in ('width', 'features', 'seed', 'epochs')}


def test_it_is_never_written_over_the_digits_or_another_file(tmp_path):
    (tmp_path / 'digits.npz').write_bytes(b'mine')
    with pytest.raises(UserError, match='digits.npz is there already: choose another name'):
        main([str(tmp_path / 'digits.npz')])
    assert (tmp_path / 'digits.npz').read_bytes() == b'mine'


def test_the_weights_are_kept_in_half_precision_and_the_statistics_in_single(digits):
    network = train_classifier(*digits[0], **TINY, seed=0, epochs=1)
    arrays = freeze(network, digits[1], dict(TINY))
    assert arrays['parameters'].dtype == np.float16 and arrays['statistics'].dtype == np.float32
    assert arrays['covariance'].dtype == np.float64


@pytest.mark.parametrize('change, said', [
    (dict(y_test=None), 'does not hold the arrays x_train, y_train, x_test and y_test'),
    (dict(x_train=np.zeros((1000, 28, 28), 'f')),
     'x_train should be 128 images or more, uint8 (N, 28, 28), not float32 (1000, 28, 28)'),
    (dict(x_train=np.zeros((1000, 32, 32), np.uint8)), 'not uint8 (1000, 32, 32)'),
    (dict(x_train=np.uint8(0)), 'not uint8 ()'),
    (dict(x_test=np.zeros((5, 28, 28), np.uint8)), 'x_test should be 128 images or more'),
    (dict(y_train=np.zeros((1000, 1), int)), 'y_train should be whole numbers (1000,), not int64 (1000, 1)'),
    (dict(y_train=np.zeros((1000, 10), int)), 'not int64 (1000, 10)'),
    (dict(y_train=np.uint8(1)), 'not uint8 ()'),
    (dict(y_test=np.full(300, 'x')), 'not <U1 (300,)'),
    (dict(y_test=np.full(300, np.nan)), 'not float64 (300,)'),
    (dict(y_train=np.arange(1000) % 10 + 1), 'the labels y_train should be from 0 to 9, not 1 to 10'),
    (dict(y_train=np.array([{}] * 1000)), 'allow_pickle=False'),
])
def test_digits_that_it_cannot_learn_from_are_refused_in_one_line(digits, tmp_path, change, said):
    with pytest.raises(UserError) as error:
        read_digits(save(tmp_path / 'mine.npz', digits, **change))
    assert said in str(error.value) and 'mine.npz' in str(error.value)


@pytest.mark.parametrize('content', [b'', b'garbage', b'PK\x03\x04 and then nothing'])
def test_what_is_no_npz_is_refused_too(tmp_path, content):
    (tmp_path / 'mine.npz').write_bytes(content)
    with pytest.raises(UserError, match='mine.npz does not hold the arrays'):
        read_digits(tmp_path / 'mine.npz')


@pytest.mark.parametrize('arguments, said', [
    ('absent/judge.npz --data mine.npz', 'absent/judge.npz: No such file or directory'),
    ('judge.npy --data mine.npz', "does not end in .npz"),
    ('judge.npz --data absent.npz', 'absent.npz: No such file or directory'),
    ('judge.npz --data mine.npz --features 1', '--features: must be at least 2'),
])
def test_a_mistake_is_answered_with_one_line_before_anything_is_learnt(digits, tmp_path, arguments, said):
    save(tmp_path / 'mine.npz', digits)
    done = subprocess.run([sys.executable, '-m', 'tinygan.judge.classifier', *arguments.split()], cwd=tmp_path, timeout=60,
                          env={**os.environ, 'PYTHONPATH': str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ''
    assert one_line(done.stderr, said, program='tinygan.judge.classifier')
    assert [path.name for path in tmp_path.iterdir()] == ['mine.npz']
