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
from tqdm import tqdm

from .. import data
from ..arrays import random_stream
from ..data.npz import open_npz
from ..engines import convert
from ..engines.threads import on_all_cores, one_thread
from ..errors import Parser, UserError, count, named, number, one_line_errors, path, seed
from ..layers import BatchNorm2d, Conv2d, Flatten, Linear, ReLU
from ..losses import softmax_cross_entropy
from ..network import Sequential
from ..optim import Adam
from ..run.files import atomically, check_free
from ..run.generator import fill

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
def train_classifier(images, labels, width, features, seed, epochs, batch_size=128, lr=2e-3):
    """A classifier trained on uint8 images (N, 28, 28, 1) and labels (N,) by Adam, whose lr falls to 0."""
    network = build_classifier(width, features, rng=random_stream(seed, 'classifier weights'))
    fast, adam = convert(network), Adam(network, lr, beta1=0.9)
    places = data.ImageSet(np.arange(len(images)), seed)
    steps = places.steps_per_epoch(batch_size)
    for step in tqdm(range(epochs * steps), 'training', leave=False, disable=None):
        chosen = places.batch(step, batch_size)
        x = moved(images[chosen], random_stream(seed, 'classifier moves', step))
        network.zero_grad()
        loss, dlogits = softmax_cross_entropy(fast(data.normalise(x, np)), labels[chosen])
        fast.backward(dlogits, to_input=False)
        adam.lr = lr * (1 - step / (epochs * steps))
        adam.step()
        if (step + 1) % steps == 0:
            tqdm.write(f'epoch {(step + 1) // steps} of {epochs}, loss {loss:.3f}')
    return network


def restore(width, features, parameters, statistics):
    """The classifier of these vectors, in evaluation mode and in float64: how a machine adds up in float32 no longer
    shows in the digits that anybody reads. ValueError when they belong to another one."""
    return convert(fill(build_classifier(width, features, dtype=np.float64), parameters, statistics))


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
    about = about | {'accuracy': float((p.argmax(axis=1) == test[1]).mean()), 'test_images': len(test[0])}
    return vectors | {'mean': features.mean(axis=0), 'covariance': np.cov(features, rowvar=False),
                      'about': np.array(json.dumps(about))}


def read_digits(file):
    """((images, labels) to train with, (images, labels) to test with) of an .npz. UserError where it has none."""
    content = Path(file).read_bytes()
    try:
        with open_npz(io.BytesIO(content)) as arrays:
            splits = [(arrays[f'x_{split}'], arrays[f'y_{split}']) for split in ('train', 'test')]
    except Exception as error:                    # whatever zipfile and NumPy make of other bytes
        raise UserError(f'{file} does not hold the arrays x_train, y_train, x_test and y_test ({error})') from None
    for split, (images, labels) in zip(('train', 'test'), splits):
        if images.dtype != np.uint8 or images.shape[1:] not in ((28, 28), (28, 28, 1)) or len(images) < 128:
            raise UserError(f'{file}: x_{split} should be 128 images or more, uint8 (N, 28, 28), not {images.dtype} {images.shape}')
        if labels.dtype.kind not in 'iu' or labels.shape != images.shape[:1]:
            raise UserError(f'{file}: y_{split} should be whole numbers {images.shape[:1]}, not {labels.dtype} {labels.shape}')
        if not np.isin(labels, range(10)).all():
            raise UserError(f'{file}: the labels y_{split} should be from 0 to 9, not {labels.min()} to {labels.max()}')
    return [(images.reshape(-1, 28, 28, 1), labels.astype(np.uint8)) for images, labels in splits]


def main(arguments=None):
    parser = Parser(prog='python -m tinygan.judge.classifier', description='Train a classifier of digits and freeze it: a judge.')
    parser.add_argument('file', type=named('.npz'), metavar='FILE', help='the judge, for `evaluate --judge FILE`')
    parser.add_argument('--data', type=path, metavar='DIGITS.npz',
                        help='with x_train, y_train, x_test, y_test: uint8 (N, 28, 28) and (N,) (default: MNIST)')
    parser.add_argument('--width', type=count, default=32, metavar='N', help='channels of the first layer (default: 32)')
    parser.add_argument('--features', type=number(int, 2, 2 ** 31), default=128, metavar='N',
                        help='dimensions in which images are compared (default: 128)')
    parser.add_argument('--epochs', type=count, default=16, metavar='N', help='passes through the data (default: 16)')
    parser.add_argument('--seed', type=seed, default=0, metavar='N', help='of all random numbers (default: 0)')
    options = parser.parse_args(arguments)
    check_free(options.file)                      # it may be the digits
    train, test = read_digits(options.data) if options.data else map(data.mnist.load, ('train', 'test'))
    settings = {name: getattr(options, name) for name in ('width', 'features', 'seed', 'epochs')}
    with atomically(options.file) as file:        # which finds out now, not after minutes, if it cannot be written
        network = train_classifier(*train, **settings)
        arrays = freeze(network, test, settings | {'data': options.data or 'MNIST'})
        np.savez_compressed(file, **arrays)
    print(f'{options.file}: {arrays["about"]}')


if __name__ == '__main__':
    with one_line_errors('tinygan.judge.classifier'):
        sys.exit(main())
