"""What D calls real: MNIST, digits that the program draws itself, or images of your own."""
import itertools
import os
import sys
import textwrap

from . import mnist
from .digits import Digits
from .images import ImageSet, fit, normalise, to_uint8
from ..errors import UserError


def load(name=None, folder=None, seed=0, shape=(28, 28, 1), background='white', flip=False, labelled=False):
    """The dataset that --data name and --data-dir folder ask for; shape (H, W, C) is that of the network's images.

    A name that is neither mnist nor digits is a path: see own.py. With neither name nor folder it is MNIST if that can be
    had, and drawn digits otherwise, after a message nobody can miss. MNIST asked for by name, folder or TINYGAN_DATA that
    cannot be had is an error; so, always, are damaged files. flip mirrors half of the images, chosen anew for each epoch.
    labelled adds the classes that the images show: without it, no labels are looked for.
    """
    if is_path(name):
        from .own import read_own                 # which needs Pillow
        images, digest, warning, labels, class_names = read_own(name, shape, background, labelled)
        return ImageSet(images, seed, name, flip, digest, warning, labels, class_names)
    if name != 'digits':
        if not name:
            check_no_pictures(mnist.folder_of(folder))
        try:
            images = mnist.load_images('train', folder)
            return ImageSet(images, seed, labels=mnist.load_labels('train', folder) if labelled else None,
                            class_names=Digits.class_names if labelled else ())
        except mnist.Unavailable as error:
            problem = f'{error} or --data-dir, or use --data digits'
            if name or folder or os.environ.get('TINYGAN_DATA'):
                raise mnist.Unavailable(problem) from None
            print(_notice(problem), file=sys.stderr)
    return Digits(seed)


def check_no_pictures(folder):
    """UserError when a folder that should hold MNIST's files, or into which they would be downloaded, holds pictures instead."""
    if folder.is_dir() and not mnist.find(folder, 'train-images-idx3-ubyte'):
        from .decode import has_suffix            # which needs Pillow
        for path in itertools.chain(folder.glob('*'), folder.glob('*/*')):
            if has_suffix(path.name):
                raise UserError(f'{folder} holds no file of MNIST, but pictures, such as {path.relative_to(folder)}: to train on '
                                f'them, --data {folder}; to download MNIST there all the same, --data mnist')


def is_path(name):
    """Does that --data name a file or a folder?"""
    return name not in (None, 'mnist', 'digits')


def _notice(problem):
    rule = '*' * 100
    lines = ['THIS IS NOT MNIST: training on DRAWN DIGITS instead.', *textwrap.wrap(problem, 96)]
    return '\n'.join([rule, *(f'*  {line}' for line in lines), rule])
