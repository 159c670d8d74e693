"""Is a run going wrong, and how? It is noticed while it trains, and said once, in one line, with evidence and what may help.

The thresholds are below, each with its reason. They are tested on runs that benchmarks/health.py has recorded, of some hundred
steps each: nothing is said of the healthy ones, and the right thing of those that fail.
"""
import contextlib
import copy
import math
import time
from collections import deque

import numpy as np
from tqdm import tqdm

from ..arrays import array_module, to_numpy
from ..engines.threads import one_thread
from ..errors import UserError
from ..layers import LeakyReLU, channels
from ..losses import minimax_generator
from .checkpoint import Diverged
from .watch import unwatched, watched

WINDOW = 200        # updates whose mean counts: GANs swing, and D wins the opening of many for about a hundred
SHARE = 200         # of the time at most one part in so many is spent on looking
IMAGES = 64         # that are looked at, at most
FEWEST = 8          # images that say something about all

WON = 0.97          # of what D can gain. For cross-entropy that is a loss of 0.04: D is right with p = 0.98 on every image
LOST = -1           # D's loss is as far above the balance as the best one is below it; and it likes fakes better
COLLAPSED = 0.05    # of the reals' spread: a G that has learnt nothing yet has 0.3, one that works nearly 1
DEAD = 0.5          # of the channels of one ReLU: healthy runs had at most 0.02
EXPLODED = 50       # mean loss: for cross-entropy, images get p = e^-50; for least squares, scores that are off by 10
STILL = 1e-5        # of its parameters in a step: a network that needs 100,000 steps to change by its own size has no time to learn


