"""One step of training, made visible: what every layer made on the way forward, and what it handed back on the way back.

The step is GAN.step as it is, and `watched` looks over its shoulder. A *sweep* is one forward of a network and the backward that
may follow. A step has four, always in this order: G makes fakes; D judges real images; D judges the fakes; and D, updated and
frozen, judges the same fakes for G. Its backward goes on through G, and so ends the first of the four. What a penalty does with D
in between is not watched: it adds to D's gradients, and only how much is shown.
"""
import copy
import datetime
import math
import os
import platform
from contextlib import closing
from types import SimpleNamespace

import numpy as np
from tqdm import tqdm

from .. import __version__, data, engines
from ..data import mnist
from ..data.images import to_uint8
from ..data.minibatches import Minibatches
from ..engines.threads import one_thread
from ..errors import UserError
from ..gradcheck import in_float64
from ..layers import LeakyReLU
from ..recipes import make_gan
from ..recipes.labels import LabelPlanes
from ..recipes.vae import VAE
from ..run.checkpoint import open_checkpoint
from ..run.files import atomically
from ..run.health import stakes
from ..run.settings import DEFAULTS, recipe_of
from ..run.watch import unwatched, watched
from . import page
from .differences import check, compare

SHOWN = 4                           # images of the minibatch that can be looked at
CHECKED = 2 ** 17                   # pixels of the images that finite differences are taken on, at most
BAR = dict(leave=False, disable=None, delay=2)


def xray(options):
    """The command: writes the page of one step to options.out."""
    if options.run and options.seed is not None:
        raise UserError(f'{options.run} has its own seed: leave out --seed')
    page.check_ours(options.out)
    gan, config, batch = before(options.run, options.step, options.seed or 0)
    with atomically(options.out) as file:
        file.write(page.render(examine(gan, config, batch)))
    print(f'{options.out}: step {batch[2]} of {options.run or "fresh networks"}: open it in a browser')


# ---- which step

def before(run=None, step=None, seed=0):
    """(GAN, config, arguments of GAN.step) of a run's step: of the first after its checkpoint, if none is named. Without a run,
    networks are fresh and digits drawn. The steps before it are made in memory: from the checkpoint or, if that is later, from
    the beginning."""
    config, done, state = {'recipe': 'dcgan', 'data': 'digits', 'seed': seed}, 0, None
    if run:
        _, config, done, state = open_checkpoint(run)
    try:
        config = DEFAULTS | config | {'run': run and str(run)}
        recipe, place = recipe_of(config), config['data']
        if recipe.game is VAE:
            raise UserError(f'{run}: xray looks into a step of a GAN, and recipe {config["recipe"]} is none')
        gan, step = make_gan(recipe, config['seed']), step or done + 1
        if state is not None:
            gan.load_state(state)                 # even if it is not needed: it proves that the networks are the run's
        if step <= done:
            gan, done = make_gan(recipe, config['seed']), 0
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f'{run}: its networks are not those that its recipe makes, or it lacks a setting ({error})') from None
    if data.is_path(place) and not os.path.exists(place):
        raise UserError(f'{run}: its images are no longer at {place}, and a step needs them')
    try:
        images = data.load(place, None, config['seed'], recipe.shape, config['background'], config['flip'],
                           recipe.classes > 0)
    except mnist.Unavailable:
        raise UserError(f'{run}: its images, MNIST, are not here: name their folder with TINYGAN_DATA') from None
    if images.digest != config.get('images', images.digest) or recipe.classes and images.labels_digest != config.get('labels'):
        raise UserError(f'{run}: the images of {place} are not those that it was trained on')
    batches = Minibatches(images, recipe, config['seed'])
    if done + 1 < step:
        with closing(engines.start(gan, batches, done + 1, config['plain'])) as engine, np.errstate(all='ignore'):
            for number in tqdm(range(done + 1, step), 'the steps before', **BAR):
                engine.step(number)
            gan.load_state(engine.state())
    return gan, config, batches(step)


# ---- the step, watched

