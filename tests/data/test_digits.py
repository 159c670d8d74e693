"""The drawn digits: all ten, never twice alike, the same for the same seed, fit to stand in for MNIST."""
import hashlib

import numpy as np
import pytest

from tinygan.arrays import random_stream
from tinygan.data import digits


@pytest.fixture(scope='module')
def drawn():
    images, labels = digits.draw(random_stream(0, 'test'), 3000)
    return images[..., 0], labels


def test_images_are_uint8_white_on_black_with_their_labels():
    images, labels = digits.draw(random_stream(0, 'test'), 32)
    assert images.shape == (32, 28, 28, 1) and images.dtype == np.uint8
    assert labels.shape == (32,) and labels.dtype == np.uint8
    assert (images.max((1, 2, 3)) > 150).all()
    assert (np.median(images, (1, 2, 3)) == 0).all()


def test_all_ten_digits_are_drawn_about_equally_often(drawn):
    counts = np.bincount(drawn[1], minlength=10)
    assert len(counts) == 10 and counts.min() > 230 and counts.max() < 370


def test_a_minibatch_is_a_pure_function_of_seed_step_and_size():
    one, other = digits.Digits(3), digits.Digits(3)
    stored = [one.batch(step, 16) for step in range(4)]
    for step in (3, 1, 1, 0, 2):
        assert np.array_equal(other.batch(step, 16), stored[step])
    assert np.array_equal(stored[2], digits.draw(random_stream(3, 'digits', 2), 16)[0])


def test_another_step_or_seed_draws_other_digits():
    first = digits.Digits(0).batch(0, 16)
    assert not np.array_equal(first, digits.Digits(0).batch(1, 16))
    assert not np.array_equal(first, digits.Digits(1).batch(0, 16))


def test_no_two_digits_are_equal(drawn):
    assert len({hashlib.sha256(image.tobytes()).digest() for image in drawn[0]}) == len(drawn[0])


def test_one_way_to_write_a_digit_is_drawn_differently_every_time(monkeypatch):
    monkeypatch.setattr(digits, 'COUNT', np.ones(10, int))    # every digit follows the first of its glyphs
    images, labels = digits.draw(random_stream(0, 'test'), 2000)
    images = images / 255.
    assert images[labels == 7].std(0).max() > 0.35    # of pixels that are on in some and off in others
    sticks = images[labels == 1].sum((1, 2, 3))       # all 20 pixels long: their ink tells how thick
    assert np.quantile(sticks, 0.95) > 2 * np.quantile(sticks, 0.05)


def test_every_digit_is_centred_and_as_large_as_in_mnist(drawn):
    images = drawn[0].astype(float)
    mass = images.sum((1, 2))
    for axis in (1, 2):
        centre = (images.sum(axis) * np.arange(28)).sum(1) / mass
        assert abs(centre.mean() - 13.5) < 0.1 and abs(centre - 13.5).max() < 2
    on = images > 64
    longer = np.array([max(np.ptp(np.flatnonzero(image.any(axis))) for axis in (0, 1)) + 1 for image in on])
    assert abs(longer.mean() - 20) < 0.5 and (longer >= 18).mean() > 0.95 and longer.max() <= 22


def test_no_digit_runs_out_of_the_image(drawn):
    frame = np.ones((28, 28), bool)
    frame[1:-1, 1:-1] = False
    touching = (drawn[0][:, frame] > 64).any(1)
    assert touching.mean() < 0.01


def test_the_ink_is_as_much_as_in_mnist(drawn):
    assert 28 < drawn[0].mean() < 40                  # MNIST's mean pixel is 33.3
    assert 70 < drawn[0].std() < 86                   # and their standard deviation 78.6


def nearest_neighbours_label(images, labels, queries):
    a, b = (x.reshape(len(x), -1).astype(np.float32) / 255 for x in (images, queries))
    return labels[(np.square(a).sum(1) - 2 * b @ a.T).argmin(1)]


def test_the_digits_can_be_read(drawn):
    images, labels = drawn
    read = nearest_neighbours_label(images[500:], labels[500:], images[:500])
    assert (read == labels[:500]).mean() > 0.85


def test_a_mask_lifts_the_pen_between_strokes_and_not_at_corners():
    _, S, down = digits._curve('00 09 | 99 ; 40 49')
    path = S[:, :5] @ np.array([(0, 0), (0, 9), (9, 9), (4, 0), (4, 9)])
    lifted = np.flatnonzero(down[1:] == 0) + 1
    assert len(lifted) == 1
    assert path[lifted[0] - 1].tolist() == [9, 9] and path[lifted[0]].tolist() == [4, 0]
    assert [0, 9] in path.tolist() and abs(path[:, 0] * (9 - path[:, 1]))[:lifted[0]].max() < 1e-9


def test_the_curve_goes_through_its_control_points_and_is_straight_where_they_are():
    assert np.allclose(digits._spline(4, 10)[::3], np.eye(4))
    assert np.allclose(digits._spline(4, 10) @ np.arange(4), np.linspace(0, 3, 10))


def test_an_epoch_is_as_long_as_mnist_s():
    dataset = digits.Digits()
    assert len(dataset) == 60000 and dataset.shape == (28, 28, 1)
    assert dataset.steps_per_epoch(128) == 468
