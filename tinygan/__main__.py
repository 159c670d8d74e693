"""tinygan sample | interpolate | arithmetic | evaluate | gradcheck | train: look at what a generator makes, measure it, check
every gradient, train a run. `python -m tinygan` is the same."""
import json
import math
import re
import sys

import numpy as np

from . import __version__, gradcheck
from .arrays import random_stream
from .engines import convert
from .engines.threads import one_thread
from .errors import Parser, UserError, count, listed, named, number, one_line_errors, path, seed
from .judge import report
from .judge.frozen import SHIPPED, Judge, check_digits, check_shape, shipped
from .layers import Conv2d, ConvTranspose2d
from .learn import commands as learn
from .recipes import RECIPES, find_recipe
from .recipes.labels import with_labels
from .run import generator
from .run.files import atomically, check_free
from .run.device import select_device
from .run.pictures import check_ours, check_size, grid, linear, save_gif, save_png, spherical, to_pillow


def open_generator(run):
    """z -> uint8 images of a run's generator, the shape (H, W, C) of an image, and the run's config."""
    if str(run).endswith('.npy'):
        raise UserError(f'{run} is an array and no run: evaluate measures it with --npy {run}')
    G, config = generator.load_with_config(run)
    fast, recipe = convert(G), find_recipe(config['recipe'])
    return lambda z: generator.draw(fast, z, recipe.black), recipe.shape, config


def sample_noise(seed, n, z_dim):
    """The z of `sample`. Each z has its own place: the first ten of a hundred are those of ten."""
    return random_stream(seed, 'sample').standard_normal((n, z_dim), np.float32)


def with_classes(z, config, options, each=1):
    """z with the labels behind it of the class that --digit asks for or, without it, of the classes in turn, `each` of one. Of a
    run that was told none, z alone."""
    names = config['class_names']
    if options.digit is None:
        return with_labels(z, generator.in_turn(len(z), len(names), each), len(names))
    if not names:
        raise UserError(f'{options.run or "the trained generator"} was not told classes: train with --recipe conditional')
    if options.digit not in names:
        raise UserError(f'{options.run} has no class {options.digit!r}: choose from {listed(names)}')
    return with_labels(z, np.full(len(z), names.index(options.digit)), len(names))


def sample(options):
    out = options.out or ('grid.png' if options.columns or not options.npy else None)
    if options.npy:
        check_free(options.npy)
    check_ours(out)
    draw, shape, config = open_generator(options.run)
    names = config['class_names']
    rows = len(names) if options.digit is None else 0             # one for each class; 0: about as many as columns
    n = options.n or (rows * (options.columns or 8) if rows else 64)
    columns = min(n, options.columns or math.ceil(n / rows if rows else math.sqrt(n)))
    told = names[:math.ceil(n / columns)] if rows else [options.digit]
    shown = f', {"each row of one class" if rows else "all of class"}: {listed(told)}' if names else ''
    if out:
        check_size(n, columns, shape, 'lower -n, or use --npy FILE without --out')
    images = draw(with_classes(sample_noise(options.seed, n, config['z_dim']), config, options, columns))
    if out:
        save_png(out, grid(images, columns))
        print(f'{out}: {n} samples, {columns} in a row{shown}')
    if options.npy:
        array = images[..., 0] if shape[-1] == 1 else images
        with atomically(options.npy) as file:
            np.save(file, array, allow_pickle=False)
        print(f'{options.npy}: uint8 {array.shape}' + (f', {columns} in a row{shown}' if names and not out else ''))


def interpolate(options):
    check_ours(options.out)
    check_ours(options.gif)
    draw, shape, config = open_generator(options.run)
    check_size(options.rows * options.steps, options.steps, shape, 'lower --rows or --steps')
    z = sample_noise(options.seed, options.rows + 1, config['z_dim'])
    way = {'spherical': spherical, 'linear': linear}[options.path]
    z = np.concatenate([way(a, b, options.steps) for a, b in zip(z, z[1:])])
    images = draw(with_classes(z, config, options, options.steps))
    save_png(options.out, grid(images, columns=options.steps))
    print(f'{options.out}: {options.rows} {options.path} paths from one z to the next, {options.steps} steps each')
    if options.gif:
        ways = images.reshape(options.rows, options.steps, *images.shape[1:])
        save_gif(options.gif, [to_pillow(grid(step), scale=2) for step in ways.swapaxes(0, 1)], milliseconds=100)
        print(f'{options.gif}: all the paths at once')


