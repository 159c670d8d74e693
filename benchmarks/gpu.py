"""A training step on the GPU: ours beside PyTorch's, and an account of every kernel in ours.

    python benchmarks/gpu.py [--recipe dcgan] [--batch-size 128] [--precision tf32|fp32] [--quick]

needs a GPU and CuPy; PyTorch is measured where it is installed. Begin with --quick, which leaves out what
PyTorch has to compile. Every wait has a limit, and figures are saved as soon as there are any.

First it checks that what is measured is right, PASS or FAIL a line; a FAIL ends in exit code 1. Then all have
the GPU in turn, for a block of steps in each round: the table shows medians over the rounds, by the GPU's own
clock, and ratios taken round by round. The floor is the step's multiplications at the rate of a large
product, or its bytes at that of a large copy, both measured here. What cannot be measured is reported with
its reason. All figures go to benchmarks/results/gpu.json.
"""
import argparse
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from tinygan.arrays import to_numpy  # noqa: E402
from tinygan.data.minibatches import Minibatches  # noqa: E402
from tinygan.engines.cuda import CapturedGAN, NotCovered  # noqa: E402
from tinygan.errors import Parser, UserError, count, one_line_errors  # noqa: E402
from tinygan.recipes import RECIPES, make_gan  # noqa: E402
from tinygan.run.checkpoint import atomically  # noqa: E402
from tinygan.run.device import find_precision, select_device  # noqa: E402
from gpu_account import account, elapsed, numbers_of, play, repeat, turns_of  # noqa: E402
from gpu_report import LAYERS, OURS, driver, show_account, show_times, show_waits, versions  # noqa: E402
from torch_gpu import LEAD, Failed, Variants, attempt, dataset  # noqa: E402

STEPS = 200                         # of a block, in which one party has the GPU to itself
LAYER_STEPS = 20                    # the same for the plain layers, which are many times slower
WARM_UP = 60                        # an eager step, a capture and replays
CHECKED_STEPS = 100
# Of a gradient. A rounding error changes little until it moves a number across the kink of a LeakyReLU: NumPy's own
# convolutions, in another order or in TF32, change the gradients of the recipes by up to 3e-3 and 6e-2.
TOLERANCE = {'fp32': 1e-2, 'tf32': 2e-1}
SETUP_SECONDS, EPOCHS_SECONDS = 30, 60


@dataclass
class Setting:
    """What is measured: a recipe by its name, on minibatches of N `images`, a dataset; xp is CuPy."""
    name: str
    images: object
    N: int
    precision: str
    xp: object

    @property
    def recipe(self):
        return RECIPES[self.name]

    def captured(self, precision=None):
        """A CapturedGAN that has made no step yet."""
        recipe, tf32 = self.recipe, (precision or self.precision) == 'tf32'
        gan = make_gan(recipe, 0, self.xp)
        return CapturedGAN(gan, Minibatches(self.images, recipe._replace(batch_size=self.N)), tf32)


# Is it right? -----------------------------------------------------------------------------------------------

def checks(setting):
    """(passed, what was found) of one check after another."""
    yield replays_equal_launches(setting)
    tf32 = find_precision(None, setting.xp) == 'tf32'
    for precision in ['fp32', 'tf32'] if tf32 else ['fp32']:
        limit = TOLERANCE[precision]
        for name, error in errors_of_a_step(setting, precision).items():
            what = f"{name}'s gradient in {precision} is {error:.1e} off NumPy's, at most {limit:.0e}"
            yield error < limit, what


def replays_equal_launches(setting):
    """A captured step does what its kernels do one by one."""
    replayed, launched = setting.captured(), setting.captured()
    for number in range(1, CHECKED_STEPS + 1):
        replayed.step(number)
        play(launched, number)
    one, other = replayed.state(), launched.state()
    differ = [name for name in one if not np.array_equal(one[name], other[name])]
    what = f'{CHECKED_STEPS} replayed steps and as many kernel by kernel end in the same bits'
    return not differ, what + (f', but for {", ".join(differ)}' if differ else '')


def errors_of_a_step(setting, precision):
    """{network: |its gradient - NumPy's| / |NumPy's|}, from the same weights, z and x. G's gradient comes through D as
    it was before its update: Adam's first step follows the gradient's sign, and rounding decides that of the smallest.
    """
    captured, layers, errors = setting.captured(precision), make_gan(setting.recipe), {}
    for gan in captured.gan, layers:
        gan.optim_G.lr = gan.optim_D.lr = 0.0
    for number in numbers_of(layers):
        captured.step(number)
        layers.step(to_numpy(captured.x)[setting.N:], to_numpy(captured.z), number)
        for name in turns_of(layers, number):
            ours, expected = (to_numpy(getattr(gan, name).gradients) for gan in (captured.gan, layers))
            errors[name] = float(np.linalg.norm(ours - expected) / np.linalg.norm(expected))
    return errors


