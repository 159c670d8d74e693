"""A training step on the CPU: our engine and our plain core beside PyTorch, same networks, weights and minibatches, in turn.

    python benchmarks/cpu.py [--recipe dcgan] [--rounds 7] [--out FILE.json]

needs torch (pip install torch==2.13.0) and, for torch.compile, a C++ compiler. All start from the same weights, and their first
losses must agree. Each round runs a few steps of everybody, in an order of its own; the table shows medians over the rounds, and
ratios taken round by round. The floor is the time of the step's multiplications, as convolution is defined, at this machine's
own sgemm rate, measured in the same rounds. Peak memory is of a process of its own that does nothing but train; compiled
variants are left out.
"""
import argparse
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from provenance import CPU, provenance, version
from tinygan import layers
from tinygan.engines import Plain
from tinygan.engines.divided import Divided
from tinygan.engines.lanes import Lanes, divide
from tinygan.engines.threads import core_count
from tinygan.gan import draw_z
from tinygan.recipes import RECIPES, make_gan

STEPS = 10                          # of each contender in a round
TORCH = 'tutorial', 'tuned', 'compiled', 'bfloat16', 'compiled, bfloat16'           # of torch_gan.VARIANTS
NAMES = 'tinygan', 'tinygan, plain', *(f'torch, {variant}' for variant in TORCH)


def contender(name, recipe, batches):
    """A function that takes a training step on minibatch `number` and returns the losses."""
    gan = make_gan(recipe)
    if name.startswith('tinygan'):
        engine = Plain(gan, batches) if name.endswith('plain') else in_lanes(gan, batches, recipe)
        return lambda number: [float(value) for key, value in engine.step(number).items() if 'loss' in key]
    from torch_gan import VARIANTS, TorchGAN
    torch_gan = TorchGAN(gan, **VARIANTS[name.removeprefix('torch, ')])
    return lambda number: torch_gan.step(*batches(number))


def in_lanes(gan, batches, recipe):
    return Divided(gan, batches, Lanes(divide(recipe.batch_size, core_count())))


def minibatches(recipe):
    """The same STEPS minibatches again and again: x, z and the number."""
    def minibatch(number):
        x = np.random.default_rng(number).uniform(-1, 1, (recipe.batch_size, *recipe.shape)).astype(np.float32)
        return x, draw_z(0, number, recipe.batch_size, recipe.z_dim)
    made = [minibatch(number) for number in range(STEPS)]
    return lambda number: (*made[number % STEPS], number)


def gflop(recipe):
    """10^9 multiplications and additions in the products of a step."""
    gan = make_gan(recipe)
    x, z, _ = minibatches(recipe)(0)
    total = 0
    # D's products: forward and both gradients on real and fake, forward and input gradient for G; G's: all three once
    for network, passes in ((gan.D, 8), (gan.G, 3)):
        h = gan.G(z) if network is gan.D else z
        for layer in network.layers:
            before, h = h, layer(h)
            if isinstance(layer, layers.Conv2d):
                total += passes * 2 * h.size * layer.w[..., 0].size
            elif isinstance(layer, layers.ConvTranspose2d):
                total += passes * 2 * before.size * layer.w[..., 0].size
            elif isinstance(layer, layers.Linear):
                total += passes * 2 * len(h) * layer.w.size
    return total / 1e9


def sgemm():
    """A product large enough to show the machine's rate, on all cores, in seconds per GFLOP."""
    a = np.ones((2048, 2048), np.float32)
    start = time.perf_counter()
    a @ a
    return (time.perf_counter() - start) / (2 * 2048 ** 3 / 1e9)


def measure(recipe, rounds):
    """{name: [seconds a step, one a round]}, and sgemm's seconds per GFLOP the same way."""
    batches = minibatches(recipe)
    parties = {name: contender(name, recipe, batches) for name in NAMES}
    times = {name: [] for name in [*parties, 'sgemm']}
    first = {name: step(0) for name, step in parties.items()}
    for name, losses in first.items():
        np.testing.assert_allclose(losses, first['tinygan'], rtol=3e-3 if 'bfloat16' in name else 1e-4, err_msg=name)
    order = np.random.default_rng(0)
    for _ in range(rounds):
        for name in order.permutation(list(parties)):
            start = time.perf_counter()
            for number in range(STEPS):
                parties[name](number)
            times[name].append((time.perf_counter() - start) / STEPS)
        times['sgemm'].append(min(sgemm() for _ in range(3)))
        time.sleep(0.1)             # BLAS's threads look for more work for a while
    return {name: np.array(seconds) for name, seconds in times.items()}


