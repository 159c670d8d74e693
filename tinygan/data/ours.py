"""What our own runs leave behind, and what therefore must never become data."""
import json
from pathlib import Path

MADE_BY = 'tinygan'                               # what our pictures say of themselves
OF_RUN = 'samples', 'samples.gif', 'curves.png'   # the pictures in a run's folder


def is_run(folder):
    """Is it the folder of a run, as its config.json says?"""
    try:
        config = json.loads(Path(folder, 'config.json').read_text())
        return 'tinygan' in config['versions'] and 'recipe' in config
    except (OSError, ValueError, TypeError, KeyError):
        return False
