"""What an exercise is tried on. A case has two functions: mine(code) returns {what: array} as the code that is graded makes it, and
truth() the same as it should be: by finite differences of the core's forward, and where no gradient is asked for, by the core.

`code` has the classes and functions of the exercise as attributes, as a module has them. All is float64, and drawn from one seed.
"""
from types import SimpleNamespace
from typing import Callable, NamedTuple

import numpy as np

from .. import conv, gan, layers, losses, models, optim
from ..gradcheck import away_from_zero, numeric_gradient

FIRST, SECOND, FROZEN = 'd{}', 'd{} after a second backward', 'd{} after one more while frozen'
GIVEN = 'dy, which must stay as it was'
D_LEARNS, G_LEARNS = 'the gradient that D learns by', 'the gradient that G learns by'


class Case(NamedTuple):
    mine: Callable
    truth: Callable


def layer_case(name, shape, forward=False, **arguments):
    """A layer, made with these arguments: the gradients by x and by its parameters for a random dy; that a second backward adds to
    the latter, that one while frozen does not, and that dy is left alone. With forward, also y, in training and in evaluation."""
    rng = np.random.default_rng(1)
    x, core = away_from_zero(rng, shape), getattr(layers, name)(**arguments)
    dy = rng.standard_normal(core(x).shape)
    theta = {parameter: rng.standard_normal(getattr(core, parameter).shape) for parameter in core.parameter_names}

    def made(code):
        layer = getattr(code, name)(**arguments)
        for parameter, value in theta.items():
            getattr(layer, parameter)[...] = value
        return layer

    def outputs(code):
        layer = made(code)
        return {'y': layer(x), 'y in evaluation': layer.eval()(x)} if forward else {}

    def mine(code):
        layer, found = made(code), {}

        def go(label):
            layer(x)
            dx = layer.backward(dy_given)
            return {'dx': dx} | {label.format(parameter): np.array(getattr(layer, f'd{parameter}')) for parameter in theta}
        dy_given = dy.copy()
        found = go(FIRST)
        if theta:
            found = go(SECOND) | found
            layer.freeze()
            found = go(FROZEN) | found
        return outputs(code) | found | {GIVEN: dy_given}

    def truth():
        layer = made(layers)

        def gradient(array):
            return numeric_gradient(lambda: (layer(x) * dy).sum(), array)
        right = outputs(layers) | {'dx': gradient(x), GIVEN: dy}
        for parameter in theta:
            dtheta = gradient(getattr(layer, parameter))
            right |= {FIRST.format(parameter): dtheta, SECOND.format(parameter): 2 * dtheta, FROZEN.format(parameter): 2 * dtheta}
        return right
    return Case(mine, truth)


def conv_case(name, stride, padding, C, F):
    """A function of conv.py that returns a gradient: of forward by w or by x, or, col2im, of im2col by its image."""
    rng, K, S, P = np.random.default_rng(1), 3, stride, padding
    x, w = rng.standard_normal((2, 5, 6, C)), rng.standard_normal((K, K, C, F))
    dy = rng.standard_normal(conv.forward(x, w, S, P).shape)
    cols = rng.standard_normal((*dy.shape[:3], K, K, C))
    calls = {'weight_grad': ('dw', lambda f: f(x, dy, K, S, P)), 'input_grad': ('dx', lambda f: f(dy, w, x.shape[1:3], S, P)),
             'col2im': ('dx', lambda f: f(cols, x.shape[1:3], S, P))}
    losses_of = {'weight_grad': (w, lambda: (conv.forward(x, w, S, P) * dy).sum()),
                 'input_grad': (x, lambda: (conv.forward(x, w, S, P) * dy).sum()),
                 'col2im': (x, lambda: (conv.im2col(x, K, S, P) * cols.reshape(-1, K * K * C)).sum())}
    label, call = calls[name]
    theta, loss = losses_of[name]
    return Case(lambda code: {label: call(getattr(code, name))}, lambda: {label: numeric_gradient(loss, theta)})


def loss_case(name, answer):
    """A loss of the core: its value, and its gradient by the score. answer is its second argument."""
    score = 2 * np.random.default_rng(1).standard_normal((4, 4))
    core = getattr(losses, name)

    def mine(code):
        loss, dscore = getattr(code, name)(score.copy(), answer)
        return {'loss': loss, 'dscore': dscore}
    return Case(mine, lambda: {'loss': core(score, answer)[0], 'dscore': numeric_gradient(lambda: core(score, answer)[0], score)})


def adam_case():
    """Adam: theta after the first step and after the fourth. eps is large, so that it matters where it stands."""
    gradients = np.random.default_rng(1).standard_normal((4, 6))

    def mine(code):
        theta, found = np.zeros(6), {}
        held = SimpleNamespace(parameters=theta, gradients=None)
        adam = code.Adam(held, lr=0.1, beta1=0.5, beta2=0.9, eps=0.1)
        for t, held.gradients in enumerate(gradients.copy(), 1):
            adam.step()
            found[f'theta after step {t}'] = theta.copy()
        return found
    return Case(mine, lambda: mine(optim))


def gan_case():
    """GAN: the gradients that one step hands to the optimisers, and then another; what it leaves alone; and what it returns."""
    def start(code, lr=0.05):
        rng = np.random.default_rng(3)
        G = models.dcgan_generator(z_dim=2, width=1, rng=rng, dtype=np.float64)
        D = models.dcgan_discriminator(width=1, rng=rng, dtype=np.float64)
        for network in G, D:
            network.parameters += rng.normal(0, 0.2, network.parameters.size)
        x, z = rng.uniform(-1, 1, (3, 28, 28, 1)), rng.standard_normal((3, 2))
        return code.GAN(G, D, losses.LOSSES['bce'](), optim.SGD(G, lr), optim.SGD(D, lr)), G, D, x, z

    def mine(code):
        game, G, D, x, z = start(code)
        fake = G(z)
        metrics = dict(game.update_D(x, fake))
        found = {D_LEARNS: D.gradients.copy(), "G's gradient while D learns": G.gradients.copy()}
        theta = D.parameters.copy()
        metrics |= game.update_G(fake)
        found |= {G_LEARNS: G.gradients.copy(), "what D's gradient has become when G has learnt": D.gradients.copy(),
                  'the way that D has moved while G learnt': D.parameters - theta}
        game.update_D(x, G(z))
        game.update_G(G(z))
        found |= {f'{D_LEARNS} in the next step': D.gradients.copy(), f'{G_LEARNS} in the next step': G.gradients.copy()}
        game, G, D, x, z = start(code)
        game.step(x, z)
        return found | {'G after a whole step': G.parameters} | {name: metrics[name] for name in sorted(metrics)}

    def truth():
        game, G, D, x, z = start(gan)
        loss, fake = game.loss, G(z)
        D_gradient = numeric_gradient(lambda: loss.real(D(x))[0] + loss.fake(D(fake))[0], D.parameters, h=1e-6)
        game.update_D(x, fake)
        G_gradient = numeric_gradient(lambda: loss.generator(D(G(z)))[0], G.parameters, h=1e-6)
        return mine(gan) | {D_LEARNS: D_gradient, G_LEARNS: G_gradient}
    return Case(mine, truth)
