"""MNIST, read from a folder or fetched once into the user's cache, and checked byte for byte."""
import gzip
import hashlib
import math
import os
import pathlib
import sys
import tempfile
import threading
import zlib

import numpy as np

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

MEND = 'name a folder that holds the MNIST files with TINYGAN_DATA'


class Unavailable(UserError):
    """MNIST is not here and cannot be fetched."""


def load(split='train', folder=None, download=True):
    """MNIST's 'train' or 'test' images, uint8 (N, 28, 28, 1), and labels, uint8 (N,).

    The folder is the one given, else TINYGAN_DATA, else the user's cache. What it lacks is downloaded to it.
    Raises Unavailable, or UserError for a file that is not, byte for byte, MNIST's.
    """
    folder = pathlib.Path(folder or os.environ.get('TINYGAN_DATA') or cache_folder('mnist'))
    prefix = {'train': 'train', 'test': 't10k'}[split]
    images = _read(folder, f'{prefix}-images-idx3-ubyte', download)
    labels = _read(folder, f'{prefix}-labels-idx1-ubyte', download)
    return images[..., None], labels


def _read(folder, name, download):
    """The array in file `name` of folder, which may be gzipped, or may have to be downloaded first."""
    found = [path for path in (folder / name, folder / f'{name}.gz') if path.is_file()]
    if not found and not download:
        raise Unavailable(f'{folder} holds no {name}[.gz]; {MEND}')
    path = found[0] if found else _download(folder, name)
    try:
        return unpack(path.read_bytes(), name)
    except ValueError as problem:
        raise UserError(f'{path} {problem}; delete it, and the next run downloads it again') from None


def unpack(data, name):
    """The array in the bytes of an IDX file, gzipped or not. ValueError says what is wrong with them.

    An IDX file: 0, 0, 8 (for uint8), the number of dimensions, each dimension in four bytes, the array.
    """
    if data[:2] == b'\x1f\x8b':
        try:
            data = gzip.decompress(data)
        except EOFError:
            raise ValueError('is truncated: its compressed data break off') from None
        except (OSError, zlib.error) as error:
            raise ValueError(f'is corrupted: {error}') from None
    ndim = 3 if 'images' in name else 1
    magic, start = bytes([0, 0, 8, ndim]), 4 + 4 * ndim
    if len(data) < start:
        raise ValueError(f'is truncated: it holds {len(data)} bytes')
    if data[:4] != magic:
        raise ValueError(f'is not an MNIST file: it begins with 0x{data[:4].hex()}, not 0x{magic.hex()}')
    shape = np.frombuffer(data, '>u4', ndim, offset=4).tolist()
    if len(data) < start + math.prod(shape):
        raise ValueError(f'is truncated: it holds {len(data)} of {start + math.prod(shape)} bytes')
    digest = hashlib.sha256(data).hexdigest()
    if digest != SHA256[name]:
        raise ValueError(f'is not the MNIST file of that name: its SHA-256 is {digest[:12]}..., '
                         f'not {SHA256[name][:12]}...')
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


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
