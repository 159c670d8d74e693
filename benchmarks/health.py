"""Records how runs go, healthy and failing ones, for the tests of tinygan/run/health.py and for the README.

    python benchmarks/health.py record [NAME ...]      trains what is missing in benchmarks/results/health.npz, by one thread
    python benchmarks/health.py draw                   draws some of them in benchmarks/results/health.png

Of every ten steps it keeps the mean of each metric, of every fifty what Health.measure sees, and 16 samples of runs that are drawn.
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
from tinygan.data.ours import MADE_BY
from tinygan.recipes import RECIPES, make_gan
from tinygan.recipes.labels import with_labels
from tinygan.run.files import atomically
from tinygan.run.generator import draw, in_turn
from tinygan.run.health import Health
from tinygan.run.pictures import grid, matplotlib_figure

RESULTS = ROOT / 'benchmarks' / 'results'
METRICS, EVERY, LOOK = ('loss_D', 'loss_G', 'D_x', 'D_G_z1', 'D_G_z2'), 10, 50
SEEN = 'spread', 'dead', 'moved_G', 'moved_D'

HEALTHY = {'dcgan': (600, {}), 'dcgan_gap': (400, {}), 'lsgan': (500, {}), 'fast': (800, {}), 'dcgan64': (300, {'batch_size': 16}),
           'tutorial64': (300, {'batch_size': 16}), 'lsgan64': (600, {}), 'conditional': (400, {}),
           'wgan_gp': (1100, {})}                 # recipe: steps, and what is changed
RUNS = {f'{recipe}, seed {seed}': (recipe, seed, 'mnist', *rest) for seed in range(3) for recipe, rest in HEALTHY.items()}
RUNS |= {f'dcgan, {loss}': ('dcgan', 0, 'mnist', 400, {'loss': loss}) for loss in ('bce_smooth', 'lsgan_chi2', 'mse')}
RUNS |= {'dcgan, drawn digits': ('dcgan', 0, 'digits', 400, {}), 'dcgan, lr 0.03': ('dcgan', 0, 'mnist', 400, {'lr': 0.03}),
         'dcgan, lr 0.03, lr_d 2e-4': ('dcgan', 0, 'mnist', 400, {'lr': 0.03, 'lr_d': 2e-4})}            # wild, but they learn
FAILING = {                         # and what must be said of it
    'lr 1e-5, lr_d 4e-3': ('dcgan', 0, 'mnist', 400, {'lr': 1e-5, 'lr_d': 4e-3}, ['D has won']),
    'lr 3e-3, beta1 0.9': ('dcgan', 0, 'mnist', 400, {'lr': 3e-3, 'beta1': 0.9}, ['D has won']),
    'minimax': ('dcgan', 0, 'mnist', 400, {'loss': 'minimax'}, ['D has won']),
    'minimax, lr_d 2e-3': ('dcgan', 0, 'mnist', 400, {'loss': 'minimax', 'lr_d': 2e-3}, ['D has won']),
    'lr_d 2e-6': ('dcgan', 0, 'mnist', 400, {'lr_d': 2e-6}, ['D cannot follow']),
    'lr 0.1': ('dcgan', 0, 'mnist', 400, {'lr': 0.1}, ['D has won', 'units are dead']),
    'lr 1': ('dcgan', 0, 'mnist', 300, {'lr': 1.0}, ['D has won', 'the losses explode', 'G has collapsed']),
    'least squares, lr 0.1': ('dcgan', 0, 'mnist', 400, {'loss': 'lsgan', 'lr': 0.1}, ['G has collapsed']),
    'lr 1e-9': ('dcgan', 0, 'mnist', 300, {'lr': 1e-9}, ['G does not move', 'D does not move']),
}


SHOWN = {'dcgan, seed 0': 'healthy', 'lr 1e-5, lr_d 4e-3': 'D has won', 'lr_d 2e-6': 'D cannot follow',
         'least squares, lr 0.1': 'G has\ncollapsed', 'lr 0.1': 'units are dead', 'lr 1': 'the losses\nexplode',
         'lr 1e-9': 'nothing moves'}


def record(recipe, seed, name, steps, changes):
    """{'metrics': (steps / 10, 5), 'seen': (steps / 50, 4), 'samples': (16, H, W, C)} of a run."""
    recipe = RECIPES[recipe]._replace(**changes)
    gan, images = make_gan(recipe, seed), data.load(name, None, seed, recipe.shape, labelled=recipe.classes > 0)
    batches = Minibatches(images, recipe, seed)
    health, engine = Health(gan, batches, gan.state), engines.start(gan, batches)
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
        samples = draw(engine.snapshot()(), with_labels(z, in_turn(16, recipe.classes), recipe.classes), recipe.black)
    engine.close()
    return {'metrics': np.float32(metrics), 'seen': np.float32(seen), 'samples': samples}


def draw_runs(path, recorded):
    """A row for each run that is SHOWN: its losses, D's outputs, and its last samples."""
    figure = matplotlib_figure()(figsize=(11, 1.5 * len(SHOWN)), layout='constrained')
    for panels, (name, title) in zip(figure.subplots(len(SHOWN), 3, width_ratios=[3, 3, 4]), SHOWN.items()):
        values = dict(zip(METRICS, recorded[f'{name}/metrics'].T))
        step = EVERY * np.arange(1, len(values['D_x']) + 1)
        draw_panel(panels[0], step, {'loss D': values['loss_D'], 'loss G': values['loss_G']})
        draw_panel(panels[1], step, {'D(x)': values['D_x'], 'D(G(z))': values['D_G_z1']})
        panels[0].set_ylabel(title, rotation=0, ha='right', va='center', labelpad=30)
        panels[1].set_ylim(-0.05, 1.05)
        panels[2].imshow(grid(recorded[f'{name}/samples'][:, :, :, :1])[..., 0], cmap='gray', vmin=0, vmax=255)
        panels[2].axis('off')
    with atomically(path) as file:
        figure.savefig(file, dpi=90, format='png', metadata={'Software': MADE_BY})


def draw_panel(axis, step, curves):
    for label, values in curves.items():
        axis.plot(step, values, label=label, linewidth=1)
    axis.spines[['top', 'right']].set_visible(False)
    axis.legend(frameon=False, fontsize='small')


def main():
    what, *names = sys.argv[1:] or ['help']
    if what == 'record':
        for name in names or [*RUNS, *FAILING]:
            start, arrays = time.monotonic(), record(*(RUNS | FAILING)[name][:5])
            keep({f'{name}/{key}': array for key, array in arrays.items() if key != 'samples' or name in SHOWN})
            print(f'{name}: {time.monotonic() - start:.0f} s', arrays['metrics'][-1], arrays['seen'][-1], flush=True)
    elif what == 'draw':
        draw_runs(RESULTS / 'health.png', dict(np.load(RESULTS / 'health.npz')))
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
