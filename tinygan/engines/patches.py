"""Convolution as in conv.py, with patches gathered faster: each row of a patch is copied as if it were one number."""
import math

import numpy as np

from .. import conv
from .loops import in_c


def forward(x, w, S, P):
    cols, (N, OH, OW) = gather(x, len(w), S, P)
    return (cols @ w.reshape(cols.shape[1], -1)).reshape(N, OH, OW, w.shape[3])


def weight_grad(x, dy, K, S, P):
    cols, _ = gather(x, K, S, P)
    return (cols.T @ dy.reshape(-1, dy.shape[3])).reshape(K, K, x.shape[3], dy.shape[3])


def gather(x, K, S, P):
    """conv.im2col, and the shape (N, OH, OW) of its rows."""
    N, H, W, C = x.shape
    shape = N, conv.output_size(H, K, S, P), conv.output_size(W, K, S, P)
    if K * C > 4 and (c := in_c(0, x)):       # at 16 bytes, NumPy is faster
        cols = np.empty((math.prod(shape), K * K * C), x.dtype)
        c.gather(x, cols, *x.shape, *shape[1:], K, S, P)
        return cols, shape
    if P:
        padded = np.zeros((N, H + 2 * P, W + 2 * P, C), x.dtype)
        padded[:, P:P + H, P:P + W] = x
    else:
        padded = x.ravel().reshape(x.shape)       # contiguous, and with the usual strides even where a side is of length 1
    image, row, pixel, _ = padded.strides
    entries = row_of(K * pixel)
    cols = np.ndarray((*shape, K), entries, padded, strides=(image, S * row, S * pixel, row)).copy()
    return cols.view(x.dtype).reshape(-1, K * K * C), shape


def row_of(size):
    """A type of that many bytes. NumPy copies 16 at once if they are called a complex number."""
    return np.dtype(complex) if size == 16 else np.dtype((np.void, size))
