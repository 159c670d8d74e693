"""What is measured of points in the space of features, and how sure that is.

The samples are a cloud of such points, the real images of the test split, from which neither generator nor classifier has
learnt, another; how alike are they?
"""
import numpy as np

from ..arrays import random_stream
from ..engines.threads import on_all_cores


def frechet_distance(mu_a, A, mu_b, B):
    """|mu_a - mu_b|^2 + tr(A + B - 2 (A B)^(1/2)) for means (F,) and covariances (F, F): the distance of two Gaussians
    (Heusel et al. 2017, "GANs trained by a two time-scale update rule converge to a local Nash equilibrium", equation 6,
    where it is the FID: the features are Inception's).

    The root's trace is that of (A^(1/2) B A^(1/2))^(1/2), a symmetric matrix: eigenvalues are all it takes.
    """
    values, vectors = np.linalg.eigh(A)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    trace_of_root = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ B @ root), 0)).sum()
    return float(((mu_a - mu_b) ** 2).sum() + np.trace(A) + np.trace(B) - 2 * trace_of_root)


def classifier_score(p):
    """exp of the mean over images x of KL(p(digit | x) || p(digit)), for probabilities p (N, 10): the Inception Score of
    Salimans et al. 2016, "Improved techniques for training GANs", section 4, with another classifier.

    From 1, where every image looks alike to the classifier, to 10, where it is sure of each and meets all ten evenly.
    """
    p, mean = np.maximum(p, 1e-300), np.maximum(p.mean(axis=0), 1e-300)      # 0 log 0 = 0
    return float(np.exp((p * np.log(p / mean)).sum(axis=1).mean()))


def squared_distances(a, b):
    """|a_i - b_j|^2, (N, M), for points a (N, F) and b (M, F)."""
    return (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1) - 2 * a @ b.T


class Balls:
    """Naeem et al. 2020, "Reliable fidelity and diversity metrics for generative models": each real point (N, F) has a
    ball that reaches to its k-th nearest real neighbour. `rows` real points at a time bound the memory."""

    def __init__(self, real, k=5, rows=250):
        self.k, self.parts = k, [real[start:start + rows] for start in range(0, len(real), rows)]
        self.radii = on_all_cores(
            lambda centres: np.partition(squared_distances(centres, real), k, axis=1)[:, [k]],       # the 0th is the centre
            self.parts, 'neighbours')

    def density_and_coverage(self, samples):
        """density (M,): in how many balls each sample lies, divided by k. Its mean is about 1 if the samples are like the
        real ones, more if they keep to where those are dense. covered (N,): is there a sample in each ball? Its mean, the
        coverage, falls with every kind of digit that is not drawn."""
        def of(part):
            centres, radii = part
            inside = squared_distances(centres, samples) <= radii
            return inside.sum(axis=0), inside.any(axis=1)
        counts, covered = zip(*on_all_cores(of, list(zip(self.parts, self.radii)), 'density and coverage'))
        return sum(counts) / self.k, np.concatenate(covered)


def interval(statistic, rows, name, rounds=100):
    """Half of the 95% interval of statistic(rows): 1.96 standard deviations of its values for as many rows, drawn from
    the rows with replacement, for one name always the same (Efron 1979, "Bootstrap methods: another look at the
    jackknife"). Not the percentiles of those values: rows drawn twice raise every Frechet distance, but hardly how much
    one differs from another.
    """
    def of(number):
        return statistic(rows[random_stream(0, name, number).integers(len(rows), size=len(rows))])
    return float(1.96 * np.std(on_all_cores(of, range(rounds), 'intervals'), ddof=1))


def nearest(images, train, k, rows=5000):
    """Places (n, k) in train of the images that are nearest to each of a few, pixel by pixel, the nearest first."""
    points = images.reshape(len(images), -1).astype(np.float64)
    distances = [squared_distances(train[start:start + rows].reshape(-1, points.shape[1]).astype(np.float64), points)
                 for start in range(0, len(train), rows)]
    return np.concatenate(distances).argsort(axis=0, kind='stable')[:k].T
