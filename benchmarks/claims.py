"""What five introductions to GANs claim without evidence, measured on MNIST with recipe dcgan.

    python benchmarks/claims.py gradients     how much gradient reaches G in the first steps: (b), (c)
    python benchmarks/claims.py quality       Frechet distance after an epoch, three seeds: (a), (d), (e)
    python benchmarks/claims.py speed         how long a step takes, by one thread: nothing else should run
    python benchmarks/claims.py time          Frechet distance after equal time, three seeds: (f), (g), (h)

(a) least squares make better images than cross-entropy
(b) the minimax loss starves G early, where the non-saturating one does not
(c) LeakyReLU in D lets more gradient reach G than ReLU
(d) BatchNorm is needed
(e) Adam's beta2 should be 0.9, or 0.999
(f) a gradient penalty replaces BatchNorm in D
(g) WGAN-GP makes better images than the GANs before it
(h) a GAN that is told the digits makes better ones

Each writes benchmarks/results/claims_*.json; quality and time leave their runs in runs/claims, and finished ones are not run
again. Equal time is that of an epoch of the first of them: time asks claims_speed.json how many steps that is.
"""
import argparse
import json
import sys
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from provenance import CORE, CPU, provenance  # noqa: E402
from runs import SAMPLES, commit_of, mean_and_std, real_digits, samples_of  # noqa: E402
from tinygan import data, losses  # noqa: E402
from tinygan.data.minibatches import Minibatches
from tinygan.engines.divided import Divided
from tinygan.engines.lanes import Lanes
from tinygan.judge.frozen import shipped
from tinygan.run.pictures import grid, save_png
from tinygan.layers import BatchNorm2d, LeakyReLU, ReLU
from tinygan.recipes import RECIPES, make_gan, networks
from tinygan.network import Sequential

RESULTS = Path(__file__).parent / 'results'
SEEDS, STEPS = (0, 1, 2), 468


def changed(make, change):
    """The network that make builds, with every layer replaced by change(layer), or left out for None."""
    return lambda *args, **new: Sequential(*filter(None, map(change, make(*args, **new).layers)))


def without_batchnorm(layer):
    return None if isinstance(layer, BatchNorm2d) else layer


def relu_for_leaky(layer):
    return ReLU() if isinstance(layer, LeakyReLU) else layer


dcgan = RECIPES['dcgan']
RECIPES['no_batchnorm'] = dcgan._replace(generator=changed(dcgan.generator, without_batchnorm),
                                         discriminator=changed(dcgan.discriminator, without_batchnorm))
RECIPES['relu_in_D'] = dcgan._replace(discriminator=changed(dcgan.discriminator, relu_for_leaky))

VARIANTS = {        # what differs from `python train_mnist.py --recipe dcgan --max-steps 468`
    'cross-entropy': [],
    'least squares 0, 1, 1': ['--loss', 'lsgan'],
    'least squares -1, 1, 0': ['--loss', 'lsgan_chi2'],
    'no BatchNorm': ['--recipe', 'no_batchnorm'],
    'beta2 0.9': ['--beta2', '0.9'],
}
RECIPES['batchnorm'] = dcgan._replace(discriminator=networks.dcgan_hidden_discriminator, z_dim=32, lr=4e-3, lr_d=8e-4, beta2=0.99,
                                      instance_noise=0.5, average=0.999, batch_size=64)
RECIPES['r1'] = RECIPES['batchnorm']._replace(discriminator=networks.critic, penalty='r1', penalty_weight=1, beta1=0,
                                              instance_noise=0)
RECIPES['r1_batchnorm'] = RECIPES['r1']._replace(discriminator=partial(networks.dcgan_hidden_discriminator, width=64), penalty=None)
TIMED = {           # the options of train_mnist.py
    'BatchNorm in D': ['--recipe', 'batchnorm'],
    'R1 instead': ['--recipe', 'r1'],
    'r1 with BatchNorm, without R1': ['--recipe', 'r1_batchnorm'],
    'r1 without R1': ['--recipe', 'r1', '--penalty-weight', '0'],
    'r1, hinge loss': ['--recipe', 'r1', '--loss', 'hinge'],
    'WGAN-GP (wgan_gp)': ['--recipe', 'wgan_gp'],
    'told the digits (conditional)': ['--recipe', 'conditional'],
    'VAE (vae)': ['--recipe', 'vae'],
}


