"""The generator of a run, or the one that comes with the package, ready to call."""
from pathlib import Path

import numpy as np

from ..arrays import array_module, random_stream
from ..data import to_uint8
from ..engines.threads import on_all_cores
from ..errors import UserError
from ..gan import generate
from ..layers import BatchNorm2d
from ..recipes.labels import with_labels
from .checkpoint import open_checkpoint
from .settings import recipe_of

TRAINED = Path(__file__).with_name('trained.npz')                # recipe fast: benchmarks/ship.py made it
PART = 128                                        # images at a time


def load(run=None):
    """G of a run, or the average of it that samples are drawn from, in evaluation mode and on the CPU. Without a run, it
    is the trained generator that comes with the package.

        G = tinygan.load()
        images = G(np.random.randn(64, 16).astype('f'))           # (64, 28, 28, 1), black at -1, white at 1

    run is a run's folder or a checkpoint file, such as its best.npz. Raises UserError where none can be read. G of a run that was
    told classes finds the labels behind z: recipes.labels.with_labels joins them.
    """
    return load_with_config(run)[0]


def load_with_config(run):
    """The same, and what the run was asked for: its recipe, z_dim and other settings. Without classes, class_names are []."""
    run = TRAINED if run is None else run
    _, config, _, state = open_checkpoint(run)
    sampler = 'average' if 'average.parameters' in state else 'G'
    try:
        recipe = recipe_of(config)
        names = config.setdefault('class_names', list(map(str, range(recipe.classes))))
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names) and len(set(names)) == len(names)):
            raise ValueError(f'its classes are called {names}')
        G = recipe.generator(config['z_dim'] + recipe.classes)
        return fill(G, state[f'{sampler}.parameters'], state[f'{sampler}.statistics']), config
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f'{run}: its generator is not one that its recipe makes ({error})') from None


def preview(sampler, config):
    """64 images by G (or its average) as it is now, or of a run that was told classes eight of each, always of the same z."""
    return samples_of(sampler, config, 'preview', 8 * (recipe_of(config).classes or 8), each=8)


def samples_of(sampler, config, purpose, n, each=1):
    """n images, uint8, of z that depend on the run's seed and the purpose alone; of classes in turn, `each` of one."""
    recipe = recipe_of(config)
    z = random_stream(config['seed'], purpose).standard_normal((n, recipe.z_dim), np.float32)
    return draw(sampler, with_labels(z, in_turn(n, recipe.classes, each), recipe.classes), recipe.black)


def in_turn(n, classes, each=1):
    """Labels (n,): `each` of class 0, as many of class 1 and so on, and after the last from the beginning."""
    return np.arange(n) // each % max(classes, 1)


def draw(G, z, black):
    """uint8 images (N, H, W, C), 0 for `black`, that G in evaluation mode makes of z (N, z_dim); on a CPU by all cores."""
    if array_module(G.parameters) is not np:
        return to_uint8(generate(G, z), black)
    parts, training = [z[start:start + PART] for start in range(0, len(z), PART)], G.training
    G.eval()
    try:
        return np.concatenate(on_all_cores(lambda part: to_uint8(G(part), black), parts, 'drawing'))
    finally:
        G.set_flags(training=training)


def fill(network, parameters, statistics):
    """The network with vectors that a file holds, in evaluation mode. ValueError when they cannot be its own."""
    network.parameters[...] = finite(parameters, network.parameters.shape)
    network.statistics[...] = finite(statistics, network.statistics.shape)
    if any((leaf.running_var < 0).any() for leaf in network.leaves() if isinstance(leaf, BatchNorm2d)):
        raise ValueError('a variance is negative')
    return network.eval()


def finite(array, shape):
    """The array that a file holds, or a ValueError if it is not one of finite floats, of that shape."""
    if array.dtype.kind != 'f' or array.shape != shape:
        raise ValueError(f'floats {shape} are needed, not {array.dtype} {array.shape}')
    if not np.isfinite(array).all():
        raise ValueError(f'floats {shape} are not finite')
    return array
