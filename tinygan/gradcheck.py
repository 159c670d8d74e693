"""Is each backward the gradient of its forward? Finite differences know the answer without the chain rule.

For a layer, L = sum(layer(x) * r) with a random r, so that dLoss/dy = r. (With r = 1, a summed output, BatchNorm's true
gradient with respect to x is zero, and a backward without its xhat term passes.) Then every entry of x and of every
parameter (of large arrays, some drawn at random) is moved by +-h, and (L(+h) - L(-h)) / 2h is compared with what
backward says. All in float64. check_layer does this for any layer, yours included.
"""
import copy

import numpy as np

from . import losses
from .arrays import array_module, to_numpy
from .layers import (BatchNorm2d, Conv2d, ConvTranspose2d, Flatten, GlobalAvgPool2d, LeakyReLU, Linear, ReLU,
                     Reshape, Sigmoid, Tanh)
from .network import Sequential
from .optim import SGD
from .penalties import PENALTIES, GradientPenalty, between

TOLERANCE = 1e-6
MOST, MOST_OF_NETWORK = 200, 2000   # entries of an array, and parameters of a network, that are moved


def numeric_gradient(loss, theta, h=1e-5, places=None):
    """(loss(theta + h) - loss(theta - h)) / 2h for every entry of the array theta, which is moved in place; or a vector
    of it at the given places (indices)."""
    gradient = []
    for i in np.ndindex(theta.shape) if places is None else places:
        value = float(theta[i])
        theta[i] = value + h
        above = float(loss())
        theta[i] = value - h
        below = float(loss())
        theta[i] = value
        gradient.append((above - below) / (2 * h))
    return np.reshape(gradient, theta.shape if places is None else -1)


def drawn(rng, theta, most):
    """Places (indices) of entries of theta: of all, or of `most` drawn at random."""
    return [np.unravel_index(i, theta.shape) for i in rng.permutation(theta.size)[:most]]


def relative_error(analytic, numeric):
    """The largest difference, relative to the largest entry; infinite where one is not a number."""
    analytic, numeric = to_numpy(analytic), to_numpy(numeric)
    error = abs(analytic - numeric).max() / max(abs(analytic).max(), abs(numeric).max(), 1e-300)
    return np.inf if np.isnan(error) else float(error)


def away_from_zero(rng, shape):
    """Random numbers of magnitude 0.1 and more: no +-h carries them over the kink of a ReLU."""
    x = rng.standard_normal(shape)
    return x + np.copysign(0.1, x)


