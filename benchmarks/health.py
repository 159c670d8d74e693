"""Records how runs go, healthy and failing ones, for the tests of tinygan/run/health.py and for the README.

    python benchmarks/health.py record [NAME ...]      trains what is missing in benchmarks/results/health.npz, by one thread
    python benchmarks/health.py draw                   draws benchmarks/results/health.png and health_curves.png from it

Of every ten steps it keeps the mean of each metric, of every fifty what Health.measure sees, and 16 samples of the last one.
"""
import os
import sys
import time
from pathlib import Path

os.environ['OPENBLAS_NUM_THREADS'] = '1'
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np

from tinygan import data, engines
from tinygan.arrays import random_stream
from tinygan.data.minibatches import Minibatches
from tinygan.recipes import RECIPES, make_gan
from tinygan.run.files import atomically
from tinygan.run.generator import draw
from tinygan.run.health import Health

RESULTS = ROOT / 'benchmarks' / 'results'
METRICS, EVERY, LOOK = ('loss_D', 'loss_G', 'D_x', 'D_G_z1', 'D_G_z2'), 10, 50
SEEN = 'spread', 'dead', 'moved_G', 'moved_D'

HEALTHY = {'dcgan': (600, {}), 'dcgan_gap': (400, {}), 'lsgan': (500, {}), 'fast': (800, {}), 'dcgan64': (300, {'batch_size': 16}),
           'tutorial64': (300, {'batch_size': 16}), 'lsgan64': (600, {})}            # recipe: steps, and what is changed
RUNS = {f'{recipe}, seed {seed}': (recipe, seed, 'mnist', *rest) for seed in range(3) for recipe, rest in HEALTHY.items()}
RUNS |= {f'dcgan, {loss}': ('dcgan', 0, 'mnist', 400, {'loss': loss}) for loss in ('minimax', 'bce_smooth', 'lsgan_chi2', 'mse')}
RUNS |= {'dcgan, drawn digits': ('dcgan', 0, 'digits', 400, {})}
FAILING = {
    'D wins: lr 1e-5, lr_d 4e-3': ('dcgan', 0, 'mnist', 400, {'lr': 1e-5, 'lr_d': 4e-3}),
    'D wins: beta1 0.9, lr 3e-3': ('dcgan', 0, 'mnist', 400, {'lr': 3e-3, 'beta1': 0.9}),
    'G collapses: lr 0.03': ('dcgan', 0, 'mnist', 400, {'lr': 0.03}),
    'G collapses: lr 0.03, lr_d 2e-4': ('dcgan', 0, 'mnist', 400, {'lr': 0.03, 'lr_d': 2e-4}),
    'G collapses: minimax, lr_d 2e-3': ('dcgan', 0, 'mnist', 400, {'loss': 'minimax', 'lr_d': 2e-3}),
    'units die: lr 0.1': ('dcgan', 0, 'mnist', 400, {'lr': 0.1}),
    'losses explode: lr 1': ('dcgan', 0, 'mnist', 300, {'lr': 1.0}),
    'losses explode: least squares, lr 0.1': ('dcgan', 0, 'mnist', 400, {'loss': 'lsgan', 'lr': 0.1}),
    'nothing moves: lr 1e-9': ('dcgan', 0, 'mnist', 300, {'lr': 1e-9}),
    'D cannot follow: lr_d 2e-6': ('dcgan', 0, 'mnist', 400, {'lr_d': 2e-6}),
}


def record(recipe, seed, name, steps, changes):
    """{'metrics': (steps / 10, 5), 'seen': (steps / 50, 4), 'samples': (16, H, W, C)} of a run."""
    recipe = RECIPES[recipe]._replace(**changes)
    gan, images = make_gan(recipe, seed), data.load(name, None, seed, recipe.shape)
    batches = Minibatches(images, recipe, seed)
    health, engine = Health(gan, batches), engines.start(gan, batches)
    rows, metrics, seen = [], [], []
    with np.errstate(all='ignore'):
        for step in range(1, steps + 1):
            rows.append(engine.step(step))
            if step % EVERY == 0:
                metrics.append([np.mean([row[name] for row in rows if name in row]) for name in METRICS])
                rows = []
            if step % LOOK == 0:
                seen.append([health.measure(step)[name] for name in SEEN])
        z = random_stream(seed, 'preview').standard_normal((16, recipe.z_dim), np.float32)
        samples = draw(engine.sampler, z, recipe.black)
    engine.close()
    return {'metrics': np.float32(metrics), 'seen': np.float32(seen), 'samples': samples}


def main():
    what, *names = sys.argv[1:] or ['help']
    if what == 'record':
        for name in names or [*RUNS, *FAILING]:
            start, arrays = time.monotonic(), record(*(RUNS | FAILING)[name])
            keep({f'{name}/{key}': array for key, array in arrays.items()})
            print(f'{name}: {time.monotonic() - start:.0f} s', arrays['metrics'][-1], arrays['seen'][-1], flush=True)
    else:
        print(__doc__)


def keep(arrays):
    """Add arrays to what was recorded."""
    path = RESULTS / 'health.npz'
    before = dict(np.load(path)) if path.exists() else {}
    with atomically(path) as file:
        np.savez_compressed(file, **before | arrays)


if __name__ == '__main__':
    main()
