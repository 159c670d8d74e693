"""The exercises, from easy to hard: what is cut out of the core, how it is tried, and three hints for each."""
from typing import NamedTuple

import numpy as np

from . import source
from .cases import adam_case, bias_case, conv_case, gan_case, layer_case, loss_case
from .mistakes import MISTAKES
from .slope_cases import penalty_case, rule_case, tangent_case


class Exercise(NamedTuple):
    title: str
    file: str                       # of the core
    names: tuple                    # classes and functions of it that make up the exercise
    blanks: dict                    # what is cut out: what to write there
    cases: tuple                    # the first is square: what was transposed by mistake still fits, and can be recognised
    hints: tuple                    # the rule; what follows from it; nearly the answer
    given_away: dict = {}           # in a docstring: what it says in the exercise

    def text(self, mistake=None):
        """The source of the exercise as the core has it, or with a mistake. Tangents are of no use where none is asked for, and
        would give backward away."""
        asked = any(name.endswith('.tangent') for name in self.blanks)
        text = source.excerpt(self.file, self.names, () if asked else ('tangent',))
        return mistake.planted(text) if mistake else text

    def blank_text(self):
        text = self.text()
        for said, instead in self.given_away.items():
            if said not in text:
                raise ValueError(f'{self.file}.py no longer says {said}')
            text = text.replace(said, instead)
        for name, task in self.blanks.items():
            text = source.blanked(text, name, task)
        return text

    def imports(self):
        return source.imports_for(self.text(), self.names, self.file)

    def mistakes(self):
        """Those of the catalogue that can be made here."""
        text = self.text()
        return {name: mistake for name, mistake in MISTAKES.items() if mistake.file == self.file and mistake.right in text}


DOUBLE = dict(dtype=np.float64)
SQUARE, STRIDED, BARE = (1, 1, 2, 2), (2, 1, 2, 3), (1, 0, 3, 2, 2)      # stride, padding, channels of x and y, kernel size

