"""A training step on the GPU: ours beside PyTorch's, and an account of every kernel in ours.

    python benchmarks/gpu.py [--recipe dcgan] [--batch-size 128] [--precision tf32|bf16|fp32] [--quick]

needs a GPU and CuPy; PyTorch is measured where it is installed. Begin with --quick, which leaves out what
PyTorch has to compile. Every wait has a limit, and figures are saved as soon as there are any.

First it checks that what is measured is right, PASS or FAIL a line; a FAIL ends in exit code 1. Then all have
the GPU in turn, for a block of steps in each round, ours in every precision: the table shows medians over the
rounds, by the GPU's own clock, and ratios to ours in --precision, taken round by round. Waits and kernels are
those of that precision too. The floor is the step's multiplications at the rate of a large product, or its
bytes at that of a large copy, both measured here. What cannot be measured is reported with its reason. All
figures go to benchmarks/results/gpu.json.
"""
import argparse
import itertools
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from tinygan.arrays import to_numpy  # noqa: E402
from tinygan.engines.cuda.device import floats  # noqa: E402
from tinygan.data.minibatches import Minibatches  # noqa: E402
from tinygan.engines.cuda import CapturedGAN, NotCovered  # noqa: E402
from tinygan.errors import Parser, UserError, count, one_line_errors  # noqa: E402
from tinygan.recipes import RECIPES, make_gan  # noqa: E402
from tinygan.run.files import atomically  # noqa: E402
from tinygan.run.device import find_precision, select_device  # noqa: E402
from gpu_account import account, elapsed, numbers_of, play, repeat, turns_of  # noqa: E402
from gpu_report import LAYERS, ours, show_account, show_times, show_waits, theirs  # noqa: E402
from gpu_waits import setup_times, ten_epochs  # noqa: E402
from provenance import gpu_provenance  # noqa: E402
from torch_gpu import LEAD, dataset  # noqa: E402
from torch_process import Variants, attempt  # noqa: E402

STEPS = 200                         # of a block, in which one party has the GPU to itself
LAYER_STEPS = 20                    # the same for the plain layers, which are many times slower
WARM_UP = 60                        # an eager step, a capture and replays
CHECKED_STEPS = 100
# Our precisions, and how far off a gradient may be. A rounding error changes little until it moves a number across the
# kink of a LeakyReLU: NumPy's own convolutions, in another order or in TF32, change the gradients of the recipes by up
# to 3e-3 and 6e-2.
TOLERANCE = {'tf32': 2e-1, 'bf16': 4e-1, 'fp32': 1e-2}


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

    @property
    def precisions(self):
        """All that the GPU has, the one that was asked for first."""
        capable = find_precision(None, self.xp) != 'fp32'
        return sorted(TOLERANCE if capable else ['fp32'], key=lambda precision: precision != self.precision)

    def captured(self, precision=None):
        """A CapturedGAN that has made no step yet."""
        batches = Minibatches(self.images, self.recipe._replace(batch_size=self.N))
        return CapturedGAN(make_gan(self.recipe, 0, self.xp), batches, precision or self.precision)


# Is it right? -----------------------------------------------------------------------------------------------

def checks(setting):
    """(passed, what was found) of one check after another."""
    yield replays_equal_launches(setting)
    for precision in setting.precisions:
        errors, limit = errors_of_a_step(setting, precision), TOLERANCE[precision]
        found = ' and '.join(f'{error:.1e} ({name})' for name, error in errors.items())
        good = all(error < limit for error in errors.values())          # and no NaN, which max() may pass over
        yield good, f"gradients in {precision} are {found} off NumPy's, at most {limit:.0e}"


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
        layers.step(floats(captured.x)[setting.N:], floats(captured.z), number)
        for name in turns_of(layers, number).strip('P'):
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

