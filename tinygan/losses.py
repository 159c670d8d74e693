"""What D and G minimise. Each loss returns (loss, dscore): its mean over the minibatch, and its gradient.

D gives every image a score s, high for real. N is the number of scores, so every gradient has a factor 1/N.
"""
from functools import partial
from typing import Callable, NamedTuple

from .arrays import array_module


def sigmoid(s):
    """1 / (1 + exp(-s)), from its logarithm: no s overflows, and a p near 0 stays accurate."""
    return array_module(s).exp(-softplus(-s))


def softplus(s):
    """log(1 + exp(s)) = -log(1 - sigmoid(s)), without overflow and, far out, without losing its last digits."""
    return array_module(s).logaddexp(0, s)


def bce_with_logits(score, target):
    """Binary cross-entropy of p = sigmoid(score): loss = mean of -t log p - (1 - t) log(1 - p).

    target t lies in [0, 1]: 1 for "real", 0 for "fake". As -log p = softplus(-s) and
    -log(1 - p) = softplus(s), nothing is clipped or overflows. The derivative of softplus is sigmoid, and
    sigmoid(-s) = 1 - p, so ds = (-t (1 - p) + (1 - t) p) / N = (p - t) / N.
    """
    loss = (target * softplus(-score) + (1 - target) * softplus(score)).mean()
    return loss, (sigmoid(score) - target) / score.size


def minimax_generator(score):
    """G's loss in the minimax game of Goodfellow et al. 2014, "Generative adversarial nets", equation 1.

    loss = mean of log(1 - p), p = sigmoid(score of a fake); ds = -p / N. Where D is sure of a fake, p is
    near 0 and so is the gradient: G starves just when it has most to learn, hence section 3's other loss.
    """
    return -softplus(score).mean(), -sigmoid(score) / score.size


def least_squares(score, target):
    """loss = mean of (s - t)^2 / 2; ds = (s - t) / N. Mao et al. 2017, "Least squares GANs", equation 2."""
    error = score - target
    return (error * error).mean() / 2, error / score.size


def mean_squared_error(score, target):
    """loss = mean of (s - t)^2; ds = 2 (s - t) / N: what frameworks call MSE is twice least_squares."""
    loss, dscore = least_squares(score, target)
    return 2 * loss, 2 * dscore


def wasserstein(score, sign):
    """loss = mean of -sign * s; ds = -sign / N. Arjovsky et al. 2017, "Wasserstein GAN", equation 2. sign is 1 for real. No
    score is high enough: the slope of D must be limited (penalties.py)."""
    return -sign * score.mean(), -sign * array_module(score).ones_like(score) / score.size


def hinge(score, sign):
    """loss = mean of max(0, 1 - sign * s); ds = -sign / N where that is positive: a score beyond the margin of 1 counts for
    nothing. Lim & Ye 2017, "Geometric GAN"; Miyato et al. 2018, equations 16 and 17. sign is 1 for real."""
    margin = 1 - sign * score
    return array_module(score).maximum(margin, 0).mean(), -sign * (margin > 0).astype(score.dtype) / score.size


def softmax_cross_entropy(logits, labels):
    """loss = mean of -log p[label], p = softmax(logits) (N, classes), labels (N,) integers; dlogits = (p - y) / N.

    y holds a 1 for the label and 0s. As p[k] = exp(s[k]) / sum of exp(s), the loss of an image is
    -s[label] + log(sum of exp(s)). With respect to s[k], the first term has the derivative -y[k], and the logarithm
    exp(s[k]) / sum of exp(s) = p[k]. Subtracting the largest logit first leaves p as it is, and no exponential overflows.
    """
    xp = array_module(logits)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - xp.log(xp.exp(shifted).sum(axis=1, keepdims=True))
    y = (labels[:, None] == xp.arange(logits.shape[1])).astype(logits.dtype)
    return -(y * log_p).sum() / len(y), (xp.exp(log_p) - y) / len(y)


class AdversarialLoss(NamedTuple):
    """A GAN's rules: what D minimises on real and on fake scores, what G minimises on its fakes' scores.

    `output` turns a score into what is reported as D(x).
    """
    real: Callable
    fake: Callable
    generator: Callable
    output: Callable


def non_saturating(real=1):
    """Goodfellow et al. 2014, section 3: G maximises log D(G(z)), that is, it wants its fakes called real.

    With real = 0.9 D never has a reason to be sure of a real image: one-sided label smoothing (Salimans et al. 2016,
    "Improved techniques for training GANs", section 3.4).
    """
    return AdversarialLoss(real=partial(bce_with_logits, target=real), fake=partial(bce_with_logits, target=0),
                           generator=partial(bce_with_logits, target=1), output=sigmoid)


def minimax():
    """Goodfellow et al. 2014, equation 1: G minimises exactly what D maximises."""
    return non_saturating()._replace(generator=minimax_generator)


def lsgan(a=0, b=1, c=1, rule=least_squares):
    """Mao et al. 2017, equation 2: D pulls fakes to a and reals to b, G pulls its fakes to c.

    The paper proposes two choices: a=-1, b=1, c=0 minimises the Pearson chi^2 divergence; a=0, b=c=1 asks G for
    fakes as real as can be. rule is least_squares or, for twice the loss and gradient, mean_squared_error.
    """
    return AdversarialLoss(real=partial(rule, target=b), fake=partial(rule, target=a),
                           generator=partial(rule, target=c), output=lambda s: s)


def wgan():
    """Arjovsky et al. 2017: D raises its mean score of real images above that of the fakes, and G works against it."""
    return AdversarialLoss(real=partial(wasserstein, sign=1), fake=partial(wasserstein, sign=-1),
                           generator=partial(wasserstein, sign=1), output=lambda s: s)


def hinge_gan():
    """Miyato et al. 2018, "Spectral normalization for GANs", equations 16 and 17: D has a margin, and G has none."""
    return wgan()._replace(real=partial(hinge, sign=1), fake=partial(hinge, sign=-1))


LOSSES = {'bce': non_saturating, 'bce_smooth': partial(non_saturating, real=0.9), 'minimax': minimax, 'lsgan': lsgan,
          'lsgan_chi2': partial(lsgan, a=-1, b=1, c=0), 'mse': partial(lsgan, rule=mean_squared_error),
          'wgan': wgan, 'hinge': hinge_gan}
