"""What our own runs leave behind, and what therefore must never become data."""
import json
from pathlib import Path

MADE_BY = 'tinygan'                               # what our pictures say of themselves
OF_RUN = 'samples', 'samples.gif', 'curves.png'   # the pictures in a run's folder


def is_run(folder):
    """Is it the folder of a run, as its config.json says?"""
    config = read_config(folder)
    return 'recipe' in config and isinstance(config.get('versions'), dict) and 'tinygan' in config['versions']


def read_config(folder):
    """What config.json says, or nothing if it is not there or damaged."""
    path = Path(folder, 'config.json')
    try:
        config = json.loads(path.read_text('utf-8')) if path.is_file() else {}
        return config if isinstance(config, dict) else {}
    except (OSError, ValueError, RecursionError):
        return {}