def print_checks(setting):
    """Whether all were passed."""
    passed, found = True, checks(setting)
    while result := attempt(next, found, None):
        good, what = (False, result['failed']) if isinstance(result, dict) else result
        print('PASS' if good else 'FAIL', what, flush=True)
        passed = passed and good
    return passed


# How fast is it? --------------------------------------------------------------------------------------------

def captured_blocks(setting):
    """A function from steps to milliseconds a step, as the training loop makes them."""
    captured, numbers = setting.captured(), itertools.count(1)

    def step():
        captured.step(next(numbers))

    def block(steps):
        repeat(step, LEAD)
        return elapsed(setting.xp, captured.stream, lambda: repeat(step, steps)) / steps
    repeat(step, WARM_UP)
    return block


def layer_blocks(setting):
    """The same of GAN.step on CuPy's arrays, in float32, with x and z on the GPU; it makes LAYER_STEPS."""
    recipe, xp, N, rng = setting.recipe, setting.xp, setting.N, np.random.default_rng(0)
    gan, numbers = make_gan(recipe, 0, xp), itertools.count(1)
    x, z = (xp.asarray(rng.standard_normal((N, *shape), np.float32))
            for shape in (recipe.shape, (recipe.z_dim,)))

    def step():
        gan.step(x, z, next(numbers))

    def block(_):
        repeat(step, 2)
        return elapsed(xp, xp.cuda.get_current_stream(), lambda: repeat(step, LAYER_STEPS)) / LAYER_STEPS
    repeat(step, 5)
    return block


def measure(blocks, rounds):
    """{name: [milliseconds a step, one a round], or {'failed': why}}. Only ours must not fail."""
    times = {name: block if isinstance(block, dict) else [] for name, block in blocks.items()}
    for _ in range(rounds):
        for name, block in blocks.items():
            if isinstance(times[name], list):
                ms = block(STEPS) if name == OURS else attempt(block, STEPS)
                times[name] = ms if isinstance(ms, dict) else [*times[name], ms]
    return times


def summary(times, ours):
    """Of one party's rounds: the median, its range, and how many times as long as ours, round by round."""
    if isinstance(times, dict):
        return times
    row = {'median': np.median(times), 'min': min(times), 'max': max(times),
           'times_ours': np.median(np.divide(times, ours))}
    return {name: round(float(value), 4) for name, value in row.items()}


# How long does a user wait? ---------------------------------------------------------------------------------

FIRST_STEP = '''
import json, sys, time
laps = [time.perf_counter()]
import cupy, numpy as np
from tinygan import data
from tinygan.run.device import select_device
from tinygan.data.minibatches import Minibatches
from tinygan.engines.cuda import CapturedGAN
from tinygan.recipes import RECIPES, make_gan
laps.append(time.perf_counter())
select_device('gpu')
laps.append(time.perf_counter())
recipe = RECIPES[sys.argv[1]]._replace(batch_size=int(sys.argv[2]))
images = data.ImageSet(np.zeros((recipe.batch_size, *recipe.shape), np.uint8))
CapturedGAN(make_gan(recipe, 0, cupy), Minibatches(images, recipe), sys.argv[3] == 'tf32').step(1)
cupy.cuda.Device().synchronize()
laps.append(time.perf_counter())
seconds = [round(after - before, 2) for before, after in zip(laps, laps[1:])]
print(json.dumps(dict(zip(('import', 'device', 'kernels'), seconds))))
'''


def setup_times(setting):
    """Seconds of a new process until its first step is done, with and without compiled kernels in a cache."""
    command = [sys.executable, '-c', FIRST_STEP, setting.name, str(setting.N), setting.precision]
    times = {}
    with tempfile.TemporaryDirectory() as folder:
        for cache in 'empty cache', 'warm cache':
            done = subprocess.run(command, cwd=HERE.parent, env={**os.environ, 'CUPY_CACHE_DIR': folder},
                                  capture_output=True, text=True, timeout=SETUP_SECONDS)
            if done.returncode:
                raise Failed(done.stderr.strip().splitlines()[-1])
            times[cache] = json.loads(done.stdout)
    return times


