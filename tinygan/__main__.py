"""python -m tinygan sample | interpolate | arithmetic | gradcheck: look at a trained run, and check every gradient."""
import argparse
import sys

import numpy as np

from . import __version__, checkpoint, gradcheck
from .arrays import random_stream, select_device
from .data import to_uint8
from .errors import Parser, count, number, one_line_errors, seed
from .gan import generate
from .images import grid, linear, save_gif, save_png, spherical, to_pillow
from .models import RECIPES


def open_generator(folder):
    """z -> uint8 images of a run's generator, on the CPU wherever it was trained, and how many numbers z has."""
    _, config, _, state = checkpoint.newest_checkpoint(folder)
    recipe = RECIPES[config['recipe']]
    G = recipe.generator(config['z_dim'])
    G.parameters[:], G.statistics[:] = state['G.parameters'], state['G.statistics']
    return lambda z: to_uint8(generate(G, z), recipe.black), config['z_dim']


def sample_noise(seed, n, z_dim):
    """The z of `sample`. Each z has its own place: the first ten of a hundred are those of ten."""
    return random_stream(seed, 'sample').standard_normal((n, z_dim), np.float32)


def sample(options):
    draw, z_dim = open_generator(options.run)
    images = draw(sample_noise(options.seed, options.n, z_dim))
    save_png(options.out, grid(images, columns=options.columns))
    print(f'{options.out}: {options.n} samples, {options.columns} in a row')
    if options.npy:
        array = images[..., 0] if images.shape[-1] == 1 else images
        with open(options.npy, 'wb') as file:
            np.save(file, array, allow_pickle=False)
        print(f'{options.npy}: uint8 {array.shape}')


def interpolate(options):
    draw, z_dim = open_generator(options.run)
    z = sample_noise(options.seed, options.rows + 1, z_dim)
    path = {'spherical': spherical, 'linear': linear}[options.path]
    images = draw(np.concatenate([path(a, b, options.steps) for a, b in zip(z, z[1:])]))
    save_png(options.out, grid(images, columns=options.steps))
    print(f'{options.out}: {options.rows} {options.path} ways from one z to the next, {options.steps} steps each')
    if options.gif:
        ways = images.reshape(options.rows, options.steps, *images.shape[1:])
        save_gif(options.gif, [to_pillow(grid(step), scale=2) for step in ways.swapaxes(0, 1)], milliseconds=100)
        print(f'{options.gif}: all the ways at once')


def arithmetic(options):
    """Radford et al. 2016, figure 7: the mean z of three samples is a concept, and concepts can be added.

    Left, three samples each of a, b and c, and under them what G makes of their mean. Right, in the middle,
    G(a - b + c), and around it the same with uniform noise of up to 0.25 added.
    """
    draw, z_dim = open_generator(options.run)
    picked = np.array([options.a, options.b, options.c]).T                    # three samples down, three concepts across
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


def check_gradients(options):
    xp, device_line = select_device(options.device)
    print(f'{device_line}; float64, central differences, tolerance {gradcheck.TOLERANCE:g}\n')
    print(f'{"layer, loss or network":48} {"gradient":14} {"rel. error":>10}  verdict')
    failures = 0
    for what, gradient, error in gradcheck.all_checks(xp, options.seed):
        passed = error < gradcheck.TOLERANCE
        failures += not passed
        print(f'{what:48} {gradient:14} {error:10.1e}  {"ok" if passed else "WRONG"}', flush=True)
    print(f'\n{failures} wrong' if failures else '\nevery backward is the gradient of its forward')
    return 1 if failures else 0


place = number(int, 0)


def parse(arguments):
    parser = Parser(prog='python -m tinygan', description='Look at a trained run, and check every gradient.')
    parser.add_argument('--version', action='version', version=__version__)
    commands = parser.add_subparsers(required=True, metavar='COMMAND', parser_class=Parser)

    def command(name, function, text):
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(function=function)
        sub.add_argument('--seed', type=seed, default=0, metavar='N', help='of the random numbers (0)')
        return sub
    sub = command('sample', sample, 'a grid of samples from a trained run')
    sub.add_argument('run', metavar='RUN')
    sub.add_argument('-n', type=count, default=64, metavar='N', help='how many (64)')
    sub.add_argument('--columns', type=count, default=8, metavar='N', help='how many in a row (8)')
    sub.add_argument('--out', default='grid.png', metavar='FILE', help='the picture (grid.png)')
    sub.add_argument('--npy', metavar='FILE', help='the samples as an array too: uint8, (n, H, W) or (n, H, W, 3)')
    sub = command('interpolate', interpolate, 'strips of images on the way from one z to another')
    sub.add_argument('run', metavar='RUN')
    sub.add_argument('--rows', type=count, default=6, metavar='N', help='how many ways (6)')
    sub.add_argument('--steps', type=count, default=12, metavar='N', help='images from one z to the next (12)')
    sub.add_argument('--path', choices=['spherical', 'linear'], default='spherical', help='the way (spherical)')
    sub.add_argument('--out', default='interpolation.png', metavar='FILE', help='the picture (interpolation.png)')
    sub.add_argument('--gif', metavar='FILE', help='an animation too')
    sub = command('arithmetic', arithmetic, 'a - b + c in the space of z, each the mean of three samples')
    sub.add_argument('run', metavar='RUN')
    for concept in 'abc':
        sub.add_argument(f'--{concept}', type=place, nargs=3, required=True, metavar='I',
                         help='three samples, by their places in the grid of `sample`, counted from 0')
    sub.add_argument('--out', default='arithmetic.png', metavar='FILE', help='the picture (arithmetic.png)')
    sub = command('gradcheck', check_gradients, 'every backward against finite differences; exit code 1 if one is wrong')
    sub.add_argument('--device', choices=['auto', 'cpu', 'gpu'], default='cpu', help='where (cpu)')
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse(arguments)
    return options.function(options)


if __name__ == '__main__':
    with one_line_errors('tinygan'):
        sys.exit(main())
