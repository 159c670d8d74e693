"""Train a GAN on MNIST: python train_mnist.py [--device auto|cpu|gpu] [--recipe NAME] ... (--help lists all).

The training loop is `train`, Algorithm 1 of Goodfellow et al. 2014; the rest is options, data and the run folder.
"""
import argparse
import itertools
import platform
import shlex
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np

import tinygan
from tinygan import data, engines
from tinygan.arrays import random_stream
from tinygan.data.minibatches import Minibatches
from tinygan.errors import Parser, UserError, count, number, one_line_errors, path, seed
from tinygan.judge.frozen import check_shape, shipped
from tinygan.losses import LOSSES
from tinygan.recipes import RECIPES, find_recipe, make_gan
from tinygan.run.checkpoint import Run, check_unused
from tinygan.run.device import PRECISIONS, find_precision, select_device
from tinygan.run.generator import draw
from tinygan.run.pictures import grid
from tinygan.run.progress import Progress, catch_signals

EVALUATED = 2000                                  # samples: fewer than `tinygan evaluate` draws, and so a larger distance
SETTINGS = 'batch_size', 'lr', 'lr_d', 'beta1', 'beta2', 'average', 'instance_noise', 'z_dim', 'loss', 'epochs'


def train(engine, judge, run, last, options):
    """Steps run.step + 1 to last, or until a signal arrives; returns that signal's number, else None. `judge`
    measures samples, if --evaluate-every asks for it."""
    config, per_epoch = run.config, run.config['steps_per_epoch']
    np.seterr(all='ignore')                       # run.flush finds what is not a number, and says so once
    signals = catch_signals()
    with closing(engine), closing(Progress(run.step, last, per_epoch, signals)) as progress:
        for step in range(run.step + 1, last + 1):
            run.log(step, engine.step(step))      # GAN.step: D learns, then G
            if measured := is_due(step, options.evaluate_every):
                samples = samples_of(engine.sampler, config, 'evaluation', EVALUATED)
                run.record_distance(judge.distance(samples), engine.state())

            stop = step == last or bool(signals)  # asked once: a signal may come at any moment
            if stop or is_due(step, engine.log_every) or measured or step == progress.first:
                progress.show(step, run.flush())
            if name := due_sample(step, per_epoch, options.sample_every):
                run.save_sample(name, grid(samples_of(engine.sampler, config, 'preview', 64)))
            if stop or is_due(step, per_epoch) or is_due(step, options.checkpoint_every):
                run.save(step, engine.state())
            if stop:
                break
    run.save_pictures()
    return signals[0] if signals else None


def samples_of(sampler, config, purpose, n):
    """n images, uint8, by G (or its average) as it is now, of z that depend on the run's seed and the purpose alone."""
    z = random_stream(config['seed'], purpose).standard_normal((n, config['z_dim']), np.float32)
    return draw(sampler, z, RECIPES[config['recipe']].black)


def is_due(step, every):
    return every is not None and step % every == 0


def due_sample(step, per_epoch, every):
    """What to call the sample grid due after this step, if one is: one an epoch, and after steps 1, 2, 4 ... of the first."""
    if is_due(step, per_epoch):
        return f'epoch_{step // per_epoch:03d}'
    if step < per_epoch and step & (step - 1) == 0 or is_due(step, every):
        return f'step_{step:06d}'


