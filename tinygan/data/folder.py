"""Pictures in a folder or in a zip: which there are, and what was passed over."""
import io
import os
import stat
import zipfile
from collections import Counter
from pathlib import Path, PurePosixPath

from . import idx
from .decode import START, has_suffix, looks_like_picture, open_picture
from ..errors import UserError

LARGEST = 2 ** 28                                 # bytes of a picture in a zip
RUN = {'config.json', 'metrics.csv', 'checkpoint.npz', 'checkpoint.previous.npz'}               # two of them make a run's folder
MADE_BY_RUN = 'samples', 'samples.gif', 'curves.png'


class Folder:
    """The pictures in a folder and in all folders in it, links followed, sorted by name. IDX files are found as well."""

    def __init__(self, path):
        self.path, self.files, self.idx, self.passed = Path(path), [], [], Counter()
        seen = set()
        for folder, folders, names in os.walk(path, followlinks=True, onerror=self.unreadable):
            if (here := os.path.realpath(folder)) in seen:        # a loop, or two links to one folder
                self.passed['folder that was read already'] += 1
                folders.clear()
                continue
            seen.add(here)
            if len(RUN.intersection(names)) > 1:
                if folder != str(path):
                    self.passed['folder of a run'] += 1
                    folders.clear()
                    continue
                folders[:] = set(folders).difference(MADE_BY_RUN)
                names = set(names).difference(MADE_BY_RUN)
            folders[:] = sorted(self.visible(folders))
            for name in self.visible(names):
                self.take(os.path.join(folder, name))
        self.files.sort()
        self.names = [name for name, *_ in self.files]

    def visible(self, names):
        shown = [name for name in names if not name.startswith('.')]
        self.passed += Counter(hidden=len(names) - len(shown))
        return shown

    def unreadable(self, error):
        self.passed[f'unreadable folder: {os.path.relpath(error.filename, self.path)}'] += 1

    def take(self, path):
        """Note a file as a picture, as an IDX file of images, or as passed over."""
        name = os.path.relpath(path, self.path).replace(os.sep, '/')
        try:
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode):
                self.passed['neither file nor folder'] += 1       # a pipe would be waited for
            elif not os.access(path, os.R_OK):
                self.passed[f'unreadable file: {name}'] += 1
            elif has_suffix(name) or self.recognise(path, name):
                self.files.append((name, status.st_size, status.st_mtime_ns))
        except OSError:
            self.passed['link that leads nowhere'] += 1

    def recognise(self, path, name):
        """Does the file begin as a picture does? If not, it is noted."""
        with open(path, 'rb') as file:
            start = file.read(START)
        if dims := idx.dimensions(start):
            if dims > 2:
                self.idx.append(name)
            else:
                self.passed['IDX file of labels'] += 1
            return False
        return is_picture(lambda: path, name, start, self.passed)

    def open(self, name):
        return open_picture(self.path / name, name)


class Zip:
    """The pictures in a zip, sorted by name, which are read from there. Nothing is unpacked, and no path in it followed."""
    idx = ()

    def __init__(self, path):
        self.path, self.passed, self.files = Path(path), Counter(), [file_key(path)]
        try:
            self.zip = zipfile.ZipFile(path)
            self.members = {member.filename: member for member in self.zip.infolist() if self.take(member)}
        except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
            raise UserError(f'{path} is a damaged zip ({error})') from None
        self.names = sorted(self.members)

    def take(self, member):
        """Is it a picture? If not, it is noted."""
        name = member.filename
        if member.is_dir():
            return False
        if any(part.startswith(('.', '__MACOSX')) and part != '..' for part in PurePosixPath(name).parts):
            self.passed['hidden'] += 1
        elif member.flag_bits & 1:
            self.passed['encrypted'] += 1
        elif member.file_size > LARGEST:
            self.passed[f'larger than {LARGEST >> 20} MB'] += 1
        elif has_suffix(name):
            return True
        else:
            try:
                with self.zip.open(member) as file:
                    start = file.read(START)
            except Exception:                     # whatever zipfile makes of damaged bytes
                start = b''
            return is_picture(lambda: self.file(member), name, start, self.passed)

    def file(self, member):
        return io.BytesIO(self.zip.read(member))

    def open(self, name):
        return open_picture(self.file(self.members[name]), name)


def is_picture(opened, name, start, passed):
    """Is a file without a picture's suffix one, as its start and then Pillow say? If not, it is counted by its suffix."""
    if looks_like_picture(start):
        try:
            with open_picture(opened(), name):
                return True
        except Exception:                         # Pillow meets garbage with almost any exception there is
            pass
    passed[PurePosixPath(name).suffix.lower() or 'without a suffix'] += 1


def file_key(path):
    """By what a file is told from another: its name, size and time of change."""
    status = os.stat(path)
    return os.path.basename(path), status.st_size, status.st_mtime_ns
