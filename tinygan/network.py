"""A network is layers in a row, and its parameters are one flat vector."""
import numpy as np

from .arrays import array_module
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

    def backward(self, dy, to_input=True):
        if dy.shape != self.cache:
            raise ValueError(f'dy has shape {dy.shape}, the output it belongs to {self.cache}')
        lowest = None if to_input else self.first_with_parameters()
        for i, layer in reversed(list(enumerate(self.layers))):
            if i == lowest:
                return layer.backward(dy, to_input=False)
            dy = layer.backward(dy)
        return dy

    def first_with_parameters(self):
        """Where backward may stop: no gradient of a parameter lies below. None where there are no parameters."""
        having = (i for i, layer in enumerate(self.layers) if any(leaf.parameter_names for leaf in layer.leaves()))
        return next(having, None)

    def leaves(self):
        return [leaf for layer in self.layers for leaf in layer.leaves()]

    def to(self, xp):
        self.parameters = pack(xp, self.owners('parameter_names'))
        self.gradients = pack(xp, self.owners('parameter_names', 'd'))
        self.statistics = pack(xp, self.owners('statistic_names'))
        return self

    def owners(self, names, prefix=''):
        return [(leaf, prefix + name) for leaf in self.leaves() for name in getattr(leaf, names)]

    def use_gradients(self, vector):
        """From now on gradients are in this vector."""
        self.gradients = vector
        lay_out(vector, self.owners('parameter_names', 'd'))

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
    """One vector of all arrays that are attributes of owners [(layer, name)]."""
    arrays = [xp.asarray(getattr(layer, name)) for layer, name in owners]
    return lay_out(xp.empty(sum(array.size for array in arrays), arrays[0].dtype if arrays else np.float32), owners)


def lay_out(vector, owners):
    """Copy the owners' arrays into the vector, and leave them views of it."""
    start = 0
    for layer, name in owners:
        array = getattr(layer, name)
        view = vector[start:start + array.size].reshape(array.shape)
        view[...] = array_module(vector).asarray(array)
        setattr(layer, name, view)
        start += array.size
    return vector
