"""Train a GAN on MNIST: python train_mnist.py [--device auto|cpu|gpu] [--recipe NAME] ... (--help lists all).

The training loop is `train`, Algorithm 1 of Goodfellow et al. 2014; the rest is options, data and the run folder.
"""
import argparse
import os
import platform
import shlex
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np

import tinygan
from tinygan import data, engines
from tinygan.data.minibatches import Minibatches
from tinygan.errors import Parser, UserError, colour, count, count_or_never, listed, number, one_line_errors, path, seed
from tinygan.judge.frozen import check_digits, judge_of
from tinygan.losses import LOSSES
from tinygan.penalties import PENALTIES
from tinygan.recipes import RECIPES, find_recipe, make_gan
from tinygan.run.checkpoint import Run, check_unused, unused_folder
from tinygan.run.device import PRECISIONS, find_precision, select_device
from tinygan.run.generator import preview, samples_of
from tinygan.run.health import Health
from tinygan.run.mpirun import agree, count_of, joined, prepared
from tinygan.run.pictures import grid
from tinygan.run.progress import Progress, signals_caught
from tinygan.run.schedule import Schedule
from tinygan.run.settings import DEFAULTS, RECIPE, identity, last_step, new_config, old_config, recipe_of
from tinygan.run.worker import Worker

EVALUATED = 2000                                  # samples: fewer than `tinygan evaluate` draws, and so a larger distance


def train(engine, judge, health, run, last):
    """Steps run.step + 1 to last, or until a signal arrives; returns that signal's number, else None. `judge` measures
    samples, if --evaluate-every asks for it; `health` says what goes wrong."""
    schedule = Schedule(run.config)
    with health.explaining(), signals_caught() as signals, np.errstate(all='ignore'):      # what is not a number, run.flush finds
        with (closing(engine), closing(Worker(engine.beside)) as worker,
              closing(Progress(run.step, last, run.config, signals)) as progress):
            for step in range(run.step + 1, last + 1):
                run.log(step, engine.step(step))  # GAN.step: D learns, then G
                if measured := schedule.asked(step, 'evaluate'):
                    worker.wait()                 # this takes all cores
                    samples = samples_of(engine.snapshot()(), run.config, 'evaluation', EVALUATED)
                    run.record_distance(judge.distance(samples), engine.state())

                stop = step == last or bool(signals)              # asked once: a signal may come at any moment
                saves, look = stop or schedule.checkpoint(step), step % engine.log_every == 0
                whole = saves or measured or step == progress.first or look and health.due()
                if whole or look:
                    rows = run.flush(step if whole else step - engine.lag)
                    progress.show(step, rows)
                    progress.say(health.look(step, rows, whole))
                if name := schedule.sample(step):
                    worker.call(save_grid, run, name, engine.snapshot())
                if saves:
                    run.save(step, engine.state())
                if stop:
                    break
                schedule.draw(run.save_pictures)
            worker.wait()
        run.save_pictures()
    return signals[0] if signals else None


def save_grid(run, name, snapshot):
    run.save_sample(name, grid(preview(snapshot(), run.config)))


