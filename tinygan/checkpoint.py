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
import zipfile
from pathlib import Path

import numpy as np

from .errors import UserError
from .images import plot_curves, save_gif, save_png

VERSION = 1                         # of the checkpoint's format
COLUMNS = 'step', 'loss_D', 'loss_G', 'D_x', 'D_G_z1', 'D_G_z2'


@contextlib.contextmanager
def atomically(path, mode='wb', previous=None):
    """A file to write that appears at path, whole and on the disk, when the block is done, or not at all.
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
        folder = Path(folder)
        if any(path.exists() for path in checkpoints(folder)):
            raise UserError(f'{folder} already holds a run: go on with --resume {folder}, or choose another --out')
        (folder / 'samples').mkdir(parents=True, exist_ok=True)
        run = cls(folder, config)
        with atomically(folder / 'config.json', 'w') as file:
            file.write(json.dumps(config | {'versions': versions}, indent=2) + '\n')
        with atomically(folder / 'metrics.csv', 'w') as file:
            file.write(','.join(COLUMNS) + '\n')
        run.save(0, state)
        return run

    @classmethod
    def resume(cls, folder):
        """(run, state) of the newest checkpoint that can be read; rows of later steps leave metrics.csv."""
        config, step, state = load(folder)
        run = cls(folder, config, step)
        rows = (run.folder / 'metrics.csv').read_text().splitlines(keepends=True)
        with atomically(run.folder / 'metrics.csv', 'w') as file:
            file.writelines(row for i, row in enumerate(rows)
                            if i == 0 or row.endswith('\n') and int(row.split(',')[0]) <= step)
        return run, state

    def log(self, step, metrics):
        """Note a step's metrics. Arrays may still be on a GPU: they are fetched by `flush`, not here."""
        self.rows.append({'step': step} | metrics)

    def flush(self):
        """Fetch and write the rows logged since the last flush; returns the newest. UserError on a loss that is
        not a number: nothing after it could be."""
        rows = [{name: float(value) for name, value in row.items()} for row in self.rows]
        self.rows = []
        with open(self.folder / 'metrics.csv', 'a') as file:
            for row in rows:
                file.write(','.join(f'{row[name]:.9g}' if name in row else '' for name in COLUMNS) + '\n')
            file.flush()
            os.fsync(file.fileno())
        for row in rows:
            if not np.isfinite(list(row.values())).all():
                raise UserError(f'training diverged: step {row["step"]} has a loss that is not a number. The '
                                f'checkpoint of step {self.step} in {self.folder} is sound; a lower --lr may help')
        return rows[-1] if rows else {}

    def save(self, step, state):
        """Make `state` the checkpoint, and today's checkpoint the previous one."""
        self.flush()
        newest, previous = checkpoints(self.folder)
        about = json.dumps({'version': VERSION, 'step': step, 'config': self.config})
        with atomically(newest, previous=previous) as file:
            np.savez(file, about=np.array(about), **state)
        self.step = step

    def save_samples(self, name, sheet):
        save_png(self.folder / 'samples' / f'{name}.png', sheet)

    def save_pictures(self):
        """samples.gif and curves.png, from the files of the run so far."""
        steps = {'step': 1, 'epoch': self.config['steps_per_epoch']}

        def when(path):
            unit, count = path.stem.split('_')
            return int(count) * steps[unit]
        frames = sorted((self.folder / 'samples').glob('*_*.png'), key=when)
        if frames:
            save_gif(self.folder / 'samples.gif', frames)
        if self.step:
            plot_curves(self.folder / 'curves.png',
                        np.atleast_1d(np.genfromtxt(self.folder / 'metrics.csv', delimiter=',', names=True)))


def checkpoints(folder):
    return Path(folder) / 'checkpoint.npz', Path(folder) / 'checkpoint.previous.npz'


def load(folder):
    """(config, step, state) of the newest checkpoint of a run that can be read.

    Nothing is unpickled. UserError when there is none, all are damaged, or a newer tinygan wrote them.
    """
    problems = []
    for path in checkpoints(folder):
        try:
            with np.load(path, allow_pickle=False) as file:
                state = {name: file[name] for name in file.files}
            about = json.loads(str(state.pop('about')))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            problems.append(f'{path} is damaged ({error})')
            continue
        if about['version'] > VERSION:
            raise UserError(f'{path} was written by a newer tinygan (format {about["version"]}, not {VERSION})')
        return about['config'], about['step'], state
    raise UserError('; '.join(problems) or f'{folder} holds no checkpoint: --resume and sampling need a run that '
                    'train_mnist.py has begun')
