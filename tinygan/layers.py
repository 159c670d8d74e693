"""The layers. Each has a forward, and under it the backward that follows from it by the chain rule, by hand.

Images are (N, H, W, C). A gradient has the name and shape of what it belongs to, with a d in front.
"""
import math

import numpy as np

from . import conv
from .arrays import array_module
from .losses import sigmoid
from .network import Layer


def normal(rng, mean, std, shape, dtype):
    rng = np.random.default_rng() if rng is None else rng
    return rng.normal(mean, std, shape).astype(dtype)


def channels(x):
    """All axes but the last: a sum over them leaves one value for each channel."""
    return tuple(range(x.ndim - 1))


class Weighted(Layer):
    """What the layers with a weight w share. w starts as N(0, 0.02), as in Radford et al. 2016, "Unsupervised
    representation learning with deep convolutional generative adversarial networks", section 4. If there is a bias b,
    it has one entry for each feature of y and starts at zero. rng is a NumPy Generator."""

    def __init__(self, shape, features, bias, rng, dtype):
        self.bias, self.b = bias, None
        self.add_parameter('w', normal(rng, 0, 0.02, shape, dtype))
        if bias:
            self.add_parameter('b', np.zeros(features, dtype))

    def add_bias(self, y):
        if self.bias:
            y += self.b
        return y

    def add_bias_gradient(self, dy):
        if self.bias:
            self.db += dy.sum(channels(dy))       # each b is added to many entries of y, and gets a gradient from each


class Conv2d(Weighted):
    """y = conv(x, w) + b: each of out_channels filters is applied to every kernel_size x kernel_size patch.

    x (N, H, W, C) -> y (N, OH, OW, F), OH = (H + 2P - K) // S + 1; w (K, K, C, F), b (F,).
    Raises ValueError when the kernel does not fit into the padded image.
    """

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, bias=True, rng=None, dtype=np.float32):
        super().__init__((kernel_size, kernel_size, in_channels, out_channels), out_channels, bias, rng, dtype)
        self.in_channels, self.out_channels, self.takes = in_channels, out_channels, ('N', 'H', 'W', in_channels)
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def forward(self, x):
        self.cache = x
        return self.add_bias(conv.forward(x, self.w, self.stride, self.padding))

    def backward(self, dy):
        # forward was y = cols @ w + b, so dw = cols.T @ dy, db = sum of dy, dcols = dy @ w.T
        x = self.cache
        self.dy = dy                              # for tangent
        if not self.frozen:
            self.dw += conv.weight_grad(x, dy, self.kernel_size, self.stride, self.padding)
            self.add_bias_gradient(dy)
        return conv.input_grad(dy, self.w, x.shape[1:3], self.stride, self.padding)

    def tangent(self, v):
        # b does not move with x. What is left of y is linear: y moves by conv(v, w), and dw is as if v had been x
        if not self.frozen:
            self.dw += conv.weight_grad(v, self.dy, self.kernel_size, self.stride, self.padding)
        return conv.forward(v, self.w, self.stride, self.padding)


