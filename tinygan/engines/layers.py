"""The core's layers, faster on a CPU, on the same parameters.

They multiply less (toomcook.py), gather patches faster (patches.py), leave out gradients that nobody reads, and free what
is no longer needed. Where several processes divide the minibatch (divided.py), BatchNorm's statistics are means over all of
them.
"""
import numpy as np

from .. import layers, network
from . import loops, toomcook
from .loops import channel_sum


class Biased:
    """What the layers with a weight do with their bias."""

    def add_bias(self, y):
        return loops.add_bias(y, self.b) if self.bias else y

    def add_bias_gradient(self, dy):
        if self.bias:
            self.db += channel_sum(dy, len(self.b))


class Conv2d(Biased, layers.Conv2d):

    def forward(self, x):
        y, x_for_dw = toomcook.forward(x, self.w, self.stride, self.padding)
        self.cache = x_for_dw, x.shape[1:3]
        return self.add_bias(y)

    def backward(self, dy, to_input=True):
        x_for_dw, size = self.cache
        dx, dy_for_dw = None, dy
        if to_input:
            dx, dy_for_dw = toomcook.input_grad(dy, self.w, size, self.stride, self.padding)
        if not self.frozen:
            self.dw += toomcook.weight_grad(x_for_dw, dy_for_dw, self.kernel_size, self.stride, self.padding)
            self.add_bias_gradient(dy)
        self.dy = dy_for_dw
        return dx

    def tangent(self, v):
        u, v_for_dw = toomcook.forward(v, self.w, self.stride, self.padding)
        if not self.frozen:
            self.dw += toomcook.weight_grad(v_for_dw, self.dy, self.kernel_size, self.stride, self.padding)
        return u


class ConvTranspose2d(Biased, layers.ConvTranspose2d):

    def forward(self, x):
        size = [self.output_size(s) for s in x.shape[1:3]]
        y, self.cache = toomcook.input_grad(x, self.w, size, self.stride, self.padding)        # x, for dw
        return self.add_bias(y)

    def backward(self, dy, to_input=True):
        x_for_dw, dx, dy_for_dw = self.cache, None, dy
        if to_input:
            dx, dy_for_dw = toomcook.forward(dy, self.w, self.stride, self.padding)
        if not self.frozen:
            self.dw += toomcook.weight_grad(dy_for_dw, x_for_dw, self.kernel_size, self.stride, self.padding)
            self.add_bias_gradient(dy)
        self.dy = dy_for_dw
        return dx

    def tangent(self, v):
        size = [self.output_size(s) for s in v.shape[1:3]]
        u, v_for_dw = toomcook.input_grad(v, self.w, size, self.stride, self.padding)
        if not self.frozen:
            self.dw += toomcook.weight_grad(self.dy, v_for_dw, self.kernel_size, self.stride, self.padding)
        return u


class Linear(Biased, layers.Linear):

    def backward(self, dy, to_input=True):
        x = self.cache
        self.dy = dy
        if not self.frozen:
            self.dw += x.T @ dy
            self.add_bias_gradient(dy)
        return dy @ self.w.T if to_input else None


class BatchNorm2d(layers.BatchNorm2d):

    def forward(self, x):
        if not self.training or x.size * self.group.count < 2 * self.num_features:
            return super().forward(x)             # which says what is missing
        C, M = self.num_features, x.size // self.num_features
        mu, = self.group.mean(channel_sum(x, C) / M)
        xhat, squares = loops.centre(x, mu)
        var, = self.group.mean(squares / M)
        if self.group.keeps_statistics:
            self.follow(mu, var, M * self.group.count)
        rstd = 1 / np.sqrt(var + self.eps)
        self.cache = xhat, rstd
        return loops.scale(xhat, rstd, self.gamma, self.beta)

    def backward(self, dy, to_input=True):
        if self.cache is None:
            return super().backward(dy)           # which says why not
        xhat, rstd = self.cache
        M = dy.size // self.num_features
        dbeta, dgamma = loops.sum_and_dot(dy, xhat, self.num_features)
        if not self.frozen:
            self.dgamma += dgamma
            self.dbeta += dbeta
        if not to_input:
            return None
        mean_dy, mean_dy_xhat = self.group.mean(dbeta / M, dgamma / M)
        return loops.scale_grad(dy, xhat, self.gamma * rstd, mean_dy, mean_dy_xhat)


class LeakyReLU(layers.LeakyReLU):

    def forward(self, x):
        y, self.cache = loops.leaky_relu(x, self.slope)
        return y

    def backward(self, dy):
        return loops.leaky_relu_grad(dy, self.cache, self.slope)


class Sequential(network.Sequential):
    dx_is_read = True               # or only while the network is frozen

    def forward(self, x):
        for layer in self.layers:
            vars(layer).pop('cache', None)        # frees the memory of the previous one
            x = layer(x)
        self.cache = x.shape
        return x

    def backward(self, dy, to_input=True):
        if to_input and (self.dx_is_read or self.frozen):
            return super().backward(dy)
        having = (layer for layer in self.layers if any(leaf.parameter_names for leaf in layer.leaves()))
        lowest = next(having, None)               # below it there is no gradient of a parameter
        for layer in reversed(self.layers):
            if layer is lowest and type(layer) in FASTER.values():
                return layer.backward(dy, to_input=False)
            dy = layer.backward(dy)
        return dy


FASTER = {layers.Conv2d: Conv2d, layers.ConvTranspose2d: ConvTranspose2d, layers.Linear: Linear,
          layers.BatchNorm2d: BatchNorm2d, layers.LeakyReLU: LeakyReLU, layers.ReLU: LeakyReLU,
          network.Sequential: Sequential}
