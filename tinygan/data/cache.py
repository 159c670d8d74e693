"""Where files that are slow to download or to make are kept."""
import os
import pathlib


def cache_folder(what):
    """The folder of that name in the user's cache. It may not exist yet."""
    cache = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
    return pathlib.Path(cache, 'tinygan', what)