class ConvTranspose2d(Weighted):
    """y = convT(x, w) + b. convT is the transpose of a convolution: <convT(x, w), v> = <x, conv(v, w)> for every v.

    x (N, H, W, C) -> y (N, OH, OW, F), OH = (H - 1) S - 2P + K + output_padding. w is (K, K, F, C): the weight of
    the Conv2d from y to x that it transposes, so its forward is that one's input gradient and its backward that
    one's forward. Several sizes of y shrink to the same x when S > 1; output_padding < S chooses among them.
    Raises ValueError when output_padding is not at least 0 and below the stride, and when the padding leaves nothing of y.
    """

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, output_padding=0, bias=True,
                 rng=None, dtype=np.float32):
        if not 0 <= output_padding < stride:
            raise ValueError(f'output_padding must be at least 0 and below the stride {stride}, not {output_padding}')
        super().__init__((kernel_size, kernel_size, out_channels, in_channels), out_channels, bias, rng, dtype)
        self.in_channels, self.out_channels, self.takes = in_channels, out_channels, ('N', 'H', 'W', in_channels)
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.output_padding = output_padding

    def output_size(self, size):
        return conv.transposed_size(size, self.kernel_size, self.stride, self.padding, self.output_padding)

    def forward(self, x):
        self.cache = x
        size = [self.output_size(s) for s in x.shape[1:3]]
        return self.add_bias(conv.input_grad(x, self.w, size, self.stride, self.padding))

    def backward(self, dy):
        # forward was y = convT(x, w) + b, and when y moves, the loss moves by <dy, the move>. Without b, <dy, y> is
        # <x, conv(dy, w)>, which is linear in x and in w. So dx = conv(dy, w), and dw is the weight gradient of that
        # conv, with dy as its input and x as its dLoss/doutput
        x = self.cache
        self.dy = dy                              # for tangent
        if not self.frozen:
            self.dw += conv.weight_grad(dy, x, self.kernel_size, self.stride, self.padding)
            self.add_bias_gradient(dy)
        return conv.forward(dy, self.w, self.stride, self.padding)

    def tangent(self, v):
        # linear as well: y moves by convT(v, w), and dw is as if v had been x
        if not self.frozen:
            self.dw += conv.weight_grad(self.dy, v, self.kernel_size, self.stride, self.padding)
        size = [self.output_size(s) for s in v.shape[1:3]]
        return conv.input_grad(v, self.w, size, self.stride, self.padding)


class Linear(Weighted):
    """y = x @ w + b. x (N, in_features) -> y (N, out_features); w (in, out), b (out,)."""

    def __init__(self, in_features, out_features, bias=True, rng=None, dtype=np.float32):
        super().__init__((in_features, out_features), out_features, bias, rng, dtype)
        self.in_features, self.out_features, self.takes = in_features, out_features, ('N', in_features)

    def forward(self, x):
        self.cache = x
        return self.add_bias(x @ self.w)

    def backward(self, dy):
        # forward was y = x @ w + b, so dw = x.T @ dy, db = sum of dy, dx = dy @ w.T (derived at the top of conv.py)
        x = self.cache
        self.dy = dy                              # for tangent
        if not self.frozen:
            self.dw += x.T @ dy
            self.add_bias_gradient(dy)
        return dy @ self.w.T

    def tangent(self, v):
        # y moves by u = v @ w, whatever b is. The sum of dy * u is linear in w, and its gradient v.T @ dy
        if not self.frozen:
            self.dw += v.T @ self.dy
        return v @ self.w


class BatchNorm2d(Layer):
    """y = gamma * xhat + beta, xhat = (x - mean) / sqrt(variance + eps), for every channel, over the minibatch.

    Ioffe & Szegedy 2015, "Batch normalization", Algorithm 1. In training, mean and (biased) variance are the minibatch's
    own, over (N, H, W); running_mean and running_var follow them, r += momentum * (new - r), the variance unbiased, as
    PyTorch keeps it. In evaluation the running ones are used. gamma starts as N(1, 0.02), beta at zero. Raises ValueError
    when x has another number of channels or, in training, fewer than two values of each; RuntimeError on backward in evaluation.
    """
    statistic_names = 'running_mean', 'running_var'

    def __init__(self, num_features, momentum=0.1, eps=1e-5, rng=None, dtype=np.float32):
        self.num_features, self.momentum, self.eps, self.takes = num_features, momentum, eps, ('...', num_features)
        self.add_parameter('gamma', normal(rng, 1, 0.02, num_features, dtype))
        self.add_parameter('beta', np.zeros(num_features, dtype))
        self.running_mean, self.running_var = np.zeros(num_features, dtype), np.ones(num_features, dtype)

    def forward(self, x):
        if self.training:
            M = x.size // self.num_features       # values of a channel
            if M < 2:
                raise ValueError('BatchNorm2d needs more than one value per channel to train on')
            mu = x.mean(channels(x))
            var = ((x - mu) ** 2).mean(channels(x))
            self.follow(mu, var, M)
        else:
            mu, var = self.running_mean, self.running_var
        rstd = 1 / array_module(x).sqrt(var + self.eps)
        xhat = (x - mu) * rstd
        self.cache = (xhat, rstd) if self.training else None
        return self.gamma * xhat + self.beta

    def backward(self, dy):
        # forward was y = gamma * xhat + beta, so dgamma = sum dy * xhat, dbeta = sum dy. And xhat moves with all
        # of x, through mu and var (README): dx is dy less its mean and less xhat * mean(dy * xhat), times gamma * rstd
        if self.cache is None:
            raise RuntimeError('BatchNorm2d.backward needs a forward in training mode')
        xhat, rstd = self.cache
        dgamma, dbeta = (dy * xhat).sum(channels(dy)), dy.sum(channels(dy))
        if not self.frozen:
            self.dgamma += dgamma
            self.dbeta += dbeta
        M = dy.size // self.num_features          # values of a channel
        return self.gamma * rstd * (dy - dbeta / M - xhat * (dgamma / M))

    def follow(self, mu, var, M):
        """The running statistics follow those of M values."""
        self.running_mean += self.momentum * (mu - self.running_mean)
        self.running_var += self.momentum * (var * (M / (M - 1)) - self.running_var)


