"""The folder of one training run, and how to resume it, however it ended.

    config.json      what was asked for, and the versions of what ran
    metrics.csv      a row for every step
    samples/         grids of the same z after every epoch, or several, and after steps 1, 2, 4, 8 ...
    samples.gif      those in a row;  curves.png  the metrics as curves
    checkpoint.npz   weights, Adam's memory, BatchNorm's statistics, the step; checkpoint.previous.npz the one before
    best.npz         the same of the step with the lowest Frechet distance, in a run that measures it
    .lock            what keeps two processes from training the run at once
"""
import contextlib
import csv
import gc
import io
import itertools
import json
import math
import os
import re
import sys
from pathlib import Path

import numpy as np

from ..data.npz import open_npz
from ..data.ours import is_run, read_config
from ..errors import UserError
from ..recipes import find_recipe
from .files import atomically, lock, sync_names
from .pictures import plot_curves, save_gif, save_png

VERSION = 2                         # of the checkpoint's format: since 2, it may ask for penalties, critic steps, classes, a VAE
BEST = 'best.npz'
FRAMES = 100                        # of samples.gif, at most


class Diverged(UserError):
    """Training made something that is not a number, in that step."""

    def __init__(self, message, step):
        super().__init__(message)
        self.step = step


class Run:
    """A run's folder. `start` makes one; `open` finds its checkpoint, and `rewind` clears away what came after that."""

    def __init__(self, folder, config=None):
        self.folder, self.config, self.step = Path(folder), config, 0
        self.rows = []                            # that are not in metrics.csv yet
        self.best, self.lowest = self.folder / BEST, math.inf

    @classmethod
    def start(cls, folder, config, state, versions):
        """A new run, resumable from its first moment. UserError when the folder already holds one."""
        run = cls(folder, config)
        (run.folder / 'samples').mkdir(parents=True, exist_ok=True)
        for parent in run.folder.absolute().parents[:2]:
            sync_names(parent)
        run.held = lock(folder)
        check_unused(folder)                      # now that nobody else can begin one there
        run.write_config(versions)
        run.write_metrics([])
        run.save(0, state)
        return run

    @property
    def columns(self):
        """Of metrics.csv."""
        metrics = find_recipe(self.config['recipe']).game.metrics
        return 'step', *metrics, *(['penalty'] if self.config.get('penalty') else []), 'frechet'

    @classmethod
    def open(cls, folder):
        """(run, state) of the newest checkpoint that can be read, in a folder or beside a checkpoint.npz; nothing is changed yet.
        UserError where there is none, and while another process trains the run."""
        if str(folder).endswith('.npz') and Path(folder).is_file():
            if Path(folder).name != 'checkpoint.npz':
                raise UserError(f'a run does not go on from {folder}: name its folder')
            folder = Path(folder).parent
        run = cls(folder)
        if any(path.exists() for path in checkpoints(folder)):
            run.held = lock(folder)               # before it is read: another process may be about to save
        run.checkpoint, run.config, run.step, state = newest_checkpoint(folder)
        return run, state

    def rewind(self):
        """Remove what came after the checkpoint: rows of metrics.csv, samples, half-written files, and a later best.npz (the one
        before it is lost, so there is none until a distance is lower than all that remain). A damaged newest checkpoint gets
        another name, lest it become the previous one."""
        rows, self.lowest = read_metrics(self.folder / 'metrics.csv', self.step, self.columns)
        newest, previous = checkpoints(self.folder)
        if self.checkpoint == previous and newest.exists():
            newest.replace(newest.with_name('checkpoint.damaged.npz'))
        (self.folder / 'samples').mkdir(exist_ok=True)
        for path in (*self.folder.iterdir(), *(self.folder / 'samples').iterdir()):
            if re.fullmatch(r'.*\.(npz|json|csv|png|gif)\.[0-9a-f]{8}\.part', path.name):          # half written, by `atomically`
                path.unlink()
        for made_at, sample in self.samples():
            if made_at > self.step:
                sample.unlink()
        with contextlib.suppress(UserError):      # there is none, or it is damaged, which `sample` will say
            if open_checkpoint(self.best)[2] > self.step:
                self.best.unlink()
        self.write_metrics(rows)

    def edited(self):
        """What config.json says otherwise than the checkpoint, by which the run goes on: {name: value}."""
        said = read_config(self.folder)
        return {name: said[name] for name in said if name != 'versions' and (name, said[name]) not in self.config.items()}

    def write_config(self, versions=None):
        """Write config.json, with the versions that it names already if no others are given."""
        versions = versions or read_config(self.folder).get('versions', {})
        with atomically(self.folder / 'config.json', 'w') as file:
            file.write(json.dumps(self.config | {'versions': versions}, indent=2) + '\n')

    def forget_epochs(self):
        """Name grids after steps alone: from now on, an epoch has another number of them."""
        for made_at, sample in self.samples():
            sample.rename(sample.with_name(f'step_{made_at:06d}.png'))

    def write_metrics(self, rows):
        """Write metrics.csv anew, with today's columns, some of which the rows may lack."""
        with atomically(self.folder / 'metrics.csv', 'w') as file:
            table = csv.DictWriter(file, self.columns, lineterminator='\n')
            table.writeheader()
            table.writerows(rows)

    def log(self, step, metrics):
        """Note a step's metrics. They may still be on a GPU: `flush` fetches them, not this."""
        self.rows.append({'step': step} | metrics)

    def record_distance(self, frechet, state):
        """Note the Frechet distance of the step just logged; if it is the lowest so far, `state` becomes best.npz."""
        self.rows[-1]['frechet'] = frechet = float(f'{frechet:.9g}')         # as `rewind` will read it
        if frechet < self.lowest:
            self.write_checkpoint(self.best, self.rows[-1]['step'], state)
            self.lowest = frechet

    def flush(self, last=math.inf):
        """Fetch and write the rows that have not been yet, up to step `last`, and return them. Raises Diverged."""
        rows = [{name: value if name == 'step' else float(value) for name, value in row.items()}
                for row in self.rows if row['step'] <= last]
        self.rows = self.rows[len(rows):]
        with open(self.folder / 'metrics.csv', 'a', encoding='utf-8') as file:
            for row in rows:
                file.write(','.join(f'{row[name]:.9g}' if name in row else '' for name in self.columns) + '\n')
            file.flush()
            os.fsync(file.fileno())
        for row in rows:
            self.check_finite(row['step'], 'loss', row.values())
        return rows

    def check_finite(self, step, what, values):
        """Diverged if a value is not a number: nothing after it could be."""
        if not all(np.isfinite(value).all() for value in values):
            raise Diverged(f'training diverged: step {step:.0f} has a {what} that is not a number. The checkpoint of step '
                           f'{self.step} in {self.folder} is sound; a lower --lr may help', step)

    def save(self, step, state):
        """Make `state` the checkpoint, and the checkpoint so far the previous one."""
        self.flush()
        newest, previous = checkpoints(self.folder)
        self.write_checkpoint(newest, step, state, previous)
        self.step = step

    def write_checkpoint(self, path, step, state, previous=None):
        self.check_finite(step, 'weight', state.values())
        about = json.dumps({'version': VERSION, 'step': step, 'config': self.config, 'arrays': list(state)})
        with atomically(path, previous=previous) as file:
            np.savez(file, about=np.array(about), **state)

    def save_sample(self, name, sheet):
        save_png(self.folder / 'samples' / f'{name}.png', sheet)

    def samples(self):
        """(step, path) of every sample grid, in order. Pictures of other names are not ours."""
        unit = {'step': 1, 'epoch': self.config['steps_per_epoch']}
        names = ((re.fullmatch(r'(step|epoch)_(\d+)\.png', path.name), path)
                 for path in (self.folder / 'samples').iterdir())
        return sorted((int(name[2]) * unit[name[1]], path) for name, path in names if name)

    def save_pictures(self):
        """samples.gif and curves.png, from the files of the run so far. They end no run: what goes wrong is only said."""
        for name, draw in ('samples.gif', self.draw_samples), ('curves.png', self.draw_curves):
            try:
                draw(self.folder / name)
            except Exception as error:
                print(f'{self.folder / name} cannot be drawn: {error}', file=sys.stderr)

    def draw_samples(self, path):
        if samples := [sample for _, sample in self.samples()]:
            chosen = np.linspace(0, len(samples) - 1, min(FRAMES, len(samples))).astype(int)
            save_gif(path, [samples[i] for i in chosen])

    def draw_curves(self, path):
        metrics = np.atleast_1d(np.genfromtxt(self.folder / 'metrics.csv', delimiter=',', names=True))
        if metrics.size:
            plot_curves(path, {name: metrics[name] for name in metrics.dtype.names})
            gc.collect()                          # a figure refers to itself, and training makes too little for Python to look