def arithmetic(options):
    """Radford et al. 2016, figure 7: the mean z of three samples is a concept, and concepts can be added.

    Left, three samples each of a, b and c, and under them what G makes of their mean. Right, in the middle,
    G(a - b + c), and around it the same with uniform noise of up to 0.25 added.
    """
    check_ours(options.out)
    draw, shape, config = open_generator(options.run)
    if config['class_names']:
        raise UserError(f'{options.run} was told classes, and arithmetic is for runs that found their concepts by themselves')
    z_dim = config['z_dim']
    concepts = [options.a, options.b, options.c]
    if options.digits and any(concepts) or not options.digits and not all(concepts):
        raise UserError('arithmetic needs either --digits A B C or all of --a, --b and --c')
    if options.digits:
        check_shape(shape, options.run)
        check_digits(config.get('data'), config.get('images'), options.run)
    picked = surest(draw, z_dim, options) if options.digits else np.array(concepts).T       # three of each, downwards
    z = sample_noise(options.seed, picked.max() + 1, z_dim)[picked]
    a, b, c = means = z.mean(axis=0)
    around = random_stream(options.seed, 'arithmetic').uniform(-0.25, 0.25, (9, z_dim)).astype(np.float32)
    around[4] = 0
    concepts = draw(np.concatenate([*z, means]))
    results = draw(a - b + c + around)
    tiles = np.full((4, 7, *concepts.shape[1:]), 64, np.uint8)
    tiles[:, :3] = concepts.reshape(4, 3, *concepts.shape[1:])
    tiles[:3, 4:] = results.reshape(3, 3, *results.shape[1:])
    save_png(options.out, grid(tiles.reshape(28, *concepts.shape[1:]), columns=7))
    print(f'{options.out}: a, b and c in columns over their means; right, in the middle, a - b + c')


def surest(draw, z_dim, options, among=1000):
    """The places (3, 3) of samples, of each of three digits those three that judge 1 is surest of."""
    _, p = shipped('judge 1').look(draw(sample_noise(options.seed, among, z_dim)))
    return (-p[:, options.digits]).argsort(axis=0, kind='stable')[:3]


def evaluate(options):
    if options.run and options.npy:
        raise UserError('evaluate needs either a RUN or --npy FILE, not both')
    check_ours(options.neighbours)
    judge = None
    if options.judge:
        judge = shipped(options.judge) if options.judge in SHIPPED else Judge(options.judge)
    mnist = report.mnist_images(judge, needed=options.neighbours is not None)
    images, digits = (report.read_samples(options.npy), None) if options.npy else samples_to_judge(options)
    result = report.evaluate(images, judge, mnist, digits)
    print(json.dumps(result, indent=2) if options.json else '\n'.join(report.table(result)))
    if options.neighbours:
        report.save_neighbours(options.neighbours, images[:12], mnist[0])
        print(f'{options.neighbours}: samples on the left, beside each its nearest training images', file=sys.stderr)


def samples_to_judge(options):
    """Samples of a run, of its classes in turn, and which digits it was asked for, if it was told digits."""
    draw, shape, config = open_generator(options.run)
    check_shape(shape, options.run)
    if not options.judge:
        check_digits(config.get('data'), config.get('images'), options.run)
    z, classes = sample_noise(options.seed, options.samples, config['z_dim']), len(config['class_names'])
    labels = generator.in_turn(len(z), classes)
    return draw(with_labels(z, labels, classes)), labels if config['class_names'] == report.DIGITS else None


LAYERS = gradcheck.LAYERS | {                     # and those of engines/ that multiply by other means
    'Conv2d by Toom-Cook': (lambda **new: convert(Conv2d(16, 17, 4, stride=2, padding=1, **new)), (9, 17, 17, 16)),
    'ConvTranspose2d by Toom-Cook':
        (lambda **new: convert(ConvTranspose2d(17, 16, 4, stride=2, padding=1, **new)), (9, 8, 8, 17)),
}


def first_word(name):
    return re.match(r'\w+', name)[0]


@one_thread()
def check_gradients(options):
    xp, device_line = select_device(options.device)
    layers = LAYERS if xp is np else gradcheck.LAYERS
    names = [*layers, *gradcheck.LOSSES, *RECIPES]
    for kind in options.kinds:
        if not any(name.lower().startswith(kind.lower()) for name in names):
            raise UserError(f'nothing to check is called {kind}: choose from {", ".join(dict.fromkeys(map(first_word, names)))}')
    print(f'{device_line}; float64, central differences, tolerance {gradcheck.TOLERANCE:g}\n')
    print(f'{"layer, loss or network":48} {"gradient":14} {"rel. error":>10}  verdict')
    failures = 0
    for what, gradient, error in gradcheck.all_checks(layers, RECIPES, xp, options.seed, options.kinds):
        passed = error < gradcheck.TOLERANCE
        failures += not passed
        print(f'{what:48} {gradient:14} {error:10.1e}  {"ok" if passed else "WRONG"}', flush=True)
    print(f'\n{failures} wrong' if failures else '\nevery backward checked is the gradient of its forward')
    return 1 if failures else 0


