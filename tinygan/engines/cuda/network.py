"""A network as a row of kernel launches over arrays that are allocated once.

The core's layers stay the reference: a Stage computes what its layers compute, with their own parameters, gradients and
running statistics. But what follows a product is fused, and nothing is allocated while it runs, so that a whole
training step can be captured in a CUDA graph.
"""
from math import prod
from typing import NamedTuple

import numpy as np

from ... import conv
from ...layers import (BatchNorm2d, Conv2d, ConvTranspose2d, GlobalAvgPool2d, LeakyReLU, Linear, Reshape, Sigmoid,
                      Tanh)
from ...recipes.labels import LabelPlanes
from .device import MULTIPROCESSORS, NotCovered, ceil

TILE, DEPTH, THREADS = 64, 32, 128                # as in conv.cu and product.cuh
MOST_SLICES = 128                                 # the last block adds them, while the others are done
LEAKY_RELU, TANH, SIGMOID = 0, 1, 2               # as in device.cuh
LINEAR = LEAKY_RELU, 1.0                          # an activation is a kind and a slope


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


class Product:
    """The three functions of conv.py for the sizes of one layer, as kernels whose results go into given arrays.
    N is how many images count; b is added to the result, if there is one, and the activation applied."""

    def __init__(self, device, sizes, w, b):
        self.device, self.sizes, self.w = device, sizes.simplest(), w
        S, C, biases = self.sizes.S, self.sizes.C, 1 if b is None else b.size
        self.classes = 1 if S * S * C <= 8 else S * S                     # products that input_grad is divided into
        self.no_bias = device.cupy.zeros(biases, np.float32)
        self.launch = device.compile('conv', **self.sizes._asdict(), BIASES=biases, CLASSES=self.classes,
                                     W_ALIGNED=int(w.data.ptr % 16 == 0))

    def forward(self, x, y, N, b=None, activation=LINEAR):
        H, W, C, OH, OW, F, K, S, P = self.sizes
        self.launch('forward', self.grid(N * OH * OW, F, K * K * C), (THREADS,), x, self.w,
                    self.no_bias if b is None else b, y, N, *activation, self.device.shares, self.device.arrived)

    def weight_grad(self, x, dy, dw, N, adds=False):
        H, W, C, OH, OW, F, K, S, P = self.sizes
        with self.device.beside():                # the rest of the backward, which may need shares at the same time
            self.launch('weight_grad', self.grid(K * K * C, F, N * OH * OW), (THREADS,), x, dy, dw, N, int(adds),
                        self.device.side_shares, self.device.side_arrived)

    def input_grad(self, dy, dx, N, b=None, activation=LINEAR):
        H, W, C, OH, OW, F, K, S, P = self.sizes
        down, across, _ = self.grid(N * ceil(H, S) * ceil(W, S), S * S * C // self.classes, 0)
        self.launch('input_grad', (down, across, self.classes), (THREADS,), dy, self.w,
                    self.no_bias if b is None else b, dx, N, *activation)

    def grid(self, rows, columns, depth):
        """Tiles down and across, and into how many slices the sum is divided: as many blocks as a GPU holds at once, three
        a multiprocessor, as one more would begin when others have ended, and all would wait for it."""
        width = TILE if columns > 8 else 8
        down, across = ceil(rows, TILE), ceil(columns, width)
        tiles, room = down * across, self.device.shares.size
        slices = min(3 * MULTIPROCESSORS // tiles, MOST_SLICES, depth // (4 * DEPTH), room // (tiles * TILE * width))
        return down, across, max(1, slices)


class Stage:
    """y = activation(BatchNorm(product(x) + b)): a layer with a weight and what follows it, as much as there is.

    x and dx, y and dy are arrays for at least N images, the number that a call is about. They come in `groups` of
    equal size: to BatchNorm, as many minibatches.
    """

    def __init__(self, device, layers, shape):
        layer, *rest = layers
        self.device, self.layer = device, layer
        self.norm = rest.pop(0) if rest and isinstance(rest[0], BatchNorm2d) else None
        self.activation = activation_of(rest.pop(0)) if rest else LINEAR
        if rest:
            raise NotCovered(f'{type(rest[0]).__name__} after an activation')
        if self.norm and layer.b is not None and layer.b.size != self.norm.gamma.size:
            raise NotCovered('a bias that differs within a channel, before a BatchNorm2d')
        sizes = Sizes.of(layer, shape)
        self.product = product = Product(device, sizes, layer.w, layer.b)
        self.transposed = isinstance(layer, ConvTranspose2d)
        self.up, self.down = ((product.input_grad, product.forward) if self.transposed else
                              (product.forward, product.input_grad))
        self.shape = ((sizes.F,) if isinstance(layer, Linear) else sizes[:3] if self.transposed else sizes[3:6])
        owner = self.norm.gamma if self.norm else layer.b
        self.C = self.shape[-1] if owner is None else owner.size

    def allocate(self, N, groups):
        empty = self.device.cupy.empty
        if self.norm:
            self.pre = empty((N, *self.shape), np.float32)                # what BatchNorm is given
            self.mu, self.var, self.sum_d, self.sum_d_xhat = (empty((groups, self.C), np.float32) for _ in range(4))
        self.unused = [empty(self.C, np.float32) for _ in range(2)]       # for the gradients of a frozen stage

    def forward(self, N, groups):
        norm, device = self.norm, self.device
        if not norm:
            self.up(self.x, self.y, N, self.layer.b, self.activation)
            return
        self.up(self.x, self.pre, N, self.layer.b)
        rows = N * prod(self.shape) // self.C // groups
        device.sums('batch_statistics', rows, self.C, groups, self.pre, self.mu, self.var)
        device.columns('normalise', rows, self.C, groups, self.pre, self.mu, self.var, norm.gamma, norm.beta,
                       norm.running_mean, norm.running_var, self.y, norm.eps, norm.momentum, *self.activation)

    def backward(self, N, groups, to_weights, to_input):
        """From dy, in whose place comes the gradient before activation and BatchNorm, those of the parameters and dx,
        where they are wanted. They are written, not added to what was there."""
        layer, norm, device = self.layer, self.norm, self.device
        rows = N * prod(self.shape) // self.C
        if norm:
            dgamma, dbeta = (norm.dgamma, norm.dbeta) if to_weights else self.unused
            rows //= groups
            device.sums('normalise_sums', rows, self.C, groups, self.pre, self.mu, self.var, norm.gamma, norm.beta,
                        self.dy, self.sum_d, self.sum_d_xhat, norm.eps, *self.activation)
            device.columns('normalise_grad', rows, self.C, groups, self.pre, self.mu, self.var, norm.gamma, norm.beta,
                           self.sum_d, self.sum_d_xhat, self.dy, dgamma, dbeta, norm.eps, *self.activation)
            # and db = 0: BatchNorm subtracts b again
        elif self.activation != LINEAR or layer.b is not None and to_weights:
            db = layer.db if to_weights and layer.b is not None else self.unused[0]
            device.sums('activation_sums', rows, self.C, 1, self.y, self.dy, db, *self.activation)
        if to_weights:
            self.weight_grad(self.x, N)
        if to_input:
            self.down(self.dy, self.dx, N)

    def weight_grad(self, x, N, adds=False):
        self.product.weight_grad(*((self.dy, x) if self.transposed else (x, self.dy)), self.layer.dw, N, adds)

    def tangent(self, v, u, N, to_output):
        """Layer.tangent, after a backward and without a BatchNorm: adds to dw, and gives u if it is wanted."""
        self.weight_grad(v, N, adds=True)
        if to_output:
            self.up(v, u, N)
            if self.activation != LINEAR:
                count = N * prod(self.shape)
                self.device.each('times_slope', count, self.y, u, count, *self.activation)


class Weightless:
    """A layer without weights as a stage of its own, which is linear: its tangent is what its forward does."""

    def __init__(self, device, layers, shape):
        if layers[1:]:
            raise NotCovered(f'{type(layers[1]).__name__} after {layers[0]}')
        H, W, self.C = shape
        self.device, self.pixels = device, H * W

    def allocate(self, N, groups):
        pass

    def backward(self, N, groups, to_weights, to_input):
        if to_input:
            self.input_grad(N * self.pixels * self.C)


class Pool(Weightless):
    """GlobalAvgPool2d."""

    def __init__(self, device, layers, shape):
        super().__init__(device, layers, shape)
        self.shape = self.C,

    def forward(self, N, groups):
        self.tangent(self.x, self.y, N)

    def input_grad(self, count):
        self.device.each('pool_grad', count, self.dy, self.dx, self.pixels, self.C, count)

    def tangent(self, v, u, N, to_output=True):
        self.device.each('pool', N * self.C, v, u, self.pixels, self.C, N * self.C)


class Planes(Weightless):
    """LabelPlanes. The label of image n is at the end of row n of `labels` or, where there are more images than rows, n modulo
    their number."""

    def __init__(self, device, layers, shape):
        super().__init__(device, layers, shape)
        self.classes = layers[0].classes
        self.shape = *shape[:2], self.C + self.classes
        self.no_labels = device.cupy.zeros((1, self.classes), np.float32)

    def forward(self, N, groups):
        self.join(self.x, self.labels, self.y, N)

    def input_grad(self, count):
        self.device.each('cut_planes', count, self.dy, self.dx, self.C, self.classes, count)

    def tangent(self, v, u, N, to_output):
        self.join(v, self.no_labels, u, N)

    def join(self, x, labels, y, N):
        count = N * prod(self.shape)
        self.device.each('join_planes', count, x, labels, y, self.pixels, self.C, self.classes, *labels.shape, count)


WEIGHTLESS = {GlobalAvgPool2d: Pool, LabelPlanes: Planes}


class Network:
    """The stages of a Sequential for up to N inputs of that shape, which lie in x. y is the output, dy takes its
    gradient; frozen, a network leaves its own gradients alone and gives that of x in dx. labels are for Planes. Raises
    NotCovered."""

    def __init__(self, device, network, shape, N, groups=1, *, x, dx=None, y=None, dy=None, labels=None):
        self.device, self.stages = device, list(stages(device, network.leaves(), shape))
        if N * max(prod(shape), *(prod(stage.shape) for stage in self.stages)) >= 2**31 - 2**20:
            raise NotCovered('an array of 2^31 numbers')                  # indices, and some beyond the end, are ints
        empty = device.cupy.empty
        for stage, below in zip(self.stages, [None, *self.stages]):
            stage.allocate(N, groups)
            stage.labels = labels
            stage.x, stage.dx = (below.y, below.dy) if below else (x, dx)
            stage.y, stage.dy = (empty((N, *stage.shape), np.float32) for _ in range(2))
        if y is not None:
            self.stages[-1].y, self.stages[-1].dy = y, dy
        self.y, self.dy = self.stages[-1].y, self.stages[-1].dy
        self.lowest = next(i for i, stage in enumerate(self.stages) if isinstance(stage, Stage))        # that has a weight

    def forward(self, N, groups=1):
        for stage in self.stages:
            stage.forward(N, groups)

    def backward(self, N, groups=1, frozen=False):
        for i, stage in reversed(list(enumerate(self.stages))):
            stage.backward(N, groups, to_weights=not frozen, to_input=frozen or i > self.lowest)
        if not frozen:
            self.device.join()


def stages(device, leaves, shape):
    """The layers of a network for inputs of that shape, divided before each layer that opens a stage."""
    opening = Conv2d, ConvTranspose2d, Linear, *WEIGHTLESS
    starts = [i for i, leaf in enumerate(leaves) if isinstance(leaf, opening)]
    for leaf in leaves[:starts[0]]:
        if not isinstance(leaf, Reshape):
            raise NotCovered(f'{type(leaf).__name__} at the beginning')
    shape = reshaped(shape, leaves[:starts[0]])
    for start, end in zip(starts, [*starts[1:], len(leaves)]):
        layers = [leaf for leaf in leaves[start:end] if not isinstance(leaf, Reshape)]
        stage = WEIGHTLESS.get(type(layers[0]), Stage)(device, layers, shape)
        shape = reshaped(stage.shape, leaves[start:end])
        yield stage


def reshaped(shape, leaves):
    """That shape after what Reshapes there are among the leaves."""
    for leaf in leaves:
        if isinstance(leaf, Reshape):
            shape = np.empty((1, *shape), bool).reshape(1, *leaf.shape).shape[1:]
    return shape


def activation_of(layer):
    """The kind and slope that the kernels know a layer by."""
    if isinstance(layer, LeakyReLU):
        return LEAKY_RELU, float(layer.slope)
    kinds = {Tanh: TANH, Sigmoid: SIGMOID}
    if type(layer) not in kinds:
        raise NotCovered(f'{type(layer).__name__} where an activation was expected')
    return kinds[type(layer)], 1.0
