"""Drawn digits: an endless stand-in for MNIST on a machine that has neither the files nor a network.

A digit is what a pen does: it runs along a curve through a few points, which tremble anew for every image.
"""
import math

import numpy as np

from ..arrays import random_stream
from ..errors import UserError

# How people write 0 to 9: points as x and y on a 10 x 10 grid, y downwards. The pen runs smoothly through
# them, turns sharply at '|' and is lifted at ';'.
GLYPHS = (
    ('50 21 14 17 39 68 85 72 50', '62 40 12 06 29 69 86 73 41 33', '40 23 16 38 59 77 84 71 40'),
    ('40 44 49', '23 40 | 44 49', '23 40 | 44 49 ; 19 49 79'),
    ('12 30 61 64 36 09 | 39 79', '12 40 71 55 29 08 17 48 89 98', '13 20 60 73 54 27 19 | 59 99'),
    ('11 40 72 54 34 | 55 77 59 29 08', '00 30 70 | 34 | 64 77 59 29 08', '12 30 61 63 34 55 77 69 39 17'),
    ('30 13 05 | 45 85 ; 60 64 69', '60 33 06 | 46 96 ; 60 65 69', '10 13 25 65 ; 80 64 59'),
    ('20 14 | 33 64 77 59 29 08 ; 20 50 80', '70 20 | 14 | 43 75 68 39 08', '80 40 22 34 65 67 48 08'),
    ('60 32 15 18 39 69 77 65 35 17', '40 22 06 29 59 67 55 25 07', '71 40 13 16 29 59 77 64 34 16'),
    ('10 40 80 | 54 39', '10 80 | 54 39 ; 24 54 84', '12 11 50 81 63 45 39', '20 50 70 73 66 59'),
    ('71 40 12 33 56 78 49 18 27 54 72 60', '40 12 34 62 40 ; 34 17 49 77 34',
     '62 40 22 44 67 49 27 44 72 61'),
    ('71 40 12 25 55 72 | 75 79', '71 40 12 14 35 63 71 | 66 48 19', '60 31 23 45 64 61 | 59',
     '72 50 13 35 64 72 66 49 28'),
)
SIZE, BOX = 28, 20                                # of an image and of the digit in it, in pixels, as in MNIST
POINTS = 64                                       # of the pen's path: about a pixel apart


def _spline(k, n):
    """The matrix (n, k) that turns k control points into n points of the Catmull-Rom curve through them."""
    ends = np.eye(k + 2, k, -1)                   # one more point at either end, straight on
    ends[0, :2], ends[-1, -2:] = (2, -1), (-1, 2)
    u = np.linspace(0, k - 1, n)
    i = np.minimum(u.astype(int), k - 2)
    t = (u - i)[:, None]
    return ((2*t**2 - t - t**3) * ends[i] + (2 - 5*t**2 + 3*t**3) * ends[i + 1]
            + (t + 4*t**2 - 3*t**3) * ends[i + 2] + (t**3 - t**2) * ends[i + 3]) / 2


def _curve(glyph):
    """A glyph's control points (K, 2), the matrix (POINTS, K) that makes a path of them, and (POINTS,) ones,
    zero where the pen is in the air on its way to that point of the path."""
    points, pieces, down = [], [], np.ones(POINTS)
    for stroke in glyph.split(';'):
        for i, piece in enumerate(stroke.split('|')):
            first = len(points) - (i > 0)         # a corner ends one piece and begins the next
            points += [(int(x), int(y)) for x, y in piece.split()]
            pieces.append((first, len(points), i > 0))
    lengths = [sum(map(math.dist, points[a:b - 1], points[a + 1:b])) for a, b, _ in pieces]
    ends = np.rint(np.cumsum([0] + lengths) / sum(lengths) * POINTS).astype(int)
    S = np.zeros((POINTS, K))
    for (a, b, joined), start, stop in zip(pieces, ends, ends[1:]):
        S[start:stop, a:b] = _spline(b - a, stop - start)
        down[start] = joined
    return np.pad(np.array(points), [(0, K - len(points)), (0, 0)]), S, down


K = 12                                            # control points of the longest glyph
CONTROL, SPLINE, DOWN = (np.array(a, np.float32) for a in zip(*map(_curve, sum(GLYPHS, ()))))
COUNT = np.array([len(ways) for ways in GLYPHS])
FIRST = np.cumsum(COUNT) - COUNT                  # each digit's first glyph in these three arrays


