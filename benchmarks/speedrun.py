"""From nothing to good digits: Fréchet distance against seconds, our default recipe beside PyTorch.

    python benchmarks/speedrun.py run [--seeds 0 1 2 3 4] [--only NAME ...] [--device gpu]
    python benchmarks/speedrun.py draw [--device gpu]

needs torch, such as 2.13.0. `run` adds to what was measured before, by the same sources. Contenders take turns, seed by seed,
each in a process of its own, which has the machine to itself. The clock starts when the process does, so that imports and the
reading of MNIST count. It stands still only while, at the steps in MARKS, the network that draws samples is kept; 10,000 samples
are judged later. Ours is train_mnist.py with all that a run writes. PyTorch writes nothing; it has the same minibatches, noise and
first weights, and is run in the fastest of its variants (torch_gan.py), timed beforehand. What torch.compile takes does not count.

On a GPU ours takes its products in TF32, as it comes. PyTorch is run in the variant that gpu.py has found fastest, and draws its
own minibatches and noise. Its clock starts when it has made its first thirty steps and captured one, and ours with the second step.

A contender has reached a distance at the first mark where the mean over its seeds is as small. Both judges measure; the second
one has chosen nothing. Results and picture are benchmarks/results/speedrun.json and .png; of a GPU, speedrun_gpu.json alone.
"""
import argparse
import itertools
import json
import multiprocessing
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from cpu import TORCH, contender, minibatches
from provenance import RUN, changed, gpu_provenance, provenance, version
from runs import SAMPLES, judges, train_mnist
from tinygan.__main__ import sample_noise
from tinygan.data.minibatches import Minibatches
from tinygan.engines.threads import one_thread
from tinygan.recipes import RECIPES, make_gan
from tinygan.run.device import select_device
from tinygan.run.files import atomically
from tinygan.run.generator import draw

FOLDER = Path(__file__).parent / 'results'
RESULTS = {'cpu': FOLDER / 'speedrun.json', 'gpu': FOLDER / 'speedrun_gpu.json'}
TARGETS = 40, 20, 5, 2, 1
OURS, TUTORIAL = 'tinygan', "PyTorch, its tutorial's settings"
STEPS = 150, 200, 400, 600, 800, 900, 950, 1000, 1200, 2000, 2500, 3000, 5000, 7000, 8000, 9370
MARKS = {                                         # the recipe, and after which of its steps samples are judged
    OURS: ('fast', STEPS),
    'PyTorch, our settings': ('fast', STEPS),
    TUTORIAL: ('dcgan', (117, 234, 351, 468, 702, 936, 1404, 1872, 2340, 3276, 4680)),
}
CONTENDERS = {'cpu': list(MARKS), 'gpu': [OURS, TUTORIAL]}


class Clock:
    """Seconds since `start`, as time.time has it, but for those spent in `keep`, which fills a folder."""

    def __init__(self, start, folder):
        self.start, self.folder = start, folder

    def seconds(self):
        return time.time() - self.start

    def restart(self):
        """From 0, now that the GPU is ready. Print how long that took."""
        say(ready_after=self.seconds())
        self.start = time.time()

    def keep(self, step, sampler):
        """Write what draws samples after that step to a file, and print when it was."""
        now = self.seconds()
        np.savez(f'{self.folder}/{step}.npz', parameters=sampler.parameters, statistics=sampler.statistics)
        say(step=step, seconds=now)
        self.start += self.seconds() - now


@one_thread()
def judged(row, name, folder):
    """What the clock has printed, with what both judges find in samples if it has kept what draws them."""
    if 'seconds' not in row:
        return row
    recipe = RECIPES[name]
    sampler = make_gan(recipe).sampler
    with np.load(f'{folder}/{row["step"]}.npz') as kept:
        sampler.parameters[:], sampler.statistics[:] = kept['parameters'], kept['statistics']
    images = draw(sampler, sample_noise(0, SAMPLES, recipe.z_dim), recipe.black)
    return row | {name: judge.distance(images) for name, judge in judges().items()}


def say(**found):
    print(json.dumps(found), flush=True)


class Watched:
    """An engine whose sampler is kept at its marks. On a GPU the clock starts with its second step."""

    def __init__(self, engine, clock, marks, device):
        self.engine, self.clock, self.marks, self.device = engine, clock, marks, device

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def step(self, number):
        metrics = self.engine.step(number)
        if number in self.marks:
            self.clock.keep(number, self.snapshot()())
        if self.device == 'gpu' and number == 1:
            self.snapshot()()                     # when it has been made
            self.clock.restart()
        return metrics


