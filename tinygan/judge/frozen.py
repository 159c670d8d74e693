"""The judges that ship: a Fréchet distance compares with every other that was measured by the same one.

A judge is a classifier that no longer changes (classifier.py) and what its features of the test images are like: their
mean and covariance. So it needs neither MNIST nor training. Two come with the package, made by

    python -m tinygan.judge.classifier judge1.npz
    python -m tinygan.judge.classifier second1.npz --width 24 --features 96 --seed 1

which made the same bytes when it was repeated on that machine (AMD EPYC, NumPy 2.4.6 with OpenBLAS 0.3.31).
Recipe fast was chosen by the first, with training images that no run had seen in place of the test images; the other recipes by a
classifier of its shape and seed, trained for half as long. The second is of another shape and has chosen nothing: what both
find is no weakness of the first.
"""
import hashlib
import io
import json
from functools import cache
from pathlib import Path

import numpy as np

from ..data import is_path
from ..data.mnist import DIGEST
from ..data.npz import open_npz
from ..errors import UserError
from ..recipes import find_recipe
from ..run.generator import finite
from .classifier import look, restore
from .measures import frechet_distance

SHIPPED = {                                       # name: (file, its SHA-256)
    'judge 1': ('judge1.npz', '118cdad849ebfa23aad0a35a3e0784b38ffe3fded4ce4304f66319892a9c8b85'),
    'second judge 1': ('second1.npz', 'ce6edb4baa948e7247cd6ec0f662dbc007784e3d1d2e3a4ac37d29c103be3c7c'),
}


class Judge:
    """A judge read from a file, and printed as its name and the beginning of the file's SHA-256: both go with what it
    finds. UserError when the file is no judge, or not the one with that sha256."""

    def __init__(self, file, name=None, sha256=None):
        content = Path(file).read_bytes()
        self.name, self.sha256 = name or str(file), hashlib.sha256(content).hexdigest()
        if sha256 not in (None, self.sha256):
            raise UserError(f'{file} is not the file of {name}: install tinygan again')
        try:
            with open_npz(io.BytesIO(content)) as arrays:
                mean, covariance, about = arrays['mean'], arrays['covariance'], json.loads(str(arrays['about']))
                width, F = about['width'], about['features']
                if not (F > 1 and 0 <= about['accuracy'] <= 1):
                    raise ValueError(f'features {F}, accuracy {about["accuracy"]}')
                self.classifier = restore(width, F, arrays['parameters'], arrays['statistics'])
            self.about = about | {'data': str(about['data']), 'test_images': int(about['test_images'])}
            self.mean, self.covariance = finite(mean, (F,)), finite(covariance, (F, F))
        except Exception as error:                # whatever zipfile, NumPy and json make of damaged bytes
            what = f'it lacks {error}' if isinstance(error, KeyError) else error
            raise UserError(f'{file} is no judge, or a damaged one ({what}): '
                            'python -m tinygan.judge.classifier makes them') from None

    def __str__(self):
        return f'{self.name} ({self.sha256[:8]})'

    def look(self, images):
        """Features (N, F) and probabilities of the ten digits (N, 10), float64, of uint8 images (N, 28, 28, 1)."""
        return look(self.classifier, images)

    def distance_of(self, features):
        """The Fréchet distance between images, given by their features (N, F), and the test images."""
        return frechet_distance(features.mean(axis=0), np.cov(features, rowvar=False), self.mean, self.covariance)

    def distance(self, images):
        """The same for uint8 images (N, 28, 28, 1), two or more. The smaller N, the larger it is."""
        return self.distance_of(self.look(images)[0])


@cache
def shipped(name):
    """The Judge of that name. UserError when its file is not, byte for byte, the one that belongs to this version."""
    file, sha256 = SHIPPED[name]
    return Judge(Path(__file__).with_name(file), name, sha256)


def check_shape(shape, maker):
    """UserError if judges cannot look at the images (H, W, C) that somebody makes."""
    if shape != (28, 28, 1):
        H, W, C = shape
        raise UserError(f'judges look at gray images of 28x28 pixels, and {maker} makes {"gray" if C == 1 else "colour"} ones '
                        f'of {H}x{W}')


def check_digits(data, digest, maker):
    """UserError if `maker` has learnt from the user's own images, which --data and its digest tell, and not from digits."""
    if is_path(data) and digest != DIGEST:
        raise UserError(f'{maker} shows images of your own, and the judges that ship know only MNIST\'s digits: the distance from '
                        'those would mean nothing')


def judge_of(config, run=None):
    """Judge 1, if --evaluate-every asks for it. UserError when it cannot look at what the recipe makes, or a run was measured by
    another one."""
    if not config['evaluate_every']:
        return None
    judge = shipped('judge 1')
    check_shape(find_recipe(config['recipe']).shape, f'recipe {config["recipe"]}')
    if run and run.best.exists() and config['judge'] != str(judge):
        raise UserError(f'{run.folder} was measured by another judge than {judge}, and their distances do not compare: '
                        '--evaluate-every 0 goes on without')
    config['judge'] = str(judge)
    return judge