def time_per_layer(recipe, steps=5):
    """Milliseconds a step spends in each layer's forward and backward, all its calls together, in the first lane."""
    rows, engine = {}, in_lanes(make_gan(recipe), minibatches(recipe), recipe)
    engine.step(0)
    for name in 'G', 'D':
        faster, core = (getattr(gan, name).layers for gan in (engine.gan, engine.original))
        for i, (layer, original) in enumerate(zip(faster, core)):
            for method in 'forward', 'backward':
                timed = _timed(getattr(layer, method), rows, f'{name} {i} {type(original).__name__}', method, steps)
                setattr(layer, method, timed)
    for number in range(steps):
        engine.step(number)
    engine.close()
    return rows


def _timed(function, rows, name, method, steps):
    row = rows.setdefault(name, {'forward': 0.0, 'backward': 0.0})

    def run(x, **options):
        start = time.perf_counter()
        y = function(x, **options)
        row[method] += (time.perf_counter() - start) * 1e3 / steps
        return y
    return run


def peak_memory(recipe_name, name):
    """Peak MiB of a process that imports what it needs and makes three steps, with its other lanes: looked up every few
    milliseconds; of a page that n processes share, an n-th counts in each."""
    code = (f'import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n'
            f'import cpu; cpu.train_alone({recipe_name!r}, {name!r})')
    process, peak = subprocess.Popen([sys.executable, '-c', code]), 0
    while process.poll() is None:
        peak = max(peak, sum(resident(pid) for pid in [process.pid, *children(process.pid)]))
        time.sleep(0.005)
    if process.returncode:
        raise SystemExit(f'{name} alone failed')
    return peak / 1024


def train_alone(recipe_name, name):
    recipe = RECIPES[recipe_name]
    step = contender(name, recipe, minibatches(recipe))
    for number in range(3):
        step(number)


def children(pid):
    try:
        return Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
    except OSError:
        return []


def resident(pid):
    try:
        return int(Path(f'/proc/{pid}/smaps_rollup').read_text().partition('\nPss:')[2].split()[0])
    except (OSError, IndexError):                 # it has just ended
        return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--recipe', default='dcgan', choices=['dcgan', 'dcgan64', 'tutorial64'])
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--out', help='write the figures to this file too')
    options = parser.parse_args()
    if importlib.util.find_spec('torch') is None:
        parser.error('PyTorch is not installed: pip install torch==2.13.0')
    recipe = RECIPES[options.recipe]
    measured = provenance((*CPU, 'benchmarks/cpu.py', 'benchmarks/torch_gan.py'), torch=version('torch'))
    peaks = {name: peak_memory(options.recipe, name) for name in NAMES if 'compiled' not in name}      # nobody shares pages yet
    work, times = gflop(recipe), measure(recipe, options.rounds)
    floor = work * times.pop('sgemm')
    result = {'provenance': measured, 'recipe': options.recipe, 'batch': recipe.batch_size, 'rounds': options.rounds,
              'gflop a step': round(work, 2), 'sgemm gflop/s': round(work / np.median(floor), 1), 'contenders': {}}
    print(json.dumps(measured, indent=1))
    print(f"\nrecipe {options.recipe}, batch {recipe.batch_size}, {options.rounds} rounds of {STEPS} steps: {work:.1f} GFLOP a "
          f"step, sgemm {work / np.median(floor):.0f} GFLOP/s\n")
    print(f'{"":25} {"ms a step":>10} {"min":>7} {"max":>7} {"of sgemm":>9} {"ours / it":>10} {"peak MiB":>9}')
    for name, seconds in times.items():
        row = result['contenders'][name] = {
            'ms a step': round(np.median(seconds) * 1e3, 1), 'min': round(seconds.min() * 1e3, 1),
            'max': round(seconds.max() * 1e3, 1), 'share of sgemm': round(np.median(floor / seconds), 2),
            'ours / it': round(np.median(times['tinygan'] / seconds), 2),
            'peak MiB': peaks.get(name) and round(peaks[name])}
        print(f"{name:25} {row['ms a step']:10.1f} {row['min']:7.1f} {row['max']:7.1f} {row['share of sgemm']:9.0%} "
              f"{row['ours / it']:10.2f} {row['peak MiB'] or '':>9}")
    result['ms per layer'] = {name: {method: round(ms, 1) for method, ms in row.items()}
                              for name, row in time_per_layer(recipe).items()}
    print(f'\n{"tinygan, ms a step in":28} {"forward":>8} {"backward":>9}')
    for name, row in result['ms per layer'].items():
        print(f"{name:28} {row['forward']:8.1f} {row['backward']:9.1f}")
    if options.out:
        Path(options.out).write_text(json.dumps(result, indent=1) + '\n')


if __name__ == '__main__':
    main()
