"""The layers. Each has a forward, and under it the backward that the chain rule makes of it, by hand.

    y  = layer(x)               forward; what backward needs is kept in self.cache
    dx = layer.backward(dy)     from dy = dLoss/dy: adds dLoss/dparameter to dw, db ... and returns dLoss/dx

A layer remembers its latest forward only: backward comes before the next forward.
A layer with parameters takes backward(dy, to_input=False) where nobody reads dLoss/dx, and leaves its product out.
Images are (N, H, W, C). A gradient has the name and shape of what it belongs to, with a d in front.

The functions of toomcook.py compute what those of conv.py do, faster where they can. forward and input_grad also return
what they were given, x or dy, as weight_grad takes it: as it is, or already transformed.
"""
import numpy as np

from . import lanes, toomcook
from .arrays import array_module
from .losses import sigmoid


class Layer:
    """What all layers share. A frozen layer passes gradients through but adds none to its own parameters."""
    parameter_names = ()            # attributes such as 'w'; the gradient of w is the attribute dw
    statistic_names = ()            # attributes that training updates without a gradient
    training, frozen = True, False

    def __call__(self, x):
        self.cache = None                         # frees the memory of the previous one
        return self.forward(x)

    def leaves(self):
        return [self]

    def add_parameter(self, name, value):
        setattr(self, name, value)
        setattr(self, 'd' + name, np.zeros_like(value))
        self.parameter_names += (name,)


def normal(rng, mean, std, shape, dtype):
    rng = np.random.default_rng() if rng is None else rng
    return rng.normal(mean, std, shape).astype(dtype)


def channel_sum(x):
    """The sum over all axes but the last, as a product with ones, which BLAS does three times as fast as x.sum."""
    x = x.reshape(-1, x.shape[-1])
    return array_module(x).ones(len(x), x.dtype) @ x


def channel_dot(x, y):
    """channel_sum(x * y), without storing x * y."""
    if not isinstance(x, np.ndarray):
        return channel_sum(x * y)
    x, y = (a.reshape(len(a), -1, a.shape[-1]) for a in (x, y))
    return np.einsum('npc,npc->nc', x, y).sum(axis=0)


class Weighted(Layer):
    """What the layers with a weight w share: it starts as N(0, 0.02), as in Radford et al. 2016, "Unsupervised
    representation learning with deep convolutional generative adversarial networks", section 4; and perhaps a
    bias b, one number for each feature of y, that starts at zero. rng is a NumPy Generator."""

    def __init__(self, shape, features, bias, rng, dtype):
        self.add_parameter('w', normal(rng, 0, 0.02, shape, dtype))
        self.b = None
        if bias:
            self.add_parameter('b', np.zeros(features, dtype))

    def add_bias(self, y):
        if self.b is not None:
            y += self.b
        return y

    def add_bias_gradient(self, dy):
        if self.b is not None:
            self.db += channel_sum(dy)


class Conv2d(Weighted):
    """y = conv(x, w) + b: each of out_channels filters is applied to every kernel_size x kernel_size patch.

    x (N, H, W, C) -> y (N, OH, OW, F), OH = (H + 2P - K) // S + 1; w (K, K, C, F), b (F,).
    Raises ValueError when the kernel does not fit into the padded image.
    """

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, bias=True, rng=None,
                 dtype=np.float32):
        super().__init__((kernel_size, kernel_size, in_channels, out_channels), out_channels, bias, rng, dtype)
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def forward(self, x):
        y, x_for_dw = toomcook.forward(x, self.w, self.stride, self.padding)
        self.cache = x_for_dw, x.shape[1:3]
        return self.add_bias(y)

    def backward(self, dy, to_input=True):
        # forward was y = cols @ w + b, so dw = cols.T @ dy, db = sum of dy, dcols = dy @ w.T
        x_for_dw, size = self.cache
        dx, dy_for_dw = None, dy
        if to_input:
            dx, dy_for_dw = toomcook.input_grad(dy, self.w, size, self.stride, self.padding)
        if not self.frozen:
            self.dw += toomcook.weight_grad(x_for_dw, dy_for_dw, self.kernel_size, self.stride, self.padding)
            self.add_bias_gradient(dy)
        return dx


class ConvTranspose2d(Weighted):
    """y = convT(x, w) + b, the transpose of a Conv2d: <conv(y), x> = <y, convT(x)> for the same w.

    x (N, H, W, C) -> y (N, OH, OW, F), OH = (H - 1) S - 2P + K + output_padding. w is (K, K, F, C): the weight of
    the Conv2d from y to x that it transposes, so its forward is that one's input gradient and its backward that
    one's forward. Several sizes of y shrink to the same x when S > 1; output_padding < S chooses among them.
    Raises ValueError when output_padding is not at least 0 and below the stride.
    """

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, output_padding=0, bias=True,
                 rng=None, dtype=np.float32):
        if not 0 <= output_padding < stride:
            raise ValueError(f'output_padding must be at least 0 and below the stride {stride}, not {output_padding}')
        super().__init__((kernel_size, kernel_size, out_channels, in_channels), out_channels, bias, rng, dtype)
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.output_padding = output_padding

    def output_size(self, size):
        return (size - 1) * self.stride - 2 * self.padding + self.kernel_size + self.output_padding

    def forward(self, x):
        size = [self.output_size(s) for s in x.shape[1:3]]
        y, self.cache = toomcook.input_grad(x, self.w, size, self.stride, self.padding)        # x, for dw
        return self.add_bias(y)

    def backward(self, dy, to_input=True):
        # forward was <y, v> = <x, conv(v, w)> for every v. With v = dy this is how the loss moves with x and with w:
        # dx = conv(dy, w), and dw is the weight gradient of that conv, whose input is dy and whose dLoss/doutput is x
        x_for_dw, dx, dy_for_dw = self.cache, None, dy
        if to_input:
            dx, dy_for_dw = toomcook.forward(dy, self.w, self.stride, self.padding)
        if not self.frozen:
            self.dw += toomcook.weight_grad(dy_for_dw, x_for_dw, self.kernel_size, self.stride, self.padding)
            self.add_bias_gradient(dy)
        return dx


