"""A network is layers in a row, and its parameters are one flat vector."""
import numpy as np

from .layers import Layer


class Sequential(Layer):
    """One layer after another: the chain rule is their backwards in reverse order.

    All parameters are views into one vector, `parameters`, their gradients into `gradients`, the running
    statistics into `statistics`: an optimiser, a checkpoint and a numeric gradient each handle one array.
    `to(xp)` moves all three to xp's device, `freeze()` keeps backward from touching `gradients`. A Sequential inside
    another hands its arrays over: then only the outer one's vectors count. backward raises ValueError when dy has not
    the shape of the output: NumPy would broadcast it, and the gradient would be wrong in silence.
    """

    def __init__(self, *layers):
        self.layers = layers
        self.to(np)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        self.cache = x.shape
        return x

    def backward(self, dy):
        if dy.shape != self.cache:
            raise ValueError(f'dy has shape {dy.shape}, the output it belongs to {self.cache}')
        for layer in reversed(self.layers):
            dy = layer.backward(dy)
        return dy

    def leaves(self):
        return [leaf for layer in self.layers for leaf in layer.leaves()]

    def to(self, xp):
        leaves = self.leaves()
        self.parameters = pack(xp, [(leaf, name) for leaf in leaves for name in leaf.parameter_names])
        self.gradients = pack(xp, [(leaf, 'd' + name) for leaf in leaves for name in leaf.parameter_names])
        self.statistics = pack(xp, [(leaf, name) for leaf in leaves for name in leaf.statistic_names])
        return self

    def zero_grad(self):
        self.gradients.fill(0)

    def set_flags(self, **flags):
        for leaf in self.leaves():
            vars(leaf).update(flags)

    def train(self):
        self.set_flags(training=True)

    def eval(self):
        self.set_flags(training=False)

    def freeze(self):
        self.set_flags(frozen=True)

    def unfreeze(self):
        self.set_flags(frozen=False)


def pack(xp, owners):
    """Copy the arrays that are attributes of owners [(layer, name)] into one vector; leave views of it there."""
    arrays = [xp.asarray(getattr(layer, name)) for layer, name in owners]
    vector = xp.empty(sum(array.size for array in arrays), arrays[0].dtype if arrays else np.float32)
    start = 0
    for (layer, name), array in zip(owners, arrays):
        view = vector[start:start + array.size].reshape(array.shape)
        view[...] = array
        setattr(layer, name, view)
        start += array.size
    return vector
