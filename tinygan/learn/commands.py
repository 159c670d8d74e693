"""tinygan xray | exercise | bug: their options, and what they print."""
import difflib
import os
import textwrap
from pathlib import Path

import numpy as np

from .. import data
from ..errors import UserError, count, named, path
from ..errors import seed as a_seed
from ..run.files import atomically
from ..run.pictures import check_ours
from . import bugs, grading, source
from .exercises import EXERCISES
from .xray import xray

HEAD = '''"""Exercise {name}: {title}.

Write what is blank below, in place of raise NotImplementedError. Then

    tinygan exercise {name} --check          compares every array with what is right
    tinygan exercise {name} --hint           a hint; --hint 2 and --hint 3 say more
    tinygan exercise {name} --solution       how tinygan has it
"""
'''


def add(command):
    """Add the commands, by a function that makes one: command(name, function, what it does)."""
    sub = command('xray', xray, 'one step of training as a page to look into: every layer, forward and back', seeded=False)
    sub.add_argument('run', type=path, nargs='?', metavar='RUN',
                     help="a run's folder, or a checkpoint file (default: fresh networks of recipe dcgan, and drawn digits)")
    sub.add_argument('--step', type=count, metavar='N', help='which step (default: the first after the checkpoint, or step 1)')
    sub.add_argument('--seed', type=a_seed, metavar='N', help='of fresh networks and digits; a run has its own (default: 0)')
    sub.add_argument('--out', type=named('.html'), default='xray.html', metavar='FILE', help='the page (default: xray.html)')
    sub = command('exercise', exercise, 'backwards to fill in, from Linear to a whole step, which grade themselves', seeded=False)
    sub.add_argument('name', nargs='?', choices=EXERCISES, metavar='NAME', help='write NAME.py here (without a NAME: list them)')
    how = sub.add_mutually_exclusive_group()
    how.add_argument('--check', action='store_true', help='grade the NAME.py that is here; exit code 1 if something is wrong')
    how.add_argument('--hint', type=int, choices=(1, 2, 3), nargs='?', const=1, help='the first, second or third hint (default: 1)')
    how.add_argument('--solution', action='store_true', help='show the source that was cut')
    sub = command('bug', bug, 'what one wrong line does to a training run; a wrong line to find', seeded=False)
    sub.add_argument('name', nargs='?', choices=bugs.GALLERY, metavar='NAME',
                     help='train with that bug and without, and draw both (without a NAME: list them)')
    sub.add_argument('--steps', type=count, metavar='N', help=f'of training (default: {bugs.STEPS})')
    sub.add_argument('--data', choices=['digits', 'mnist'], help='drawn digits or MNIST (default: digits)')
    sub.add_argument('--out', type=named('.png'), metavar='FILE', help='the picture (default: NAME.png)')
    how = sub.add_mutually_exclusive_group()
    how.add_argument('--blind', type=a_seed, nargs='?', const=-1, metavar='SEED',
                     help='copy the core to blind-SEED, with one mistake in it: find and mend it (default: some SEED)')
    how.add_argument('--check', type=path, metavar='FOLDER', help='is that copy right again? exit code 1 if it is not')
    how.add_argument('--solution', type=path, metavar='FOLDER', help='show where that copy differs from the core')


def exercise(options):
    name = options.name
    if not name:
        if options.check or options.hint or options.solution:
            raise UserError(f'which exercise? choose from {", ".join(EXERCISES)}')
        print('\n'.join(f'{name:16}{exercise.title}' for name, exercise in EXERCISES.items()))
        print('\ntinygan exercise NAME writes NAME.py, a class or function of tinygan with a blank')
        return 0
    chosen, file = EXERCISES[name], f'{name}.py'
    if options.hint:
        print('\n'.join(textwrap.wrap(chosen.hints[options.hint - 1], 100)))
    elif options.solution:
        print(f'# tinygan/{chosen.file}.py\n\n{chosen.text()}', end='')
    elif options.check:
        return check_exercise(name, chosen, file)
    else:
        if os.path.lexists(file):
            raise UserError(f'{file} is there already: move it away to begin anew')
        with atomically(file, 'w') as written:
            written.write(f'{HEAD.format(name=name, title=chosen.title)}{chosen.imports()}\n\n\n{chosen.blank_text()}')
        print(f'{file}: {chosen.title}. Fill in the blank, then: tinygan exercise {name} --check')
    return 0


