"""The cases of the exercises on the slope of D: what cases.py says holds here too."""
from functools import cache

import numpy as np

from .. import layers, penalties
from ..gradcheck import away_from_zero, numeric_gradient
from ..network import Sequential
from .cases import GIVEN_X, Case, maker


def tangent_case(name, shape, **arguments):
    """A layer's tangent: how y moves with x, what is added to the gradients, and that nothing else changes."""
    rng = np.random.default_rng(1)
    x, core = away_from_zero(rng, shape), getattr(layers, name)(**arguments)
    dy, v = rng.standard_normal(core(x).shape), rng.standard_normal(shape)
    made, theta = maker(name, arguments, core, rng)

    def added(layer, run):
        before = {parameter: getattr(layer, f'd{parameter}').copy() for parameter in theta}
        u = run()
        return u, {f'd{parameter}': getattr(layer, f'd{parameter}') - before[parameter] for parameter in theta}

    def mine(code):
        layer, given = made(code), v.copy()
        layer(x.copy())
        dx = layer.backward(dy.copy())
        u, gradients = added(layer, lambda: layer.tangent(given))
        layer.freeze()
        again, frozen = added(layer, lambda: layer.tangent(v.copy()))
        found = {'u': u, **gradients, 'u, frozen': again, **{f'{what}, frozen': gradient for what, gradient in frozen.items()},
                 'v, which must stay as it was': given}
        return found | {'the change of dx, if backward is called again': layer.backward(dy.copy()) - dx}

    def truth():
        layer, h = made(layers), 1e-5
        u = (layer(x + h * v) - layer(x - h * v)) / (2 * h)
        right = {'u': u, 'u, frozen': u, 'v, which must stay as it was': v,
                 'the change of dx, if backward is called again': 0 * x}
        for parameter in theta:                   # y is linear in x
            gradient = numeric_gradient(lambda: ((layer(x + v) - layer(x)) * dy).sum(), getattr(layer, parameter))
            right |= {f'd{parameter}': np.zeros_like(gradient) if parameter == 'b' else gradient,
                      f'd{parameter}, frozen': 0 * gradient}
        return right
    return Case(mine, cache(truth))


def rule_case():
    """wgan_gp: its value and its gradient by g, of images and where one has no slope."""
    g = 0.7 * np.random.default_rng(1).standard_normal((4, 3, 2, 2))
    flat = g * np.arange(4)[:, None, None, None]

    def mine(code):
        (loss, dg), (_, at_zero) = code.wgan_gp(g.copy()), code.wgan_gp(flat.copy())
        return {'loss': loss, 'dg': dg, 'dg where it should be zero, as g is': np.asarray(at_zero)[0]}
    return Case(mine, cache(lambda: {'loss': penalties.wgan_gp(g)[0], 'dg where it should be zero, as g is': 0 * g[0],
                                     'dg': numeric_gradient(lambda: penalties.wgan_gp(g)[0], g)}))


def penalty_case():
    """GradientPenalty, with a rule of its own and on a small D: its value and the gradient that it adds; of a frozen D, none."""
    rng = np.random.default_rng(1)
    D = Sequential(layers.Conv2d(2, 3, 3, rng=rng, dtype=np.float64), layers.LeakyReLU(0.2), layers.Flatten(),
                   layers.Linear(12, 1, rng=rng, dtype=np.float64))
    D.parameters += rng.normal(0, 0.5, D.parameters.size)
    x = rng.standard_normal((3, 4, 4, 2))

    def fourth_power(g):
        return (g ** 4).sum() / 4, g ** 3

    def mine(code):
        penalty, given = code.GradientPenalty(fourth_power, 3), x.copy()
        D.unfreeze().gradients[...] = 7
        value, gradient = penalty(D, given), D.gradients - 7
        frozen = D.frozen
        again = penalty(D.freeze(), given)
        return {'the penalty': value, 'the gradient that it adds': gradient, 'is D frozen now': frozen,
                'the penalty of a D that is frozen': again, 'the gradient that it adds to a frozen D': D.gradients - 7 - gradient,
                'is the frozen D frozen now': D.frozen, GIVEN_X: given}

    def loss():
        return 3 * fourth_power(D.backward(np.ones_like(D(x))))[0]

    def truth():
        numeric = numeric_gradient(loss, D.parameters, h=1e-6)
        return {'the penalty': loss(), 'the gradient that it adds': numeric, 'is D frozen now': False,
                'the penalty of a D that is frozen': loss(), 'the gradient that it adds to a frozen D': 0 * numeric,
                'is the frozen D frozen now': True, GIVEN_X: x}
    return Case(mine, cache(truth))