def check_layer(layer, x, rng=None, xp=np):
    """Compare a layer's gradients at x, or a network's, with finite differences: {'dx': relative error, 'dw': ...}.

    An error below TOLERANCE, 1e-6, is rounding; a wrong backward has one near 1. A layer of your own is a subclass of
    Layer with forward and backward, its parameters made by add_parameter:

        print(check_layer(MyLayer(3), np.random.randn(4, 5, 5, 3)))

    A layer made of others returns them from `leaves`, as Sequential does. The layer itself stays as it is: a copy in
    float64 is checked, on xp's device. Of x and of each parameter, MOST entries drawn by rng are moved. No x may lie at
    a kink of the layer's: see away_from_zero.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    layer = in_float64(layer).unfreeze()
    network, x = Sequential(layer).to(xp), xp.asarray(np.array(x, np.float64))
    r = xp.asarray(rng.standard_normal(network(x).shape))
    network.zero_grad()
    found = {'dx': (network.backward(r), x)}
    leaves = layer.leaves()
    for i, leaf in enumerate(leaves):
        for name in leaf.parameter_names:
            label = f'd{name}' if leaves == [layer] else f'{i} {type(leaf).__name__} d{name}'
            found[label] = getattr(leaf, 'd' + name), getattr(leaf, name)
    errors = {}
    for label, (gradient, theta) in found.items():
        places = drawn(rng, theta, MOST)
        numeric = numeric_gradient(lambda: (network(x) * r).sum(), theta, places=places)
        errors[label] = relative_error(to_numpy(gradient)[tuple(np.transpose(places))], numeric)
    return errors


def in_float64(layer):
    """A copy of a layer or network whose leaves have their arrays in float64."""
    layer = copy.deepcopy(layer)
    for leaf in layer.leaves():
        for name in (*leaf.parameter_names, *('d' + name for name in leaf.parameter_names), *leaf.statistic_names):
            setattr(leaf, name, getattr(leaf, name).astype(np.float64))
    return layer


def check_loss(loss, score, xp=np):
    score = xp.asarray(score)
    return {'dscore': relative_error(loss(score)[1], numeric_gradient(lambda: loss(score)[0], score))}


def check_gan(recipe, loss, rng, xp=np):
    """The gradients one step of training hands to the optimisers: D's from real and fake and a penalty, G's through D.

    recipe has a `generator`, a `discriminator`, the `shape` of their images, how many `classes` they have, the name and the
    weight of a `penalty`, if there is one, and a `game`: the GAN that trains them. The networks are one channel wide, so that
    their parameters can be moved one by one, and the learning rate is 0. With thousands of units one may be about to cross
    the kink of a ReLU; then all is drawn again.
    """
    penalty = GradientPenalty(PENALTIES[recipe.penalty], recipe.penalty_weight) if recipe.penalty else None
    kink = 0
    while kink < 1e-4:
        z_dim = 3 + recipe.classes
        G = recipe.generator(z_dim=z_dim, width=1, rng=rng, dtype=np.float64)
        D = recipe.discriminator(width=1, rng=rng, dtype=np.float64)
        enlarge(G, D, rng, xp)
        x, z = xp.asarray(rng.uniform(-1, 1, (2, *recipe.shape))), xp.asarray(rng.standard_normal((2, z_dim)))
        epsilon = xp.asarray(rng.random((2, 1, 1, 1)))
        recipe.game(G, D, loss, SGD(G, lr=0), SGD(D, lr=0), penalty=penalty).step(x, z, 1, None, epsilon)
        fake = G(z)
        mixed = between(x, fake, epsilon)
        kink = min(nearest_kink(network, at) for network, at in ((D, x), (D, fake), (D, mixed), (G, z)))
    def loss_D():
        return loss.real(D(x))[0] + loss.fake(D(fake))[0] + (penalty(D, mixed) if penalty else 0)
    return {'D gradients': network_error(D, loss_D, rng),
            'G gradients': network_error(G, lambda: loss.generator(D(G(z)))[0], rng)}


def enlarge(G, D, rng, xp):
    """Add to the parameters of two networks, and move them to xp's device: N(0, 0.02) of so few channels would leave next to
    nothing."""
    for network in G, D:
        network.parameters += rng.normal(0, 0.2, network.parameters.size)
        network.to(xp)


def network_error(network, loss, rng):
    """The error of a network's gradients, compared with how a loss moves with its parameters, or some of them."""
    gradients, places = network.gradients.copy(), drawn(rng, network.parameters, MOST_OF_NETWORK)
    numeric = numeric_gradient(loss, network.parameters, h=1e-6, places=places)
    return relative_error(gradients[tuple(np.transpose(places))], numeric)


def nearest_kink(network, x):
    """How near to 0 the inputs of the LeakyReLUs and ReLUs come for x, relative to their mean size."""
    nearest = np.inf
    for layer in network.leaves():
        if isinstance(layer, LeakyReLU):
            nearest = min(nearest, float(abs(x).min() / abs(x).mean()))
        x = layer(x)
    return nearest