def ours(clock, name, marks, seed, device):
    xp, _ = select_device(device)
    with TemporaryDirectory() as folder:
        options = train_mnist.parse(['--recipe', name, '--seed', str(seed), '--data', 'mnist', '--device', device,
                                     '--max-steps', str(marks[-1]), '--out', folder + '/run'], 'speedrun.py')
        gan, images, judge, run = train_mnist.begin(options.out, options, xp)
        batches = Minibatches(images, RECIPES[name], seed, xp)
        engine = Watched(train_mnist.start_engine(gan, batches, run, xp), clock, marks, device)
        health = train_mnist.Health(gan, batches, engine.state, 0, run.check_finite)
        train_mnist.train(engine, judge, health, run, marks[-1])
        say(step=marks[-1], whole_run=clock.seconds())


def pytorch(clock, name, marks, seed, variant):
    from torch_gan import VARIANTS, TorchGAN
    from tinygan import data
    recipe = RECIPES[name]
    images = data.load('mnist', seed=seed)
    batches, gan = Minibatches(images, recipe, seed), make_gan(recipe, seed)
    party = TorchGAN(gan, **VARIANTS[variant])
    for step in range(1, marks[-1] + 1):
        before = clock.seconds()
        party.step(*batches(step))
        if step == 1 and 'compiled' in variant:
            clock.start += clock.seconds() - before
        if step in marks:
            clock.keep(step, party.copy_to_sampler())


def pytorch_on_gpu(clock, name, marks, seed, variant):
    import torch_gpu
    from torch_gan import to_tinygan
    recipe = RECIPES[name]
    gan = make_gan(recipe, seed)
    training = torch_gpu.load(*variant.split(), recipe, recipe.batch_size, 'cuda', seed)
    if 'compile' in variant:
        training.compile()
    training.capture()
    clock.restart()
    while training.number < marks[-1]:
        training.step()
        if training.number in marks:
            clock.keep(training.number, to_tinygan(training.G, gan.G))


def time_of_step(name, variant, steps=20, rounds=3):
    """Milliseconds of a step in a variant of PyTorch: the least of a few rounds."""
    recipe, times = RECIPES[name], []
    step = contender(f'torch, {variant}', recipe, minibatches(recipe))
    for _ in range(rounds + 1):
        start = time.perf_counter()
        for number in range(steps):
            step(number)
        times.append((time.perf_counter() - start) / steps * 1e3)
    say(ms=min(times[1:]))


def child(*arguments):
    """What a process that does one thing, and has the machine to itself, says."""
    found = subprocess.run([sys.executable, __file__, 'child', *map(str, arguments), str(time.time())], stdout=subprocess.PIPE,
                           text=True, check=True).stdout
    return [json.loads(line) for line in found.splitlines() if line.startswith('{')]


def measured_on(device):
    sources = 'tinygan/judge/*.py', *(f'benchmarks/{name}.py' for name in ('speedrun', 'runs', 'cpu', 'torch_gan'))
    if device == 'cpu':
        return provenance((*RUN, *sources), torch=version('torch'))
    return gpu_provenance((*sources, 'benchmarks/torch_gpu.py'), select_device(device)[0])


def fastest(device, name, result):
    """The variant of PyTorch that takes the least time for a step. On a CPU each recipe's are timed now, if they have not been."""
    recipe, _ = MARKS[name]
    if device == 'gpu':
        rows = json.loads((FOLDER / 'gpu.json').read_text())['pytorch_ms']
        return min((row['median'], variant) for variant, row in rows.items() if 'median' in row)[1]
    times = result['ms a step'].get(recipe) or {variant: child('time', recipe, variant)[0]['ms'] for variant in TORCH}
    result['ms a step'][recipe] = times
    print(name, times, flush=True)
    return min(times, key=times.get)


def run(device, seeds, names):
    measured, path = measured_on(device), RESULTS[device]
    result = json.loads(path.read_text()) if path.exists() else {
        'provenance': measured, 'samples': SAMPLES, 'ms a step': {}, 'runs': {}}
    before = result['provenance']
    if other := changed(before) + [name for name in ('device', 'versions') if before[name] != measured[name]]:
        sys.exit(f'{path} is of commit {before["commit"]}, and {", ".join(other)} changed since: move it away')
    result['provenance'] = measured
    variants = {name: 'ours' if name == OURS else fastest(device, name, result) for name in names}
    result['variants'] = result.get('variants', {}) | variants
    if device == 'gpu' and train_mnist.main(['--recipe', MARKS[OURS][0], '--device', 'gpu', '--data', 'mnist', '--dry-run']):
        sys.exit(1)                               # else its kernels are compiled now
    for seed, name in itertools.product(seeds, names):
        rows = result['runs'].setdefault(name, {})[str(seed)] = run_and_judge(device, name, seed, variants[name])
        print(name, seed, *rows, sep='\n', flush=True)
        with atomically(path, 'w') as file:
            file.write(json.dumps(result, indent=1) + '\n')


