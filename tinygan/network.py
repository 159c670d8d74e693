"""A network is layers in a row, and its parameters are one flat vector."""
import numpy as np

from .lanes import divide, in_lanes
from .layers import Layer


class Sequential(Layer):
    """One layer after another: the chain rule is their backwards in reverse order.

    All parameters are views into one vector, `parameters`, their gradients into `gradients`, the running
    statistics into `statistics`: an optimiser, a checkpoint and a numeric gradient each handle one array.
    `to(xp)` moves all three to xp's device, `freeze()` keeps backward from touching `gradients`. A Sequential inside
    another hands its arrays over: then only the outer one's vectors count. backward raises ValueError when dy has not
    the shape of the output: NumPy would broadcast it, and the gradient would be wrong in silence.

    On a CPU with several lanes (lanes.py) each takes a part of the minibatch through a replica of the layers: the same
    parameters, but caches and gradients of its own. The gradient of a sum is the sum of the replicas' gradients.
    """

    def __init__(self, *layers):
        self.layers = layers
        self.to(np)

    def forward(self, x):
        self.parts, self.replicas = divide(x), None                       # lets go of the last replicas' caches
        self.replicas = [self, *(self.replica() for _ in self.parts[1:])]
        y = join(in_lanes(lambda network, part: network.forward_part(x[part]), self.replicas, self.parts))
        self.cache = y.shape
        return y

    def forward_part(self, x):
        for layer in self.layers:
            x = layer(x)
        return x

    def backward(self, dy, to_input=True):
        if dy.shape != self.cache:
            raise ValueError(f'dy has shape {dy.shape}, the output it belongs to {self.cache}')
        last = None if to_input else self.first_with_parameters()
        for replica in self.replicas[1:]:
            replica.begin_gradients(self)
        dx = in_lanes(lambda network, part: network.backward_part(dy[part], last), self.replicas, self.parts)
        for replica in self.replicas[1:]:
            self.add_gradients(replica)
        return join(dx) if to_input else None

    def backward_part(self, dy, last):
        for i, layer in reversed(list(enumerate(self.layers))):
            if i == last:
                return layer.backward(dy, to_input=False)
            dy = layer.backward(dy)
        return dy

    def first_with_parameters(self):
        """Where backward may stop: no gradient of a parameter lies below."""
        return next(i for i, layer in enumerate(self.layers) if any(leaf.parameter_names for leaf in layer.leaves()))

    def replica(self):
        twin = super().replica()
        twin.layers, twin.replicas = [layer.replica() for layer in self.layers], None
        return twin

    def begin_gradients(self, original):
        """For a replica: gradients of its own, at zero."""
        for leaf, theirs in zip(self.leaves(), original.leaves()):
            leaf.frozen = theirs.frozen
            for name in leaf.gradient_names():
                setattr(leaf, name, np.zeros_like(getattr(theirs, name)))

    def add_gradients(self, replica):
        for leaf, theirs in zip(self.leaves(), replica.leaves()):
            for name in leaf.gradient_names():
                total = getattr(leaf, name)
                total += getattr(theirs, name)

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


def join(parts):
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


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
