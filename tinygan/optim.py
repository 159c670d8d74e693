"""Adam, and the three ideas it unites; and a moving average of a network's weights.

theta is a network's one parameter vector, g its gradient. t counts the steps. Being vectors, m and v are all that an
optimiser has to remember: state_names tells a checkpoint their names.
"""
from .arrays import array_module


class SGD:
    """theta <- theta - lr * g."""
    state_names = ()

    def __init__(self, network, lr):
        self.network, self.lr, self.t = network, lr, 0
        for name in self.state_names:
            setattr(self, name, array_module(network.parameters).zeros_like(network.parameters))

    def step(self):
        self.t += 1
        theta, g = self.network.parameters, self.network.gradients
        theta -= self.lr * g


class Momentum(SGD):
    """m <- momentum * m + g, theta <- theta - lr * m (Polyak 1964): steps that agree add up."""
    state_names = ('m',)

    def __init__(self, network, lr, momentum=0.9):
        super().__init__(network, lr)
        self.momentum = momentum

    def step(self):
        self.t += 1
        theta, g, m = self.network.parameters, self.network.gradients, self.m
        m[...] = self.momentum * m + g
        theta -= self.lr * m


class RMSprop(SGD):
    """v <- alpha * v + (1 - alpha) g^2, theta <- theta - lr * g / (sqrt(v) + eps) (Tieleman & Hinton 2012): once v has
    settled, every parameter moves by about lr, however large its gradients are. But v starts at zero, so the first step
    is 1 / sqrt(1 - alpha) = 10 times as long."""
    state_names = ('v',)

    def __init__(self, network, lr, alpha=0.99, eps=1e-8):
        super().__init__(network, lr)
        self.alpha, self.eps = alpha, eps

    def step(self):
        self.t += 1
        theta, g, v = self.network.parameters, self.network.gradients, self.v
        v[...] = self.alpha * v + (1 - self.alpha) * g * g
        theta -= self.lr * g / (array_module(g).sqrt(v) + self.eps)


class Adam(SGD):
    """Kingma & Ba 2015, "Adam: a method for stochastic optimization", Algorithm 1: momentum, divided as in RMSprop.

    m and v are moving averages of g and g^2: here m has 1 - beta1 in front of g. Both start at zero, and so are too
    small at first. After t steps, m = (1 - beta1) (g_t + beta1 g_(t-1) + ... + beta1^(t-1) g_1). Its weights are a
    geometric series and add up not to 1 but to 1 - beta1^t. Divided by that, m becomes m_hat, and v, divided by
    1 - beta2^t, v_hat. lr and beta1 default to those of Radford et al. 2016, section 4, beta2 and eps to Algorithm 1's.
    """
    state_names = 'm', 'v'

    def __init__(self, network, lr=2e-4, beta1=0.5, beta2=0.999, eps=1e-8):
        super().__init__(network, lr)
        self.beta1, self.beta2, self.eps = beta1, beta2, eps

    def step(self):
        self.t += 1
        theta, g, m, v = self.network.parameters, self.network.gradients, self.m, self.v
        m[...] = self.beta1 * m + (1 - self.beta1) * g
        v[...] = self.beta2 * v + (1 - self.beta2) * g * g
        m_hat = m / (1 - self.beta1 ** self.t)
        v_hat = v / (1 - self.beta2 ** self.t)
        theta -= self.lr * m_hat / (array_module(g).sqrt(v_hat) + self.eps)


class Average:
    """A network whose weights are a moving average (EMA) of another's: theta_bar <- theta_bar + rate (theta - theta_bar),
    rate = max(1 - decay, 10 / (9 + t)): over about the last t / 10 steps, but at most the last 1 / (1 - decay).

    Yazici et al. 2019, "The unusual effectiveness of averaging in GAN training": a generator circles around where it
    would be at rest, and its average is nearer to that. BatchNorm's statistics are averaged too.
    """

    def __init__(self, network, original, decay):
        self.network, self.original, self.decay = network, original, decay

    def step(self, t):
        rate = max(1 - self.decay, 10 / (9 + t))
        for average, newest in ((self.network.parameters, self.original.parameters),
                                (self.network.statistics, self.original.statistics)):
            average += rate * (newest - average)
