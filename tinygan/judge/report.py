"""`tinygan evaluate`: what the judges find in samples, beside the same for real digits where MNIST is here.

No number means much alone, so as many real images of the training split are measured in just the same way.
"""
import contextlib

import numpy as np

from .. import data
from ..arrays import random_stream
from ..errors import UserError
from ..run.pictures import grid, save_png
from .frozen import SHIPPED, shipped
from .measures import Balls, classifier_score, interval, nearest

CONFIDENT = 0.95                                  # a judge is, when it gives one digit that probability
DIGITS = list(data.Digits.class_names)            # the classes of a run that is told digits
MISSING = 0.01                                    # a digit is, when less than that share of the images is taken for it
ROWS = {                                          # of the table: name in a result, text
    'frechet': 'Frechet distance (0 is best)',
    'frechet_second': 'the same, second judge',
    'score': 'classifier score (1 to 10)',
    'confident': f'share with a digit of p > {CONFIDENT}',
    'asked': 'share read as the digit asked for',
    'density': 'density (like real: about 1)',
    'coverage': 'coverage (0 to 1)',
}


def evaluate(images, judge=None, mnist=None, digits=None):
    """{'samples': measure(images), 'real': measure(as many real ones, 60,000 at most), 'judge': ..., 'second_judge': ...}
    for uint8 images (N, 28, 28, 1), by the judges that ship or by one of your own. What needs MNIST (density, coverage,
    'real') is there if mnist = (training images, test images) is. digits (N,) are those that were asked for.
    """
    judges = [judge] if judge else [shipped(name) for name in SHIPPED]
    balls, real = None, {}
    if mnist:
        train, test = mnist
        balls = Balls(judges[0].look(test)[0])
        labels = None if digits is None else mnist_labels()
        shown = None if labels is None else real_images(labels, len(images))
        real = {'real': measure(real_images(train, len(images)), judges, balls, shown)}
    about = {name: {**each.about, 'name': each.name, 'sha256': each.sha256}
             for name, each in zip(('judge', 'second_judge'), judges)}
    return {'samples': measure(images, judges, balls, digits), **real, **about}


def real_images(train, n):
    """n of the training images (or of their labels), or all if there are fewer, always the same."""
    return train[random_stream(0, 'real images').permutation(len(train))[:n]]


def measure(images, judges, balls=None, digits=None):
    """All numbers for uint8 images (N, 28, 28, 1), which should show these digits, if any were asked for. Their intervals
    are over the images; that of coverage, a mean over real images, is over those."""
    features, p = judges[0].look(images)
    numbers = {'frechet': (judges[0].distance_of, features)}
    for second in judges[1:]:
        numbers['frechet_second'] = second.distance_of, second.look(images)[0]
    numbers |= {'score': (classifier_score, p), 'confident': (np.mean, p.max(axis=1) > CONFIDENT)}
    if digits is not None:
        numbers['asked'] = np.mean, p.argmax(axis=1) == digits
    if balls:
        density, covered = balls.density_and_coverage(features)
        numbers |= {'density': (np.mean, density), 'coverage': (np.mean, covered)}
    read = np.bincount(p.argmax(axis=1), minlength=10)
    return {'n': len(images), **{name: float(statistic(rows)) for name, (statistic, rows) in numbers.items()},
            'interval': {name: interval(*number, name) for name, number in numbers.items()},
            'digits': read.tolist(), 'missing': np.flatnonzero(read < MISSING * len(images)).tolist()}


def table(result):
    """The lines that say what evaluate has found."""
    judge, columns = result['judge'], {'samples': result['samples']}
    if 'real' in result:
        columns['real images'] = result['real']

    def row(text, cells):
        return f'{text:34}' + ''.join(f'{cell:>20}' for cell in cells)
    yield row('', columns)
    columns = columns.values()
    yield row('number of images', (column['n'] for column in columns))
    for name in result['samples']['interval']:
        yield row(ROWS[name], (f'{column[name]:.3f} +- {column["interval"][name]:.3f}' for column in columns if name in column))
    for digit in range(10):
        yield row(f'share of {digit}', (f'{column["digits"][digit] / column["n"]:.3f}' for column in columns))
    yield row('missing digits', (' '.join(map(str, column['missing'])) or 'none' for column in columns))
    yield f'\nAgainst the {judge["test_images"]} images of the test split of {judge["data"]}; +- is a 95% bootstrap interval.'
    yield (f'Measured by {judge["name"]} ({judge["sha256"][:8]}), which reads {judge["accuracy"]:.2%} of those right; '
           'distances by another do not compare.')
    if 'real' not in result and judge['data'] == 'MNIST':
        yield 'MNIST is not here: density, coverage and real images beside are left out (TINYGAN_DATA names its folder).'


def mnist_images(judge, needed):
    """(training images, test images) of MNIST, or None if the judge (None: those that ship) knows others, or they are not
    here. When they are needed they are fetched, and that they cannot be had is a UserError."""
    if judge and judge.about['data'] != 'MNIST':
        if needed:
            raise UserError(f'neighbours are images of MNIST, and {judge.name} knows others')
        return None
    try:
        return [data.mnist.load_images(split, download=needed) for split in ('train', 'test')]
    except data.mnist.Unavailable:
        if needed:
            raise


def mnist_labels():
    """Those of the training images, or None if they are not here: there are folders of images alone."""
    with contextlib.suppress(data.mnist.Unavailable):
        return data.mnist.load_labels('train', download=False)


def read_samples(path):
    """The uint8 images (N, 28, 28, 1) that an .npy file holds."""
    with open(path, 'rb') as file:
        try:
            array = np.lib.format.read_array(file, allow_pickle=False)
        except Exception as error:                # whatever NumPy makes of other bytes
            raise UserError(f'{path} is not an array of numbers that np.save has written ({error})') from None
    if array.dtype != np.uint8 or array.shape[1:] not in ((28, 28), (28, 28, 1)) or len(array) < 2:
        raise UserError(f'{path}: judges look at gray images of 28x28 pixels, two or more, '
                        f'uint8 (n, 28, 28), not {array.dtype} {array.shape}')
    return array.reshape(-1, 28, 28, 1)


def save_neighbours(path, images, train, k=9):
    """A picture with a row for each of a few images: itself, and to its right the k nearest of train. A generator that
    has learnt its images by heart shows the same digit twice."""
    rows = np.concatenate([images[:, None], train[nearest(images, train, k)]], axis=1)
    save_png(path, grid(rows.reshape(-1, *images.shape[1:]), columns=k + 1))
