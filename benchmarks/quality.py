"""How good are the samples at equal cost? From the tutorial's settings to recipe fast, and beside PyTorch.

    python benchmarks/quality.py [--seeds 0 1 2] [--only NAME ...]

trains what RUNS lists, draws 10,000 samples after the epochs given there, and holds them against MNIST's test split by
the evaluator's classifier and by a second one, of another shape and seed, that has chosen nothing. Samples are kept in
runs/quality: what is there is not trained again, so several processes can share the work, each with some --seeds or
--only some names. Where all are there, the distances go to benchmarks/results/quality.json, pictures beside it.
"""
import argparse
import importlib.util
import json
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from runs import SAMPLES, Judge, samples_of  # noqa: E402
from tinygan import data, evaluate, lanes  # noqa: E402
from tinygan.__main__ import sample_noise  # noqa: E402
from tinygan.gan import GAN, generate, noise  # noqa: E402
from tinygan.images import grid, save_png  # noqa: E402
from tinygan.recipes import RECIPES  # noqa: E402

RESULTS, KEPT = Path(__file__).parent / 'results', Path('runs/quality')
IMAGES = 60000                                    # of an epoch
FAST = ['--recipe', 'fast']
FAST_SETTINGS = ['--recipe', 'dcgan', '--loss', 'bce_smooth', '--lr', '4e-3', '--lr-d', '8e-4', '--beta2', '0.99',
                 '--blur', '0.5', '--average', '0.999', '--z-dim', '32', '--batch-size', '64']
RUNS = {                                          # name: (options of train_mnist.py, epochs after which to draw)
    'dcgan': ([], (1, 5, 10)),
    'PyTorch': (None, (1, 2)),
    'fast': (FAST, (1, 2, 5, 10)),
    # what fast is without one of its changes
    'no hidden layer in D': (FAST_SETTINGS, (2,)),
    'no blur': ([*FAST, '--blur', '0'], (2,)),
    'no label smoothing': ([*FAST, '--loss', 'bce'], (2,)),
    "dcgan's learning rates": ([*FAST, '--lr', '2e-4', '--lr-d', '2e-4'], (2,)),
    "dcgan's beta2": ([*FAST, '--beta2', '0.999'], (2,)),
    'minibatches of 128': ([*FAST, '--batch-size', '128'], (2,)),
    'z of 100 numbers': ([*FAST, '--z-dim', '100'], (2,)),
    'no average of G': ([*FAST, '--average', '0'], (2,)),
}


def build_second(rng):
    """A classifier of another shape than the evaluator's own."""
    return evaluate.build_classifier(rng, width=24, features=96)


def samples(name, seed, epoch):
    """uint8 images of the run after that epoch, trained now if they are not kept."""
    flags, epochs = RUNS[name]
    folder = KEPT / f'{"".join(c if c.isalnum() else "_" for c in name)}-{seed}'
    kept = folder.with_name(f'{folder.name}-{epoch}.npy')
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        if flags is None:
            by_pytorch(seed, epochs, folder)
        else:
            size = RECIPES['fast' if 'fast' in flags else 'dcgan'].batch_size
            size = int(flags[flags.index('--batch-size') + 1]) if '--batch-size' in flags else size
            keep(samples_of(folder, flags, seed, epoch * (IMAGES // size)), kept)
    return np.load(kept)


def keep(images, path):
    np.save(path.with_suffix('.part.npy'), images)
    os.replace(path.with_suffix('.part.npy'), path)


def by_pytorch(seed, epochs, folder):
    """dcgan's networks, trained by PyTorch from the same weights on the same minibatches and noise."""
    from torch_gan import TorchGAN, to_tinygan
    recipe, images = RECIPES['dcgan'], data.ImageSet(data.mnist('train')[0], seed)
    gan = GAN.from_recipe(recipe, seed)
    torch_gan = TorchGAN(gan.G, gan.D, recipe.lr, (recipe.beta1, recipe.beta2), tuned=True)
    per_epoch = images.steps_per_epoch(recipe.batch_size)
    for step in range(1, max(epochs) * per_epoch + 1):
        x = data.normalise(images.batch(step - 1, recipe.batch_size), np)
        torch_gan.step(x, noise(seed, step, recipe.batch_size, recipe.z_dim))
        epoch, rest = divmod(step, per_epoch)
        if rest == 0 and epoch in epochs:
            to_tinygan(torch_gan.G, gan.G)
            drawn = data.to_uint8(generate(gan.G, sample_noise(0, SAMPLES, recipe.z_dim)))
            keep(drawn, folder.with_name(f'{folder.name}-{epoch}.npy'))


def report(seeds):
    """{run: {judge: mean, std and each seed's distance}}, printed as it is found, and a picture of each run."""
    judges = {'evaluator': Judge(), 'second classifier': Judge(build=build_second, seed=1)}
    found = {'real training images': {name: {'mean': judge.real()} for name, judge in judges.items()}}
    for name, (_, epochs) in RUNS.items():
        for epoch in epochs:
            images = [samples(name, seed, epoch) for seed in seeds]
            row = found[f'{name}, {epoch} epoch{"s" * (epoch > 1)}'] = {}
            for judge_name, judge in judges.items():
                distances = [judge.distance(of_seed) for of_seed in images]
                row[judge_name] = {'mean': np.mean(distances), 'std': np.std(distances, ddof=1), 'seeds': distances}
            print(f'{name}, {epoch}:', *(f'{judge} {d["mean"]:.2f} +- {d["std"]:.2f}' for judge, d in row.items()), flush=True)
            if name in ('dcgan', 'fast'):
                save_png(RESULTS / f'quality_{name}_{epoch}.png', grid(images[0][:32], columns=16))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--only', nargs='+', choices=RUNS, help='train these, and judge nothing')
    options = parser.parse_args()
    lanes.start_workers()
    if not importlib.util.find_spec('torch'):
        print('PyTorch is not installed: nothing to compare with')
        del RUNS['PyTorch']
    if options.only:
        for seed in options.seeds:
            for name in options.only:
                for epoch in RUNS[name][1]:
                    samples(name, seed, epoch)
        return
    machine = {'machine': platform.platform(), 'python': platform.python_version(), 'numpy': np.__version__,
               'date': time.strftime('%Y-%m-%d'), 'seeds': options.seeds, 'samples': SAMPLES}
    (RESULTS / 'quality.json').write_text(json.dumps(machine | {'distances': report(options.seeds)}, indent=1) + '\n')


if __name__ == '__main__':
    main()