def parse(arguments, program):
    parser = Parser(prog=program, description="Train a GAN, written by hand, on MNIST. Where no default is named, it is the "
                                              "recipe's.",
                    formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32))
    add = parser.add_argument
    add('--device', choices=['auto', 'cpu', 'gpu'], default='auto', help='auto uses a GPU if there is a working one')
    add('--recipe', choices=RECIPES, help='networks and settings (default: dcgan)')
    add('--data', type=path, metavar='mnist|digits|FOLDER',
        help='digits: drawn ones, for a machine without a network; FOLDER: any images (default: mnist)')
    add('--data-dir', type=path, metavar='FOLDER',
        help='where the MNIST files are (default: $TINYGAN_DATA, else a cache folder)')
    add('--epochs', type=count, metavar='N', help="passes through the data")
    add('--batch-size', type=count, metavar='N', help="images in a minibatch")
    add('--lr', type=number(float, 1e-12), help="Adam's learning rate")
    add('--lr-d', type=number(float, 1e-12), help="D's own learning rate (default: the recipe's, else --lr)")
    add('--beta1', type=number(float, 0, 1), help="Adam's beta1")
    add('--beta2', type=number(float, 0, 1), help="Adam's beta2")
    add('--average', type=number(float, 0, 1), metavar='DECAY',
        help="samples come from an average of G (0: from G)")
    add('--instance-noise', type=number(float, 0), metavar='SD', help="standard deviation of noise on what D sees")
    add('--z-dim', type=count, metavar='N', help="size of z")
    add('--loss', choices=LOSSES, help="what D and G minimise")
    add('--precision', choices=PRECISIONS,
        help='of matrix products on a GPU: tf32 has factors of 10 bits, bf16 of 7 (default: tf32, if the GPU has it)')
    add('--plain', action='store_true', default=None, help='train with the core alone: slower, and exactly what the source says')
    add('--seed', type=seed, metavar='N', help='of all random numbers (default: 0)')
    add('--out', type=path, metavar='RUN', help='the folder to fill (default: a new one in runs/)')
    add('--resume', type=path, metavar='RUN', help='continue this run from its last checkpoint')
    add('--sample-every', type=count, metavar='STEPS', help='sample grids in between, not just one an epoch')
    add('--checkpoint-every', type=count, metavar='STEPS', help='checkpoints in between, not just one an epoch')
    add('--evaluate-every', type=count, metavar='STEPS',
        help=f'measure the Frechet distance of {EVALUATED} samples from MNIST; keep the best G in best.npz')
    add('--max-steps', type=count, metavar='N', help='stop after this many steps in all')
    add('--dry-run', action='store_true', help='try everything in three steps, within seconds; keeps nothing')
    parser.set_defaults(program=program)
    options = parser.parse_args(arguments)
    if options.resume and options.out:
        parser.error('--resume continues in the run\'s own folder: leave out --out')
    if options.dry_run and (options.resume or options.out):
        parser.error('--dry-run keeps nothing: leave out --out and --resume')
    if options.data == 'digits' and options.data_dir:
        parser.error('--data digits needs no --data-dir')
    if data.is_folder(options.data):
        options.data = str(Path(options.data).resolve())
    return options


def begin(options, xp):
    """A new run: the settings asked for, else the recipe's; the data, the networks and the folder."""
    name = options.recipe or 'dcgan'
    folder = options.out or unused_folder(name)
    check_unused(folder)                          # now, not after a download
    shape = RECIPES[name].shape
    judge = judge_of(options, f'recipe {name}', shape)
    images = data.load(options.data, options.data_dir, options.seed or 0, shape)
    config = {'recipe': name, 'data': images.name, 'seed': options.seed or 0, 'precision': options.precision,
              'plain': bool(options.plain), 'judge': judge and str(judge)}
    for setting in SETTINGS:
        asked = getattr(options, setting)
        config[setting] = getattr(RECIPES[name], setting) if asked is None else asked
    config['steps_per_epoch'] = images.steps_per_epoch(config['batch_size'])
    gan = gan_of(config, xp)
    versions = {'tinygan': tinygan.__version__, 'python': platform.python_version(), 'numpy': np.__version__,
                xp.__name__: xp.__version__, 'platform': platform.platform()}
    return gan, images, judge, Run.start(folder, config, gan.state(), versions)


