"""How good are the samples? A classifier of MNIST made of the same layers is asked: nothing is downloaded to judge.

Its last layer but one makes an image a point in 128 dimensions, its features. The samples are a cloud of such points,
the real images of the test split, from which neither generator nor classifier has learnt, another; how alike are they?
No number means much alone, so as many real images of the training split are measured in just the same way.
"""
import hashlib
import inspect

import numpy as np

from .. import data
from ..arrays import random_stream
from ..data.cache import cache_folder
from ..engines import convert
from ..engines.threads import one_thread
from ..errors import UserError
from ..layers import BatchNorm2d, Conv2d, Flatten, Linear, ReLU
from ..losses import softmax_cross_entropy
from ..network import Sequential
from ..optim import Adam
from ..run.checkpoint import atomically
from ..run.pictures import grid, save_png

SAMPLES = 2000                                    # are drawn to measure a generator that still learns
CONFIDENT = 0.95                                  # the classifier is, when it gives one digit that probability
MISSING = 0.01                                    # a digit is, when less than that share of the images is taken for it


def build_classifier(rng, width=32, features=128):
    """Images (N, 28, 28, 1) -> logits (N, 10), in two parts: images -> features (N, features) -> logits."""
    new = dict(rng=rng)
    return Sequential(
        Sequential(
            Conv2d(1, width, 4, stride=2, padding=1, bias=False, **new), BatchNorm2d(width, **new), ReLU(),
            Conv2d(width, 2 * width, 4, stride=2, padding=1, bias=False, **new), BatchNorm2d(2 * width, **new), ReLU(),
            Flatten(),
            Linear(7 * 7 * 2 * width, features, bias=False, **new), BatchNorm2d(features, **new), ReLU()),
        Linear(features, 10, **new))


def moved(images, rng, by=2):
    """uint8 images (N, H, W, C), each shifted at random by up to `by` pixels, across and down."""
    N, H, W, _ = images.shape
    y, x = by + rng.integers(-by, by + 1, (2, N, 1, 1))
    padded = np.pad(images, ((0, 0), (by, by), (by, by), (0, 0)))
    return padded[np.arange(N)[:, None, None], y + np.arange(H)[:, None], x + np.arange(W)]


@one_thread()
def train_classifier(images, labels, show, build=build_classifier, seed=0, epochs=8, batch_size=128, lr=2e-3):
    """A classifier trained on uint8 images (N, 28, 28, 1) and labels (N,) by Adam, whose lr falls to 0."""
    network = build(random_stream(seed, 'classifier weights'))
    fast, adam = convert(network), Adam(network, lr, beta1=0.9)
    places = data.ImageSet(np.arange(len(images)), seed)
    steps = places.steps_per_epoch(batch_size)
    for step in range(epochs * steps):
        chosen = places.batch(step, batch_size)
        x = moved(images[chosen], random_stream(seed, 'classifier moves', step))
        network.zero_grad()
        loss, dlogits = softmax_cross_entropy(fast(data.normalise(x, np)), labels[chosen])
        fast.backward(dlogits, to_input=False)
        adam.lr = lr * (1 - step / (epochs * steps))
        adam.step()
        if (step + 1) % steps == 0:
            show(f'classifier: epoch {(step + 1) // steps} of {epochs}, loss {loss:.3f}')
    network.eval()
    return network


def load_classifier(show=print, train=None, build=build_classifier, **settings):
    """The classifier that train_classifier makes of train = (images, labels), by default MNIST's; made only once.

    It is kept in the user's cache under the hash of what it is made by and from: the three functions above, settings
    and data. A damaged file is replaced; where none can be written, the classifier is used and forgotten.
    """
    images, labels = train or read_mnist('train')
    source = ''.join(map(inspect.getsource, (build, moved, train_classifier)))
    recipe = hashlib.sha256(f'{source}{sorted(settings.items())}{images.shape}'.encode())
    recipe.update(images.tobytes() + labels.tobytes())
    path = cache_folder('classifiers') / f'{recipe.hexdigest()[:16]}.npz'
    try:
        return read_classifier(path, build(random_stream(0, 'replaced')))
    except FileNotFoundError:
        show('classifier: trained once, which takes a minute or two, and then kept')
    except Exception as error:                    # whatever zipfile and NumPy make of damaged bytes
        show(f'classifier: {path} cannot be read ({error}), so it is trained again')
    network = train_classifier(images, labels, show, build, **settings)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomically(path) as file:
            np.savez(file, parameters=network.parameters, statistics=network.statistics)
    except OSError as error:
        show(f'classifier: not kept, {path.parent} cannot be written ({error.strerror})')
    return network


def read_classifier(path, network):
    """The network with what the file holds. ValueError when that belongs to another one."""
    with open(path, 'rb') as file, np.load(file, allow_pickle=False) as arrays:
        for name in 'parameters', 'statistics':
            vector, kept = getattr(network, name), arrays[name]
            if kept.shape != vector.shape or not np.isfinite(kept).all():
                raise ValueError(f'its {name} are not those of this classifier')
            vector[...] = kept
    network.eval()
    return network


@one_thread()
def apply_classifier(network, images, batch_size=500):
    """Features (N, features) and class probabilities (N, 10), float64, of uint8 images (N, 28, 28, 1)."""
    body, head = convert(network).layers
    features = np.concatenate([body(data.normalise(images[start:start + batch_size], np))
                               for start in range(0, len(images), batch_size)])
    logits = head(features).astype(np.float64)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return features.astype(np.float64), p / p.sum(axis=1, keepdims=True)