def read_metrics(path, step, columns):
    """The rows of a metrics.csv up to that step, and the lowest distance in them. Its last row may be cut short, and it may begin
    at any step. UserError where something else is wrong, but another digit or an empty cell cannot be noticed."""
    if not path.exists():
        return [], math.inf
    try:
        table = csv.DictReader(path.read_text('utf-8').split('\n')[:-1])
        if not {'step'} <= set(table.fieldnames or ()) <= set(columns):
            raise ValueError('its first line does not name the columns')
        rows = [row for row in table if int(row['step']) <= step]
        if [int(row['step']) for row in rows] != [*range(max(step - len(rows), 0) + 1, step + 1)]:
            raise ValueError(f'its rows are not those of consecutive steps up to {step}')
        if not all(math.isfinite(float(value)) for row in rows for value in row.values() if value != ''):
            raise ValueError('a value is not a finite number')
        return rows, min((float(row['frechet']) for row in rows if row.get('frechet')), default=math.inf)
    except (ValueError, TypeError, csv.Error) as error:
        raise UserError(f'{path} is damaged ({error}); moved away, it stops no run') from None


def checkpoints(folder):
    return Path(folder) / 'checkpoint.npz', Path(folder) / 'checkpoint.previous.npz'


def unused_folder(recipe):
    """runs/fast, or the first of runs/fast-2, runs/fast-3 ... that is not there yet."""
    names = (f'runs/{recipe}' + (f'-{i}' if i > 1 else '') for i in itertools.count(1))
    return next(name for name in names if not Path(name).exists())