place = number(int, 0, 2 ** 31)
CLASS = dict(metavar='NAME', help='only of this class, by a run that was told classes (default: a row of each)')
PICTURE = dict(type=named('.png'), metavar='FILE')
RUN = dict(type=path, nargs='?', metavar='RUN', help="a run's folder, or a checkpoint file such as its best.npz (default: the "
           'trained generator that comes with tinygan)')


def parse(arguments):
    parser = Parser(prog='tinygan', description='Look at what a generator makes, measure it, check every gradient, train a run.')
    parser.add_argument('--version', action='version', version=__version__)
    commands = parser.add_subparsers(required=True, metavar='COMMAND', parser_class=Parser)

    def command(name, function, text, seeded=True):
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(function=function)
        if seeded:
            sub.add_argument('--seed', type=seed, default=0, metavar='N', help='of all random numbers (default: 0)')
        return sub
    sub = command('sample', sample, 'new samples: a picture, an array')
    sub.add_argument('run', **RUN)
    sub.add_argument('--digit', '--class', **CLASS)
    sub.add_argument('-n', type=count, metavar='N', help='how many (default: 64; with classes, a full row of each)')
    sub.add_argument('--columns', type=count, metavar='N',
                     help='how many in a row (default: about as many as there are rows; with classes, all of one)')
    sub.add_argument('--out', **PICTURE, help='the picture (default: grid.png, or none with --npy)')
    sub.add_argument('--npy', type=named('.npy'), metavar='FILE', help='an array: uint8, (n, H, W) or (n, H, W, 3)')
    sub = command('interpolate', interpolate, 'strips of images on the way from one z to the next')
    sub.add_argument('run', **RUN)
    sub.add_argument('--digit', '--class', **CLASS)
    sub.add_argument('--rows', type=count, default=6, metavar='N', help='how many paths (default: 6)')
    sub.add_argument('--steps', type=count, default=12, metavar='N', help='images from one z to the next (default: 12)')
    sub.add_argument('--path', choices=['spherical', 'linear'], default='spherical',
                     help='along the sphere or straight (default: spherical)')
    sub.add_argument('--out', **PICTURE, default='interpolation.png', help='the picture (default: interpolation.png)')
    sub.add_argument('--gif', type=named('.gif'), metavar='FILE', help='also save an animation')
    sub = command('arithmetic', arithmetic, 'a - b + c in the space of z, each the mean of three samples')
    sub.add_argument('run', **RUN)
    for concept in 'abc':
        sub.add_argument(f'--{concept}', type=place, nargs=3, metavar='I',
                         help='three samples, by their positions in the grid of `sample`, counted from 0')
    sub.add_argument('--digits', type=int, choices=range(10), nargs=3, metavar=('A', 'B', 'C'),
                     help='instead of positions: the three of 1000 samples that judge 1 is surest of, per digit')
    sub.add_argument('--out', **PICTURE, default='arithmetic.png', help='the picture (default: arithmetic.png)')
    sub = command('evaluate', evaluate, 'how good the samples are: numbers, beside the same for real digits')
    sub.add_argument('run', **RUN)
    sub.add_argument('--samples', type=number(int, 2, 2 ** 31), default=10000, metavar='N',
                     help='how many to draw, without --npy (default: 10000)')
    sub.add_argument('--npy', type=path, metavar='FILE',
                     help='evaluate these images instead of a RUN: an array, uint8 (n, 28, 28)')
    sub.add_argument('--judge', type=path, metavar='FILE',
                     help="by a judge of your own, which python -m tinygan.judge.classifier makes; or by 'judge 1' itself, if "
                          "your own images are digits")
    sub.add_argument('--json', action='store_true', help='the numbers as JSON instead of a table')
    sub.add_argument('--neighbours', **PICTURE,
                     help='also save a picture: samples beside the nearest training images of MNIST, fetched if need be')
    sub = command('gradcheck', check_gradients, 'every backward against finite differences; exit code 1 if one is wrong')
    sub.add_argument('kinds', nargs='*', metavar='KIND', help='check only these: conv2d, batchnorm2d, bce_with_logits, dcgan ...')
    sub.add_argument('--device', choices=['auto', 'cpu', 'gpu'], default='cpu', help='where to compute (default: cpu)')
    learn.add(command)
    commands.add_parser('train', help='train a run: train_mnist.py, with the same options')
    return parser.parse_args(arguments)


def main(arguments=None):
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ['train']:
        import train_mnist
        return train_mnist.main(arguments[1:], 'tinygan train')
    options = parse(arguments)
    return options.function(options)


def command_line():
    """The command `tinygan`."""
    with one_line_errors('tinygan'):
        sys.exit(main())


if __name__ == '__main__':
    command_line()
