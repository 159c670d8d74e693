"""A network as a row of kernel launches over arrays that are allocated once.

The core's layers stay the reference: a Stage computes what its layers compute, with their own parameters, gradients and
running statistics. But what follows a product is fused, and nothing is allocated while it runs, so that a whole
training step can be captured in a CUDA graph.
"""
from contextlib import nullcontext
from math import prod

import numpy as np

from ...layers import (BatchNorm2d, Conv2d, ConvTranspose2d, GlobalAvgPool2d, LeakyReLU, Linear, Reshape, Sigmoid,
                      Tanh)
from ...recipes.labels import LabelPlanes
from .device import MOST_PARTS, NotCovered
from .product import BACKWARD, BACKWARD_NORM, FORWARD, LEAKY_RELU, LINEAR, SIGMOID, TANH, Product, Sizes, after


class Stage:
    """y = activation(BatchNorm(product(x) + b)): a layer with a weight and what follows it, as much as there is.

    x and dx, y and dy are arrays for at least N images, the number that a call is about. They come in `groups` of
    equal size: to BatchNorm, as many minibatches. A product sums up what the BatchNorm after it needs to know of its result,
    and on the way back what that of the stage below does: each of its blocks leaves its part in an array `parts`.
    """
    count = None                                  # of the parts of a channel of a group, in the backward

    def __init__(self, device, layers, shape, weights):
        layer, *rest = layers
        self.device, self.layer = device, layer
        self.norm = rest.pop(0) if rest and isinstance(rest[0], BatchNorm2d) else None
        self.activation = activation_of(rest.pop(0)) if rest else LINEAR
        if rest:
            raise NotCovered(f'{type(rest[0]).__name__} after an activation')
        if self.norm and layer.b is not None and layer.b.size != self.norm.gamma.size:
            raise NotCovered('a bias that differs within a channel, before a BatchNorm2d')
        sizes = Sizes.of(layer, shape)
        self.product = Product(device, sizes, weights(layer.w))
        self.transposed = isinstance(layer, ConvTranspose2d)
        self.up, self.down = ('input_grad', 'forward') if self.transposed else ('forward', 'input_grad')
        self.shape = ((sizes.F,) if isinstance(layer, Linear) else sizes[:3] if self.transposed else sizes[3:6])
        owner = self.norm.gamma if self.norm else layer.b
        self.C = self.shape[-1] if owner is None else owner.size
        if self.norm and not self.product.divides_into(self.up, self.C):
            raise NotCovered('a BatchNorm2d whose channels are pixels of the layer before')

    def allocate(self, N, groups, below):
        """`below` is the stage, if there is one, whose dy is this one's dx. Where its channels are others than a pixel of dx
        has, or it has no weight, it begins its backward by itself."""
        if self.norm and self.rows(N) // groups < 2:
            raise NotCovered('a BatchNorm2d of one number a channel')
        empty = self.device.cupy.empty
        self.below = below if isinstance(below, Stage) and self.product.divides_into(self.down, below.C) else None
        self.parts = empty(2 * max(MOST_PARTS, groups * max(self.C, self.product.parts(self.up, N, groups))), np.float32)
        if self.norm:
            self.pre = self.device.numbers(N, *self.shape)                # what BatchNorm is given
            self.mu, self.rstd = (empty((groups, self.C), np.float32) for _ in range(2))
        else:
            self.pre, self.mu, self.rstd = self.device.no_numbers, self.device.zeros, self.device.zeros
        self.at_once = 4 if self.C % 4 == 0 else 1                        # channels
        self.sums = empty(2 * groups * self.C, np.float32)
        self.unused = [empty(self.C, np.float32) for _ in range(2)]       # for the gradients of a frozen stage
        if self.below:
            room = 2 * groups * self.product.parts(self.down, N, groups)
            self.below.parts = max(self.below.parts, empty(room, np.float32), key=len)

    def forward(self, N, groups):
        norm, device, b = self.norm, self.device, self.layer.b
        up = getattr(self.product, self.up)
        if not norm:
            up(self.x, N, after(device, FORWARD, self.y, b, activation=self.activation))
            return
        up(self.x, N, after(device, FORWARD, self.pre, b, mu=norm.running_mean, channels=self.C, parts=self.parts), groups)
        rows, count = self.rows(N) // groups, self.product.parts(self.up, N, groups) // self.C
        device.channels('statistics', self.C, rows, self.C, self.parts, count, groups, self.mu, self.rstd, norm.running_mean,
                        norm.running_var, norm.eps, norm.momentum)
        device.columns('normalise', rows, self.C, groups, self.pre, self.y, self.mu, self.rstd, norm.gamma, norm.beta,
                       *self.activation, at_once=self.at_once)

    def rows(self, N):
        return N * prod(self.shape) // self.C

    def backward(self, N, groups, to_weights, to_input):
        """From dy, in whose place comes the gradient before activation and BatchNorm, those of the parameters and dx,
        where they are wanted. They are written, not added to what was there."""
        layer, norm, device, rows = self.layer, self.norm, self.device, self.rows(N)
        has_db = to_weights and not norm and layer.b is not None          # before a BatchNorm db = 0: it subtracts b again
        count, self.count = self.count, None
        if count is None and (norm or has_db or self.activation != LINEAR):          # no product above has gone through it
            count = device.columns(
                'activation_sums', rows // groups if norm else rows, self.C, groups if norm else 1, self.y, self.pre, self.dy,
                self.mu, self.rstd, self.C if norm else 1, *self.activation, self.parts)
        if norm:
            dgamma, dbeta = (norm.dgamma, norm.dbeta) if to_weights else self.unused
            device.channels('sums_of_parts', self.C, self.C, self.parts, count, groups, self.sums, dgamma, dbeta)
            device.columns('normalise_grad', rows // groups, self.C, groups, self.pre, self.dy, self.mu, self.rstd, norm.gamma,
                           self.sums, at_once=self.at_once)
        if to_weights:
            self.weight_grad(self.x, N)
        if to_input:
            self.input_grad(N, groups)
        if has_db:
            with device.beside() if to_input else nullcontext():          # without input_grad, it can go on beside weight_grad
                device.channels('sums_of_parts', self.C, self.C, self.parts, count, 1, self.sums, self.unused[0], layer.db)

    def input_grad(self, N, groups):
        """dx, and what the stage below begins its backward with."""
        below, down = self.below, getattr(self.product, self.down)
        if not below:
            down(self.dy, N, after(self.device, FORWARD, self.dx))
            return
        if not below.norm:
            groups = 1
        kind = BACKWARD_NORM if below.norm else BACKWARD
        down(self.dy, N, after(self.device, kind, self.dx, y=below.y, pre=below.pre, mu=below.mu, rstd=below.rstd, channels=below.C,
                               activation=below.activation, parts=below.parts), groups)
        below.count = self.product.parts(self.down, N, groups) // below.C

    def weight_grad(self, x, N, adds=False):
        self.product.weight_grad(*((self.dy, x) if self.transposed else (x, self.dy)), self.layer.dw, N, adds)

    def tangent(self, v, u, N, to_output):
        """Layer.tangent, after a backward and without a BatchNorm: adds to dw, and gives u if it is wanted."""
        self.weight_grad(v, N, adds=True)
        if to_output:
            getattr(self.product, self.up)(v, N, after(self.device, BACKWARD, u, y=self.y, activation=self.activation))