def captured_blocks(setting, precision):
    """A function from steps to milliseconds a step, as the training loop makes them."""
    captured, numbers = setting.captured(precision), itertools.count(1)

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
    """{name: [milliseconds a step, one a round], or {'failed': why}}."""
    times = {name: block if isinstance(block, dict) else [] for name, block in blocks.items()}
    for _ in range(rounds):
        for name, block in blocks.items():
            if isinstance(times[name], list):
                ms = attempt(block, STEPS)
                times[name] = ms if isinstance(ms, dict) else [*times[name], ms]
    return times


def summary(times, unit):
    """Of one party's rounds: the median, its range, and how many times as long as the unit's, round by round."""
    if isinstance(times, dict):
        return times
    row = {'median': np.median(times), 'min': min(times), 'max': max(times),
           'times_ours': np.median(np.divide(times, unit))}
    return {name: round(float(value), 4) for name, value in row.items()}


def race(setting, others, rounds):
    """{name: summary} of ours in all precisions, of the plain layers, and of the others. Only ours in the precision
    asked for must not fail."""
    blocks = {ours(precision): attempt(captured_blocks, setting, precision) for precision in setting.precisions}
    times = measure({**blocks, LAYERS: attempt(layer_blocks, setting), **others}, rounds)
    unit = times[ours(setting.precision)]
    if isinstance(unit, dict):
        raise UserError(f"no step of ours: {unit['failed']}")
    return {name: summary(row, unit) for name, row in times.items()}


# The command ------------------------------------------------------------------------------------------------

def parse(arguments):
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('--recipe', default='dcgan', choices=RECIPES)
    add('--batch-size', type=count, metavar='N', help="images in a minibatch (the recipe's)")
    add('--precision', choices=TOLERANCE, help='what ratios, waits and kernels are of (tf32 where the GPU has it)')
    add('--quick', action='store_true', help='fewer rounds, and nothing that PyTorch would have to compile')
    add('--limit', type=count, default=220, metavar='SECONDS', help='for PyTorch to get ready (220)')
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


def run(setting, options, about, save):
    """Measure everything, and save what has been measured after each part. The figures in the end."""
    rounds = 3 if options.quick else 7
    with Variants(options.quick, options.limit, setting.name, setting.N) as variants:
        checks = 'left out' if not options.check else 'passed' if print_checks(setting) else 'failed'
        print('waiting for PyTorch, which may search for its fastest kernels' if variants.installed else
              'PyTorch is not installed: ours alone', flush=True)
        others = {theirs(name): block for name, block in variants.blocks().items()}
        table = race(setting, others, rounds)
    result = {'provenance': about, 'recipe': setting.name, 'batch_size': setting.N, 'precision': setting.precision,
              'data': setting.images.name, 'checks': checks, 'runs': rounds, 'steps_per_run': STEPS,
              'ms_per_step': {precision: table[ours(precision)] for precision in setting.precisions},
              'eager_layers_ms': table[LAYERS],
              'pytorch_ms': {name: table[theirs(name)] for name in variants.commands}}
    save(result)
    show_times(result)
    result['ten_epochs_s'] = {}
    for precision in dict.fromkeys([setting.precision, *(set(setting.precisions) - {'fp32'})]):
        result['ten_epochs_s'][precision] = attempt(ten_epochs, replace(setting, precision=precision))
        save(result)
        show_waits(f'ten epochs in {precision}, s', result['ten_epochs_s'][precision])
    result['setup_s'] = attempt(setup_times, setting)
    save(result)
    show_waits('first step, s', result['setup_s'])
    totals = attempt(account, setting, table[ours(setting.precision)]['median'])
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
            file.write(json.dumps(result, indent=1) + '\n')
    setting = find_setting(options)
    sources = 'benchmarks/gpu*.py', 'benchmarks/torch_*.py'
    about = gpu_provenance(sources, setting.xp, ['python', 'benchmarks/gpu.py', *arguments])
    result = run(setting, options, about, save)
    print(f'\nall figures: {options.out}')
    return 1 if result['checks'] == 'failed' else 0


if __name__ == '__main__':
    with one_line_errors('gpu.py'):
        sys.exit(main())
