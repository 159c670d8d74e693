"""The three products of ../conv.py as kernels of conv.cu: their grids, and what follows them."""
from typing import NamedTuple

from ... import conv
from ...layers import Conv2d, Linear
from .device import MULTIPROCESSORS, ceil

TILE, THREADS, BLOCKS = 64, 128, 4                # as in conv.cu and product.cuh
MOST_SLICES = 128                                 # of forward: the last block adds them, while the others are done
LEAKY_RELU, TANH, SIGMOID = 0, 1, 2               # as in device.cuh
LINEAR = LEAKY_RELU, 1.0                          # an activation is a kind and a slope
FORWARD, BACKWARD, BACKWARD_NORM = 0, 1, 2        # as in conv.cu


class Sizes(NamedTuple):
    """The sizes of a convolution from x (N, H, W, C) to y (N, OH, OW, F) with w (K, K, C, F), stride S, padding P."""
    H: int
    W: int
    C: int
    OH: int
    OW: int
    F: int
    K: int = 1
    S: int = 1
    P: int = 0

    @classmethod
    def of(cls, layer, shape):
        """The sizes of the convolution that the layer is, or is the transpose of, for an input of that shape."""
        if isinstance(layer, Linear):
            return cls(1, 1, layer.w.shape[0], 1, 1, layer.w.shape[1])
        K, _, C, F = layer.w.shape
        S, P = layer.stride, layer.padding
        if isinstance(layer, Conv2d):
            H, W = shape[:2]
            OH, OW = (conv.output_size(size, K, S, P) for size in (H, W))
        else:
            OH, OW = shape[:2]
            H, W = (layer.output_size(size) for size in (OH, OW))
        return cls(H, W, C, OH, OW, F, K, S, P)

    def simplest(self):
        """A patch that is the whole image is but a row of numbers, and the convolution a product of two matrices."""
        H, W, C, _, _, F, K, _, P = self
        return Sizes(1, 1, K * K * C, 1, 1, F) if (H, W, P) == (K, K, 0) else self


class After(NamedTuple):
    """What follows a product, as arguments of its kernel: conv.cu says what it does with them. y and pre are like out, b has the
    shape (channels,), mu and rstd (groups, channels), and parts, if there shall be `sums`, (groups, count, channels, 2)."""
    kind: int
    out: object
    b: object
    y: object
    pre: object
    mu: object
    rstd: object
    channels: int
    activation: int
    slope: float
    parts: object
    sums: int


def after(device, kind, out, b=None, y=None, pre=None, mu=None, rstd=None, channels=1, activation=LINEAR, parts=None):
    """An After, with something that is not read for what is not given."""
    def given(array, otherwise=device.zeros):
        return otherwise if array is None else array
    return After(kind, out, given(b), given(y, device.no_numbers), given(pre, device.no_numbers), given(mu), given(rstd),
                 channels if b is None else b.size, *activation, given(parts), int(parts is not None))


class Product:
    """The three functions of conv.py for the sizes of one layer, as kernels: input_grad and forward with an After. w are its
    weights as products take them, and N is how many images count."""

    def __init__(self, device, sizes, w):
        self.device, self.sizes, self.w = device, sizes.simplest(), w
        S, C = self.sizes.S, self.sizes.C
        self.classes = 1 if S * S * C <= 8 else S * S                     # products that input_grad is divided into
        self.launch = device.compile('conv', **self.sizes._asdict(), CLASSES=self.classes, W_ALIGNED=int(w.data.ptr % 16 == 0))

    def forward(self, x, N, then, groups=1):
        if self.sizes == Sizes(1, 1, self.sizes.C, 1, 1, 1) and then.kind == FORWARD and not then.sums:
            self.launch('score', (N,), (THREADS,), x, self.w, then.b, then.out, then.activation, then.slope)
            return
        rows, columns, _ = self.result('forward', N)
        down, across = self.tiles(rows, columns, groups)
        room = min(MOST_SLICES, self.device.shares.size // (down * across * TILE * TILE))
        slices = self.slices(down * across, self.sizes.K ** 2 * self.sizes.C, room)
        self.launch('forward', (down, across, slices), (THREADS,), x, self.w, N, groups, *then, self.device.shares,
                    self.device.arrived)

    def input_grad(self, dy, N, then, groups=1):
        rows, columns, classes = self.result('input_grad', N)
        self.launch('input_grad', (*self.tiles(rows, columns, groups), classes), (THREADS,), dy, self.w, N, groups, *then)

    def weight_grad(self, x, dy, dw, N, adds=False):
        H, W, C, OH, OW, F, K, S, P = self.sizes
        shares, n = self.device.side_shares, dw.size
        down, across = self.tiles(K * K * C, F)
        slices = self.slices(down * across, N * OH * OW, shares.size // n)
        with self.device.beside():                # the rest of the backward
            if slices == 1:
                self.launch('weight_grad', (down, across), (THREADS,), x, dy, dw, N, int(adds))
            else:
                self.launch('weight_grad', (down, across, slices), (THREADS,), x, dy, shares, N, 0)
                self.device.add_slices(shares, slices, dw, n, int(adds))

    def result(self, kernel, N):
        """Rows and columns of a product, and into how many products it is divided."""
        H, W, C, OH, OW, F, K, S, P = self.sizes
        if kernel == 'forward':
            return N * OH * OW, F, 1
        return N * ceil(H, S) * ceil(W, S), S * S * C // self.classes, self.classes

    def divides_into(self, kernel, channels):
        """Does a pixel of a result hold so many channels, or a multiple, one after the other?"""
        return (self.sizes.F if kernel == 'forward' else self.sizes.C) % channels == 0

    def parts(self, kernel, N, groups):
        """How many pairs of sums over a part of the rows a kernel leaves of each group."""
        rows, columns, classes = self.result(kernel, N)
        return ceil(rows // groups, TILE) * classes * columns

    def tiles(self, rows, columns, groups=1):
        """How many down and across. Each group of the rows has tiles of its own."""
        return groups * ceil(rows // groups, TILE), ceil(columns, TILE if columns > 8 else 8)

    def slices(self, tiles, terms, most):
        """Into how many slices a sum of so many terms is divided: as many blocks as a GPU holds at once, BLOCKS a multiprocessor,
        as one more would begin when others have ended, and all would wait for it; but each shall have something to do."""
        return max(1, min(BLOCKS * MULTIPROCESSORS // tiles, terms // (4 * self.device.depth), most))
