"""One entry of each gradient, by hand and by a finite difference."""
import numpy as np

from ..gradcheck import numeric_gradient, relative_error
from ..layers import LeakyReLU, Weighted
from .page import short


def check(layer, x, dy):
    """One entry of the gradients of x and of each parameter, by hand and by moving it, where L = sum(y * dy). Counted from where it
    stands, as sum((y - y0) * dy), L has the same derivatives and more digits."""
    layer.zero_grad()
    y = layer(x).copy()
    found = {'x': (layer.backward(dy), x)} | {name: (getattr(layer, 'd' + name), getattr(layer, name))
                                              for name in layer.parameter_names}
    h = 1e-2 if isinstance(layer, Weighted) else 1e-5             # with a weight, y is linear in each entry: any h will do
    rows = []
    for name, (gradient, theta) in found.items():
        at_kink = abs(theta) < 2 * h if isinstance(layer, LeakyReLU) else False
        rows.append(compare('d' + name, gradient, theta, lambda: ((layer(x) - y) * dy).sum(), h, at_kink))
    return rows


def compare(name, gradient, theta, loss, h, avoided=False):
    """The largest entry of a gradient by hand, and by moving that entry of theta by +-h."""
    place = np.unravel_index(np.where(avoided, 0, abs(gradient)).argmax(), theta.shape)
    by_hand, numeric = gradient[place], numeric_gradient(loss, theta, h, [place])[0]
    return {'name': name, 'place': [int(i) for i in place], 'h': h, 'hand': float(by_hand), 'moved': float(numeric),
            'error': short(relative_error(np.array(by_hand), np.array(numeric)))}