def draw(rng, n):
    """n digits drawn with rng: images (n, 28, 28, 1) in uint8, white on black, and labels (n,) in uint8.

    The control points tremble; the path is bent by three waves, then turned, slanted and stretched, and laid
    out as MNIST's digits are: 20 pixels in the longer side, the centre of mass in the middle of the image.
    """
    def normal(std, *shape):
        return std * rng.standard_normal((n, *shape), np.float32)

    labels = rng.integers(10, size=n)
    glyph = FIRST[labels] + rng.integers(COUNT[labels])
    path = SPLINE[glyph] @ (CONTROL[glyph] + normal(0.3, K, 2))
    waves = np.sin(path @ normal(0.4, 2, 3) + normal(3, 1, 3))
    path += waves @ normal(0.3, 3, 2)
    path = path @ (np.array([[1, 0], [-0.25, 1]], np.float32) + normal(0.15, 2, 2))  # most lean right

    length = np.linalg.norm(np.diff(path, axis=1, prepend=path[:, :1]), axis=2, keepdims=True)
    length *= DOWN[glyph, :, None]                # of the piece of path that ends at each point
    size = np.ptp(path, axis=1).max(1).reshape(n, 1, 1)
    broadest = 4 * size / length.sum(1, keepdims=True)                       # more fills the loops of an 8
    radius = np.clip(np.exp(normal(0.3, 1, 1) + 0.25), 0.75, broadest)
    scale = (BOX - 2 * radius) / size
    ink = length * scale * np.exp(waves @ normal(0.2, 3, 1))                 # the pen's pressure varies
    middle = (path * ink).sum(1, keepdims=True) / ink.sum(1, keepdims=True)
    path = (path - middle) * scale + (SIZE - 1) / 2 + rng.random((n, 1, 2), np.float32) - 0.5
    edge = 0.9 + 0.6 * rng.random((n, 1, 1), np.float32)
    return _press(path, ink, radius, edge), labels.astype(np.uint8)


def _press(path, ink, radius, edge):
    """Images (n, 28, 28, 1) of ink (n, POINTS, 1) left along a path (n, POINTS, 2), `edge` pixels soft.

    The line integral of a Gaussian along a straight path is exp(-d^2 / 2 sigma^2) at a distance d from it, so
    its logarithm tells d. A Gaussian is one in x times one in y, so its sum over a path is a matrix product.
    """
    sigma = radius / math.sqrt(2 * math.log(2))   # half the integral, at a path's end, is d = radius
    pixels = np.arange(SIZE, dtype=np.float32)
    x, y = (np.exp(-((pixels - path[:, :, i:i + 1]) / sigma) ** 2 / 2) for i in (0, 1))
    field = (y * ink / (math.sqrt(2 * math.pi) * sigma)).transpose(0, 2, 1) @ x
    d = sigma * np.sqrt(-2 * np.log(np.clip(field, 1e-12, 1)))
    return np.rint(255 * np.clip((radius - d) / edge + 0.5, 0, 1)).astype(np.uint8)[..., None]


class Digits:
    """An endless dataset: each minibatch is drawn when it is asked for. 60000 images are called an epoch."""
    name, shape, digest, warning, labels_digest, class_names = 'digits', (SIZE, SIZE, 1), None, None, None, tuple('0123456789')

    def __init__(self, seed=0):
        self.seed = seed
        self.drawn = None, None                   # the last minibatch asked for, (step, size), and its images and labels

    def __len__(self):
        return 60000                              # as MNIST

    def steps_per_epoch(self, size):
        if size > len(self):
            raise UserError(f'a minibatch of {size} is more than the {len(self)} images of an epoch: choose a smaller '
                            '--batch-size')
        return len(self) // size

    def batch(self, step, size):
        """Minibatch `step`, uint8 (size, 28, 28, 1): a pure function of (seed, step, size)."""
        return self.minibatch(step, size)[0].copy()

    def batch_labels(self, step, size):
        """Which digits the images of `batch` show, (size,)."""
        return self.minibatch(step, size)[1]

    def minibatch(self, step, size):
        if (step, size) != self.drawn[0]:
            self.drawn = (step, size), draw(random_stream(self.seed, 'digits', step), size)
        return self.drawn[1]
