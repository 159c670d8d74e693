"""The three functions of conv.py with fewer multiplications, where that pays: by the values of polynomials.

In one dimension and with stride 1, `input_grad` multiplies polynomials, dx(t) = dy(t) w(t), whose coefficients are the
entries of dy, w and dx. m entries of dy and r of w make n = m + r - 1 of dx, and a polynomial with n coefficients is
known by its values at n points. So one evaluates dy(t) and w(t) at n points (matrices A and B), multiplies the values,
with n multiplications instead of m r, and interpolates dx(t) (matrix Q): Toom 1963, Cook 1966. Frameworks take other
points and call it Winograd convolution. The other two functions are transposes of this one: <forward(x, w), dy> is the sum over the
points of (Q.T x) (B w) (A dy), and each function is a derivative of it:

    input_grad    dx = Q   (A dy  * B w)
    forward       y  = A.T (Q.T x * B w)
    weight_grad   dw = B.T (Q.T x * A dy)

In two dimensions A, B and Q act along rows and columns, and * is, at each of n * n points, the matrix product over the
channels (Lavin & Gray 2016, "Fast algorithms for convolutional neural networks"). With stride S, S*S neighbouring pixels
count as channels of one pixel, which leaves r = K / S taps. Larger outputs are cut into tiles of m x m. For a 4x4 kernel
with stride 2 and an output of 7x7, m = 7 and n = 8: 64 products where, with channels counted like this, the definition
has 7 * 7 * 2 * 2 = 196.

The price is rounding: in float32 the root mean square error is 1e-5 of the result for n = 8 and 1e-6 for n = 5, where
conv.py has 3e-7.

Here forward and input_grad also return the values of their first argument, so that weight_grad can use them again. Matrices
and values (X = Q.T x, Y = A dy, W = B w) are upper case, as in the literature; so is T, the number of tiles along a side. For the
arrays that in_c lets through, toomcook.c computes what the methods of Plan say here with NumPy.
"""
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from .. import conv
from . import patches
from .loops import PANEL, ROOM, in_c

IN_CACHE = 2**16                    # entries that a core's cache holds, with what is made of them
MOST_POINTS = 8                     # in one dimension: with more, float32 would lose too many digits
FEWEST_CHANNELS, FEWEST_ROWS = 16, 8              # of the matrices at one point: making them costs time too
WEIGHTS_PER_ROW = 2**14             # at one point: for so many more values of w, there must be one row more


def forward(x, w, S, P):
    """conv.forward, and x as weight_grad takes it."""
    plan = find_plan(x, w, x.shape[1:3], conv.output_size(x.shape[1], w.shape[0], S, P), S, P)
    if plan is None:
        return patches.forward(x, w, S, P), x
    X = plan.of_images(x)
    return plan.to_outputs(plan.multiply(X, w), len(x)), Values(plan, X)


def input_grad(dy, w, size, S, P):
    """conv.input_grad, and dy as weight_grad takes it."""
    K, _, C, F = w.shape
    if (*size, P) == (K, K, 0):                   # the only patch is the image, so there is nothing to add up
        product = np.matmul if F > 1 else np.multiply             # the same for one filter, but BLAS is slow at it
        return product(dy.reshape(-1, F), w.reshape(-1, F).T).reshape(-1, K, K, C), dy
    plan = find_plan(dy, w, size, dy.shape[1], S, P)
    if plan is None:
        return conv.input_grad(dy, w, size, S, P), dy
    Y = plan.of_outputs(dy)
    return plan.to_images(plan.multiply(Y, w, transposed=True), (len(dy), *size, C)), Values(plan, Y)


def weight_grad(x, dy, K, S, P):
    """conv.weight_grad, of what forward and input_grad returned with their results, or of plain arrays."""
    plan = next((given.plan for given in (x, dy) if isinstance(given, Values)), None)
    if plan is None:
        return patches.weight_grad(x, dy, K, S, P)
    X = x.array if isinstance(x, Values) else plan.of_images(x)
    Y = dy.array if isinstance(dy, Values) else plan.of_outputs(dy)
    return plan.to_weight(X, Y)


def find_plan(array, w, size, output_size, S, P):
    """The plan for images of that size, (H, W), and outputs of that size; None where it does not pay, and where they are
    not square. array is x or dy: only its type and number of images count."""
    K, _, C, F = w.shape
    if not isinstance(array, np.ndarray) or array.dtype != w.dtype or size[0] != size[1]:
        return None
    if K % S or not 2 <= K // S <= MOST_POINTS // 2:
        return None
    if min(C, F) < FEWEST_CHANNELS:
        return None
    plan = Plan(K, S, P, output_size, array.dtype)
    return plan if len(array) * plan.T ** 2 >= FEWEST_ROWS + S * S * C * F // WEIGHTS_PER_ROW else None


