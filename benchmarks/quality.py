"""How good are the samples after one, five and ten epochs? From the tutorial's settings to recipe fast, and beside PyTorch.

    python benchmarks/quality.py train [--seeds 0 1 2] [--runs NAME ...] [--epochs N]
    python benchmarks/quality.py judge

The first trains what RUNS lists and keeps 10,000 samples of each run, after the epochs given there, in runs/quality.
What is kept is not trained again, so several processes can share the work. The second holds all that is kept against
MNIST's test split, by both judges that ship: the distances go to benchmarks/results/quality.json, pictures beside it.
"""
import argparse
import json
import os
import sys
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from runs import SAMPLES, commit_of, judges, mean_and_std, note_origin, real_digits, samples_of, train_mnist  # noqa: E402
from tinygan import data  # noqa: E402
from tinygan.__main__ import sample_noise  # noqa: E402
from tinygan.data.minibatches import Minibatches  # noqa: E402
from tinygan.gan import generate  # noqa: E402
from tinygan.run.pictures import grid, save_png  # noqa: E402
from tinygan.recipes import RECIPES, make_gan  # noqa: E402
from tinygan.recipes.networks import critic  # noqa: E402
from tinygan.run.settings import new_config  # noqa: E402

RESULTS, KEPT = Path(__file__).parent / 'results', Path('runs/quality')
IMAGES = 60000                                    # of an epoch
FAST = ['--recipe', 'fast']
RECIPES['wide'] = RECIPES['fast']._replace(generator=RECIPES['dcgan'].generator, discriminator=critic)
RUNS = {                                          # name: (options of train_mnist.py, epochs after which to draw)
    'dcgan': (['--recipe', 'dcgan'], (1, 5, 10)),
    'PyTorch': (None, (1,)),
    'fast': (FAST, (1, 5, 10)),
    'wgan_gp': (['--recipe', 'wgan_gp'], (1, 5, 10)),
    'conditional': (['--recipe', 'conditional'], (1, 5, 10)),
    'vae': (['--recipe', 'vae'], (1, 5, 10)),
    # what fast is without one of its changes
    'no penalty': ([*FAST, '--penalty-weight', '0'], (1,)),
    'a penalty in every step': ([*FAST, '--penalty-every', '1'], (1,)),
    "dcgan's widths": (['--recipe', 'wide'], (1,)),
    "dcgan's learning rates": ([*FAST, '--lr', '2e-4', '--lr-d', '2e-4'], (1,)),
    "dcgan's beta1": ([*FAST, '--beta1', '0.5'], (1,)),
    'minibatches of 128': ([*FAST, '--batch-size', '128'], (1,)),
    'z of 100 numbers': ([*FAST, '--z-dim', '100'], (1,)),
    'no average of G': ([*FAST, '--average', '0'], (1,)),
    "dcgan's beta2": ([*FAST, '--beta2', '0.999'], (1,)),
}


def folder_of(name, seed):
    return KEPT / f'{"".join(c if c.isalnum() else "_" for c in name)}-{seed}'


def samples_path(name, seed, epoch):
    return KEPT / f'{folder_of(name, seed).name}-{epoch}.npy'


def train(name, seed, epochs):
    """Keep samples of the run after each of these epochs."""
    epochs = [epoch for epoch in epochs if not samples_path(name, seed, epoch).exists()]
    flags, keep_after = RUNS[name][0], partial(keep, name, seed)
    if not epochs:
        return
    if flags is None:
        note_origin(folder_of(name, seed))
        by_pytorch(seed, epochs, keep_after)
        return
    size = new_config(train_mnist.parse(flags, 'quality.py'))['batch_size']
    for epoch in epochs:
        keep_after(epoch, samples_of(folder_of(name, seed), flags, seed, epoch * (IMAGES // size)))


def keep(name, seed, epoch, images):
    path = samples_path(name, seed, epoch)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path.with_suffix('.part.npy'), images)
    os.replace(path.with_suffix('.part.npy'), path)


def by_pytorch(seed, epochs, keep):
    """dcgan's networks, trained by PyTorch from the same weights on the same minibatches and noise."""
    from torch_gan import TorchGAN
    recipe, images = RECIPES['dcgan'], data.ImageSet(data.mnist.load_images('train'), seed)
    gan = make_gan(recipe, seed)
    torch_gan = TorchGAN(gan, tuned=True)
    per_epoch, batches = images.steps_per_epoch(recipe.batch_size), Minibatches(images, recipe, seed)
    for step in range(1, max(epochs) * per_epoch + 1):
        torch_gan.step(*batches(step))
        epoch, rest = divmod(step, per_epoch)
        if rest == 0 and epoch in epochs:
            keep(epoch, data.to_uint8(generate(torch_gan.copy_to_sampler(), sample_noise(0, SAMPLES, recipe.z_dim))))


def distances_of_all(trained):
    """{run: {judge: mean_and_std of the seeds' distances}} of all samples that are kept, and a picture of the first. The
    provenance of the runs goes to `trained`, by commit."""
    found = {'real training images': {name: mean_and_std([judge.distance(real_digits())]) for name, judge in judges().items()}}
    for name, epoch in ((name, epoch) for name, (_, epochs) in RUNS.items() for epoch in epochs):
        paths = sorted(KEPT.glob(samples_path(name, '*', epoch).name))
        images = [np.load(path) for path in paths]
        if not images:
            continue
        seeds = [path.stem.split('-')[1] for path in paths]
        row = found[f'{name}, {epoch} epoch{"s" * (epoch > 1)}'] = {
            'commit': commit_of([folder_of(name, seed) for seed in seeds], trained), 'seeds': seeds}
        for judge_name, judge in judges().items():
            row[judge_name] = mean_and_std([judge.distance(of_seed) for of_seed in images])
        print(f'{name}, {epoch}:', row, flush=True)
        if name in RECIPES:
            save_png(RESULTS / f'quality_{name}_{epoch}.png', grid(images[0][:32], columns=16))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('command', choices=['train', 'judge'])
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--runs', nargs='+', choices=RUNS, default=list(RUNS))
    parser.add_argument('--epochs', type=int, default=10, help='no run goes further')
    options = parser.parse_args()
    if options.command == 'train':
        for name in options.runs:
            for seed in options.seeds:
                train(name, seed, [epoch for epoch in RUNS[name][1] if epoch <= options.epochs])
        return
    result = {'trained': {}, 'samples': SAMPLES}
    result['distances'] = distances_of_all(result['trained'])
    (RESULTS / 'quality.json').write_text(json.dumps(result, indent=1) + '\n')


if __name__ == '__main__':
    main()
