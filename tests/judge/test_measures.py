"""Do the numbers that judge a generator deserve it? Each on sets whose answer is known."""
import numpy as np
import pytest

from tinygan.judge import measures
from tinygan.judge.measures import Balls, classifier_score, interval, nearest


def frechet_distance(a, b):
    """Of the Gaussians fitted to points."""
    return measures.frechet_distance(a.mean(axis=0), np.cov(a, rowvar=False), b.mean(axis=0), np.cov(b, rowvar=False))


def density_and_coverage(real, samples, k=5, rows=250):
    return Balls(real, k, rows).density_and_coverage(samples)


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
    found = [interval(np.mean, rows, name, rounds=1000) for name in ('one', 'one', 'other')]
    assert found[0] == found[1] != found[2]
    assert found[0] == pytest.approx(1.96 * rows.std() / 20, rel=0.1)


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
