"""python -m tinygan sample | interpolate | gradcheck: look at a trained run, and check every gradient."""
import argparse
import sys

import numpy as np

from . import __version__, checkpoint, gradcheck
from .arrays import random_stream, select_device
from .data import to_uint8
from .errors import Parser, count, one_line_errors, seed
from .gan import generate
from .images import grid, save_png, spherical
from .models import RECIPES


def open_generator(folder):
    """The trained generator of a run and its config, on the CPU wherever it was trained."""
    config, _, state = checkpoint.load(folder)
    G = RECIPES[config['recipe']].generator(config['z_dim'])
    G.parameters[:], G.statistics[:] = state['G.parameters'], state['G.statistics']
    return G, config


def sample(options):
    G, config = open_generator(options.run)
    z = random_stream(options.seed, 'sample').standard_normal((options.n, config['z_dim']), np.float32)
    images = to_uint8(generate(G, z))
    save_png(options.out, grid(images, columns=round(options.n ** 0.5)))
    print(f'{options.out}: {options.n} samples')
    if options.npy:
        array = images[..., 0] if images.shape[-1] == 1 else images
        with open(options.npy, 'wb') as file:
            np.save(file, array, allow_pickle=False)
        print(f'{options.npy}: uint8 {array.shape}')


def interpolate(options):
    G, config = open_generator(options.run)
    z = random_stream(options.seed, 'interpolate').standard_normal((2 * options.rows, config['z_dim']), np.float32)
    path = np.concatenate([spherical(a, b, options.steps) for a, b in zip(z[::2], z[1::2])])
    save_png(options.out, grid(data.to_uint8(generate(G, path)), columns=options.steps))
    print(f'{options.out}: {options.rows} ways from one z to another, in {options.steps} steps')


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
    sub.add_argument('--out', default='grid.png', metavar='FILE', help='the picture (grid.png)')
    sub.add_argument('--npy', metavar='FILE', help='the samples as an array too: uint8, (n, H, W) or (n, H, W, 3)')
    sub = command('interpolate', interpolate, 'strips of images on the way from one z to another')
    sub.add_argument('run', metavar='RUN')
    sub.add_argument('--rows', type=count, default=6, metavar='N', help='how many pairs of z (6)')
    sub.add_argument('--steps', type=count, default=12, metavar='N', help='images from one to the other (12)')
    sub.add_argument('--out', default='interpolation.png', metavar='FILE', help='the picture (interpolation.png)')
    sub = command('gradcheck', check_gradients, 'every backward against finite differences; exit code 1 if one is wrong')
    sub.add_argument('--device', choices=['auto', 'cpu', 'gpu'], default='cpu', help='where (cpu)')
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse(arguments)
    return options.function(options)


if __name__ == '__main__':
    with one_line_errors('tinygan'):
        sys.exit(main())