class Linear(Weighted):
    """y = x @ w + b. x (N, in_features) -> y (N, out_features); w (in, out), b (out,)."""

    def __init__(self, in_features, out_features, bias=True, rng=None, dtype=np.float32):
        super().__init__((in_features, out_features), out_features, bias, rng, dtype)

    def forward(self, x):
        self.cache = x
        return self.add_bias(x @ self.w)

    def backward(self, dy, to_input=True):
        # forward was y = x @ w + b, so dw = x.T @ dy, db = sum of dy, dx = dy @ w.T
        x = self.cache
        if not self.frozen:
            self.dw += x.T @ dy
            self.add_bias_gradient(dy)
        if to_input:
            return dy @ self.w.T


class BatchNorm2d(Layer):
    """y = gamma * xhat + beta, xhat = (x - mean) / sqrt(variance + eps), for every channel over its minibatch.

    Ioffe & Szegedy 2015, "Batch normalization", Algorithm 1. In training, mean and (biased) variance are the
    minibatch's own, over (N, H, W); running_mean and running_var follow them, r += momentum * (new - r), the
    variance unbiased, as PyTorch keeps it. In evaluation the running ones are used.
    gamma starts as N(1, 0.02), beta at zero. Raises ValueError when x has another number of channels, and when
    training on one number per channel, which has no variance; RuntimeError on a backward after a forward in evaluation.
    """
    statistic_names = 'running_mean', 'running_var'

    def __init__(self, num_features, momentum=0.1, eps=1e-5, rng=None, dtype=np.float32):
        self.momentum, self.eps = momentum, eps
        self.add_parameter('gamma', normal(rng, 1, 0.02, num_features, dtype))
        self.add_parameter('beta', np.zeros(num_features, dtype))
        self.running_mean, self.running_var = np.zeros(num_features, dtype), np.ones(num_features, dtype)

    def forward(self, x):
        if x.shape[-1] != self.gamma.size:        # NumPy would broadcast one channel to all
            raise ValueError(f'BatchNorm2d has {self.gamma.size} channels, its input {x.shape[-1]}')
        if self.training:
            M = x.size // x.shape[-1]
            mu, = lanes.mean(channel_sum(x) / M)
            xhat = x - mu
            var, = lanes.mean(channel_dot(xhat, xhat) / M)
            M *= lanes.count()                    # of all lanes
            if M < 2:
                raise ValueError('BatchNorm2d needs more than one number per channel to train on')
            if lanes.is_first():
                self.running_mean += self.momentum * (mu - self.running_mean)
                self.running_var += self.momentum * (var * (M / (M - 1)) - self.running_var)
        else:
            var = self.running_var
            xhat = x - self.running_mean
        rstd = 1 / array_module(x).sqrt(var + self.eps)
        xhat *= rstd
        self.cache = (xhat, rstd) if self.training else None
        return self.gamma * xhat + self.beta

    def backward(self, dy, to_input=True):
        # forward was y = gamma * xhat + beta, so dgamma = sum dy * xhat, dbeta = sum dy. And xhat moves with all
        # of x, through mu and var: dx is dy less its mean and less xhat * mean(dy * xhat), scaled by gamma * rstd
        if self.cache is None:
            raise RuntimeError('BatchNorm2d.backward needs a forward in training mode')
        xhat, rstd = self.cache
        dgamma, dbeta = channel_dot(dy, xhat), channel_sum(dy)
        if not self.frozen:
            self.dgamma += dgamma
            self.dbeta += dbeta
        if to_input:
            M = dy.size // dy.shape[-1]
            mean_dy, mean_dy_xhat = lanes.mean(dbeta / M, dgamma / M)
            return self.gamma * rstd * (dy - mean_dy - xhat * mean_dy_xhat)


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


class ReLU(LeakyReLU):
    """y = max(x, 0); the gradient at 0 is 0."""

    def __init__(self):
        super().__init__(slope=0)


class Tanh(Layer):
    """y = tanh(x), into (-1, 1)."""

    def forward(self, x):
        y = self.cache = array_module(x).tanh(x)
        return y

    def backward(self, dy):
        # forward was y = tanh(x), so dy/dx = 1 - y^2
        y = self.cache
        return dy * (1 - y * y)


class Sigmoid(Layer):
    """y = 1 / (1 + exp(-x)), into (0, 1)."""

    def forward(self, x):
        y = self.cache = sigmoid(x)
        return y

    def backward(self, dy):
        # forward was y = sigmoid(x), so dy/dx = y (1 - y)
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


class Reshape(Layer):
    """Every example to the given shape: (N, ...) -> (N, *shape)."""

    def __init__(self, *shape):
        self.shape = shape

    def forward(self, x):
        self.cache = x.shape
        return x.reshape(len(x), *self.shape)

    def backward(self, dy):
        return dy.reshape(self.cache)


class Flatten(Reshape):
    """Every example to one row: (N, ...) -> (N, D)."""

    def __init__(self):
        super().__init__(-1)
