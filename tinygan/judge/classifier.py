"""The classifier whose features judge: a network of the same layers that reads digits, and how a judge is made of it.

    python -m tinygan.judge.classifier FILE [--data DIGITS.npz] [--width 32] [--features 128] [--seed 0] [--epochs 16]

trains one on MNIST, or on digits of your own, and freezes it: FILE has all that frozen.py needs. DIGITS.npz has the arrays
x_train, y_train, x_test and y_test: uint8 images (N, 28, 28) and labels (N,) from 0 to 9, as Keras keeps such sets.
"""
import io
import json
import sys
from pathlib import Path

import numpy as np

from .. import data
from ..arrays import random_stream
from ..engines import convert
from ..engines.threads import on_all_cores, one_thread
from ..errors import Parser, UserError, count, named, one_line_errors, path, seed
from ..layers import BatchNorm2d, Conv2d, Flatten, Linear, ReLU
from ..losses import softmax_cross_entropy
from ..network import Sequential
from ..optim import Adam
from ..run.checkpoint import atomically

PART = 250                                        # images at a time


def build_classifier(width, features, **new):
    """Images (N, 28, 28, 1) -> logits (N, 10), in two parts: images -> features (N, features) -> logits."""
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
def train_classifier(images, labels, show, width=32, features=128, seed=0, epochs=16, batch_size=128, lr=2e-3):
    """A classifier trained on uint8 images (N, 28, 28, 1) and labels (N,) by Adam, whose lr falls to 0."""
    network = build_classifier(width, features, rng=random_stream(seed, 'classifier weights'))
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
            show(f'epoch {(step + 1) // steps} of {epochs}, loss {loss:.3f}')
    return network


def restore(width, features, parameters, statistics):
    """The classifier of these vectors, in evaluation mode and in float64: how a machine adds up in float32 no longer
    shows in the digits that anybody reads. ValueError when they belong to another one."""
    network = build_classifier(width, features, dtype=np.float64).eval()
    for vector, given in (network.parameters, parameters), (network.statistics, statistics):
        if given.shape != vector.shape or not np.isfinite(given).all():
            raise ValueError('its weights are not those of its classifier')
        vector[...] = given
    return convert(network)


def look(classifier, images):
    """Features (N, features) and probabilities (N, 10), float64, of uint8 images (N, 28, 28, 1)."""
    body, head = classifier.layers

    def look_at(start):
        features = body(data.normalise(images[start:start + PART], np).astype(np.float64))
        logits = head(features)
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        return features, p / p.sum(axis=1, keepdims=True)
    features, p = zip(*on_all_cores(look_at, range(0, len(images), PART), 'judging'))
    return np.concatenate(features), np.concatenate(p)


def freeze(network, test, about):
    """The arrays of a judge's file: the network's weights in half precision, what their features of the test images
    (images, labels) are like, and `about`, to which the share of those that it reads right is added."""
    vectors = {'parameters': network.parameters.astype(np.float16), 'statistics': network.statistics}
    features, p = look(restore(about['width'], about['features'], **vectors), test[0])
    about |= {'accuracy': float((p.argmax(axis=1) == test[1]).mean()), 'test_images': len(test[0])}
    return vectors | {'mean': features.mean(axis=0), 'covariance': np.cov(features, rowvar=False),
                      'about': np.array(json.dumps(about))}


def read_digits(file):
    """((images, labels) to train with, (images, labels) to test with) of an .npz. UserError where it has none."""
    content = Path(file).read_bytes()
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            splits = [(arrays[f'x_{split}'], arrays[f'y_{split}']) for split in ('train', 'test')]
    except Exception as error:                    # whatever zipfile and NumPy make of other bytes
        raise UserError(f'{file} does not hold the arrays x_train, y_train, x_test and y_test ({error})') from None
    for images, labels in splits:
        if (images.dtype != np.uint8 or images.shape != (len(labels), 28, 28) or len(labels) < 128
                or not np.isin(labels, range(10)).all()):
            raise UserError(f'{file}: a judge learns from 128 images or more, uint8 (N, 28, 28), and labels (N,) from 0 to 9, '
                            f'not {images.dtype} {images.shape} and {labels.shape}')
    return [(images[..., None], labels.astype(np.uint8)) for images, labels in splits]


def main(arguments=None):
    parser = Parser(prog='python -m tinygan.judge.classifier', description='Train a classifier of digits and freeze it: a judge.')
    parser.add_argument('file', type=named('.npz'), metavar='FILE', help='the judge, for `evaluate --judge FILE`')
    parser.add_argument('--data', type=path, metavar='DIGITS.npz',
                        help='with x_train, y_train, x_test, y_test: uint8 (N, 28, 28) and (N,) (default: MNIST)')
    for name, default, what in (('width', 32, 'channels of the first layer'), ('features', 128, 'dimensions that images '
                                'are compared in'), ('epochs', 16, 'passes through the data')):
        parser.add_argument(f'--{name}', type=count, default=default, metavar='N', help=f'{what} (default: {default})')
    parser.add_argument('--seed', type=seed, default=0, metavar='N', help='of all random numbers (default: 0)')
    options = parser.parse_args(arguments)
    train, test = read_digits(options.data) if options.data else map(data.mnist.load, ('train', 'test'))
    settings = {name: getattr(options, name) for name in ('width', 'features', 'seed', 'epochs')}
    network = train_classifier(*train, print, **settings)
    arrays = freeze(network, test, settings | {'data': options.data or 'MNIST'})
    with atomically(Path(options.file)) as file:
        np.savez_compressed(file, **arrays)
    print(f'{options.file}: {arrays["about"]}')


if __name__ == '__main__':
    with one_line_errors('tinygan.judge.classifier'):
        sys.exit(main())