def ten_epochs(setting, *more):
    """Seconds of train_mnist.py for ten epochs, with all that it writes: until the first step is done, from
    there to the last one, and for the pictures after it."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile('w+') as errors:
        command = [sys.executable, 'train_mnist.py', '--device', 'gpu', '--data', 'mnist', '--epochs', '10',
                   '--recipe', setting.name, '--batch-size', str(setting.N), '--precision', setting.precision,
                   '--out', str(Path(folder, 'run')), *more]
        start, laps = time.perf_counter(), []
        pipes = {'stdout': subprocess.PIPE, 'stderr': errors, 'text': True}
        with subprocess.Popen(command, cwd=HERE.parent, **pipes) as process:
            limit = threading.Timer(EPOCHS_SECONDS, process.kill)
            limit.start()
            for line in process.stdout:
                if found := re.match(r'step (\d+)/', line):
                    laps.append((time.perf_counter() - start, int(found[1])))
        limit.cancel()
        total = time.perf_counter() - start
        if process.returncode:
            errors.seek(0)
            raise Failed((errors.read().strip().splitlines() or [f'no end in {EPOCHS_SECONDS} s'])[-1])
    (first, _), (last, steps) = laps[0], laps[-1]
    return {'total': round(total, 2), 'start': round(first, 2), 'training': round(last - first, 2),
            'end': round(total - last, 2), 'steps': steps}


# The command ------------------------------------------------------------------------------------------------

def parse(arguments):
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('--recipe', default='dcgan', choices=RECIPES)
    add('--batch-size', type=count, metavar='N', help="images in a minibatch (the recipe's)")
    add('--precision', choices=['tf32', 'fp32'], help='of the products (tf32 where the GPU has it)')
    add('--quick', action='store_true', help='fewer rounds, and nothing that PyTorch would have to compile')
    add('--check', action=argparse.BooleanOptionalAction, default=True, help='is what is measured right?')
    add('--out', type=Path, default=HERE / 'results' / 'gpu.json', metavar='FILE', help='for all figures')
    return parser.parse_args(arguments)


def find_setting(options):
    """What to measure. UserError if there is no GPU that works, or what was asked for does not run on it."""
    try:
        xp, _ = select_device('gpu')
    except UserError as error:
        problem = str(error).removeprefix('--device gpu: ').removesuffix(', or use --device cpu')
        raise UserError(f'there is no GPU to measure: {problem}') from None
    precision, recipe = find_precision(options.precision, xp), RECIPES[options.recipe]
    images, N = dataset(recipe, download=True), options.batch_size or recipe.batch_size
    images.steps_per_epoch(N)                     # UserError if there are not so many images
    setting = Setting(options.recipe, images, N, precision, xp)
    try:
        setting.captured()
    except NotCovered as what:
        raise UserError(f'there are no kernels for {what}') from None
    return setting


def run(setting, options, save):
    """Measure everything, and save what has been measured after each part. The figures in the end."""
    rounds, xp = 3 if options.quick else 7, setting.xp
    with Variants(options.quick, setting.name, setting.N, setting.precision) as variants:
        checks = 'left out' if not options.check else 'passed' if print_checks(setting) else 'failed'
        print('waiting for PyTorch, which may search for its fastest kernels' if variants.installed else
              'PyTorch is not installed: ours alone', flush=True)
        others = variants.blocks()
        blocks = {OURS: captured_blocks(setting), LAYERS: attempt(layer_blocks, setting), **others}
        times = measure(blocks, rounds)
    table = {name: summary(row, times[OURS]) for name, row in times.items()}
    result = {'device': xp.cuda.runtime.getDeviceProperties(0)['name'].decode(), 'driver': driver(),
              'versions': versions(xp), 'date': time.strftime('%Y-%m-%d'), 'recipe': setting.name,
              'batch_size': setting.N, 'precision': setting.precision, 'data': setting.images.name,
              'checks': checks, 'runs': rounds, 'steps_per_run': STEPS,
              'ms_per_step': table[OURS], 'eager_layers_ms': table[LAYERS],
              'pytorch_ms': {name: table[name] for name in others}}
    save(result)
    show_times(result)
    for key, name, wait in (('ten_epochs_s', 'ten epochs, s', ten_epochs), ('setup_s', 'first step, s', setup_times)):
        result[key] = attempt(wait, setting)
        save(result)
        show_waits(name, result[key])
    totals = attempt(account, setting, table[OURS]['median'])
    result['totals'], result['account'] = (totals, []) if isinstance(totals, dict) else totals
    save(result)
    show_account(result['totals'], result['account'])
    return result


def main(arguments=None):
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse(arguments)

    def save(result):
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with atomically(options.out, 'w') as file:
            command = shlex.join(['python', 'benchmarks/gpu.py', *arguments])
            file.write(json.dumps({**result, 'command': command}, indent=1) + '\n')
    result = run(find_setting(options), options, save)
    print(f'\nall figures: {options.out}')
    return 1 if result['checks'] == 'failed' else 0


if __name__ == '__main__':
    with one_line_errors('gpu.py'):
        sys.exit(main())