class LeakyReLU(Layer):
    """y = x where x > 0, slope * x elsewhere, for 0 <= slope < 1 (Maas et al. 2013); at 0 the slope is `slope`."""

    def __init__(self, slope=0.01):
        if not 0 <= slope < 1:
            raise ValueError(f'the slope of a LeakyReLU lies in [0, 1), not at {slope}')
        self.slope = slope

    def forward(self, x):
        self.cache = x > 0
        return array_module(x).maximum(x, self.slope * x)

    def backward(self, dy):
        # forward was y = x or y = slope * x, so dy/dx = 1 or slope: the larger of (x > 0) and slope, as slope < 1
        positive = self.cache
        return dy * array_module(dy).maximum(positive, dy.dtype.type(self.slope))

    def tangent(self, v):
        # x has chosen the slopes: the same factors lead from v to how y moves as from dy to dx
        return self.backward(v)


class ReLU(LeakyReLU):
    """y = max(x, 0); the gradient at 0 is 0."""

    def __init__(self):
        super().__init__(slope=0)


class Tanh(Layer):
    """y = tanh(x) = (e^x - e^-x) / (e^x + e^-x), into (-1, 1)."""

    def forward(self, x):
        y = self.cache = array_module(x).tanh(x)
        return y

    def backward(self, dy):
        # forward was y = u / v with u = e^x - e^-x and v = e^x + e^-x, so u' = v and v' = u. By the quotient rule
        # dy/dx = (v v - u u) / v^2 = 1 - y^2
        y = self.cache
        return dy * (1 - y * y)


class Sigmoid(Layer):
    """y = 1 / (1 + exp(-x)), into (0, 1)."""

    def forward(self, x):
        y = self.cache = sigmoid(x)
        return y

    def backward(self, dy):
        # forward was y = 1 / (1 + e^-x), so dy/dx = e^-x / (1 + e^-x)^2. One factor 1 / (1 + e^-x) is y, and what is
        # left, e^-x / (1 + e^-x), is 1 - y
        y = self.cache
        return dy * y * (1 - y)


class GlobalAvgPool2d(Layer):
    """y = the mean of each channel: (N, H, W, C) -> (N, C)."""

    def forward(self, x):
        self.cache = x.shape
        return x.mean(axis=(1, 2))

    def backward(self, dy):
        # forward was a mean over H*W pixels, so each has an equal share of dy
        N, H, W, C = shape = self.cache
        return array_module(dy).broadcast_to(dy[:, None, None, :] / (H * W), shape)

    tangent = forward               # which is linear


class Reshape(Layer):
    """Every example to the given shape: (N, ...) -> (N, *shape). Raises ValueError when it has more or fewer entries."""

    def __init__(self, *shape):
        self.shape = shape

    def forward(self, x):
        if -1 not in self.shape and math.prod(x.shape[1:]) != math.prod(self.shape):
            raise ValueError(f'{self} takes {math.prod(self.shape)} entries of each example, not those of x {x.shape}')
        self.cache = x.shape
        return x.reshape(len(x), *self.shape)

    def backward(self, dy):
        return dy.reshape(self.cache)

    tangent = forward


class Flatten(Reshape):
    """Every example to one row: (N, ...) -> (N, D)."""

    def __init__(self):
        super().__init__(-1)

    def forward(self, x):
        self.cache = x.shape
        return x.reshape(len(x), math.prod(x.shape[1:]))          # where N is 0, -1 could be any number

    tangent = forward
