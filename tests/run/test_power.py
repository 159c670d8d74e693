"""What a filesystem may forget when the power fails, and a disk that is full or may only be read."""
import builtins
import contextlib
import errno
import io
import itertools
import os
import resource
import shutil

import numpy as np
import pytest
import test_checkpoint as runs
from commands import contents, tinygan

import train_mnist
from tinygan.errors import line_of
from tinygan.run.checkpoint import Run, check_unused, checkpoints

MOST = 6                                          # changes of names that may be lost, each by itself
UNSYNCED = lambda tail: b'', lambda tail: tail[:len(tail) // 2], lambda tail: bytes(len(tail)), lambda tail: tail


class Disk:
    """What a power failure may leave of a folder, by the promises that POSIX makes and no other. Of a file, what was there at
    its last fsync, and of what was written since nothing, half, all, or zeros in its place; of names, what they meant at their
    folder's last fsync, and each change since or not. `states` has all that is possible at any moment, with the step that had been
    saved by then."""

    def __init__(self, folder, patch):
        self.folder, self.saved, self.states, self.files = folder, None, {}, {}
        self.now, self.changes = {}, []
        self.look()
        self.names, self.changes, self.synced = self.now, [], {file: self.read(file) for file in self.files}
        for name in 'replace', 'rename', 'unlink', 'fsync':
            patch.setattr(os, name, self.watched(getattr(os, name)))

    def watched(self, call):
        def watching(what, *others):
            self.fail()
            call(what, *others)
            if call.__name__ == 'fsync':
                self.sync(os.fstat(what))
            self.fail()
        return watching

    def look(self):
        """Note what names mean now: the numbers of files, which are held open lest another gets the same."""
        now = {path: path.stat().st_ino for path in self.folder.rglob('*') if path.is_file() and path.name != '.lock'}
        self.files |= {now[path]: open(path, 'rb', buffering=0) for path in now if now[path] not in self.files}
        if change := {path: now.get(path) for path in now.keys() | self.now.keys() if now.get(path) != self.now.get(path)}:
            self.changes.append(change)
        self.now = now

    def read(self, file):
        self.files[file].seek(0)
        return self.files[file].read()

    def sync(self, status):
        if status.st_ino in self.files:
            self.synced[status.st_ino] = self.read(status.st_ino)
            return
        here = [change for change in self.changes if next(iter(change)).parent.stat().st_ino == status.st_ino]
        self.names = self.after(here)
        self.changes = [change for change in self.changes if change not in here]

    def after(self, changes):
        names = self.names | {path: file for change in changes for path, file in change.items()}
        return {path: file for path, file in names.items() if file}

    def fail(self):
        """Note all that would be left if the power failed now."""
        self.look()
        certain, recent = self.changes[:-MOST], self.changes[-MOST:]
        for kept in itertools.product((False, True), repeat=len(recent)):
            names = self.after([*certain, *itertools.compress(recent, kept)])
            for unsynced in UNSYNCED:
                left = {path.relative_to(self.folder): self.on_disk(file, unsynced) for path, file in names.items()}
                self.states[frozenset(left.items())] = self.saved

    def on_disk(self, file, unsynced):
        synced = self.synced.get(file, b'')
        return synced + unsynced(self.read(file)[len(synced):])


@pytest.fixture
def left_by(tmp_path, monkeypatch):
    """left_by(action): (folder, step saved by then) of all that a power failure may leave while action(disk) changes a run."""
    def states(action, folder=tmp_path / 'run'):
        folder.mkdir(exist_ok=True)
        with monkeypatch.context() as patch, contextlib.ExitStack() as files:
            disk = Disk(folder, patch)
            action(disk)
            for file in disk.files.values():
                files.enter_context(file)
        monkeypatch.setattr(os, 'fsync', lambda descriptor: None)           # the power stays on from here
        for i, (state, saved) in enumerate(disk.states.items()):
            for name, content in state:
                (tmp_path / f'{i}' / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / f'{i}' / name).write_bytes(content)
            (tmp_path / f'{i}').mkdir(exist_ok=True)
            yield tmp_path / f'{i}', saved
            shutil.rmtree(tmp_path / f'{i}')
    return states


def go_on(disk, run, *steps):
    for step in steps:
        runs.steps(run, step, step, runs.DISTANCES, every=2)
        disk.saved = run.step


def check(folder, saved):
    """A run is as it was when it saved that step, or as it would have been at a later one. Which one that is."""
    found = runs.loaded_step(folder)
    assert found >= saved
    run, _ = runs.resume(folder)
    rows = [int(row.split(b',')[0]) for row in runs.table(run).split()[1:]]
    assert rows == [*range(1, found + 1)] and not [*folder.rglob('*.part')]
    if run.best.exists():
        assert runs.measured(run)[runs.best_step(run)] == min(runs.measured(run).values())
    return found


def test_what_was_saved_is_there_whatever_a_filesystem_forgets(left_by):
    def train(disk):
        run = Run.start(disk.folder, dict(runs.CONFIG), runs.state(0), {'tinygan': '0'})
        disk.saved = 0
        go_on(disk, run, 1, 2, 3, 4)
        run, _ = runs.resume(disk.folder)
        go_on(disk, run, 5, 6)

    found = []
    for folder, saved in left_by(train):
        if saved is None and not any(path.exists() for path in checkpoints(folder)):
            check_unused(folder)                  # it can be begun again
        else:
            found.append(check(folder, saved or 0))
    assert {0, 2, 4, 6} == set(found) and len(found) > 40


def test_a_sound_checkpoint_beside_a_damaged_one_is_never_lost(left_by, tmp_path):
    run = runs.steps(Run.start(tmp_path / 'run', dict(runs.CONFIG), runs.state(0), {'tinygan': '0'}), 1, 4, runs.DISTANCES, every=2)
    (run.folder / 'checkpoint.npz').write_bytes(b'damaged')

    def train(disk):
        disk.saved = 2
        go_on(disk, runs.resume(disk.folder)[0], 3, 4)
    assert {check(folder, saved) for folder, saved in left_by(train)} == {2, 4}


# ---- no room, no leave

@contextlib.contextmanager
def room_for(size):
    """Within the block, no file can be larger than so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_wherever_in_a_save_the_disk_is_full_the_run_goes_on_from_the_checkpoint_before(tmp_path):
    unbroken, run = (runs.steps(Run.start(tmp_path / name, dict(runs.CONFIG), runs.state(0), {'tinygan': '0'}), 1, last)
                     for name, last in (('unbroken', 3), ('run', 2)))
    size = (run.folder / 'checkpoint.npz').stat().st_size
    for room in [*range(0, size, size // 40), size - 1]:
        folder = shutil.copytree(run.folder, tmp_path / f'{room}')
        resumed, _ = runs.resume(folder)
        resumed.log(3, runs.metrics(3))
        with room_for(room), pytest.raises(OSError) as error:
            resumed.save(3, runs.state(3))
        assert error.value.errno == errno.EFBIG and 'File too large' in line_of(error.value)
        assert runs.loaded_step(folder) == 2 and not [*folder.rglob('*.part')]
        runs.steps(runs.resume(folder)[0], 3, 3)
        assert contents(folder) == contents(unbroken.folder)


@pytest.fixture
def read_only(monkeypatch):
    """From now on, the system lets nobody change that folder, not even root."""
    def protect(folder):
        def refusing(call):
            def wrapper(path, *arguments, **options):
                reads = call.__name__ == 'open' and [*arguments, *options.values(), 'r'][0] in ('r', 'rb', os.O_RDONLY)
                if not reads and str(path).startswith(str(folder)):
                    raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
                return call(path, *arguments, **options)
            return wrapper
        for module, names in (builtins, ['open']), (io, ['open']), (os, ['open', 'mkdir', 'replace', 'rename', 'unlink']):
            for name in names:
                monkeypatch.setattr(module, name, refusing(getattr(module, name)))
    return protect


def test_a_run_that_may_only_be_read_is_looked_at_and_does_not_go_on(copy, tmp_path, monkeypatch, read_only):
    monkeypatch.chdir(tmp_path)
    before = contents(copy)
    read_only(copy)
    assert tinygan('sample', copy, '-n', 4, '--npy', 'four.npy') is None and np.load('four.npy').shape == (4, 28, 28)
    with pytest.raises(OSError) as error:
        train_mnist.main(['--device', 'cpu', '--plain', '--resume', str(copy), '--max-steps', '99'])
    assert line_of(error.value) == f'{copy}/metrics.csv: Read-only file system'
    assert contents(copy) == before