def frechet_distance(a, b):
    """|mu_a - mu_b|^2 + tr(A + B - 2 (A B)^(1/2)) for points a (N, F) and b (M, F) with covariances A and B:
    the distance of two Gaussians fitted to them (Heusel et al. 2017, "GANs trained by a two time-scale update
    rule converge to a local Nash equilibrium", equation 6, where it is the FID: the features are Inception's).

    The root's trace is that of (A^(1/2) B A^(1/2))^(1/2), a symmetric matrix: eigenvalues are all it takes.
    """
    A, B = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(A)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    trace_of_root = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ B @ root), 0)).sum()
    return float(((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + np.trace(A) + np.trace(B) - 2 * trace_of_root)


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


def density_and_coverage(real, samples, k=5, rows=250):
    """Naeem et al. 2020, "Reliable fidelity and diversity metrics for generative models": each real point has a ball
    that reaches to its k-th nearest real neighbour.

    density (M,): in how many balls each sample lies, divided by k. Its mean is about 1 if the samples are like the
    real ones, more if they keep to where those are dense. covered (N,): is there a sample in each ball? Its mean, the
    coverage, falls with every kind of digit that is not drawn. `rows` real points at a time bound the memory.
    """
    density, covered = np.zeros(len(samples)), []
    for start in range(0, len(real), rows):
        centres = real[start:start + rows]
        radii = np.partition(squared_distances(centres, real), k, axis=1)[:, k:k + 1]    # the 0th is the centre
        inside = squared_distances(centres, samples) <= radii
        density += inside.sum(axis=0) / k
        covered.append(inside.any(axis=1))
    return density, np.concatenate(covered)


def interval(statistic, rows, rng, rounds=100):
    """Half of the 95% interval of statistic(rows): 1.96 standard deviations of its values for as many rows, drawn from
    the rows with replacement (Efron 1979, "Bootstrap methods: another look at the jackknife"). Not the percentiles of
    those values: rows drawn twice raise every Frechet distance, but hardly how much one differs from another.
    """
    values = [statistic(rows[rng.integers(len(rows), size=len(rows))]) for _ in range(rounds)]
    return float(1.96 * np.std(values, ddof=1))


def measure(images, classifier, reference):
    """All numbers for uint8 images (N, 28, 28, 1) against the features of real ones. Their intervals are those of other
    samples; only coverage, a mean over the real images, has that of other real ones."""
    features, p = apply_classifier(classifier, images)
    density, covered = density_and_coverage(reference, features)
    numbers = {'frechet': (lambda points: frechet_distance(points, reference), features),
               'score': (classifier_score, p), 'confident': (np.mean, p.max(axis=1) > CONFIDENT),
               'density': (np.mean, density), 'coverage': (np.mean, covered)}
    digits = np.bincount(p.argmax(axis=1), minlength=10)
    return {'n': len(images), **{name: float(statistic(rows)) for name, (statistic, rows) in numbers.items()},
            'interval': {name: interval(*number, random_stream(0, name)) for name, number in numbers.items()},
            'digits': digits.tolist(), 'missing': np.flatnonzero(digits < MISSING * len(images)).tolist()}


@one_thread()
def evaluate(images, classifier, train, test):
    """{'samples': measure(images), 'real': measure(as many of train), 'classifier': ...}, for uint8 images
    (N, 28, 28, 1), train (M, 28, 28, 1), and test = (images, labels), which both are held against.

    Another classifier has other features: Frechet distances compare only where its 'id' is the same.
    """
    reference, p = apply_classifier(classifier, test[0])
    chosen = random_stream(0, 'real images').permutation(len(train))[:len(images)]
    return {'samples': measure(images, classifier, reference), 'real': measure(train[chosen], classifier, reference),
            'classifier': {'id': hashlib.sha256(classifier.parameters.tobytes()).hexdigest()[:8],
                           'accuracy': float((p.argmax(axis=1) == test[1]).mean()), 'test_images': len(test[0])}}


def distance_from_mnist(shape, folder=None, show=print):
    """A function: uint8 images (N, *shape) -> their Frechet distance from MNIST's test split, larger for smaller N.
    Whatever does not depend on the images is done now. UserError when their shape is not MNIST's, or MNIST not here.
    """
    if shape != (28, 28, 1):
        raise UserError('evaluation compares gray images of 28x28 pixels with MNIST, and this recipe makes others: '
                        'leave out --evaluate-every')
    test, _ = read_mnist('test', folder)
    classifier = load_classifier(show, read_mnist('train', folder))
    reference, _ = apply_classifier(classifier, test)

    @one_thread()
    def distance(images):
        return frechet_distance(apply_classifier(classifier, images)[0], reference)
    return distance


def nearest(images, train, k, rows=5000):
    """Places (n, k) in train of the images that are nearest to each of a few, pixel by pixel, the nearest first."""
    points = images.reshape(len(images), -1).astype(np.float64)
    distances = [squared_distances(train[start:start + rows].reshape(-1, points.shape[1]).astype(np.float64), points)
                 for start in range(0, len(train), rows)]
    return np.concatenate(distances).argsort(axis=0, kind='stable')[:k].T


def save_neighbours(path, images, train, k=9):
    """A picture with a row for each of a few images: itself, and to its right the k nearest of train. A generator that
    has learnt its images by heart shows the same digit twice."""
    rows = np.concatenate([images[:, None], train[nearest(images, train, k)]], axis=1)
    save_png(path, grid(rows.reshape(-1, *images.shape[1:]), columns=k + 1))


def read_mnist(split, folder=None):
    """data.mnist.load; where it is not to be had, the error says what helps here."""
    try:
        return data.mnist.load(split, folder)
    except data.mnist.Unavailable as error:
        mend = f'name a folder that holds the MNIST files with {"--data-dir" if folder else "TINYGAN_DATA"}'
        raise data.mnist.Unavailable(f'evaluation needs MNIST: {str(error).replace(data.mnist.MEND, mend)}') from None
