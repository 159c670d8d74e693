"""How good are the samples at equal cost? From the tutorial's settings to recipe fast, and beside PyTorch.

    python benchmarks/quality.py ablation [SEEDS]     after one epoch, a change at a time
    python benchmarks/quality.py reference [SEEDS]    after 1, 5 and 10 epochs: dcgan, PyTorch training its networks on
                                                      the same minibatches and noise, and fast

An epoch costs about the same in all of them. Images are judged by the evaluator's classifier and, which confirms a
ranking, by one of another shape and seed that has chosen nothing. Runs stay in runs/quality, and finished ones are not
run again; the results go to benchmarks/results/quality_*.json.
"""
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from runs import SAMPLES, Judge, mean_and_std, samples_of  # noqa: E402
from tinygan import data, evaluate, lanes  # noqa: E402
from tinygan.__main__ import sample_noise  # noqa: E402
from tinygan.gan import GAN, generate, noise  # noqa: E402
from tinygan.images import grid, save_png  # noqa: E402
from tinygan.recipes import RECIPES  # noqa: E402

RESULTS = Path(__file__).parent / 'results'
IMAGES = 60000                                    # of an epoch
ABLATION = {                                      # what differs from `python train_mnist.py --epochs 1`, line by line
    'dcgan, the settings of the tutorial': [],
    'lr 1e-3': ['--lr', '1e-3'],
    '+ beta2 0.99': ['--lr', '1e-3', '--beta2', '0.99'],
    '+ lr 4e-4 for D': ['--lr', '1e-3', '--beta2', '0.99', '--lr-d', '4e-4'],
    '+ minibatches of 64': ['--recipe', 'fast', '--average', '0'],
    '+ an average of G: fast': ['--recipe', 'fast'],
}


def build_second(rng):
    """A classifier of another shape than the evaluator's own."""
    return evaluate.build_classifier(rng, width=24, features=96)


def judges():
    return {'evaluator': Judge(), 'second classifier': Judge(build=build_second, seed=1)}


def batch_size(flags):
    return RECIPES['fast' if 'fast' in flags else 'dcgan'].batch_size


def steps_of(epochs, flags):
    return epochs * (IMAGES // batch_size(flags))


def folder_of(name, seed):
    return Path('runs/quality', f'{"".join(c if c.isalnum() else "_" for c in name)}-{seed}')


def judged(judges, images):
    """{judge: {'each seed': ...}} of the images of each seed."""
    return {name: mean_and_std([judge.distance(of_seed) for of_seed in images]) for name, judge in judges.items()}


def ablation(seeds):
    found, rows = {}, []
    judging = judges()
    for name, flags in ABLATION.items():
        images = [samples_of(folder_of(name, seed), flags, seed, steps_of(1, flags)) for seed in range(seeds)]
        found[name] = judged(judging, images)
        rows.append(images[0][:16])
        print(f'{name:38}', found[name], flush=True)
    save_png(RESULTS / 'quality_ablation.png', grid(np.concatenate(rows), columns=16))
    return found | real(judging)


def real(judging):
    return {'as many real training images': {name: judge.real() for name, judge in judging.items()}}


def reference(seeds, epochs=(1, 5, 10)):
    found, judging = {}, judges()
    for epoch in epochs:
        for name in 'dcgan', 'fast':
            flags = ['--recipe', name]
            images = [samples_of(folder_of(name, seed), flags, seed, steps_of(epoch, flags)) for seed in range(seeds)]
            found[f'{name}, {epoch} epochs'] = judged(judging, images)
            save_png(RESULTS / f'quality_{name}_{epoch}.png', grid(images[0][:64], columns=16))
    if not importlib.util.find_spec('torch'):
        print('PyTorch is not installed: nothing to compare with')
    else:
        by_seed = [pytorch(seed, epochs) for seed in range(seeds)]
        for i, epoch in enumerate(epochs):
            found[f'PyTorch, {epoch} epochs'] = judged(judging, [images[i] for images in by_seed])
    for name, distances in found.items():
        print(f'{name:24}', distances)
    return found | real(judging)


def pytorch(seed, epochs):
    """Samples after each of those epochs of dcgan's networks, trained by PyTorch from the same weights."""
    from torch_gan import TorchGAN, to_tinygan
    recipe, images, drawn = RECIPES['dcgan'], data.ImageSet(data.mnist('train')[0], seed), []
    gan = GAN.from_recipe(recipe, seed)
    torch_gan = TorchGAN(gan.G, gan.D, recipe.lr, (recipe.beta1, recipe.beta2), tuned=True)
    for step in range(1, steps_of(max(epochs), []) + 1):
        x = data.normalise(images.batch(step - 1, recipe.batch_size), np)
        torch_gan.step(x, noise(seed, step, recipe.batch_size, recipe.z_dim))
        if step in [steps_of(epoch, []) for epoch in epochs]:
            to_tinygan(torch_gan.G, gan.G)
            drawn.append(data.to_uint8(generate(gan.G, sample_noise(0, SAMPLES, recipe.z_dim))))
    return drawn


if __name__ == '__main__':
    experiment = {'ablation': ablation, 'reference': reference}[sys.argv[1]]
    lanes.start_workers()
    found = experiment(int(sys.argv[2]) if len(sys.argv) > 2 else 3)
    (RESULTS / f'quality_{sys.argv[1]}.json').write_text(json.dumps(found, indent=1, default=float) + '\n')