class Weightless:
    """A layer without weights as a stage of its own, which is linear: its tangent is what its forward does."""

    def __init__(self, device, layers, shape, weights):
        if layers[1:]:
            raise NotCovered(f'{type(layers[1]).__name__} after {layers[0]}')
        H, W, self.C = shape
        self.device, self.pixels = device, H * W

    def allocate(self, N, groups, below):
        pass

    def backward(self, N, groups, to_weights, to_input):
        if to_input:
            self.input_grad(N * self.pixels * self.C)


class Pool(Weightless):
    """GlobalAvgPool2d."""

    def __init__(self, device, layers, shape, weights):
        super().__init__(device, layers, shape, weights)
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

    def __init__(self, device, layers, shape, weights):
        super().__init__(device, layers, shape, weights)
        self.classes = layers[0].classes
        self.shape = *shape[:2], self.C + self.classes
        self.no_labels = device.no_numbers[:self.classes].reshape(1, -1)

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
    gradient; frozen, a network leaves its own gradients alone and gives that of x in dx, which may be the dy of a stage `below`, of
    another network. Products read weights, a copy of the parameters, that two networks may share; labels are for Planes.
    Raises NotCovered."""

    def __init__(self, device, network, shape, N, groups=1, *, x, dx=None, y=None, below=None, weights=None, labels=None):
        parameters = network.parameters
        if weights is None:
            weights = parameters if device.precision == 'fp32' else device.convert(parameters)

        def weights_of(w):
            start = (w.data.ptr - parameters.data.ptr) // w.itemsize
            return weights[start:start + w.size]
        self.device, self.weights = device, weights
        self.stages = list(stages(device, network.leaves(), shape, weights_of))
        if N * max(prod(shape), *(prod(stage.shape) for stage in self.stages)) >= 2**31 - 2**20:
            raise NotCovered('an array of 2^31 numbers')                  # indices, and some beyond the end, are ints
        for stage, lower in zip(self.stages, [None, *self.stages]):
            stage.labels = labels
            stage.x, stage.dx = (lower.y, lower.dy) if lower else (x, dx)
            stage.y, stage.dy = (device.numbers(N, *stage.shape) for _ in range(2))
            stage.allocate(N, groups, lower or below)
        if y is not None:
            self.stages[-1].y = y
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


def stages(device, leaves, shape, weights):
    """The layers of a network for inputs of that shape, divided before each layer that opens a stage."""
    opening = Conv2d, ConvTranspose2d, Linear, *WEIGHTLESS
    starts = [i for i, leaf in enumerate(leaves) if isinstance(leaf, opening)]
    for leaf in leaves[:starts[0]]:
        if not isinstance(leaf, Reshape):
            raise NotCovered(f'{type(leaf).__name__} at the beginning')
    shape = reshaped(shape, leaves[:starts[0]])
    for start, end in zip(starts, [*starts[1:], len(leaves)]):
        layers = [leaf for leaf in leaves[start:end] if not isinstance(leaf, Reshape)]
        stage = WEIGHTLESS.get(type(layers[0]), Stage)(device, layers, shape, weights)
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