def parse(arguments, program):
    parser = Parser(prog=program, description="Train a GAN, written by hand, on MNIST or on images of your own. Where no default "
                                              "is named, it is the recipe's.",
                    formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32))
    add = parser.add_argument_group('what is trained, and where').add_argument
    add('--recipe', choices=RECIPES, help=f'networks and settings (default: {RECIPE}; dcgan is the textbook)')
    add('--device', choices=['auto', 'cpu', 'gpu'], default='auto', help='auto uses a GPU if there is a working one')
    add('--precision', choices=PRECISIONS,
        help='of matrix products on a GPU: tf32 has factors of 10 bits, bf16 of 7 (default: tf32, if the GPU has it)')
    add('--plain', action='store_true', default=None, help='train with the core alone: slower, and exactly what the source says')
    add('--seed', type=seed, metavar='N', help='of all random numbers (default: 0)')
    add = parser.add_argument_group('the images').add_argument
    add('--data', type=path, metavar='mnist|digits|PATH',
        help='digits: drawn ones, for a machine without a network; PATH: a folder or a zip of pictures, IDX files, an .npy or an '
             '.npz (default: mnist)')
    add('--data-dir', type=path, metavar='FOLDER',
        help='where the files of MNIST itself are (default: $TINYGAN_DATA, else a cache folder)')
    add('--background', type=colour, metavar='COLOUR', help='what lies under transparent pictures (default: white)')
    add('--flip', action='store_true', default=None, help='mirror half of the pictures, chosen anew for each epoch')
    add = parser.add_argument_group('how it is trained').add_argument
    add('--epochs', type=count, metavar='N', help="passes through the data")
    add('--max-steps', type=count_or_never, metavar='N', help='stop after this many steps in all (0: no limit)')
    add('--batch-size', type=count, metavar='N', help="images in a minibatch")
    add('--lr', type=number(float, 1e-12), help="Adam's learning rate")
    add('--lr-d', type=number(float, 1e-12), help="D's own learning rate, or an encoder's (default: the recipe's, else --lr)")
    add('--beta1', type=number(float, 0, 1), help="Adam's beta1")
    add('--beta2', type=number(float, 0, 1), help="Adam's beta2")
    add('--average', type=number(float, 0, 1), metavar='DECAY', help="samples come from an average of G (0: from G)")
    add('--instance-noise', type=number(float, 0), metavar='SD', help="standard deviation of noise on what D sees")
    add('--z-dim', type=count, metavar='N', help="size of z")
    add('--loss', choices=LOSSES, help="what D and G minimise")
    add('--penalty', choices=PENALTIES, help="what D pays for its slope, in recipes whose D has no BatchNorm")
    add('--penalty-weight', type=number(float, 0), metavar='W', help='lambda of wgan_gp, gamma of r1 (0: no penalty)')
    add('--penalty-every', type=count, metavar='N', help='take it in only one of N updates of D, N times as heavy')
    add('--critic-steps', type=count, metavar='N', help='updates of D for each of G, which learns in every N-th step')
    add = parser.add_argument_group("the run's folder", 'A resumed run keeps all of its settings. Those of --epochs, --max-steps, '
                                    '--precision, --plain and the --...-every below, and the place of --data, can be changed by '
                                    'naming them again.').add_argument
    add('--out', type=path, metavar='RUN', help='the folder to fill (default: a new one in runs/)')
    add('--resume', type=path, metavar='RUN', help='continue this run from its last checkpoint')
    add('--new-images', action='store_true', help='with --resume: even if the images are not those that the run began with')
    add('--sample-every', type=count_or_never, metavar='STEPS', help='sample grids in between, not just one an epoch (0: none)')
    add('--checkpoint-every', type=count_or_never, metavar='STEPS',
        help='checkpoints in between, not just at the end of an epoch (if the last is a minute old) and every ten minutes')
    add('--evaluate-every', type=count_or_never, metavar='STEPS',
        help=f'measure the Frechet distance of {EVALUATED} samples from MNIST; keep the best G in best.npz')
    add('--dry-run', action='store_true', help='try everything in three steps; keeps nothing but what is cached')
    parser.set_defaults(program=program, ranks=None)
    options = parser.parse_args(arguments)
    if options.resume and options.out:
        parser.error('--resume continues in the run\'s own folder: leave out --out')
    if options.dry_run and (options.resume or options.out):
        parser.error('--dry-run keeps nothing: leave out --out and --resume')
    if options.new_images and not options.resume:
        parser.error('--new-images is for a run that goes on: name it with --resume')
    if data.is_path(options.data):
        options.data = os.path.abspath(options.data)
    elif options.data and Path(options.data).exists():
        print(f'--data {options.data} means our own; for the {options.data} in this folder, --data ./{options.data}',
              file=sys.stderr)
    return options