def distances(variants, steps, picture):
    """Of runs with each variant's options and seed, after so many steps of the variant; a row of samples of each in a picture."""
    judge, rows, trained = shipped('judge 1'), [], {}
    result = {'trained': trained, 'judge': str(judge), 'samples': SAMPLES,
              'real train against real test': judge.distance(real_digits())}
    for name, flags in variants.items():
        found, folders = [], [Path('runs/claims', f'{name}-{seed}'.replace(' ', '_')) for seed in SEEDS]
        for seed, folder in zip(SEEDS, folders):
            images = samples_of(folder, flags, seed, steps[name])
            found.append(judge.distance(images))
            if seed == SEEDS[0]:
                rows.append(images[:16])
        result[name] = {'commit': commit_of(folders, trained), 'steps': steps[name]} | mean_and_std(found)
        print(f'{name:34} Frechet distance {result[name]["mean"]:6.1f} +- {result[name]["std"]:4.1f}  {found}', flush=True)
    save_png(RESULTS / picture, grid(np.concatenate(rows), columns=16))
    return result


def quality():
    variants = {name: ['--recipe', 'dcgan', *flags] for name, flags in VARIANTS.items()}
    return distances(variants, dict.fromkeys(VARIANTS, STEPS), 'claims_quality.png')


def time():
    seconds = json.loads((RESULTS / 'claims_speed.json').read_text())
    epoch = 60000 // RECIPES['batchnorm'].batch_size * seconds['BatchNorm in D']['median']
    return distances(TIMED, {name: round(epoch / seconds[name]['median']) for name in TIMED}, 'claims_time.png')


def speed(rounds=7, steps=20):
    """Seconds of a step of each variant, in turn."""
    import train_mnist
    from tinygan.run.settings import new_config, recipe_of
    train = data.mnist.load('train')
    measured, running, seconds = provenance((*CPU, 'benchmarks/claims.py')), {}, {name: [] for name in TIMED}
    for name, flags in TIMED.items():
        recipe = recipe_of(new_config(train_mnist.parse(flags, 'claims.py')))
        images = data.ImageSet(train[0], labels=train[1], class_names=map(str, range(10)))
        gan = make_gan(recipe)
        running[name] = Divided(gan, Minibatches(images, recipe), Lanes(1))
    for number in range(rounds):
        for name, engine in running.items():
            start = perf_counter()
            for step in range(number * steps, (number + 1) * steps):
                engine.step(step + 1)
            seconds[name].append((perf_counter() - start) / steps)
    return {'provenance': measured} | {
        name: {'each round': of_rounds, 'median': float(np.median(of_rounds[1:]))} for name, of_rounds in seconds.items()}


def gradient_norms(recipe, steps=100):
    """Norms of G's gradient over the first steps, under both of the GAN paper's losses for G, as recipe trains."""
    gan = make_gan(recipe)
    batches = Minibatches(data.ImageSet(data.mnist.load_images('train')), recipe)
    found = []
    for step in range(1, steps + 1):
        x, z, *_ = batches(step)
        gan.step(x, z)
        fake, norms = gan.G(z), []
        gan.D.freeze()
        for loss in losses.minimax(), losses.non_saturating():
            gan.G.zero_grad()
            gan.G.backward(gan.D.backward(loss.generator(gan.D(fake))[1]))
            norms.append(np.linalg.norm(gan.G.gradients))
        gan.D.unfreeze()
        found.append(norms)
    return np.array(found)


def gradients():
    result = {'provenance': provenance((*CORE, 'benchmarks/claims.py'))}
    for name, recipe in {'LeakyReLU in D': dcgan, 'ReLU in D': RECIPES['relu_in_D'],
                         'LeakyReLU in D, G trained by minimax': dcgan._replace(loss='minimax')}.items():
        norms = gradient_norms(recipe)
        row = result[name] = {f'steps {a + 1} to {b}': {'minimax': np.median(norms[a:b, 0]), 'non-saturating':
                                                        np.median(norms[a:b, 1])} for a, b in ((0, 10), (10, 50), (50, 100))}
        for when, median in row.items():
            print(f"{name:38} {when:16} |dG| minimax {median['minimax']:8.4f}  non-saturating {median['non-saturating']:8.4f}"
                  f"  ratio {median['minimax'] / median['non-saturating']:.3f}")
    return result


if __name__ == '__main__':
    experiments = {'gradients': gradients, 'quality': quality, 'speed': speed, 'time': time}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('experiment', choices=experiments)
    name = parser.parse_args().experiment
    found = experiments[name]()
    (RESULTS / f'claims_{name}.json').write_text(json.dumps(found, indent=1, default=float) + '\n')