def check_exercise(name, chosen, file):
    if not Path(file).exists():
        raise UserError(f'there is no {file} here: tinygan exercise {name} writes one')
    text = read(file)
    try:
        rows, mistakes = grading.grade(chosen, grading.run(text, file), file)
    except grading.Broken as error:
        print(f'{error}\n\nnot there yet: tinygan exercise {name} --hint')
        return 1
    print(f'{file}, compared with what is right:\n')
    wrong = show(rows)
    for mistake in mistakes:
        print(f'\nIt looks as if {mistake.says}.\nWhat is right, and why: {mistake.derived}.')
    if not wrong:
        print(f'\nall of it is right{next_after(name)}')
    elif not mistakes:
        print(f'\ntinygan exercise {name} --hint may help')
    return 1 if wrong else 0


def read(file):
    try:
        return Path(file).read_text(encoding='utf-8-sig')
    except UnicodeDecodeError:
        raise UserError(f'{file} is not a text in UTF-8') from None


def next_after(name):
    names = list(EXERCISES)
    following = names[names.index(name) + 1:]
    return f'. Next: tinygan exercise {following[0]}' if following else '. That was the last: you have written a GAN, and more'


def show(rows):
    """Print the rows that are wrong and, if none is, all of them; returns how many are."""
    wrong = [row for row in rows if row.words]
    for row in wrong or rows:
        print(f'{row.what:56} {"WRONG: it " + row.words if row.words else f"ok, relative error {row.error:.0e}"}')
    if wrong and len(rows) > len(wrong):
        print(f'{len(rows) - len(wrong)} more are right')
    return len(wrong)


def bug(options):
    of_copy = options.blind is not None or options.check or options.solution
    if options.name and of_copy or (options.steps or options.data or options.out) and not options.name:
        raise UserError('bug takes either a NAME, with --steps, --data and --out, or one of --blind, --check and --solution')
    if options.check or options.solution:
        return check_copy(options.check) if options.check else show_differences(options.solution)
    if options.blind is not None:
        return hide_bug(int(np.random.default_rng().integers(10000)) if options.blind < 0 else options.blind)
    if not options.name:
        print('\n'.join(f'{name:20}{mistake.file + ".py":12}{mistake.says}' for name, mistake in bugs.GALLERY.items()))
        print('\ntinygan bug NAME trains with it and without, and draws both; tinygan bug --blind hides one for you to find')
        return 0
    out = options.out or f'{options.name}.png'
    check_ours(out)
    if not Path(out).absolute().parent.is_dir() or Path(out).is_dir():           # found now, not after the training
        raise UserError(f'{out} cannot be written: there is no such folder, or a folder of that name')
    images = data.load(options.data or 'digits')
    print(f'{options.name}: {bugs.GALLERY[options.name].says}')
    text = bugs.compare(options.name, images, options.steps or bugs.STEPS, out)
    print(f'{text}\n{out}: both runs, side by side')
    return 0


def hide_bug(seed):
    folder = Path(f'blind-{seed}')
    bugs.hide(folder, seed)
    print(f'{folder}: the {len(source.CORE)} files of the core, with one mistake in them. Find it and mend it. Then: '
          f'tinygan bug --check {folder}')
    return 0


def check_copy(folder):
    try:
        rows = list(bugs.check(bugs.load_copy(folder)))
    except grading.Broken as error:
        print(f'{error}\n\nit does not run: mend {folder}, or see tinygan bug --solution {folder}')
        return 1
    if any(row.words for row in rows):
        show(rows)
        print(f'\nstill wrong, and what comes first may explain the rest: mend {folder}, or see tinygan bug --solution {folder}')
        return 1
    print(f'all {len(rows)} checks pass: {folder} is right again')
    return 0


def show_differences(folder):
    bugs.check_is_copy(folder)
    same = True
    for file in source.CORE:
        there = read(Path(folder, f'{file}.py'))
        names = f'{folder}/{file}.py', f'tinygan/{file}.py'
        for line in difflib.unified_diff(there.splitlines(), source.text_of(file).splitlines(), *names, lineterm=''):
            print(line)
            same = False
    if same:
        print(f'{folder} is the core, to the letter')
    return 0