EXERCISES = {
    'linear': Exercise(
        'the product under everything: dw, db and dx of y = x @ w + b', 'layers', ('Weighted', 'Linear'),
        {'Weighted.add_bias_gradient': 'If self.bias, add to self.db.',
         'Linear.backward': 'Unless self.frozen, add to self.dw (+=), and call self.add_bias_gradient(dy). Return dx.'},
        (layer_case('Linear', (4, 4), in_features=4, out_features=4, **DOUBLE),
         layer_case('Linear', (3, 5), in_features=5, out_features=2, bias=False, **DOUBLE), bias_case()),
        ('Write one entry out: y[r, f] = sum over k of x[r, k] w[k, f] + b[f]. Which entries of y does w[k, f] occur in? And x[r, '
         'k], and b[f]? A gradient is a sum over those: dy there, times what stood beside it.',
         'w[k, f] occurs in y[r, f] for every r: dw[k, f] = sum over r of x[r, k] dy[r, f]. x[r, k] occurs in y[r, f] for every f: '
         'dx[r, k] = sum over f of dy[r, f] w[k, f]. b[f] occurs in y[r, f] for every r.',
         'A sum over the first index of both factors is a product with the first one transposed: x.T @ dy. One over the last of '
         'both is a product with the second one transposed. And db sums dy over all axes but the last (`channels`).')),
    'relu': Exercise(
        'the gradient of max(x, 0), which is LeakyReLU with slope 0', 'layers', ('LeakyReLU', 'ReLU'),
        {'LeakyReLU.backward': 'Return dx.'},
        (layer_case('ReLU', (4, 6)), layer_case('LeakyReLU', (4, 6), slope=0.2)),
        ('Each y depends on the x at its own place alone. So dx = dy * (the slope of y there).',
         'Where x was positive, y = x, of slope 1. Elsewhere y = slope * x, of slope self.slope. forward has kept where x was '
         'positive.',
         'np.where(positive, 1, self.slope) is the slope: dx is dy times that.')),
    'tanh': Exercise(
        'an activation that knows its own slope', 'layers', ('Tanh',), {'Tanh.backward': 'Return dx.'},
        (layer_case('Tanh', (4, 6)),),
        ('Write tanh as u / v, with u = e^x - e^-x and v = e^x + e^-x. What are du/dx and dv/dx?',
         'du/dx = v and dv/dx = u. The quotient rule gives (v v - u u) / v^2.',
         'That is 1 - (u / v)^2, and u / v is y, which forward has kept.')),
    'bce': Exercise(
        'binary cross-entropy by the score: why a sigmoid belongs in the loss', 'losses', ('bce_with_logits',),
        {'bce_with_logits': 'Return the loss and dscore. Nothing may overflow, so use softplus and sigmoid.'},
        (loss_case('bce_with_logits', 1), loss_case('bce_with_logits', 0.3)),
        ('-log p is softplus(-s), and -log(1 - p) is softplus(s): that is the loss. For its gradient, what is the derivative of '
         'softplus(s) = log(1 + e^s)?',
         'It is e^s / (1 + e^s) = sigmoid(s) = p. And that of softplus(-s) is -sigmoid(-s) = p - 1.',
         'So t (p - 1) + (1 - t) p for each score: multiply it out. The loss is a mean, so divide by score.size.'),
        {' The derivative of softplus is sigmoid, and\n': '\n',
         '    sigmoid(-s) = 1 - p, so ds = (-t (1 - p) + (1 - t) p) / N = (p - t) / N.\n': ''}),
    'softmax': Exercise(
        'softmax and cross-entropy, for a classifier', 'losses', ('softmax_cross_entropy',),
        {'softmax_cross_entropy': 'Return the loss and dlogits. Nothing may overflow.'},
        (loss_case('softmax_cross_entropy', np.array([2, 0, 3, 3]), 'dlogits'),
         loss_case('softmax_cross_entropy', np.array([2, 0, 1, 1, 2]), 'dlogits', (5, 3))),
        ('The loss of an image is -s[label] + log(sum over k of exp(s[k])). Differentiate both terms by one s[k].',
         'The first gives -1 for the label and 0 for all others: -y[k]. The second, exp(s[k]) / sum of exp(s), which is p[k].',
         'So (p - y), divided by the number of images, as the loss is a mean over these. Subtract logits.max(axis=1, '
         'keepdims=True) before any exp. y is (labels[:, None] == xp.arange(number of classes)).'),
        {'; dlogits = (p - y) / N': '',
         ' With respect to s[k], the first term has the derivative -y[k], and the logarithm\n': '\n',
         '    exp(s[k]) / sum of exp(s) = p[k]. Subtracting': '    Subtracting'}),
    'leaky_relu': Exercise(
        'a whole layer: forward, what it must remember, and backward', 'layers', ('LeakyReLU',),
        {'LeakyReLU.forward': 'Keep in self.cache what backward needs, and return y.', 'LeakyReLU.backward': 'Return dx.'},
        (layer_case('LeakyReLU', (4, 6), True, slope=0.2), layer_case('LeakyReLU', (4, 6), True, slope=0.05)),
        ('Do the exercise relu first. The cache need not hold x itself: what must backward know of it?',
         'Only where it was positive: self.cache = x > 0. As 0 <= slope < 1, y is the larger of x and slope * x.',
         'dx = dy * (1 where self.cache, else self.slope).')),
    'conv_dw': Exercise(
        "a convolution's gradient by its kernel", 'conv', ('weight_grad',), {'weight_grad': 'Return dw (K, K, C, F).'},
        tuple(conv_case('weight_grad', *setting) for setting in (SQUARE, STRIDED, BARE)),
        ('With the patches of x as the rows of a matrix, cols = im2col(x, K, stride, padding), a convolution is y = cols @ w, '
         'where w has K*K*C rows. So it is the exercise linear again.',
         'dw = cols.T @ dy. For that dy must be a matrix too, with a row for each patch: dy.reshape(-1, F).',
         'cols.T @ dy.reshape(-1, F) has the shape (K*K*C, F). Its rows are ordered as those of cols: kh, kw, c.'),
        {'patches times the gradient that arrived where each was used, summed over all.':
         'the gradient by w for a dy that arrives at y. x (N, H, W, C), dy (N, OH, OW, F).'}),
    'conv_dx': Exercise(
        "a convolution's gradient by its input", 'conv', ('input_grad',), {'input_grad': 'Return dx (N, H, W, C).'},
        tuple(conv_case('input_grad', *setting) for setting in (SQUARE, STRIDED, BARE)),
        ('y = cols @ w, and cols are patches of x. Find dcols first, as in the exercise linear, and think of im2col afterwards.',
         'dcols = dy @ w.T, with dy as a matrix (-1, F) and w as one (K*K*C, F). A pixel of x stands in several patches, and gets '
         'a gradient from each.',
         'col2im adds patches back to where they were read. It takes dcols as (N, OH, OW, K, K, C), and size, stride, padding.'),
        {': each patch\'s gradient, dy @ w.T, is added to the\n    pixels that the patch was read from. As a function':
         '. As a function'}),
    'col2im': Exercise(
        'patches back into an image: the transpose of reading them', 'conv', ('col2im',), {'col2im': 'Return the image (N, H, W, '
                                                                                                     'C).'},
        tuple(conv_case('col2im', *setting) for setting in (SQUARE, STRIDED, BARE)),
        ('im2col reads pixel (S*i + kh, S*j + kw) of the padded image into entry (kh, kw) of patch (i, j). Go the same way back, '
         'and add.',
         'For one (kh, kw), no two patches meet: they are S pixels apart. So one slice with step S takes all patches at once.',
         'For every kh and kw: padded[:, kh:kh + S * OH:S, kw:kw + S * OW:S] += cols[:, :, :, kh, kw]. In the end cut off the '
         'padding, P pixels on each side.')),
    'conv_transpose': Exercise(
        'the transposed convolution, forward and back', 'layers', ('ConvTranspose2d',),
        {'ConvTranspose2d.forward':
             'Return y. At hand are conv.forward(x, w, stride, padding), conv.input_grad(dy, w, size, stride, padding), with size '
             'the (H, W) of what it returns, conv.weight_grad(x, dy, kernel_size, stride, padding), self.output_size and '
             'self.add_bias.',
         'ConvTranspose2d.backward': 'Unless self.frozen, add to self.dw (+=), and call self.add_bias_gradient(dy). Return dx.'},
        (layer_case('ConvTranspose2d', (2, 4, 4, 2), True, in_channels=2, out_channels=2, kernel_size=3, padding=1, **DOUBLE),
         layer_case('ConvTranspose2d', (2, 3, 4, 3), True, in_channels=3, out_channels=2, kernel_size=4, stride=2, padding=1,
                    bias=False, **DOUBLE),
         layer_case('ConvTranspose2d', (2, 3, 4, 2), True, in_channels=2, out_channels=3, kernel_size=3, stride=2,
                    output_padding=1, **DOUBLE)),
        ('y = convT(x, w) is what a convolution from y to x, with the weight w, has for its input gradient: conv.input_grad.',
         '<dy, convT(x, w)> = <x, conv(dy, w)>: that is linear in x and in w. What multiplies an entry of x there is the same '
         'entry of dx.',
         'dx = conv.forward(dy, self.w, ...). And dw is conv.weight_grad of that convolution: its input is dy, and what arrives at '
         'its output is x.')),
    'batchnorm': Exercise(
        'BatchNorm: a mean and a variance that move', 'layers', ('BatchNorm2d',),
        {'BatchNorm2d.backward': 'Unless self.frozen, add to self.dgamma and to self.dbeta (+=). Return dx.'},
        (layer_case('BatchNorm2d', (4, 3, 2, 3), True, num_features=3, **DOUBLE),),
        ('dgamma and dbeta come from y = gamma * xhat + beta. For dx, every x moves the mean and the variance of its channel, and '
         'so all of xhat.',
         'xhat does not change when a constant is added to all x, nor when all x - mu are scaled. So dx can have no component '
         'along the vector of ones, and none along xhat: subtract both from dy.',
         'The component along ones is mean(dy) = dbeta / M, the one along xhat is xhat * mean(dy * xhat) = xhat * dgamma / M, '
         'where M is the number of values of a channel. What is left is multiplied by gamma * rstd.')),
    'adam': Exercise(
        'Adam in five lines', 'optim', ('Adam',), {'Adam.step': 'Count the step in self.t; update m, v and theta in place.'},
        (adam_case(),),
        ('m[...] = ... changes an array in place; m = ... only gives a new array that name. What do m and v follow?',
         'm follows g, v follows g * g: each is beta times itself plus (1 - beta) times the new value. Then divide m by '
         '1 - beta1^t and v by 1 - beta2^t, where t is 1 in the first step.',
         'theta -= lr * m_hat / (sqrt(v_hat) + eps), with theta, g = self.network.parameters, self.network.gradients.')),
    'gan_step': Exercise(
        'the game: one update of D and one of G', 'gan', ('GAN',),
        {'GAN.update_D': "From fresh gradients: D's on the real images and on the fakes add up, and so does what self.penalty(D, "
                         'images) adds, if there is one, at the images that step says; unless D rests, its optimiser steps. Return '
                         'the losses and outputs, as step says: loss_D, D_x, D_G_z1, and the penalty, if it was taken: in the '
                         'first of every penalty_every updates, which optim_D.t counts from 0.',
         'GAN.update_G': "From fresh gradients: freeze D, and send the gradient of G's loss through D into G. Unfreeze D whatever "
                         'happens; step; let the average follow. Return loss_G, D_G_z2.'},
        (gan_case(),),
        ('A loss returns (loss, dscore): loss, dscore = self.loss.real(D(x)), then D.backward(dscore). A layer remembers its '
         'latest forward only, so go back before you go forward again.',
         'D: zero_grad, then forward and back on x with loss.real, forward and back on fake with loss.fake; optim_D.step(), unless '
         'D_rests_at is set and the loss is at most that. Nothing goes on into G: the fakes are "detached". A penalty is taken at '
         'between(x, fake, epsilon), or at x if epsilon is None; it adds its gradient itself, and returns its value. It is taken '
         'if optim_D.t % penalty_every is 0.',
         'G: zero_grad, D.freeze(), loss_G, dscore = loss.generator(D(fake)), G.backward(D.backward(dscore)), D.unfreeze() in a '
         'finally, optim_G.step(), and self.average.step(self.optim_G.t) if there is an average. Outputs are '
         'loss.output(score).mean().')),
    'tangent': Exercise(
        'how y moves when x does: forward once more, through what is straight', 'layers', ('Weighted', 'Linear', 'LeakyReLU'),
        {'Linear.tangent': 'Unless self.frozen, add to self.dw (+=) the gradient of the sum of dy * u, where dy is what backward '
                           'kept in self.dy. Return u, which is how y moves when x moves by v.',
         'LeakyReLU.tangent': 'Return how y moves when x moves by v, which is too little to carry x over a kink.'},
        (layer_case('LeakyReLU', (4, 6), slope=0.2),
         layer_case('Linear', (4, 4), in_features=4, out_features=4, **DOUBLE), bias_case(),
         tangent_case('Linear', (4, 4), in_features=4, out_features=4, **DOUBLE),
         tangent_case('Linear', (3, 5), in_features=5, out_features=2, bias=False, **DOUBLE),
         tangent_case('LeakyReLU', (4, 6), slope=0.2)),
        ('Write y for x + v, and take y for x away. What is left of a bias? And of a slope, where x was negative and stays so?',
         'Linear: u = v @ w. In the sum of dy * u, v stands where x stands in the sum of dy * y, and there is no b: so the '
         'exercise linear has the gradient by w.',
         'self.dw += v.T @ self.dy, and nothing for b. LeakyReLU multiplies v by the slopes that x has chosen, as its backward '
         'does with dy.')),
    'penalty': Exercise(
        "the gradient of a gradient: WGAN-GP's penalty on the slope of D", 'penalties', ('wgan_gp', 'GradientPenalty'),
        {'wgan_gp': 'Return the loss and dg. g is (N, ...), with the slope of one score in each row. Where a row is zero, so is '
                    'that of dg: nothing may be divided by zero.',
         'GradientPenalty.__call__': "Find g, without adding to D's gradients. Then add to them the gradient of the penalty, which "
                                     "is self.weight times the rule's loss of g: D.tangent does that. Leave D as frozen as it was. "
                                     'Return the penalty.'},
        (rule_case(), penalty_case()),
        ('g is what D.backward returns for a dscore of ones, as each score depends on its own image alone. Freeze D meanwhile. And '
         'for the rule: how does |g| move when one entry of g does? |g|^2 is the sum of the squares.',
         'd|g|/dg = g / |g|, for each image by itself. The penalty moves by sum(v * the move of g), with v = weight * dg. Hold v '
         'fixed: sum(v * g) is how the scores move, all together, when x moves by v.',
         'dg = 2 (|g| - 1) g / |g| / N, with sqrt(... + 1e-12) for |g|. How the scores move is what D.tangent(v) works out, and it '
         'adds the gradient by the parameters. By then, each layer must be as frozen as it was.'),
        {'; dg = 2 (|g| - 1) g / |g| / N': ''}),
}
