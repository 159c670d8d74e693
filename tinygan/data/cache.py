"""Where files that are slow to download or to make are kept."""
import os
import stat
import tempfile
from pathlib import Path

from ..errors import UserError


def cache_folder(what):
    """The folder of that name in the user's cache; it may not exist yet. A user who has no home, or may not write to it, has a
    folder among the temporary files instead."""
    if asked := os.environ.get('XDG_CACHE_HOME'):
        return Path(os.path.expanduser(asked), 'tinygan', what)
    home = Path(os.path.expanduser('~/.cache'))   # stays as it is where nobody knows a home
    if not (home.is_absolute() and may_write(home)):
        home = temporary()
    return home / 'tinygan' / what


def may_write(folder):
    """Could files be made in the folder, or it itself if it does not exist yet?"""
    there = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    return os.path.isdir(there) and os.access(there, os.W_OK | os.X_OK)


def temporary():
    """The user's own folder among the temporary files, which others may neither read nor have put there."""
    user = os.getuid() if hasattr(os, 'getuid') else 0            # Windows, where st_uid is 0: its temporary folder is the user's
    folder = Path(tempfile.gettempdir(), f'cache-{user}')
    folder.mkdir(mode=0o700, exist_ok=True)
    found = os.lstat(folder)
    if not (stat.S_ISDIR(found.st_mode) and found.st_uid == user):
        raise UserError(f'{folder} belongs to somebody else; name a folder for the cache with XDG_CACHE_HOME')
    return folder
