"""Is a run going wrong, and how? Noticed while it trains, and said once, in one line: the evidence, what may help, where to read on.

The thresholds are below, each with its reason. That no healthy run crosses one, and that every failing run does, is tested on
runs that benchmarks/health.py has recorded.
"""
import contextlib
import copy
import time
from collections import deque

import numpy as np

from ..arrays import array_module, to_numpy
from ..errors import UserError
from ..layers import LeakyReLU
from .checkpoint import Diverged
from .watch import watched

WINDOW = 200        # steps whose mean counts: GANs swing, and D wins dcgan's opening for about a hundred steps
SHARE = 200         # of the time at most one part in so many is spent on looking
IMAGES = 64         # that are looked at

WON = 0.97          # of what D can win. For cross-entropy that is a loss of 0.04: D is right with p = 0.98 on every image
COLLAPSED = 0.1     # of the reals' spread: a G that has learnt nothing yet has 0.3, one that works nearly 1
DEAD = 0.5          # of the channels of one ReLU: no healthy run had any
EXPLODED = 50       # mean loss: for cross-entropy, D calls every fake real with p = e^-50; for least squares, scores are off by 10
STILL = 1e-5        # of a network's parameters in a step: in 10,000 steps it could not turn around; a healthy one needs some hundred


class Health:
    """Looks at a GAN that is being trained. batches(step) are its minibatches; step is the last one taken."""

    def __init__(self, gan, batches, step=0):
        self.gan, self.batches = gan, batches
        self.recent, self.said = deque(maxlen=WINDOW), set()
        self.balance, self.floor = stakes(gan.loss)
        self.sound = step, gan.state()            # a step after which all was finite
        self.seen, self.next_look = {}, 0

    def look(self, step, rows):
        """What has not been said yet about the rows of metrics since the last look, and about the networks: a list of lines."""
        self.recent.extend(rows)
        start = time.monotonic()
        if start >= self.next_look:
            self.seen, self.sound = self.measure(step), (step, self.gan.state())
            self.next_look = time.monotonic() + SHARE * (time.monotonic() - start)
        found = {kind: line for kind, line in self.findings() if kind not in self.said}
        self.said |= set(found)
        return [f'step {step}: {line} (README, "How to read a run")' for line in found.values()]

    def measure(self, step):
        """How G and its images are, and how far the parameters move."""
        x, z = (part[:IMAGES] for part in self.batches(step)[:2])
        fake, dead = z, 0
        G, training = self.gan.G, self.gan.G.training
        G.eval()
        for leaf in G.leaves():
            fake = leaf(fake)
            if isinstance(leaf, LeakyReLU) and leaf.slope == 0:
                dead = max(dead, 1 - float((fake > 0).any(tuple(range(fake.ndim - 1))).mean()))
        G.set_flags(training=training)
        return {'spread': spread(fake) / max(spread(x), 1e-9), 'dead': dead, 'moved_G': moved(self.gan.optim_G),
                'moved_D': moved(self.gan.optim_D)}

    def findings(self):
        """(kind, line) of everything that is wrong now."""
        if len(self.recent) < WINDOW:             # it has only begun
            return
        mean = {name: np.mean([row[name] for row in self.recent if name in row] or np.nan)
                for name in ('loss_D', 'loss_G', 'D_x', 'D_G_z1')}
        won = (self.balance - mean['loss_D']) / (self.balance - self.floor)
        if won > WON:
            yield 'won', (f'D has won. In the last {WINDOW} steps, loss D was {mean["loss_D"]:.2f} (at the balance {self.balance:.2f}), '
                          f'D(x) {mean["D_x"]:.2f} and D(G(z)) {mean["D_G_z1"]:.2f}: G can hardly learn from a D that is always right. '
                          'A lower --lr-d may help, or --instance-noise 0.3')
        for name in 'loss_D', 'loss_G':
            if mean[name] > EXPLODED:
                yield 'exploded', (f'the losses explode. In the last {WINDOW} steps, {name.replace("_", " ")} was {mean[name]:.3g} in the '
                                   'mean. A lower --lr may help')
        if self.seen['spread'] < COLLAPSED:
            yield 'collapsed', (f'G has collapsed: its images differ by only {self.seen["spread"]:.2g} of what real ones do. A lower --lr may '
                                'help, or --instance-noise 0.3; what is lost does not come back, so begin anew')
        if self.seen['dead'] > DEAD:
            yield 'dead', (f'units are dead: in one layer of G, {self.seen["dead"]:.0%} of the channels are zero for every z, and a ReLU at '
                           'zero passes no gradient. A lower --lr may help; dead units do not come back, so begin anew')
        for name in 'G', 'D':
            if self.seen[f'moved_{name}'] < STILL:
                yield f'still {name}', (f'{name} does not move: a step changes its parameters by {self.seen[f"moved_{name}"]:.0e} of their '
                                        f'size. A higher {"--lr-d" if name == "D" else "--lr"} may help')

    @contextlib.contextmanager
    def explaining(self):
        """Whatever is not a number has a place where it arose: add it to the message."""
        try:
            yield
        except Diverged as error:
            raise UserError(f'{error}. {self.origin(error.step)}') from None

    def origin(self, last):
        """The layer that first made something that is not finite: the steps since the last look are made again, with eyes open."""
        gan, (step, state) = copy.deepcopy(self.gan), self.sound
        gan.load_state(state)
        found = []

        def watching(name, network):
            def note(way, i, given, made):
                if not found and not array_module(made).isfinite(made).all():
                    whole = all(np.isfinite(to_numpy(getattr(leaves[i], p))).all() for p in leaves[i].parameter_names)
                    found.append(f'layer {i} of {name}, {leaves[i]}, in its {way}' + ('' if whole else ', from its parameters'))
            leaves = network.leaves()
            return watched(network, note)
        with watching('G', gan.G), watching('D', gan.D), np.errstate(all='ignore'):
            for number in range(step + 1, last + 1):
                gan.step(*self.batches(number))
                if found:
                    return f'It began in step {number}: {found[0]}'
        return 'In the plain core, the same steps stay finite'


def stakes(loss):
    """(balance, floor) of D's loss: the least that it can have if it cannot tell real from fake, and if it can for sure."""
    scores = np.linspace(-20, 20, 801)[:, None]
    real, fake = (np.array([float(part(score)[0]) for score in scores]) for part in (loss.real, loss.fake))
    return (real + fake).min(), real.min() + fake.min()


def spread(images):
    """How much images differ: the standard deviation of a pixel over them, as a root mean square over the pixels."""
    return float(array_module(images).sqrt(images.var(axis=0).mean()))


def moved(adam):
    """|theta's change| / |theta| of Adam's last step, from its m and v."""
    norm = array_module(adam.m).linalg.norm
    t = max(adam.t, 1)
    step = adam.m / (1 - adam.beta1 ** t) / (array_module(adam.v).sqrt(adam.v / (1 - adam.beta2 ** t)) + adam.eps)
    return adam.lr * float(norm(step)) / max(float(norm(adam.network.parameters)), 1e-30)