LAYERS = {          # name: (layer made by rng, shape of its input)
    'Conv2d 3x3': (lambda **new: Conv2d(2, 3, 3, **new), (2, 5, 4, 2)),
    'Conv2d 4x4, stride 2, padding 1': (lambda **new: Conv2d(3, 2, 4, stride=2, padding=1, **new), (2, 6, 8, 3)),
    'Conv2d 3x3, stride 2, odd size': (lambda **new: Conv2d(2, 3, 3, stride=2, padding=1, **new), (1, 6, 5, 2)),
    'Conv2d 2x2, stride 3, no bias': (lambda **new: Conv2d(2, 2, 2, stride=3, bias=False, **new), (2, 7, 9, 2)),
    'ConvTranspose2d 3x3': (lambda **new: ConvTranspose2d(3, 2, 3, **new), (2, 4, 3, 3)),
    'ConvTranspose2d 4x4, stride 2, padding 1':
        (lambda **new: ConvTranspose2d(3, 2, 4, stride=2, padding=1, **new), (2, 3, 4, 3)),
    'ConvTranspose2d 3x3, stride 2, output padding':
        (lambda **new: ConvTranspose2d(2, 3, 3, stride=2, padding=1, output_padding=1, **new), (1, 3, 2, 2)),
    'ConvTranspose2d 2x2, stride 3, no bias':
        (lambda **new: ConvTranspose2d(2, 2, 2, stride=3, bias=False, **new), (2, 3, 2, 2)),
    'BatchNorm2d': (lambda **new: BatchNorm2d(3, **new), (4, 3, 2, 3)),
    'Linear': (lambda **new: Linear(5, 4, **new), (3, 5)),
    'LeakyReLU': (lambda **_: LeakyReLU(0.2), (4, 6)),
    'ReLU': (lambda **_: ReLU(), (4, 6)),
    'Tanh': (lambda **_: Tanh(), (4, 6)),
    'Sigmoid': (lambda **_: Sigmoid(), (4, 6)),
    'GlobalAvgPool2d': (lambda **_: GlobalAvgPool2d(), (2, 3, 4, 3)),
    'Reshape': (lambda **_: Reshape(2, 3, 1), (4, 6)),
    'Flatten': (lambda **_: Flatten(), (2, 2, 3, 2)),
}
LOSSES = {
    'bce_with_logits, real': lambda s: losses.bce_with_logits(s, 1),
    'bce_with_logits, fake': lambda s: losses.bce_with_logits(s, 0),
    'bce_with_logits, smoothed': lambda s: losses.bce_with_logits(s, 0.9),
    'least_squares': lambda s: losses.least_squares(s, -1),
    'mean_squared_error': lambda s: losses.mean_squared_error(s, 1),
    'wasserstein': lambda s: losses.wasserstein(s, 1),
    'hinge, real': lambda s: losses.hinge(s, 1),
    'hinge, fake': lambda s: losses.hinge(s, -1),
    'minimax_generator': losses.minimax_generator,
    'softmax_cross_entropy': lambda s: losses.softmax_cross_entropy(s, array_module(s).arange(len(s)) % s.shape[1]),
}


def all_checks(layers=LAYERS, recipes={}, xp=np, seed=0, kinds=()):
    """Every check as rows (what, gradient, relative error), one after the other: of these layers, of the losses and of
    these recipes (by name; one without a loss is no GAN, and its `game` checks it). With kinds, such as 'conv2d' or 'dcgan',
    only of those whose name begins with one."""
    def wanted(names):
        return (name for name in names if not kinds or name.lower().startswith(tuple(map(str.lower, kinds))))

    rng = np.random.default_rng(seed)
    for name in wanted(layers):
        make, shape = layers[name]
        errors = check_layer(make(rng=rng, dtype=np.float64), away_from_zero(rng, shape), rng, xp)
        yield from ((name, gradient, error) for gradient, error in errors.items())
    for name in wanted(LOSSES):
        yield name, 'dscore', check_loss(LOSSES[name], 3 * rng.standard_normal((5, 3)), xp)['dscore']
    for name in wanted(recipes):
        recipe = recipes[name]
        for loss in losses.LOSSES if name == 'dcgan' else [recipe.loss]:
            errors = check_gan(recipe, losses.LOSSES[loss](), rng, xp) if loss else recipe.game.check(recipe, rng, xp)
            what = f'{name}, {loss}' if loss else name
            yield from ((what, gradient, error) for gradient, error in errors.items())