def run_and_judge(device, name, seed, variant):
    recipe, _ = MARKS[name]
    with TemporaryDirectory() as folder:
        rows = child('run', device, folder, name, seed, variant)
        with ProcessPoolExecutor(mp_context=multiprocessing.get_context('spawn')) as pool:
            return list(pool.map(judged, rows, itertools.repeat(recipe), itertools.repeat(folder)))


def means(rows_of_seeds, judge):
    """Steps, and the mean over the seeds of the seconds and of the distances at each: arrays; and the distances (seeds, steps)."""
    rows = [[row for row in rows if judge in row] for rows in rows_of_seeds.values()]
    seconds, distances = (np.array([[row[key] for row in of_seed] for of_seed in rows]) for key in ('seconds', judge))
    return [row['step'] for row in rows[0]], seconds.mean(axis=0), distances.mean(axis=0), distances


def reached(rows_of_seeds, judge):
    """{target: seconds to the first mark where the mean distance is as small, or None}."""
    _, seconds, mean, _ = means(rows_of_seeds, judge)
    return {target: next((float(s) for s, distance in zip(seconds, mean) if distance <= target), None) for target in TARGETS}


def table(runs, decimals=0):
    """What each contender has reached, by the first judge, for the README."""
    first, *_ = judges()
    rows = [['a distance of at most', *map(str, TARGETS)], ['---'] * (1 + len(TARGETS))]
    for name, rows_of_seeds in runs.items():
        times = reached(rows_of_seeds, first).values()
        rows.append([name, *('' if seconds is None else f'{seconds:.{decimals}f} s' for seconds in times)])
    return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


def show(runs, decimals):
    first, second = judges()
    for name, rows in runs.items():
        print(name)
        for step, s, *of_judges in zip(*means(rows, first)[:3], means(rows, second)[2]):
            print(f'   {step:6} steps {s:7.2f} s', *(f'{distance:8.2f}' for distance in of_judges))
    print(table(runs, decimals))


def draw_curves(result):
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot as plt
    figure, axes = plt.subplots(figsize=(8, 4.5), layout='constrained')
    first, _ = judges()
    for (name, rows), colour in zip(result['runs'].items(), ('tab:red', 'tab:blue', 'tab:gray')):
        _, seconds, mean, distances = means(rows, first)
        axes.plot(seconds, mean, 'o-', color=colour, ms=4, label=f'{name} ({len(distances)} seed{"s" * (len(distances) > 1)})')
        axes.fill_between(seconds, distances.min(axis=0), distances.max(axis=0), color=colour, alpha=0.2, linewidth=0)
    axes.set(xscale='log', yscale='log', xlabel='seconds on two CPU cores', ylabel='Fréchet distance of 10,000 samples',
             xticks=[5, 10, 20, 50, 100, 200, 500], yticks=[0.5, 1, 2, 5, 15, 50, 150], ylim=(0.4, 300))
    for axis in axes.xaxis, axes.yaxis:
        axis.set(major_formatter='{x:g}', minor_formatter='')
    axes.grid(color='0.9')
    axes.legend(frameon=False)
    figure.savefig(RESULTS['cpu'].with_suffix('.png'), dpi=110)


def main():
    if sys.argv[1:2] == ['child']:
        what, *arguments, start = sys.argv[2:]
        if what == 'time':
            return time_of_step(*arguments)
        device, folder, name, seed, variant = arguments
        party = ours if name == OURS else pytorch_on_gpu if device == 'gpu' else pytorch
        return party(Clock(float(start), folder), *MARKS[name], int(seed), device if name == OURS else variant)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('command', choices=['run', 'draw'])
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2, 3, 4])
    parser.add_argument('--only', nargs='+', choices=MARKS)
    parser.add_argument('--device', choices=RESULTS, default='cpu')
    options = parser.parse_args()
    names = options.only or CONTENDERS[options.device]
    if not {*names} <= {*CONTENDERS[options.device]}:
        parser.error('on a GPU are only ' + ' and '.join(CONTENDERS['gpu']))
    if options.command == 'run':
        run(options.device, options.seeds, names)
    result = json.loads(RESULTS[options.device].read_text())
    show(result['runs'], 2 if options.device == 'gpu' else 0)
    if options.device == 'cpu':
        draw_curves(result)


if __name__ == '__main__':
    main()