def begin(folder, options, xp):
    """A new run: the settings asked for, else the recipe's; the data, the networks and the folder."""
    check_unused(folder)                          # now, not after a download
    config = new_config(options)
    judge = judge_of(config)
    images = images_of(config, options)
    if data.is_path(config['data']) and not options.batch_size and len(images) < config['batch_size']:
        config['batch_size'] = len(images)
        print(f'minibatches of {len(images)}: there are no more images')
    config |= {'data': images.name, 'processes': count_of(options.ranks), **identity(images, config)}
    agree(options.ranks, config)
    gan = gan_of(config, xp)
    versions = {'tinygan': tinygan.__version__, 'python': platform.python_version(), 'numpy': np.__version__,
                xp.__name__: xp.__version__, 'platform': platform.platform()}
    return gan, images, judge, Run.start(folder, config, gan.state(), versions)


def resume(folder, options, xp):
    """A run where it was left. What may change is how long it lasts, where its images are, what computes it, and what is
    looked at on the way."""
    run, state = Run.open(folder)
    before = dict(run.config)
    for name, value in run.edited().items():
        print(f'{run.folder}/config.json has {name} {value}, but the checkpoint {before.get(name)}, which counts: settings are '
              'changed on the command line', file=sys.stderr)
    if data.is_path(options.data) and data.is_path(run.config['data']):
        run.config['data'] = options.data
    config = run.config = old_config(run.config, options)
    judge = judge_of(config, run)
    images = images_of(config, options)
    if len(images) < config['batch_size']:
        raise UserError(f'{run.folder}: {len(images)} images are fewer than its minibatches have: begin a new run')
    now = identity(images, config)
    if now.get('class_names') != config.get('class_names', now.get('class_names')):
        raise UserError(f'{options.resume}: its classes are {listed(config["class_names"])}, and those of {config["data"]} are '
                        f'{listed(now["class_names"])}: begin a new run')
    same = now == {name: config.get(name, now[name]) for name in now}
    if not (same or options.new_images):
        raise UserError(f'{options.resume}: the {len(images)} images of {config["data"]} are not those that the run began with; '
                        '--new-images goes on with them')
    now['processes'] = count_of(options.ranks)
    if now['processes'] != config['processes']:
        print(f'processes: {now["processes"]}, not {config["processes"]}: the last digits may differ from those of an unbroken run')
    if run.step < last_step(config | now):
        agree(options.ranks, config | now)
    gan = gan_of(config | now, xp)
    try:
        gan.load_state(state)
    except ValueError as error:
        raise UserError(f'{options.resume}: recipe {config["recipe"]} has other networks now ({error})') from None
    run.rewind()
    if run.step < last_step(config | now):        # else the settings stay as they are
        if not same:
            run.forget_epochs()
        config |= now
        if config != before:                      # and so they stay, whatever happens next
            run.save(run.step, state)
        run.write_config()
    return gan, images, judge, run


def images_of(config, options):
    """The dataset. UserError when a judge that knows others should measure it, or --flip or --background is asked of digits."""
    if not data.is_path(config['data']) and (config['flip'] or config['background'] != DEFAULTS['background']):
        raise UserError('--flip and --background are for images of your own: name them with --data')
    if options.data_dir and config['data'] not in (None, 'mnist'):
        raise UserError(f'--data {config["data"]} needs no --data-dir, which is for MNIST')
    if options.resume and data.is_path(config['data']) and not os.path.exists(config['data']):
        raise UserError(f'{options.resume}: its images are no longer at {config["data"]}: name their place with --data')
    recipe = find_recipe(config['recipe'])
    images = data.load(config['data'], options.data_dir, config['seed'], recipe.shape, config['background'], config['flip'],
                       recipe.classes > 0)
    if config['evaluate_every']:
        check_digits(images.name, images.digest, f'--data {images.name}')
    return images


