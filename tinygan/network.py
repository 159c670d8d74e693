"""What a layer is, and a network: layers in a row, whose parameters are one flat vector."""
import copy

import numpy as np

from . import show
from .arrays import array_module, to_numpy


class NoForward(RuntimeError, AttributeError):
    """A backward was called before a forward, or a tangent before a backward."""


class Layer:
    """What all layers share, a network too.

        y  = layer(x)               forward; what backward needs is kept in self.cache
        dx = layer.backward(dy)     from dy = dLoss/dy: adds dLoss/dparameter to dw, db ... and returns dLoss/dx
        u  = layer.tangent(v)       how y moves when x moves by v; adds d(sum of dy * u)/dparameter to dw ... : penalties.py

    A layer remembers its latest forward only: backward comes before the next forward, and tangent after that backward,
    whose dy it takes. A frozen layer passes gradients through but adds none to its own parameters. Raises ValueError when x
    has another shape than the layer takes, RuntimeError on a backward before a forward or a tangent before a backward,
    TypeError on the tangent of a layer that is curved.
    """
    parameter_names = ()            # attributes such as 'w'; the gradient of w is the attribute dw
    statistic_names = ()            # attributes that training updates without a gradient
    takes = None                    # the shape of x, if it matters: ('N', 'H', 'W', 3), or ('...', 3)
    training, frozen = True, False

    def __call__(self, x):
        if self.takes and (x.shape[-1:] != self.takes[-1:] or (self.takes[0] == 'N' and x.ndim != len(self.takes))):
            raise ValueError(f'{self} takes x ({", ".join(map(str, self.takes))}), not {x.shape}')
        vars(self).pop('dy', None)                # which belonged to another x
        return self.forward(x)

    def __getattr__(self, name):                  # asked only for what is not there
        needs = {'cache': 'backward needs a forward', 'dy': 'tangent needs a backward'}
        if name in needs:
            raise NoForward(f'{type(self).__name__}.{needs[name]} first')
        raise AttributeError(f'{type(self).__name__} has no attribute {name}')

    def __repr__(self):
        return show.as_made(self)

    def tangent(self, v):
        raise TypeError(f'{self} is curved: its slope moves with x, and a gradient penalty would need a further term')

    def leaves(self):
        return [self]

    def add_parameter(self, name, value):
        setattr(self, name, value)
        setattr(self, 'd' + name, np.zeros_like(value))
        self.parameter_names += (name,)

    def zero_grad(self):
        for leaf in self.leaves():
            for name in leaf.parameter_names:
                getattr(leaf, 'd' + name).fill(0)

    def train(self):
        return self.set_flags(training=True)

    def eval(self):
        return self.set_flags(training=False)

    def freeze(self):
        return self.set_flags(frozen=True)

    def unfreeze(self):
        return self.set_flags(frozen=False)

    def set_flags(self, **flags):
        vars(self).update(flags)
        return self


class Sequential(Layer):
    """One layer after another: the chain rule is their backwards in reverse order.

    All parameters are views into one vector, `parameters`, their gradients into `gradients`, the running
    statistics into `statistics`: an optimiser, a checkpoint and a numeric gradient each handle one array.
    `to(xp)` moves all three to xp's device. The arrays of a nested Sequential move into the outer one's vectors, and
    its own vectors are then stale. backward raises ValueError when dy does not have the output's shape: NumPy would
    broadcast it, and the gradient would silently be wrong.
    """

    def __init__(self, *layers):
        self.layers = layers
        if len(set(map(id, self.leaves()))) < len(self.leaves()):
            raise ValueError('a layer can stand in a network only once')
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

    def tangent(self, v):
        for layer in self.layers:
            v = layer.tangent(v)
        return v

    def leaves(self):
        return [leaf for layer in self.layers for leaf in layer.leaves()]

    def set_flags(self, **flags):
        for layer in self.layers:
            layer.set_flags(**flags)
        return super().set_flags(**flags)

    def to(self, xp):
        self.parameters = pack(xp, self.owners('parameter_names'))
        self.gradients = pack(xp, self.owners('parameter_names', 'd'))
        self.statistics = pack(xp, self.owners('statistic_names'))
        return self

    def __deepcopy__(self, memo):                 # NumPy would copy vectors and views each by itself
        twin = copy.copy(self)
        twin.layers = copy.deepcopy(self.layers, memo)
        return twin.to(array_module(self.parameters))

    def owners(self, names, prefix=''):
        return [(leaf, prefix + name) for leaf in self.leaves() for name in getattr(leaf, names)]

    def __repr__(self):
        return self.summary()

    def summary(self, *shape):
        """A line for each layer, with its settings and how many parameters it has; given the shape of an input without
        its N, as in G.summary(100), also the shape of what leaves the layer."""
        return show.summary(self, *shape)


def pack(xp, owners):
    """One vector of all arrays that are attributes of owners [(layer, name)]."""
    arrays = [getattr(layer, name) for layer, name in owners]
    return lay_out(xp.empty(sum(array.size for array in arrays), arrays[0].dtype if arrays else np.float32), owners)


def lay_out(vector, owners):
    """Copy the owners' arrays into the vector, and leave them views of it."""
    xp, start = array_module(vector), 0
    for layer, name in owners:
        array = getattr(layer, name)
        view = vector[start:start + array.size].reshape(array.shape)
        view[...] = to_numpy(array) if xp is np else xp.asarray(array)
        setattr(layer, name, view)
        start += array.size
    return vector