class Health:
    """Looks at a GAN while an engine trains it. batches(step) are the minibatches, step is the last one taken, state() brings the
    GAN up to date and returns GAN.state, and check(step, what, values) raises Diverged where a value is not finite."""

    def __init__(self, gan, batches, state, step=0, check=lambda *_: None):
        self.gan, self.batches, self.state, self.check = gan, batches, state, check
        metrics = ('loss_D', 'loss_G', 'D_x', 'D_G_z1') if gan.loss else ('reconstruction', 'divergence')
        window = {'loss_G': max(2, WINDOW // gan.critic_steps // 2 * 2)}          # in which D has WINDOW updates
        self.recent, self.said = {name: deque(maxlen=window.get(name, WINDOW)) for name in metrics}, set()
        if gan.loss:                              # a VAE has no game that one of two could win
            _, self.balance, self.floor = stakes(gan.loss)
        self.sound = step, state()                # a step, and GAN.state after it, when all of it was finite
        self.seen, self.next_look = {}, 0

    def due(self):
        """Is it time to look at the networks, too?"""
        return time.monotonic() >= self.next_look

    @one_thread()
    def look(self, step, rows, whole=True):
        """What has not been said yet about the rows of metrics since the last look and, if those of no step are missing and it is
        time, about the networks: a list of lines."""
        for name, values in self.recent.items():  # a row has only those of the updates that were made
            values.extend(row[name] for row in rows if name in row)
        begun, start = all(len(values) == values.maxlen for values in self.recent.values()), time.monotonic()
        if whole and self.due():
            state = self.state()
            self.check(step, 'weight', state.values())
            self.sound = step, state
            if begun:                             # what a G is like before, nobody need know
                self.seen = self.measure(step)
            self.next_look = time.monotonic() + SHARE * (time.monotonic() - start)
        found = {kind: line for kind, line in self.findings().items() if kind not in self.said} if begun else {}
        self.said |= set(found)
        return [f'step {step}: {kind}: {line} (README, "How to read a run")' for kind, line in found.items()]

    def measure(self, step):
        """How G and its images are, and how far the parameters move. Of a few images, nothing can be said. NumPy computes it, on a
        copy if G is on a GPU: there each operation would be one more kernel to compile, in the middle of the run."""
        x, z = (part[:IMAGES] for part in self.batches.on(np)(step)[:2])
        moves = {'moved_G': relative_update(self.gan.optim_G), 'moved_D': relative_update(self.gan.optim_D)}
        if len(x) < FEWEST:
            return moves | {'spread': np.nan, 'dead': np.nan}
        fake, dead = z, 0
        G, training = self.gan.G, self.gan.G.training
        if array_module(G.parameters) is not np:
            G = copy.deepcopy(G).to(np)
        G.eval()
        for leaf in G.leaves():
            fake = leaf(fake)
            if isinstance(leaf, LeakyReLU) and leaf.slope == 0:
                dead = max(dead, 1 - float((fake > 0).any(channels(fake)).mean()))
        G.set_flags(training=training)
        return moves | {'spread': spread(fake) / (spread(x) or np.nan), 'dead': dead}

    def findings(self):
        """{kind: line} of everything that is wrong now."""
        if not self.seen:                         # not yet: it would take too much of the time
            return self.of_losses()
        found = self.of_losses() | self.of_networks()
        return found or self.of_motion()          # what has no gradient, as after a victory, does not move either

    def of_losses(self):
        """What must hold in both halves of the window: an opening may be wild. Of a loss without a floor nothing is said: D never
        has all that it could gain, and what its scores are about says little."""
        if not self.gan.loss or self.floor == -math.inf:
            return {}
        halves = {name: np.reshape(values, (2, -1)).mean(axis=1) for name, values in self.recent.items()}
        mean = {name: values.mean() for name, values in halves.items()}
        gained = (self.balance - halves['loss_D']) / (self.balance - self.floor)
        lr, lr_d = self.gan.optim_G.lr, self.gan.optim_D.lr
        evidence = 'for {} updates, loss D {:.2f} (at the balance {:.2f}), D(x) {:.2f}, D(G(z)) {:.2f}'.format(
            WINDOW, mean['loss_D'], self.balance, mean['D_x'], mean['D_G_z1'])
        found = {}
        if gained.min() > WON:
            faster = f', a higher --lr than {lr:g}' if lr < lr_d else ''
            other = '--loss bce' if self.gan.loss.generator is minimax_generator else '--instance-noise 0.3'
            found['D has won'] = (f'{evidence}. G learns little from a D that is always right: in a new run, try a lower --lr-d '
                                  f'than {lr_d:g}{faster}, or {other}')
        if gained.max() < LOST and (halves['D_G_z1'] > halves['D_x']).all():
            found['D cannot follow'] = (f'{evidence}. G learns little from a D that is mostly wrong: in a new run, try a higher '
                                        f'--lr-d than {lr_d:g}, or a lower --lr than {lr:g}')
        if any(abs(halves[name]).min() > EXPLODED for name in ('loss_D', 'loss_G')):
            found['the losses explode'] = (f'for {WINDOW} updates, loss D {mean["loss_D"]:.3g}, loss G {mean["loss_G"]:.3g}. In a '
                                           f'new run, try a lower --lr than {lr:g}')
        return found

    def of_networks(self):
        lr, found = self.gan.optim_G.lr, {}
        if self.seen['spread'] < COLLAPSED:
            noise = ', or --instance-noise 0.3' if self.gan.loss else ''
            found['G has collapsed'] = (f'its images differ from each other only {self.seen["spread"]:.2g} times as much as real '
                                        f'ones. In a new run, try a lower --lr than {lr:g}{noise}')
        if self.seen['dead'] > DEAD:
            found['units are dead'] = (f'in one layer of G, {self.seen["dead"]:.0%} of the channels are zero for every z, where a '
                                       f'ReLU passes no gradient. In a new run, try a lower --lr than {lr:g}')
        return found

    def of_motion(self):
        networks = ('G', 'G', '--lr', self.gan.optim_G), ('D' if self.gan.loss else 'the encoder', 'D', '--lr-d', self.gan.optim_D)
        return {f'{name} does not move': (f'a step changes its parameters by {self.seen[f"moved_{key}"]:.0e} of their size. In a '
                                          f'new run, try a higher {option} than {optimiser.lr:g}')
                for name, key, option, optimiser in networks if self.seen[f'moved_{key}'] < STILL}

    @contextlib.contextmanager
    def explaining(self):
        """Whatever is not a number has a place where it arose: add it to the message."""
        try:
            yield
        except Diverged as error:
            origin = 'Where it began was not looked for'
            with contextlib.suppress(KeyboardInterrupt):
                origin = self.origin(error.step)
            raise UserError(f'{error}. {origin}') from None

    def origin(self, last):
        """What was the first that is not finite, a layer's output or a vector of GAN.vectors. The steps since the last look are
        made again, and watched."""
        gan, (step, state) = copy.deepcopy(self.gan), self.sound
        gan.load_state(state)
        found = []

        def watching(name, network):
            def note(way, i, given, made):
                if not (found or finite(made)):
                    leaf, cause = network.leaves()[i], ''
                    if not finite(given):
                        cause = ', from what it was given'
                    elif not all(finite(getattr(leaf, parameter)) for parameter in leaf.parameter_names):
                        cause = ', from its parameters'
                    found.append(f'layer {i} of {name}, {leaf}, in its {way}{cause}')
            return watched(network, note)

        def noted(D, x, penalty=unwatched(gan.penalty)):
            value = penalty(D, x)
            if not (found or finite(value) and finite(D.gradients)):
                found.append('the penalty on the slope of D')
            return value
        gan.penalty = gan.penalty and noted
        steps = tqdm(range(step + 1, last + 1), 'where did it begin?', leave=False, disable=None, delay=2)
        with watching('G', gan.G), watching('D' if gan.loss else 'the encoder', gan.D), one_thread(), np.errstate(all='ignore'):
            for number in steps:
                gan.step(*self.batches(number))
                found += [f'{name}, after the step' for name, vector in gan.vectors().items() if not finite(vector)]
                if found:
                    return f'It began in step {number}: {found[0]}'
        return 'Made again by the plain core, these steps stay finite'


def stakes(loss):
    """(score, balance, floor) of D's game: the score that a D gives to every image if it cannot tell real from fake (the smallest,
    if several are as good), its loss then, and the least loss of one that can tell: -inf, if no score is high enough."""
    scores = np.array(sorted(np.linspace(-20, 20, 801), key=abs))
    real, fake = (np.array([float(part(score)[0]) for score in scores[:, None]]) for part in (loss.real, loss.fake))
    i = np.round(real + fake, 9).argmin()
    further = min(float(part(np.array([score]))[0]) for part in (loss.real, loss.fake) for score in (-1e3, 1e3))
    floor = real.min() + fake.min() if further > min(real.min(), fake.min()) - 1 else -math.inf
    return scores[i], (real + fake)[i], floor


def finite(array):
    return bool(array_module(array).isfinite(array).all())


def spread(images):
    """How much images differ: the standard deviation of a pixel over them, as a root mean square over the pixels."""
    return math.sqrt(images.var(axis=0).mean())


def relative_update(adam):
    """|theta's change| / |theta| of Adam's last step, from its m and v."""
    t, (theta, m, v) = max(adam.t, 1), map(to_numpy, (adam.network.parameters, adam.m, adam.v))
    step = m / (1 - adam.beta1 ** t) / (np.sqrt(v / (1 - adam.beta2 ** t)) + adam.eps)
    return adam.lr * math.sqrt((step * step).sum()) / (math.sqrt((theta * theta).sum()) or math.inf)
