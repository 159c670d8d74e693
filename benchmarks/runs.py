"""Runs of train_mnist.py and how good their samples are: what claims.py and quality.py share."""
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
import train_mnist  # noqa: E402
from tinygan import data  # noqa: E402
from tinygan.__main__ import open_generator, sample_noise  # noqa: E402
from tinygan.judge.evaluate import apply_classifier, frechet_distance, load_classifier  # noqa: E402

SAMPLES = 10000


class Judge:
    """The Frechet distance of images from MNIST's test split, by a classifier's features."""

    def __init__(self, **settings):
        self.classifier = load_classifier(**settings)
        self.test = apply_classifier(self.classifier, data.mnist.load('test')[0])[0]

    def distance(self, images):
        return frechet_distance(apply_classifier(self.classifier, images)[0], self.test)

    def real(self):
        """The distance of as many real training images."""
        return self.distance(data.mnist.load('train')[0][:SAMPLES])


def samples_of(folder, flags, seed, steps):
    """SAMPLES images of the run in the folder after so many steps; it is begun, or gone on with, as needed."""
    start = ['--resume', folder] if Path(folder).exists() else ['--out', folder, '--seed', seed, '--data', 'mnist', *flags]
    if code := train_mnist.main([*map(str, start), '--device', 'cpu', '--max-steps', str(steps)]):
        sys.exit(code)
    draw, z_dim = open_generator(folder)
    return draw(sample_noise(0, SAMPLES, z_dim))


def mean_and_std(distances):
    return {'each seed': distances, 'mean': np.mean(distances), 'std': np.std(distances, ddof=1)}
