"""What an exercise is tried on. A case has two functions: mine(code) returns {what: array} as the code that is graded makes it, and
truth() the same as it should be: by finite differences of the core's forward, and where no gradient is asked for, by the core.

`code` has the classes and functions of the exercise as attributes, as a module has them. All is float64, and drawn from one seed.
"""
import contextlib
import copy
from functools import cache
from types import SimpleNamespace
from typing import Callable, NamedTuple

import numpy as np

from .. import conv, gan, layers, losses, models, optim
from ..gradcheck import away_from_zero, numeric_gradient

FIRST, SECOND, FROZEN = 'd{}', 'd{} after a second backward', 'd{} after one more while frozen'       # each presumes those before
GIVEN_X, GIVEN_DY = 'x, which must stay as it was', 'dy, which must stay as it was'
D_LEARNS, G_LEARNS = 'the gradient that D learns by', 'the gradient that G learns by'


class Noted(optim.SGD):
    """SGD that keeps the gradient of its last step."""
    g = None

    def step(self):
        self.g = self.network.gradients.copy()
        super().step()


class Case(NamedTuple):
    mine: Callable
    truth: Callable


def maker(name, arguments, core, rng):
    """(a function that makes the layer of a code, with certain parameters; these, by name)."""
    theta = {parameter: rng.standard_normal(getattr(core, parameter).shape) for parameter in core.parameter_names}

    def made(code):
        layer = getattr(code, name)(**arguments)
        for parameter, value in theta.items():
            getattr(layer, parameter)[...] = value
        return layer
    return made, theta


def layer_case(name, shape, forward=False, **arguments):
    """A layer, made with these arguments: the gradients by x and by its parameters for a random dy; that a second backward adds to
    the latter, that one while frozen does not, and that x and dy are left alone. With forward, also y, training and evaluating."""
    rng = np.random.default_rng(1)
    x, core = away_from_zero(rng, shape), getattr(layers, name)(**arguments)
    dy = rng.standard_normal(core(x).shape)
    made, theta = maker(name, arguments, core, rng)

    def outputs(code):
        layer = made(code)
        return {'y': layer(x.copy()), 'y in evaluation': layer.eval()(x.copy())} if forward else {}

    def mine(code):
        layer, given_x, given_dy = made(code), x.copy(), dy.copy()
        gradients = {f'd{parameter}': getattr(layer, f'd{parameter}') for parameter in theta}

        def back(label):
            layer(given_x)
            found = {label.format('x'): layer.backward(given_dy)}
            for name, gradient in gradients.items():
                if getattr(layer, name) is not gradient:      # of which the network's vector is made
                    raise ValueError(f'self.{name} is a new array now: add to the one that is there, with +=')
                found[label.format(name[1:])] = gradient.copy()
            return found
        found = back(FIRST)
        if theta:
            found |= back(SECOND)
            layer.freeze()
            found |= back(FROZEN)
        return outputs(code) | found | {GIVEN_X: given_x, GIVEN_DY: given_dy}

    def truth():
        layer = made(layers)
        dx = numeric_gradient(lambda: (layer(x) * dy).sum(), x)
        right = outputs(layers) | {'dx': dx, GIVEN_X: x, GIVEN_DY: dy} | ({FROZEN.format('x'): dx} if theta else {})
        for parameter in theta:
            dtheta = numeric_gradient(lambda: (layer(x) * dy).sum(), getattr(layer, parameter))
            right |= {FIRST.format(parameter): dtheta, SECOND.format(parameter): 2 * dtheta, FROZEN.format(parameter): 2 * dtheta}
        return right
    return Case(mine, cache(truth))


def bias_case():
    """The bias of a layer whose y is (N, H, W, F)."""
    dy, b = np.random.default_rng(1).standard_normal((2, 3, 4, 5)), np.zeros(5)

    def mine(code):
        layer = code.Weighted((1,), 5, bias=True, rng=None, dtype=np.float64)
        layer.add_bias_gradient(dy.copy())
        return {'db, of images': layer.db}
    return Case(mine, lambda: {'db, of images': numeric_gradient(lambda: ((b + np.zeros(dy.shape)) * dy).sum(), b)})


def conv_case(name, stride, padding, C, F, K=3):
    """A function of conv.py that returns a gradient: of forward by w or by x, or, col2im, of im2col by its image."""
    rng, S, P = np.random.default_rng(1), stride, padding
    x, w = rng.standard_normal((2, 5, 6, C)), rng.standard_normal((K, K, C, F))
    dy = rng.standard_normal(conv.forward(x, w, S, P).shape)
    cols = rng.standard_normal((*dy.shape[:3], K, K, C))
    size = x.shape[1:3]

    def y():
        return (conv.forward(x, w, S, P) * dy).sum()
    label, theta, loss, arguments = {
        'weight_grad': ('dw', w, y, (x, dy, K, S, P)),
        'input_grad': ('dx', x, y, (dy, w, size, S, P)),
        'col2im': ('dx', x, lambda: (conv.im2col(x, K, S, P) * cols.reshape(-1, K * K * C)).sum(), (cols, size, S, P))}[name]
    return Case(lambda code: {label: getattr(code, name)(*copy.deepcopy(arguments))},
                lambda: {label: numeric_gradient(loss, theta)})


