"""Adam, and the three ideas it unites; and a moving average of a network's weights. theta is a network's one parameter
vector, g its gradient.

Each optimiser is one update rule; t counts the steps. Being vectors, m and v are all there is to save.
"""
from . import lanes
from .arrays import array_module


class SGD:
    """theta <- theta - lr * g."""
    state_names = ()                # the vectors an optimiser remembers between steps

    def __init__(self, network, lr):
        self.network, self.lr, self.t = network, lr, 0
        for name in self.state_names:
            setattr(self, name, array_module(network.parameters).zeros_like(network.parameters))

    def step(self):
        self.t += 1
        theta = self.network.parameters
        lanes.wait()                                 # for the gradients of all lanes
        for piece in lanes.share(theta):
            state = [getattr(self, name)[piece] for name in self.state_names]
            theta[piece] -= self.update(lanes.gradient(self.network, piece), *state)
        lanes.wait()                                 # for the other pieces

    def update(self, g):
        """What to take off theta, for a piece of g and the same piece of the state."""
        return self.lr * g


class Momentum(SGD):
    """m <- momentum * m + g, theta <- theta - lr * m (Polyak 1964): steps that agree add up."""
    state_names = ('m',)

    def __init__(self, network, lr, momentum=0.9):
        super().__init__(network, lr)
        self.momentum = momentum

    def update(self, g, m):
        m *= self.momentum
        m += g
        return self.lr * m


class RMSprop(SGD):
    """v <- alpha * v + (1 - alpha) g^2, theta <- theta - lr * g / (sqrt(v) + eps) (Tieleman & Hinton 2012):
    every parameter moves by about lr, however large its gradients are."""
    state_names = ('v',)

    def __init__(self, network, lr, alpha=0.99, eps=1e-8):
        super().__init__(network, lr)
        self.alpha, self.eps = alpha, eps

    def update(self, g, v):
        v *= self.alpha
        v += (1 - self.alpha) * g * g
        return self.lr * g / (array_module(g).sqrt(v) + self.eps)


class Adam(SGD):
    """Kingma & Ba 2015, "Adam: a method for stochastic optimization", Algorithm 1.

    m and v are moving averages of g and g^2. Both start at zero and so are too small at first, by the factors
    1 - beta1^t and 1 - beta2^t; divided by them, they are m_hat and v_hat. lr and beta1 default to those of
    Radford et al. 2016, section 4, beta2 and eps to Algorithm 1's.
    """
    state_names = 'm', 'v'

    def __init__(self, network, lr=2e-4, beta1=0.5, beta2=0.999, eps=1e-8):
        super().__init__(network, lr)
        self.beta1, self.beta2, self.eps = beta1, beta2, eps

    def update(self, g, m, v):
        m *= self.beta1
        m += (1 - self.beta1) * g
        v *= self.beta2
        v += (1 - self.beta2) * g * g
        m_hat = m / (1 - self.beta1 ** self.t)
        v_hat = v / (1 - self.beta2 ** self.t)
        return self.lr * m_hat / (array_module(g).sqrt(v_hat) + self.eps)


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
        for vector in 'parameters', 'statistics':
            average, newest = getattr(self.network, vector), getattr(self.original, vector)
            for piece in lanes.share(average):
                average[piece] += rate * (newest[piece] - average[piece])