def gan_of(config, xp):
    gan = make_gan(recipe_of(config), config['seed'], xp)
    end = f', until step {config["max_steps"]}' if config['max_steps'] else ''
    print(f"recipe {config['recipe']}, data {config['data']}: G {gan.G.parameters.size:,} and D "
          f"{gan.D.parameters.size:,} parameters, {config['epochs']} epochs of {config['steps_per_epoch']} steps{end}", flush=True)
    if 'class_names' in config:
        print(f'both networks are told what an image shows: {listed(config["class_names"])}', flush=True)
    return gan


def start_engine(gan, batches, run, xp, ranks=None):
    """What takes the run's steps, and a line about it."""
    config = run.config
    precision = 'fp32' if xp is np else find_precision(config['precision'], xp)  # a GPU's run may go on on a CPU
    engine = engines.start(gan, batches, run.step + 1, config['plain'], precision, ranks)
    if engine.about:
        print(engine.about, flush=True)
    return engine


def main(arguments=None, program='python train_mnist.py'):
    with joined() as ranks:                       # None, unless mpirun has started several processes
        if ranks and ranks.index:
            return follow(arguments, program, ranks)
        options = parse(arguments, f'mpirun -n {ranks.count} {program}' if ranks else program)
        options.ranks = ranks
        return try_out(options) if options.dry_run else run_training(options)


def follow(arguments, program, ranks):
    """Another process of several: it has no run of its own, but its part of each step of the first one's."""
    def prepare(config):
        images = images_of(config, parse(arguments, program))
        if (now := identity(images, config)) != {name: config.get(name) for name in now}:
            raise UserError(f'the {len(images)} images of {config["data"]} are not those of process 0')
        batches = Minibatches(images, recipe_of(config), config['seed'])
        return engines.start(make_gan(recipe_of(config), config['seed']), batches, ranks=ranks)

    if engine := prepared(ranks, prepare):
        engine.serve()


def try_out(options):
    """Of a dry run nothing is kept."""
    with tempfile.TemporaryDirectory() as options.out:
        options.max_steps = 3
        code = run_training(options)
        Run.open(options.out)
    if not code:
        print('dry run: data, training, samples, checkpoint, GIF and curves work; only the cache of images was kept')
    return code


def run_training(options):
    folder = options.resume or options.out or unused_folder(options.recipe or RECIPE)
    print(f'run {"that is not kept" if options.dry_run else folder}', flush=True)
    xp, device_line = select_device(options.device, count_of(options.ranks))
    print(device_line, flush=True)
    find_precision(options.precision, xp)         # refuses a precision that the device lacks
    gan, images, judge, run = resume(folder, options, xp) if options.resume else begin(folder, options, xp)
    last = last_step(run.config)
    if run.step >= last:
        run.save_pictures()                       # in case the run was killed before it could
        limit = '--max-steps' if run.config['max_steps'] == last else '--epochs'
        print(f'{run.folder} has made all its {run.step} steps; raise {limit} to go on')
        return 0
    if run.step:
        print(f'going on after step {run.step}', flush=True)
    batches = Minibatches(images, recipe_of(run.config), run.config['seed'], xp)
    engine = start_engine(gan, batches, run, xp, options.ranks)
    caught = train(engine, judge, Health(gan, batches, engine.state, run.step, run.check_finite), run, last)
    if not options.dry_run:
        print(f'{run.folder}: step {run.step} saved; samples/, samples.gif and curves.png show how it went')
        if run.step < last:
            print(f'go on with: {options.program} --resume {shlex.quote(str(run.folder))}')
    if images.warning:
        print(f'warning: {images.warning}', file=sys.stderr)      # once more: that of the beginning is far away
    return 128 + caught if caught else 0


if __name__ == '__main__':
    with one_line_errors('train_mnist.py'):
        sys.exit(main())