def check_unused(folder):
    """UserError when the folder already holds a run, or somebody else's files that a run would replace."""
    if any(path.exists() for path in checkpoints(folder)):
        raise UserError(f'{folder} already holds a run: go on with --resume {folder}, or choose another --out')
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise UserError(f'{folder} is not a directory: choose another --out')
    names = ['config.json', 'metrics.csv', 'samples.gif', 'curves.png', 'samples', BEST]
    if is_run(folder):                            # and was killed before its first checkpoint, if it has no more than these
        names.remove('config.json')
        metrics = Path(folder, 'metrics.csv')
        if not metrics.exists() or metrics.read_bytes().count(b'\n') < 2:
            names.remove('metrics.csv')
    for path in (Path(folder, name) for name in names):
        if path.is_file() or path.is_dir() and any(path.iterdir()):
            raise UserError(f'{folder} already holds {path.name}: choose another --out')


def newest_checkpoint(folder):
    """(path, config, step, state) of the newest checkpoint of a run that can be read.

    UserError when there is none, all are damaged, or a newer tinygan wrote them.
    """
    return first_sound(checkpoints(folder), folder)


def open_checkpoint(run):
    """The same for a run or for one file such as its best.npz, to look at and not to go on with."""
    return first_sound([Path(run)] if Path(run).suffix == '.npz' and not Path(run).is_dir() else checkpoints(run), run)


def first_sound(paths, run):
    problems = []
    for path in paths:
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            continue
        try:
            found = path, *read(path, content)
            if problems:
                print(f'{"; ".join(problems)}; taking {path}', file=sys.stderr)
            return found
        except (UserError, MemoryError):
            raise
        except KeyError as name:
            problems.append(f'{path} is no checkpoint: it lacks {name}')
        except Exception as error:                # whatever zipfile, NumPy and json make of damaged bytes
            problems.append(f'{path} is damaged ({error})')
    raise UserError('; '.join(problems) or f'{run} holds no checkpoint: name the folder of a run that train_mnist.py has begun')


def read(path, content):
    """(config, step, state) of a checkpoint in the bytes of a file. Nothing is unpickled."""
    with open_npz(io.BytesIO(content)) as arrays:
        state = {name: arrays[name] for name in arrays.files}
    about = json.loads(str(state.pop('about')))
    if about['version'] > VERSION:
        raise UserError(f'{path} was written by a newer tinygan (format {about["version"]}, not {VERSION})')
    if missing := set(about['arrays']) - set(state):
        raise ValueError(f'it lacks {", ".join(sorted(missing))}')
    return about['config'], about['step'], state
