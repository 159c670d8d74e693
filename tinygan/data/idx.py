"""IDX, the format of MNIST's files and of its relatives: Fashion-MNIST, KMNIST, EMNIST.

    0, 0, type, D        a byte each: the type of a number (8 is uint8) and how many dimensions there are
    D sizes              four bytes each, the most significant first
    numbers              row by row, likewise
"""
import gzip
import math
import zlib

import numpy as np

TYPES = {                                         # as NumPy names them
    8: 'u1', 9: 'i1', 11: '>i2', 12: '>i4', 13: '>f4', 14: '>f8',
}
GZIP = b'\x1f\x8b'
MOST = 4                                          # dimensions: other files may begin like this, with more


class Damaged(ValueError):
    """The bytes of a file are no sound IDX file, and why: "is truncated ..."."""


def dimensions(start):
    """How many dimensions the array of an IDX file has, whose first bytes, gzipped or not, are these; 0 if it is none."""
    if start[:2] == GZIP:
        try:
            start = zlib.decompressobj(wbits=31).decompress(start, 4)
        except zlib.error:
            return 0
    return start[3] if len(start) >= 4 and start[:2] == b'\0\0' and start[2] in TYPES and start[3] <= MOST else 0


def is_whole(start, size):
    """Is a file of that size and with these first bytes, not gzipped, just as long as its array asks for?"""
    sizes = np.frombuffer(start, '>u4', start[3], offset=4).tolist() if len(start) >= 4 + 4 * start[3] else [0]
    return size == 4 + 4 * start[3] + math.prod(sizes) * np.dtype(TYPES[start[2]]).itemsize


def unpack(data):
    """The bytes of a file, without gzip if it is gzipped. Raises Damaged."""
    if data[:2] != GZIP:
        return data
    try:
        return gzip.decompress(data)
    except EOFError:
        raise Damaged('is truncated: its compressed data break off') from None
    except (OSError, zlib.error) as error:
        raise Damaged(f'is corrupted: {error}') from None


def parse(data):
    """The array in the bytes of an IDX file. Raises Damaged."""
    if len(data) >= 4 and not dimensions(data[:4]):
        raise Damaged(f'is no IDX file: it begins with 0x{data[:4].hex()}')
    if len(data) < 4 or len(data) < (start := 4 + 4 * data[3]):
        raise Damaged(f'is truncated: it holds {len(data)} bytes')
    dtype, shape = np.dtype(TYPES[data[2]]), np.frombuffer(data, '>u4', data[3], offset=4).tolist()
    if 0 in shape:                                # which NumPy may refuse, where another size is huge
        raise Damaged(f'is empty: its shape is {tuple(shape)}')
    size = start + math.prod(shape) * dtype.itemsize
    if len(data) != size:
        raise Damaged(f'is truncated: it holds {len(data)} of {size} bytes' if len(data) < size else
                      f'holds {len(data)} bytes, and its array only {size}')
    return np.frombuffer(data, dtype, offset=start).reshape(shape)
