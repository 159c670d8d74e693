"""What D calls real: MNIST, digits that the program draws itself, or a folder of images."""
import os
import sys
import textwrap

from . import mnist
from .digits import Digits
from .images import ImageSet, fit, normalise, to_uint8


def load(name=None, folder=None, seed=0, shape=(28, 28, 1)):
    """The dataset that --data name and --data-dir folder ask for; shape (H, W, C) is that of the network's images.

    A name that is neither mnist nor digits is a folder of images. With neither name nor folder it is MNIST if that
    can be had, and drawn digits otherwise, after a message nobody can miss. MNIST asked for by name, folder or
    TINYGAN_DATA that cannot be had is an error; so, always, are damaged files.
    """
    if is_folder(name):
        from .folder import read_folder           # which needs Pillow
        return ImageSet(read_folder(name, shape), seed, name)
    if name != 'digits':
        try:
            return ImageSet(mnist.load('train', folder)[0], seed)
        except mnist.Unavailable as error:
            problem = f'{error} or --data-dir, or use --data digits'
            if name or folder or os.environ.get('TINYGAN_DATA'):
                raise mnist.Unavailable(problem) from None
            print(_notice(problem), file=sys.stderr)
    return Digits(seed)


def is_folder(name):
    """Does that --data name a folder?"""
    return name not in (None, 'mnist', 'digits')


def _notice(problem):
    rule = '*' * 100
    lines = ['THIS IS NOT MNIST: training on DRAWN DIGITS instead.', *textwrap.wrap(problem, 96)]
    return '\n'.join([rule, *(f'*  {line}' for line in lines), rule])