@one_thread()
def examine(gan, config, batch):
    """All that the page shows of gan.step(*batch), as a plain dictionary."""
    x, z, number, *_ = batch
    gan = copy.copy(gan)                          # for the penalty: networks and optimisers are the same
    recipe, networks = recipe_of(config), {'G': gan.G, 'D': gan.D}
    n = min(len(x), max(2, CHECKED // math.prod(recipe.shape[:2])))
    weights = {name: of_leaves(network) for name, network in networks.items()}
    with tqdm(total=len(gan.G.leaves()) + 3 * len(gan.D.leaves()), desc='layers', **BAR) as bar:
        G, D = Watch(gan.G, n, bar), Watch(gan.D, n, bar)
        gan.penalty = gan.penalty and unwatched(gan.penalty)
        with watched(gan.G, G), watched(gan.D, D), np.errstate(all='ignore'):
            metrics = {name: page.short(value) for name, value in gan.step(*batch).items()}
    judged = ['real', 'fake'] * ('loss_D' in metrics) + ['generator'] * ('loss_G' in metrics)
    sweeps = {'G': {'layers': G.sweeps[0].layers, 'input': page.described(z[:SHOWN], z)}}
    for name, sweep in zip(judged, D.sweeps):
        pictures = [page.picture(image) for image in to_uint8(sweep.x[0][:SHOWN], recipe.black)]
        if name == 'fake' and 'penalty' in metrics:
            D.note_all(sweep)
        sweeps[name] = {'layers': sweep.layers, 'input': {'pictures': pictures, 'shape': recipe.shape},
                        'loss': of_loss(getattr(gan.loss, name), gan.loss.output, sweep.score)}
    optimisers = {name: f'{type(optimiser).__name__}(lr={optimiser.lr:g})'
                  for name, optimiser in (('G', gan.optim_G), ('D', gan.optim_D))}
    return {
        'about': {'run': config['run'], 'recipe': config['recipe'], 'data': config['data'], 'seed': config['seed'],
                  'loss': recipe.loss, 'step': number, 'N': len(x), 'checked': n, 'metrics': metrics, 'balance': balance(gan.loss),
                  'noise': gan.instance_noise, 'rests_at': gan.D_rests_at, 'critic_steps': gan.critic_steps,
                  'penalty': recipe.penalty if 'penalty' in metrics else None, 'classes': recipe.classes, 'optimisers': optimisers,
                  'tinygan': __version__, 'python': platform.python_version(), 'numpy': np.__version__,
                  'date': str(datetime.date.today())},
        'networks': {name: [{'line': repr(leaf), 'kind': type(leaf).__name__, 'parameters': updates(leaf, earlier)}
                            for leaf, earlier in zip(network.leaves(), weights[name])] for name, network in networks.items()},
        'sources': {type(leaf).__name__: page.of_class(type(leaf))
                    for network in networks.values() for leaf in network.leaves()},
        'sweeps': sweeps,
    }


class Watch:
    """What `watched` is to call for one network: it keeps of each sweep the x of every layer, the score, the gradients added up so
    far and, in `layers`, what the page shows. What a layer holds at that moment, it no longer holds when the step is done."""

    def __init__(self, network, n, bar):
        self.leaves, self.twins, self.n, self.bar = network.leaves(), in_float64(network).leaves(), n, bar
        self.sweeps = []

    def __call__(self, way, i, given, made):
        if way == 'forward' and i == 0:
            self.sweeps.append(SimpleNamespace(x=[], sums={}, layers=[]))
        getattr(self, way)(self.sweeps[-1], i, given, made)

    def forward(self, sweep, i, x, y):
        leaf = self.leaves[i]
        alive = {'dead': page.short((y <= 0).all(axis=0).mean())} if isinstance(leaf, LeakyReLU) and leaf.slope == 0 else {}
        sweep.x.append(x)
        sweep.score = y
        sweep.layers.append({'forward': page.described(y[:SHOWN], y) | alive})

    def backward(self, sweep, i, dy, dx):
        leaf, twin, n = self.leaves[i], self.twins[i], self.n
        sweep.sums[i] = {} if leaf.frozen else {name: getattr(leaf, 'd' + name).copy() for name in leaf.parameter_names}
        earlier = self.sweeps[-2].sums[i] if len(self.sweeps) > 1 else {}          # D's fakes add to what the real ones left
        for name in leaf.parameter_names:
            getattr(twin, name)[...] = getattr(leaf, name)
        if isinstance(leaf, LabelPlanes):
            twin.labels = leaf.labels[:n].astype(float)
        sweep.layers[i] |= {
            'backward': page.described(dx[:SHOWN], dx) | {'norm': norm(dx), 'arrived': norm(dy)},
            'gradients': {name: {'own': norm(total - earlier.get(name, 0)), 'sum': norm(total)}
                          for name, total in sweep.sums[i].items()},
            'checks': check(twin, sweep.x[i][:n].astype(float), dy[:n].astype(float))}
        self.bar.update()

    def note_all(self, sweep):
        """Note with this sweep's gradients the norm of those that the optimiser saw, after a penalty had added its own."""
        for leaf, layer in zip(self.leaves, sweep.layers):
            for name, norms in layer['gradients'].items():
                norms['all'] = norm(getattr(leaf, 'd' + name))


# ---- its numbers

def norm(array):
    return page.short(np.linalg.norm(np.ravel(array)))


def of_leaves(network):
    return [{name: getattr(leaf, name).copy() for name in leaf.parameter_names} for leaf in network.leaves()]


def updates(leaf, earlier):
    """How large each parameter was, and how far the optimiser moved it."""
    return {name: {'shape': list(old.shape), 'norm': norm(old), 'update': norm(getattr(leaf, name) - old)}
            for name, old in earlier.items()}


def of_loss(rule, output, score):
    """What is shown of a loss: its source, its value, and the first link of the chain, dscore."""
    exact = score.astype(float)
    row = compare('dscore', rule(exact)[1], exact, lambda: rule(exact)[0], 1e-5)
    loss, dscore = rule(score)
    return page.of_rule(rule) | {'value': page.short(loss), 'norm': norm(dscore), 'checks': [row],
                                 'scores': [page.short(s) for s in score[:SHOWN, 0]],
                                 'outputs': [page.short(p) for p in output(score[:SHOWN, 0])]}


def balance(loss):
    """The metrics of a D that cannot tell real from fake; where any score will do, only its loss."""
    score, loss_D, floor = stakes(loss)
    if floor == -math.inf:
        return {'D': None, 'loss_D': page.short(loss_D), 'loss_G': None}
    loss_G, _ = loss.generator(np.array([score]))
    return {'D': page.short(loss.output(score)), 'loss_D': page.short(loss_D), 'loss_G': page.short(loss_G)}