class Values(NamedTuple):
    """The values of polynomials at the points: (n * n, N * T * T, channels)."""
    plan: 'Plan'
    array: np.ndarray


@lru_cache
class Plan:
    """How an output of size x size is made of T x T tiles of m x m numbers, each from the values at n x n points.

    The points are t = tan(a), for n directions a spread evenly over half a turn. And c[0] + c[1] t + ... is taken times
    cos(a)^(k-1), so as the sum over j of c[j] cos(a)^(k-1-j) sin(a)^j: no power of a point is large, and t may be
    infinite. m is chosen so that all tiles together have the fewest points.
    """

    def __init__(self, K, S, P, size, dtype):
        r = K // S
        m = min(range(1, MOST_POINTS - r + 2), key=lambda m: (-(-size // m) * (m + r - 1), m))        # fewest points
        self.K, self.S, self.P, self.size, self.r, self.m = K, S, P, size, r, m
        self.n, self.T = m + r - 1, -(-size // m)
        angle = np.pi * (np.arange(self.n)[:, None] + 0.5) / self.n

        def evaluate(k):
            j = np.arange(k)
            return np.cos(angle) ** (k - 1 - j) * np.sin(angle) ** j
        A, B, Q = evaluate(m), evaluate(r), np.linalg.inv(evaluate(self.n))
        a, b = np.linalg.norm(A, axis=1), np.linalg.norm(B, axis=1)           # values of like size lose fewer digits
        A, B, Q = A / a[:, None], B / b[:, None], Q * (a * b)
        self.A, self.B, self.Q = (np.ascontiguousarray(M, dtype) for M in (A, B, Q))
        self.BB = np.kron(self.B, self.B)         # along rows and columns at once

    def multiply(self, values, w, transposed=False):
        """values * B w, or its transpose. B w is made for a few points at a time, and still in the cache when used."""
        K, _, C, F = w.shape
        r, S = self.r, self.S
        depth, columns = (F, S * S * C) if transposed else (S * S * C, F)
        if values.shape[2] == depth and (c := in_c(C, w)) and in_c(F, values):
            points, rows, _ = values.shape
            panels, product = np.empty_like(w), np.empty((points, rows, columns), w.dtype)
            c.to_panels(w, panels, r, S, C, F, int(transposed))
            c.multiply(self.BB, panels, values, product, np.empty(ROOM, w.dtype), points, r * r, rows, depth, columns)
            return product
        w = w.reshape(r, S, r, S, C, F).swapaxes(1, 2).reshape(r * r, S * S * C, F)
        w = w.swapaxes(1, 2) if transposed else w
        _, *shape = w.shape
        w = w.reshape(r * r, -1)
        product = np.empty((*values.shape[:2], shape[1]), values.dtype)
        for points in pieces(len(values), w.shape[1]):
            W = self.BB[points] @ w
            np.matmul(values[points], W.reshape(-1, *shape), out=product[points])
        return product

    def to_weight(self, X, Y):
        """B.T (X * Y)."""
        K, S, r, C, F = self.K, self.S, self.r, X.shape[2] // self.S ** 2, Y.shape[2]
        if X.shape[:2] == Y.shape[:2] and (c := in_c(C, X)) and in_c(F, Y):
            dw = np.empty((K, K, C, F), X.dtype)
            room = np.empty(PANEL * (r * r + 1) * S * S * C, X.dtype)
            c.weight_grad(self.BB, X, Y, dw, room, *X.shape[:2], r, S, C, F)
            return dw
        dw = np.zeros((r * r, S * S * C * F), X.dtype)
        for points in pieces(len(X), dw.shape[1], at_least=4):                # each adds to all of dw
            W = X[points].swapaxes(1, 2) @ Y[points]
            dw += self.BB[points].T @ W.reshape(len(W), -1)
        return dw.reshape(r, r, S, S, C, F).swapaxes(1, 2).reshape(K, K, C, F)

    def of_images(self, x):
        """Q.T x."""
        if c := in_c(x.shape[3], x):
            return self.of_tiles(c, self.Q.T, x, self.S, self.P)
        (N, _, _, C), n, T, S = x.shape, self.n, self.T, self.S
        X = np.empty((n * n, N, T * T * S * S * C), x.dtype)
        parts = pieces(N, X[:, 0].size)
        inside, tiles = self.frame(x[parts[0]])
        for few in parts:
            count = len(x[few])
            inside[:count] = x[few]
            along_both(self.Q.T, tiles[:, :, :count].reshape(n, n, -1), out=X[:, few].reshape(n, n, -1))
        return X.reshape(n * n, N * T * T, S * S * C)

    def to_images(self, values, shape):
        """Q values, each tile added back to where it belongs in dx, of that shape."""
        if c := in_c(shape[3], values):
            return self.to_tiles(c, self.Q, values, shape, self.S, self.P)
        N, m, n = shape[0], self.m, self.n
        dx, values = np.empty(shape, values.dtype), values.reshape(n * n, N, -1)
        parts = pieces(N, values[:, 0].size)
        inside, tiles = self.frame(dx[parts[0]])
        for few in parts:
            place = tiles[:, :, :len(dx[few])]
            found = along_both(self.Q, values[:, few].reshape(n, n, -1)).reshape(place.shape)
            if self.T == 1:
                place[...] = found
            else:
                inside[...] = 0
                for rows in slice(m), slice(m, n):                            # in each of these four parts
                    for columns in slice(m), slice(m, n):                     # no pixel belongs to two tiles
                        place[rows, columns] += found[rows, columns]
            dx[few] = inside[:len(dx[few])]
        return dx

    def frame(self, images):
        """Room for such images with zeros around them, and two views of it: where the images are, and the pixels (n, n)
        of tile (N, T, T), each of S*S*C channels. Tiles begin m pixels after one another: neighbours share r - 1."""
        (N, H, W, C), m, n, T, S, P = images.shape, self.m, self.n, self.T, self.S, self.P
        side = max(S * (m * (T - 1) + n), P + H)
        padded = np.zeros((N, side, side, C), images.dtype)
        image, row, column, number = padded.strides
        tiles = as_strided(padded, (n, n, N, T, T, S, S, C),
                           (S * row, S * column, image, m * S * row, m * S * column, row, column, number))
        return padded[:, P:P + H, P:P + W], tiles

    def of_outputs(self, dy):
        """A dy."""
        if dy.shape[1] == dy.shape[2] == self.size and (c := in_c(dy.shape[3], dy)):
            return self.of_tiles(c, self.A, dy, 1, 0)
        (N, size, _, F), m, n, T = dy.shape, self.m, self.n, self.T
        Y = np.empty((n * n, N, T * T * F), dy.dtype)
        missing = (0, m * T - size)
        for few in pieces(N, Y[:, 0].size):
            whole = np.pad(dy[few], ((0, 0), missing, missing, (0, 0))) if size < m * T else dy[few]
            tiles = whole.reshape(-1, T, m, T, m, F).transpose(2, 4, 0, 1, 3, 5)
            along_both(self.A, tiles.reshape(m, m, -1), out=Y[:, few].reshape(n, n, -1))
        return Y.reshape(n * n, N * T * T, F)

    def to_outputs(self, values, N):
        """A.T values, each tile laid to where it belongs in y."""
        m, n, T, size, F = self.m, self.n, self.T, self.size, values.shape[-1]
        if c := in_c(F, values):
            return self.to_tiles(c, self.A.T, values, (N, size, size, F), 1, 0)
        y = np.empty((N, T, m, T, m, F), values.dtype)
        values = values.reshape(n * n, N, -1)
        for few in pieces(N, values[:, 0].size):
            tiles = y[few].transpose(2, 4, 0, 1, 3, 5)
            tiles[...] = along_both(self.A.T, values[:, few].reshape(n, n, -1)).reshape(tiles.shape)
        return y.reshape(N, T * m, T * m, -1)[:, :size, :size]

    def of_tiles(self, c, M, x, S, P):
        """M tile M.T for all tiles of x, by toomcook.c."""
        N, H, W, C = x.shape
        values = np.empty((self.n ** 2, N * self.T ** 2, S * S * C), x.dtype)
        c.of_tiles(np.ascontiguousarray(M), x, values, *M.shape, N, H, W, C, S, P, self.T, self.m)
        return values

    def to_tiles(self, c, M, values, shape, S, P):
        """M tile M.T for all tiles of values, each added to where it belongs in the result, of that shape, by toomcook.c."""
        x = np.empty(shape, values.dtype)
        c.to_tiles(np.ascontiguousarray(M), values, x, *M.T.shape, *shape, S, P, self.T, self.m)
        return x


def along_both(M, tiles, out=None):
    """M tiles M.T, for each number of tiles (k, k, numbers)."""
    half = M @ tiles                                                          # along the columns
    if out is None:
        out = np.empty((len(M), *half.shape[1:]), half.dtype)
    np.matmul(M, half.swapaxes(0, 1), out=out.swapaxes(0, 1))                 # along the rows
    return out


def pieces(count, size, at_least=1):
    """Slices that cover `count` items of `size` entries each, as many in a slice as fit into the cache."""
    step = max(at_least, IN_CACHE // size)
    return [slice(start, start + step) for start in range(0, count, step)]
