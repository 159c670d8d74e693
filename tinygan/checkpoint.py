"""The folder of one training run, and how to go on from it after any kind of end.

    config.json      what was asked for, and the versions of what ran
    metrics.csv      a row for every step
    samples/         one grid of the same z after every epoch, and after steps 1, 2, 4, 8 ...
    samples.gif      those in a row;  curves.png  the metrics as curves
    checkpoint.npz   weights, Adam's memory, BatchNorm's statistics, the step; checkpoint.previous.npz the one before
"""
import contextlib
import json
import os
import re
from pathlib import Path

import numpy as np

from .arrays import array_module, to_numpy
from .errors import UserError
from .images import plot_curves, save_gif, save_png

VERSION = 1                         # of the checkpoint's format
COLUMNS = 'step', 'loss_D', 'loss_G', 'D_x', 'D_G_z1', 'D_G_z2'


@contextlib.contextmanager
def atomically(path, mode='wb', previous=None):
    """A file to write that appears at path, whole, when the block is done, or not at all.
    What stood at path before goes to the path `previous`, if one is given."""
    temporary = path.with_name(path.name + '.part')
    try:
        with open(temporary, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if previous and path.exists():
            os.replace(path, previous)
        os.replace(temporary, path)
    except OSError as error:                      # a full disk does not say which file it has no room for
        error.filename = error.filename or str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


class Run:
    """A run's folder. `start` makes one, `resume` opens it where its checkpoint was saved."""

    def __init__(self, folder, config, step=0):
        self.folder, self.config, self.step = Path(folder), config, step
        self.rows = []

    @classmethod
    def start(cls, folder, config, state, versions):
        """A new run, resumable from its first moment. UserError when the folder already holds one."""
        check_unused(folder)
        run = cls(folder, config)
        (run.folder / 'samples').mkdir(parents=True, exist_ok=True)
        with atomically(run.folder / 'config.json', 'w') as file:
            file.write(json.dumps(config | {'versions': versions}, indent=2) + '\n')
        with atomically(run.folder / 'metrics.csv', 'w') as file:
            file.write(','.join(COLUMNS) + '\n')
        run.save(0, state)
        return run

    @classmethod
    def resume(cls, folder):
        """(run, state) of the newest checkpoint that can be read. What came after it, perhaps half written, goes:
        rows of metrics.csv, samples, and a damaged newest checkpoint, lest it become the previous one."""
        path, config, step, state = newest_checkpoint(folder)
        run = cls(folder, config, step)
        newest, previous = checkpoints(folder)
        if path == previous:
            newest.unlink(missing_ok=True)
        for made_at, sample in run.samples():
            if made_at > step:
                sample.unlink()
        header, *rows = (run.folder / 'metrics.csv').read_text().splitlines(keepends=True)
        with atomically(run.folder / 'metrics.csv', 'w') as file:
            file.writelines([header, *(row for row in rows if row[-1] == '\n' and int(row.split(',')[0]) <= step)])
        return run, state

    def log(self, step, metrics):
        """Note a step's metrics. Arrays may still be on a GPU: they are fetched by `flush`, not here."""
        self.rows.append({'step': step} | metrics)

    def flush(self):
        """Fetch and write the rows logged since the last flush; returns them as one, the newest of each metric."""
        rows, self.rows = fetched(self.rows), []
        with open(self.folder / 'metrics.csv', 'a') as file:
            for row in rows:
                file.write(','.join(f'{row[name]:.9g}' if name in row else '' for name in COLUMNS) + '\n')
            file.flush()
            os.fsync(file.fileno())
        for row in rows:
            self.check_finite(row['step'], 'loss', row.values())
        return {name: value for row in rows for name, value in row.items()}

    def check_finite(self, step, what, values):
        """UserError if a value is not a number: nothing after it could be."""
        if not all(np.isfinite(value).all() for value in values):
            raise UserError(f'training diverged: step {step:.0f} has a {what} that is not a number. The checkpoint of '
                            f'step {self.step} in {self.folder} is sound; a lower --lr may help')

    def save(self, step, state):
        """Make `state` the checkpoint, and the checkpoint so far the previous one."""
        self.flush()
        self.check_finite(step, 'weight', state.values())
        newest, previous = checkpoints(self.folder)
        about = json.dumps({'version': VERSION, 'step': step, 'config': self.config, 'arrays': list(state)})
        with atomically(newest, previous=previous) as file:
            np.savez(file, about=np.array(about), **state)
        self.step = step

    def save_sample(self, name, sheet):
        with atomically(self.folder / 'samples' / f'{name}.png') as file:
            save_png(file, sheet)

    def samples(self):
        """(step, path) of every sample grid, in order. Pictures of other names are not ours."""
        unit = {'step': 1, 'epoch': self.config['steps_per_epoch']}
        names = ((re.fullmatch(r'(step|epoch)_(\d+)\.png', path.name), path)
                 for path in (self.folder / 'samples').iterdir())
        return sorted((int(name[2]) * unit[name[1]], path) for name, path in names if name)

    def save_pictures(self):
        """samples.gif and curves.png, from the files of the run so far."""
        from PIL import Image
        if self.step:
            save_gif(self.folder / 'samples.gif', [Image.open(path) for _, path in self.samples()])
            plot_curves(self.folder / 'curves.png',
                        np.atleast_1d(np.genfromtxt(self.folder / 'metrics.csv', delimiter=',', names=True)))


def fetched(rows):
    """The rows with floats for arrays: all of them in one array, so that a GPU is waited for once."""
    values = [value for row in rows for name, value in row.items() if name != 'step']
    numbers = iter(to_numpy(array_module(values[0]).stack(values)).tolist() if values else ())
    return [{name: value if name == 'step' else next(numbers) for name, value in row.items()} for row in rows]


def checkpoints(folder):
    return Path(folder) / 'checkpoint.npz', Path(folder) / 'checkpoint.previous.npz'


def check_unused(folder):
    """UserError when the folder already holds a run."""
    if any(path.exists() for path in checkpoints(folder)):
        raise UserError(f'{folder} already holds a run: go on with --resume {folder}, or choose another --out')


def newest_checkpoint(folder):
    """(path, config, step, state) of the newest checkpoint of a run that can be read.

    UserError when there is none, all are damaged, or a newer tinygan wrote them.
    """
    problems = []
    for path in checkpoints(folder):
        try:
            return path, *read(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except UserError:
            raise
        except Exception as error:                # whatever zipfile, NumPy and json make of damaged bytes
            problems.append(f'{path} is damaged ({error})')
    raise UserError('; '.join(problems) or f'{folder} holds no checkpoint: --resume and sampling need a run that '
                    'train_mnist.py has begun')


def read(path):
    """(config, step, state) of one checkpoint. Nothing is unpickled."""
    with open(path, 'rb') as file, np.load(file, allow_pickle=False) as arrays:
        state = {name: arrays[name] for name in arrays.files}
    about = json.loads(str(state.pop('about')))
    if about['version'] > VERSION:
        raise UserError(f'{path} was written by a newer tinygan (format {about["version"]}, not {VERSION})')
    if missing := set(about['arrays']) - set(state):
        raise ValueError(f'it lacks {", ".join(sorted(missing))}')
    return about['config'], about['step'], state