def resume(options, xp):
    """A run where it was left. What may change is how long it lasts, where a folder of images is, and what computes it."""
    run, state = Run.open(options.resume)
    config = run.config
    if data.is_folder(options.data) and data.is_folder(config['data']):
        config['data'] = options.data
    for setting in ('recipe', 'data', 'seed', *SETTINGS):
        asked = getattr(options, setting)
        if asked not in (None, config.get(setting)) and setting != 'epochs':
            flag = '--' + setting.replace('_', '-')
            raise UserError(f'{options.resume} was begun with {flag} {config.get(setting)} and cannot go on with '
                            f'{asked}: leave out {flag}, or begin a new run')
    shape = find_recipe(config['recipe']).shape
    judge = judge_of(options, f'recipe {config["recipe"]}', shape)
    if judge:
        if run.best.exists() and config.get('judge') != str(judge):
            raise UserError(f'{options.resume} was measured by another judge than {judge}, and their distances do not compare: '
                            'leave out --evaluate-every')
        config['judge'] = str(judge)
    images = data.load(config['data'], options.data_dir, config['seed'], shape)
    if images.steps_per_epoch(config['batch_size']) != config['steps_per_epoch']:
        raise UserError(f'{options.resume}: {config["data"]} no longer has as many images as when the run began')
    config['epochs'] = options.epochs or config['epochs']
    config['precision'] = options.precision or config.get('precision')
    config['plain'] = bool(options.plain or config.get('plain'))
    gan = gan_of(config, xp)
    try:
        gan.load_state(state)
    except ValueError as error:
        raise UserError(f'{options.resume}: recipe {config["recipe"]} has other networks now ({error})') from None
    run.rewind()
    print(f'going on after step {run.step}', flush=True)
    return gan, images, judge, run


def judge_of(options, maker, shape):
    """Judge 1, if --evaluate-every asks for it. UserError when it cannot look at the images that `maker` makes."""
    if options.evaluate_every:
        check_shape(shape, maker)
        return shipped('judge 1')


def recipe_of(config):
    """A run's recipe with the settings that it was asked for."""
    recipe = find_recipe(config['recipe'])
    return recipe._replace(**{setting: config[setting] for setting in SETTINGS if setting in config})


def gan_of(config, xp):
    gan = make_gan(recipe_of(config), config['seed'], xp)
    print(f"recipe {config['recipe']}, data {config['data']}: G {gan.G.parameters.size:,} and D "
          f"{gan.D.parameters.size:,} parameters, {config['epochs']} epochs of {config['steps_per_epoch']} steps",
          flush=True)
    return gan


def start_engine(gan, images, run, xp):
    """What takes the run's steps, and a line about it."""
    config = run.config
    precision = 'fp32' if xp is np else find_precision(config['precision'], xp)  # a GPU's run may go on on a CPU
    batches = Minibatches(images, recipe_of(config), config['seed'], xp)
    engine = engines.start(gan, batches, run.step + 1, config['plain'], precision)
    if engine.about:
        print(engine.about, flush=True)
    return engine


def unused_folder(recipe):
    """runs/dcgan, or the first of runs/dcgan-2, runs/dcgan-3 ... that is not there yet."""
    names = (f'runs/{recipe}' + (f'-{i}' if i > 1 else '') for i in itertools.count(1))
    return next(name for name in names if not Path(name).exists())


def main(arguments=None, program='python train_mnist.py'):
    options = parse(arguments, program)
    if not options.dry_run:
        return run_training(options)
    with tempfile.TemporaryDirectory() as options.out:
        options.max_steps = 3
        code = run_training(options)
        Run.open(options.out)
    if not code:
        print('dry run: data, training, samples, checkpoint, GIF and curves work; nothing was kept')
    return code


def run_training(options):
    xp, device_line = select_device(options.device)
    print(device_line, flush=True)
    find_precision(options.precision, xp)         # refuses a precision that the device lacks
    gan, images, judge, run = resume(options, xp) if options.resume else begin(options, xp)
    last = run.config['epochs'] * run.config['steps_per_epoch']
    last = min(last, options.max_steps or last)
    if run.step >= last:
        run.save_pictures()                       # in case the run was killed before it could
        print(f'{run.folder} has made all its {run.step} steps; raise --epochs or --max-steps to go on')
        return 0
    caught = train(start_engine(gan, images, run, xp), judge, run, last, options)
    if not options.dry_run:
        print(f'{run.folder}: step {run.step} saved; samples/, samples.gif and curves.png show how it went')
        if run.step < last:
            print(f'go on with: {options.program} --resume {shlex.quote(str(run.folder))}')
    return 128 + caught if caught else 0


if __name__ == '__main__':
    with one_line_errors('train_mnist.py'):
        sys.exit(main())
