"""Files that are whole or not there, and folders that one process at a time may change."""
import contextlib
import os
import weakref
from pathlib import Path

from ..errors import UserError


@contextlib.contextmanager
def atomically(path, mode='wb', previous=None):
    """A file to write that appears at path, whole, when the block is done, or not at all.
    What stood at path before goes to the path `previous`, if one is given."""
    target = Path(os.path.realpath(path))         # where a link leads, if it is one
    temporary = target.with_name(f'{target.name}.{os.urandom(4).hex()}.part')
    try:
        with open(temporary, mode, encoding=None if 'b' in mode else 'utf-8') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if previous and target.exists():
            os.replace(target, previous)
        os.replace(temporary, target)
        sync_names(target.parent)
    except OSError as error:                      # of a full disk it names no file, else the .part
        error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(OSError):        # it never was, or is renamed
            temporary.unlink()


def sync_names(folder):
    """Sync a folder, so that what was renamed in it, or made, is there under its name after a power failure too."""
    with contextlib.suppress(OSError):            # Windows opens no folder, and not every network drive syncs one
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def check_free(path):
    """UserError if something is at path already: it would be lost."""
    if os.path.exists(path):
        raise UserError(f'{path} is there already: choose another name')


locks = weakref.WeakValueDictionary()             # of this process, by folder


class Lock:
    """Keeps other processes from training the run in a folder until nobody holds it any more, or its process ends."""

    def __init__(self, folder):
        import fcntl                              # Windows has none
        file = os.open(folder / '.lock', os.O_RDWR | os.O_CREAT, 0o644)
        weakref.finalize(self, os.close, file)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f'{folder} is being trained by another process') from None


def lock(folder):
    """The Lock of a folder, one for the whole process; None where files cannot be locked. UserError if another has it."""
    place = os.path.realpath(folder)
    with contextlib.suppress(ImportError, OSError):
        held = locks.get(place) or Lock(Path(folder))
        locks[place] = held
        return held
