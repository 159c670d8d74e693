"""Where files that are slow to download or to make are kept."""
import os
import tempfile
from pathlib import Path


def cache_folder(what):
    """The folder of that name in the user's cache; it may not exist yet. A user who has no home, or may not write to it, has a
    folder among the temporary files instead."""
    if asked := os.environ.get('XDG_CACHE_HOME'):
        return Path(asked, 'tinygan', what).expanduser()
    home = Path(os.path.expanduser('~/.cache'))   # stays as it is where nobody knows a home
    if not (home.is_absolute() and may_write(home)):
        user = os.getuid() if hasattr(os, 'getuid') else os.environ.get('USERNAME')
        home = Path(tempfile.gettempdir(), f'cache-{user}')
    return home / 'tinygan' / what


def may_write(folder):
    """Could files be made in the folder, or it itself if it does not exist yet?"""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)
