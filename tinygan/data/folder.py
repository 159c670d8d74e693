"""Pictures in a folder or in a zip: which there are, and what was passed over."""
import errno
import io
import os
import stat
import warnings
import zipfile
from collections import Counter
from pathlib import Path, PurePosixPath

import numpy as np
from tqdm import tqdm

from . import idx
from .decode import START, has_suffix, looks_like_picture, open_picture, suffix_of
from .ours import OF_RUN, is_run
from ..errors import UserError, printable

LARGEST = 2 ** 28                                 # bytes of a picture in a zip


class Folder:
    """The pictures in a folder and in all folders in it, links followed, sorted by name. `idx_files` are those of images; `passed`
    counts, by kind, what was passed over."""

    def __init__(self, path):
        self.path, self.files, self.idx_files, self.passed, self.seen = Path(path), [], [], Counter(), set()
        for folder, folders, names in tqdm(os.walk(path, followlinks=True, onerror=self.unreadable), 'looking for pictures',
                                           unit=' folders', delay=2, leave=False, disable=None):
            folders[:], names = self.inside(folder, folders, names)           # os.walk goes on with these folders
            below = '' if folder == str(path) else os.path.relpath(folder, path).replace(os.sep, '/') + '/'
            for name in names:
                self.take(os.path.join(folder, name), below + name)
        self.files.sort()
        self.names = [name for name, *_ in self.files]

    def inside(self, folder, folders, names):
        """Those of the folders and files in a folder that are looked at: of a run's, none."""
        here = os.path.realpath(folder)
        if here in self.seen:                     # a loop, or two links to one folder
            self.passed['folders that were read already'] += 1
            return [], []
        self.seen.add(here)
        if 'config.json' in names and is_run(folder):
            if folder != str(self.path):
                self.passed[f'folder of a run: {os.path.relpath(folder, self.path)}'] += 1
                return [], []
            folders, names = set(folders).difference(OF_RUN), set(names).difference(OF_RUN)       # the pictures beside them are data
        return sorted(self.visible(folders)), self.visible(names)

    def unreadable(self, error):
        self.passed[f'unreadable folder: {os.path.relpath(error.filename, self.path)}'] += 1

    def visible(self, names):
        shown = [name for name in names if not name.startswith('.')]
        if hidden := len(names) - len(shown):
            self.passed['hidden'] += hidden
        return shown

    def take(self, path, name):
        try:
            status = os.stat(path)
        except OSError:
            self.passed['links that lead nowhere'] += 1
            return
        if reason := self.why_not(path, name, status):
            self.passed[reason] += 1
        else:
            self.files.append((name, *change_of(status)))

    def why_not(self, path, name, status):
        """Why a file is passed over; None for a picture."""
        if not stat.S_ISREG(status.st_mode):      # a pipe would be waited for
            return 'neither file nor folder'
        if not os.access(path, os.R_OK):
            return f'unreadable file: {name}'
        if has_suffix(name):
            return None
        with open(path, 'rb') as file:
            start = file.read(START)
        dimensions = idx.dimensions(start)
        if dimensions and (start[:2] == idx.GZIP or 'ubyte' in name or idx.is_whole(start, status.st_size)):
            self.idx_files += [name] * (dimensions > 2)
            return 'IDX files'
        return None if is_picture(path, name, start) else suffix_of(name) or 'without a suffix'

    def about(self):
        return f'{len(self.names):,} pictures in {self.path}'

    def open(self, name):
        return open_picture(self.path / name, name)

    def labels(self):
        """For each picture its class, which is the subfolder that it lies in. A folder around all of these does not count."""
        folders = [PurePosixPath(name).parent.parts for name in self.names]
        while len({path[:1] for path in folders}) == 1 and min(map(len, folders)) > 1:
            folders = [path[1:] for path in folders]
        if () in folders:
            raise UserError(f'--data {self.path}: {printable(self.names[folders.index(())])} lies in no subfolder, and those '
                            'are the classes that this recipe needs')
        return np.array([path[0] for path in folders])


class Zip:
    """The pictures in a zip, sorted by name, which are read from there. Nothing is unpacked, and no path in it followed."""
    about, labels = Folder.about, Folder.labels

    def __init__(self, path):
        self.path, self.files, self.passed = Path(path), [file_key(path)], Counter()
        self.zip, self.members = zipfile.ZipFile(path), {}
        for member in self.zip.infolist():
            if reason := self.why_not(member):
                self.passed[reason] += 1
            elif not member.is_dir():
                self.members[member.filename] = member
        self.names = sorted(self.members)

    def why_not(self, member):
        """Why a file is passed over; None for a picture, or a folder."""
        if any(part.startswith(('.', '__MACOSX')) and part != '..' for part in PurePosixPath(member.filename).parts):
            return 'hidden'
        if member.flag_bits & 1:
            return 'encrypted'
        if member.file_size > LARGEST:
            return f'larger than {LARGEST >> 20} MB'
        if member.is_dir() or has_suffix(member.filename):
            return None
        try:
            content = self.read(member)
        except Exception:                         # whatever zipfile makes of damaged bytes
            content = io.BytesIO()
        if is_picture(content, member.filename, content.getvalue()[:START]):
            return None
        return suffix_of(member.filename) or 'without a suffix'

    def read(self, member):
        return io.BytesIO(self.zip.read(member))

    def open(self, name):
        return open_picture(self.read(self.members[name]), name)


def is_picture(file, name, start):
    """Is a path or an open file, which begins with these bytes, a picture, though its name does not say so?"""
    if not looks_like_picture(start):
        return False
    try:
        with warnings.catch_warnings(action='ignore'), open_picture(file, name):
            return True
    except Exception:                             # Pillow meets garbage with almost any exception there is
        return False


def is_of_system(error):
    """Is it the system's fault, and not that of a file's bytes, which may name an offset that is not there (EINVAL)?"""
    return isinstance(error, MemoryError) or getattr(error, 'errno', None) not in (None, errno.EINVAL)


def file_key(path):
    """What tells a file from another, and from itself before a change."""
    return os.path.basename(path), *change_of(os.stat(path))


def change_of(status):
    """What changes when a file does: its size, the time of writing, which programs can set back, and that of any change."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