def loss_case(name, answer, label='dscore', shape=(4, 4)):
    """A loss of the core: its value and its gradient by the score, also where exp overflows. answer is its second argument."""
    score = 2 * np.random.default_rng(1).standard_normal(shape)
    core, far = getattr(losses, name), 5000 * score + 1e4 * np.arange(shape[0])[:, None]

    def both(loss, at, where=''):
        returned = loss(at.copy(), answer)
        value, gradient = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, None)
        return {f'loss{where}': value, f'{label}{where}': gradient}

    def mine(code):
        return both(getattr(code, name), score) | both(getattr(code, name), far, ' at scores of thousands')

    def truth():
        numeric = numeric_gradient(lambda: core(score, answer)[0], score)
        return both(core, score) | {label: numeric} | both(core, far, ' at scores of thousands')
    return Case(mine, cache(truth))


def adam_case():
    """Adam: theta after each of four steps, and whether m kept its place. eps is large, so that it matters where it stands."""
    gradients = np.random.default_rng(1).standard_normal((4, 6))

    def mine(code):
        held, found = SimpleNamespace(parameters=np.zeros(6), gradients=None), {}
        adam = code.Adam(held, lr=0.1, beta1=0.5, beta2=0.9, eps=0.1)
        theta, m, v = held.parameters, adam.m, adam.v
        for t, held.gradients in enumerate(gradients.copy(), 1):
            adam.step()
            found[f'theta after step {t}'] = theta.copy()
        return found | {'m, in the array that it had first': m, 'v, in the array that it had first': v, 't': adam.t}
    return Case(mine, lambda: mine(optim))


def gan_case():
    """GAN: the gradients that one step hands to the optimisers, and then another; what it leaves alone; what it returns; a D that
    rests, an average, and a step that breaks off."""
    def start(code, **options):
        rng = np.random.default_rng(3)
        G = models.dcgan_generator(z_dim=2, width=1, rng=rng, dtype=np.float64)
        D = models.dcgan_discriminator(width=1, rng=rng, dtype=np.float64)
        for network in G, D:
            network.parameters += rng.normal(0, 0.2, network.parameters.size)
        x, z = rng.uniform(-1, 1, (3, 28, 28, 1)), rng.standard_normal((3, 2))
        return code.GAN(G, D, losses.LOSSES['lsgan_chi2'](), Noted(G, 0.05), Noted(D, 0.05), **options), G, D, x, z

    def one_step_and_another(code):
        game, G, D, x, z = start(code)
        fake = G(z)
        metrics = dict(game.update_D(x, fake) or {})
        found = {D_LEARNS: game.optim_D.g, "G's gradient while D learns": G.gradients.copy()}
        theta, gradient = D.parameters.copy(), D.gradients.copy()
        metrics |= game.update_G(fake) or {}
        found |= {G_LEARNS: game.optim_G.g, "what is added to D's gradient while G learns": D.gradients - gradient,
                  'the way that D has moved while G learnt': D.parameters - theta}
        game.update_D(x, G(z))
        game.update_G(G(z))
        return found | {f'{D_LEARNS} in the next step': game.optim_D.g, f'{G_LEARNS} in the next step': game.optim_G.g,
                        **{name: metrics.get(name) for name in ('loss_D', 'D_x', 'D_G_z1', 'loss_G', 'D_G_z2')}}

    def whole_step(code):
        game, G, D, x, z = start(code)
        game.step(x, z)
        return {'G after a whole step': G.parameters}

    def a_rest_and_an_average(code):
        found, followed = {}, []
        average = SimpleNamespace(network=None, step=lambda t: followed.append((t, G.parameters.sum())))
        for what, limit in (('while it rested', 100), ('while its loss was above D_rests_at', 4.9)):      # the reals' is below
            game, G, D, x, z = start(code, D_rests_at=limit, average=average)
            theta = D.parameters.copy()
            game.step(x, z)
            found[f'the way that D has moved {what}'] = D.parameters - theta
        return found | {'the t that the average was told, and the sum of G then': followed}

    def a_penalty(code):
        found, asked = {}, []

        def penalty(D, images):
            asked.append(images)
            D.gradients += 1
            return np.float64(5)
        for what, epsilon in (('at the real images', None), ('in between', np.full((3, 1, 1, 1), 0.25))):
            game, G, D, x, z = start(code, penalty=penalty)
            metrics = game.update_D(x, G(z), epsilon)
            found |= {f'{D_LEARNS}, with a penalty {what}': game.optim_D.g, f'the penalty {what}': metrics.get('penalty')}
        found |= {'the images at which a penalty is taken': asked[:]}
        game, G, D, x, z = start(code, penalty=penalty, penalty_every=2)
        metrics = [game.update_D(x, G(z)) for _ in range(3)]
        return found | {'in which of three updates a penalty is taken, with penalty_every = 2': ['penalty' in m for m in metrics]}

    def a_step_that_breaks_off(code):
        game, G, D, x, z = start(code)
        G.layers[-1].backward = lambda dy: 1 / 0
        with contextlib.suppress(ZeroDivisionError):
            game.update_G(G(z))
        return {'is D frozen after a step that broke off': D.frozen}

    def mine(code):
        return (one_step_and_another(code) | whole_step(code) | a_penalty(code) | a_rest_and_an_average(code)
                | a_step_that_breaks_off(code))

    def truth():
        game, G, D, x, z = start(gan)
        loss, fake = game.loss, G(z)
        D_gradient = numeric_gradient(lambda: loss.real(D(x))[0] + loss.fake(D(fake))[0], D.parameters, h=1e-6)
        game.update_D(x, fake)
        G_gradient = numeric_gradient(lambda: loss.generator(D(G(z)))[0], G.parameters, h=1e-6)
        return mine(gan) | {D_LEARNS: D_gradient, G_LEARNS: G_gradient}
    return Case(mine, cache(truth))
