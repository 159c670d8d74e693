"""The core's layers, faster on a CPU, on the same parameters.

They multiply less (toomcook.py), leave out gradients that nobody reads, and free what is no longer needed. Where each
core has a part of the minibatch, its lane (lanes.py), BatchNorm's statistics are means over all lanes.
"""
import numpy as np

from .. import layers, network
from . import toomcook


class Conv2d(layers.Conv2d):

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


class ConvTranspose2d(layers.ConvTranspose2d):

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


class Linear(layers.Linear):

    def backward(self, dy, to_input=True):
        x = self.cache
        self.dy = dy
        if not self.frozen:
            self.dw += x.T @ dy
            self.add_bias_gradient(dy)
        return dy @ self.w.T if to_input else None


def channel_sum(x):
    """The sum over all axes but the last, as a product with ones, which BLAS does several times as fast as x.sum."""
    x = x.reshape(-1, x.shape[-1])
    return np.ones(len(x), x.dtype) @ x


def channel_dot(x, y):
    """channel_sum(x * y), without storing x * y."""
    x, y = (a.reshape(len(a), -1, a.shape[-1]) for a in (x, y))
    return np.einsum('npc,npc->nc', x, y).sum(axis=0)


class BatchNorm2d(layers.BatchNorm2d):

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        M = x.size // self.num_features
        mu, = self.lanes.mean(channel_sum(x) / M)
        xhat = x - mu
        var, = self.lanes.mean(channel_dot(xhat, xhat) / M)
        if self.lanes.is_first:
            self.follow(mu, var, M * self.lanes.count)
        rstd = 1 / np.sqrt(var + self.eps)
        xhat *= rstd
        self.cache = xhat, rstd
        return self.gamma * xhat + self.beta

    def backward(self, dy, to_input=True):
        if self.cache is None:
            return super().backward(dy)           # which says why not
        xhat, rstd = self.cache
        dgamma, dbeta = channel_dot(dy, xhat), channel_sum(dy)
        if not self.frozen:
            self.dgamma += dgamma
            self.dbeta += dbeta
        if not to_input:
            return None
        M = dy.size // self.num_features
        mean_dy, mean_dy_xhat = self.lanes.mean(dbeta / M, dgamma / M)
        return self.gamma * rstd * (dy - mean_dy - xhat * mean_dy_xhat)


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
          layers.BatchNorm2d: BatchNorm2d, network.Sequential: Sequential}
