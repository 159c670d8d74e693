"""MNIST, read from a folder or fetched once into the user's cache, and checked byte for byte."""
import hashlib
import os
import pathlib
import sys
import tempfile
import threading

from . import idx
from ..errors import UserError
from .cache import cache_folder

MIRRORS = (
    'https://ossci-datasets.s3.amazonaws.com/mnist/',
    'https://storage.googleapis.com/cvdf-datasets/mnist/',
    'https://raw.githubusercontent.com/fgnt/mnist/master/',
)
TIMEOUT = 5                                       # seconds to wait for a mirror's answer or its next bytes

SHA256 = {                                        # of what is inside the .gz: mirrors compress it differently
    'train-images-idx3-ubyte': 'ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db',
    'train-labels-idx1-ubyte': '65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5',
    't10k-images-idx3-ubyte': '0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7',
    't10k-labels-idx1-ubyte': 'ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2',
}
DIGEST = '741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757'               # of the training images' pixels

MEND = 'name a folder that holds the MNIST files with TINYGAN_DATA'


class Unavailable(UserError):
    """MNIST is not here and cannot be fetched."""


def load(split='train', folder=None, download=True):
    """MNIST's 'train' or 'test' images, uint8 (N, 28, 28, 1), and labels, uint8 (N,): see load_images."""
    return load_images(split, folder, download), load_labels(split, folder, download)


def load_images(split='train', folder=None, download=True):
    """MNIST's 'train' or 'test' images, uint8 (N, 28, 28, 1).

    The folder is the one given, else TINYGAN_DATA, else the user's cache. What it lacks is downloaded to it. Raises
    Unavailable, or UserError for a file that is not, byte for byte, MNIST's.
    """
    return _load(split, 'images-idx3', folder, download)[..., None]


def load_labels(split='train', folder=None, download=True):
    """The digits that they show, uint8 (N,), likewise."""
    return _load(split, 'labels-idx1', folder, download)


def folder_of(folder=None):
    """The folder with MNIST's files: the one given, else TINYGAN_DATA, else one in the cache."""
    asked = folder or os.environ.get('TINYGAN_DATA')
    return pathlib.Path(os.path.expanduser(asked)) if asked else cache_folder('mnist')


def find(folder, name):
    """The file `name` in folder, by one of its usual names, or None."""
    places = (folder / below / f'{usual}{gz}' for below in ('', 'MNIST/raw')      # where torchvision keeps them
              for usual in (name, name.replace('-idx', '.idx')) for gz in ('', '.gz'))
    return next((path for path in places if path.is_file()), None)


def _load(split, kind, folder, download):
    """The array in a file, which may be gzipped, or may have to be downloaded first: to the cache, or to a folder that is there."""
    name = f'{dict(train="train", test="t10k")[split]}-{kind}-ubyte'
    cached, folder = not (folder or os.environ.get('TINYGAN_DATA')), folder_of(folder)
    if not (cached or folder.is_dir()):
        raise Unavailable(f'there is no folder {folder}; {MEND}')
    path = find(folder, name)
    if not (path or download):
        raise Unavailable(f'{folder} holds no {name}[.gz]; {MEND}')
    path = path or _download(folder, name)
    try:
        return unpack(path.read_bytes(), name)
    except ValueError as problem:
        mend = (f'to train on it, --data {path}' if isinstance(problem, Foreign) else
                'delete it, and the next run downloads it again' if cached else 'put a whole one in its place')
        raise UserError(f'{path} {problem}; {mend}') from None


class Foreign(ValueError):
    """What is wrong with a sound IDX file: it is not the one expected."""


def unpack(data, name):
    """The array in the bytes of MNIST's file `name`, gzipped or not. ValueError says what is wrong with them."""
    data = idx.unpack(data)
    array = idx.parse(data)
    if hashlib.sha256(data).hexdigest() != SHA256[name]:
        raise Foreign(f'is a sound IDX file, of {"x".join(map(str, array.shape))} numbers, but not {name} of MNIST')
    return array


def _download(folder, name):
    """Fetch file `name` from the first mirror that has it whole, and return its path in folder.

    It is written beside its place and then renamed: a file that bears its name is complete and checked.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix='download-', dir=folder) as part:
            with open(os.path.join(part, name), 'wb') as file:
                file.write(_from_mirrors(folder, name))
                file.flush()
                os.fsync(file.fileno())
            return pathlib.Path(file.name).replace(folder / f'{name}.gz')
    except OSError as error:
        problem = f'{folder} holds no {name}[.gz] and cannot be written ({error.strerror})'
        raise Unavailable(f'{problem}; {MEND}') from None


def _from_mirrors(folder, name):
    """The bytes of `name`.gz from the first mirror whose copy passes every check."""
    from http.client import HTTPException
    from urllib.error import HTTPError
    failures = []
    for mirror in MIRRORS:
        try:
            data = _fetch(f'{mirror}{name}.gz')
            unpack(data, name)
            return data
        except HTTPError as answer:
            answer.close()
            problem = f'{answer.code} {answer.reason}'
        except (OSError, HTTPException) as error:
            problem = getattr(error, 'reason', error)
            problem = getattr(problem, 'strerror', None) or problem
        except ValueError as error:
            problem = f'what it sent {error}'
        failures.append(f'{mirror.split("/")[2]}: {problem}')
    raise Unavailable(f'{folder} holds no {name}[.gz] and it could not be downloaded '
                      f'({"; ".join(failures)}); {MEND}')


def _fetch(url):
    """The bytes at url, with a progress bar on a terminal."""
    from tqdm import tqdm
    with _open(url) as response:
        print(f'downloading {url}', file=sys.stderr)
        total = int(response.headers.get('Content-Length') or 0) or None
        with tqdm.wrapattr(response, 'read', total, disable=None, leave=False) as stream:
            return b''.join(iter(lambda: stream.read(1 << 16), b''))


def _open(url):
    """urlopen, for TIMEOUT seconds in all. Its own timeout holds for each of a host's addresses anew and not
    for the look-up of its name: with a silent network that adds up to minutes."""
    from concurrent.futures import Future
    from urllib.request import urlopen
    answer = Future()

    def ask():
        try:
            answer.set_result(urlopen(url, timeout=TIMEOUT))
        except Exception as error:                # raised by answer.result, in the thread that waits
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        return answer.result(TIMEOUT)
    except TimeoutError:
        raise TimeoutError(f'no answer in {TIMEOUT} seconds') from None
