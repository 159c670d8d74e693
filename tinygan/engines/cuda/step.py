"""GAN.step as a row of kernels, captured once in a CUDA graph and then replayed by a single call."""
import copy
import gc
from functools import partial

import numpy as np

from ...arrays import to_numpy
from ...data.images import ImageSet, fit, normalise
from ...gan import GAN
from ...losses import bce_with_logits, hinge, least_squares, mean_squared_error, minimax_generator, wasserstein
from ...optim import Adam
from ...recipes.labels import ConditionalGAN
from .device import Device, NotCovered
from .network import Network
from .penalty import Penalty

CROSS_ENTROPY, LEAST_SQUARES, WASSERSTEIN, HINGE = range(4)               # as in pointwise.cu
LOSSES = {bce_with_logits: (CROSS_ENTROPY, 1.0), minimax_generator: (CROSS_ENTROPY, -1.0),         # and their weights
          least_squares: (LEAST_SQUARES, 1.0), mean_squared_error: (LEAST_SQUARES, 2.0),
          wasserstein: (WASSERSTEIN, 1.0), hinge: (HINGE, 1.0)}
METRICS = {'loss_D': 'D', 'D_x': 'D', 'D_G_z1': 'D', 'loss_G': 'G', 'D_G_z2': 'G', 'penalty': 'P'}    # and whose turn has them
NAMES = {'fp32': 'float32', 'tf32': 'TF32', 'bf16': 'bfloat16'}           # of precisions, of products
LOG_ROWS = 256                                    # steps whose metrics can be read before newer ones take their place


class CapturedGAN:
    """Trains a GAN that is on the GPU by kernels alone: step(number) is GAN.step, on a minibatch and noise of its own.

    It changes the same vectors, but for rounding in the same way, with three differences: D looks at fake and real
    images in one pass (to BatchNorm they stay two minibatches), gradients are written instead of added up, and
    noise and epsilon are not NumPy's, though pure functions of (seed, number) as well. The numbers of the steps
    must follow one another, from `first` on. Raises NotCovered for a GAN that has no kernels.
    """
    log_every = 100                 # steps between two looks at the metrics
    lag = 50                        # steps, the last ones, that a look may leave out: the GPU still has those to do
    beside = True                   # while the GPU trains, the CPU is idle

    def __init__(self, gan, batches, precision, first=1):
        if type(gan) not in (GAN, ConditionalGAN):
            raise NotCovered(f'a {type(gan).__name__}')
        import cupy
        if not (type(gan.optim_D) is type(gan.optim_G) is Adam and gan.G.parameters.dtype == np.float32):
            raise NotCovered('an optimiser other than Adam, or float64')
        if any(leaf.frozen or not leaf.training for leaf in (*gan.G.leaves(), *gan.D.leaves())):
            raise NotCovered('a layer that is frozen or in evaluation mode')
        if gan.penalty and gan.penalty_every > 1 and gan.D_rests_at is not None:
            raise NotCovered('a penalty in some of the updates of a D that rests')
        self.gan, self.images, self.shape, self.black = gan, batches.images, batches.shape, batches.black
        self.N, self.seed, shape, N = batches.N, batches.seed, batches.shape, batches.N
        self.classes, z_dim = batches.classes, batches.z_dim + batches.classes
        self.about = f'a captured step of kernels in {NAMES[precision]}'
        self.device = Device(cupy, precision)
        numbers = self.device.numbers
        self.z = numbers(N, z_dim)
        self.x = numbers(2 * N, *shape)           # fake images, and behind them real ones
        self.fake = numbers(N, *shape) if gan.instance_noise else self.x[:N]
        self.G = Network(self.device, gan.G, (z_dim,), N, x=self.z, y=self.fake)
        self.D = Network(self.device, gan.D, shape, 2 * N, groups=2, x=self.x, dx=self.G.dy, below=self.G.stages[-1], labels=self.z)
        self.penalty = gan.penalty and Penalty(self.device, gan.D, self.D.weights, gan.penalty, self.x[N:],
                                               self.x[:N] if batches.mixed else None, labels=self.z)
        gan.G.zero_grad()                         # kernels never write the gradient of a bias before a BatchNorm: it is 0
        gan.D.zero_grad()
        self.terms = {name: term(getattr(gan.loss, name)) for name in ('real', 'fake', 'generator')}
        if self.terms['real'][::2] != self.terms['fake'][::2]:
            raise NotCovered('a loss with one rule for real images and another for fake ones')
        self.counts = cupy.asarray(np.array([first - 1, gan.optim_G.t, gan.optim_D.t], np.int32))
        self.step_count, self.G_count, self.D_count = self.counts[:1], self.counts[1:2], self.counts[2:]
        self.G_corrections, self.D_corrections = cupy.zeros(2, np.float32), cupy.zeros(2, np.float32)
        self.log = cupy.zeros((LOG_ROWS, len(METRICS)), np.float32)
        self.newest = first - 1                   # the last step
        self.sent = self.fetched = self.newest, None                      # a step, and a copy of the log after it
        self.dataset, self.epoch = upload(cupy, self.images, shape), None
        self.endless = self.dataset is None
        self.per_epoch = 1 if self.endless else self.images.steps_per_epoch(N)
        self.order = cupy.asarray(np.arange(N if self.endless else len(self.images), dtype=np.int32))
        if self.classes:
            self.labels = cupy.asarray(np.zeros(N, np.int32) if self.endless else self.images.labels.astype(np.int32))
        self.twin = copy.deepcopy(gan.sampler).to(np)
        self.stream, self.graphs = cupy.cuda.Stream(), {}

    def step(self, number):
        """Train on minibatch `number`. Returns the metrics by name, still on the GPU, valid for LOG_ROWS steps: float fetches one,
        and with it all that the log has."""
        self.feed(number)
        turns = turns_of(self.gan, number)
        with self.stream:
            if turns not in self.graphs:          # the first time kernel by kernel, which loads them
                self.play(turns)
                self.graphs[turns] = None
            else:
                self.graphs[turns] = self.graphs[turns] or self.capture(turns)
                self.graphs[turns].launch()
        self.newest = number
        if (number + self.lag) % self.log_every == 0:                     # the next look goes as far
            self.sent = number, self.send(self.log)
        return {name: Metric(self, number, i) for i, (name, turn) in enumerate(METRICS.items()) if turn in turns}

    def send(self, *arrays):
        """A function that waits for copies of arrays, on the CPU and as they are after the last step."""
        with self.stream:
            return self.device.send(*arrays)

    def fetch(self, number):
        """A copy of the log that has the metrics of that step: the last one, if it does. LookupError if none does any more."""
        if number > self.fetched[0]:
            step, receive = self.sent if number <= self.sent[0] else (self.newest, self.send(self.log))
            self.fetched = step, *receive()
        if number <= self.fetched[0] - LOG_ROWS:
            raise LookupError(f'the metrics of step {number} have made room for those of step {self.fetched[0]}')
        return self.fetched[1]

    def snapshot(self):
        """GAN.sampler as of the last step, on the CPU: its layers on the GPU would need kernels that no step needs."""
        receive = self.send(self.gan.sampler.parameters, self.gan.sampler.statistics)

        def network():
            sampler = copy.deepcopy(self.twin)
            sampler.parameters[...], sampler.statistics[...] = receive()
            return sampler
        return network

    def feed(self, number):
        """The order of a new epoch; of a dataset without end, the images themselves."""
        epoch, i = divmod(number - 1, self.images.steps_per_epoch(self.N))
        if self.endless:
            batch = fit(self.images.batch(number - 1, self.N), self.shape)
            self.device.convert(normalise(batch, self.device.cupy, self.black), self.x[self.N:])
            if self.classes:
                labels = self.images.batch_labels(number - 1, self.N)
                self.labels[...] = self.device.cupy.asarray(labels.astype(np.int32))
        elif epoch != self.epoch:
            self.epoch = epoch
            self.order[...] = self.device.cupy.asarray(self.images.order(epoch).astype(np.int32))

    def capture(self, turns):
        gc.disable()                              # freeing an array would not belong to the step
        try:
            self.stream.begin_capture()
            try:
                self.play(turns)
            finally:
                graph = self.stream.end_capture()
        finally:
            gc.enable()
        return graph

    def play(self, turns):
        """All kernels of a step, in order: GAN.step."""
        N = self.N
        self.device.running.clear()               # others may have used the stream meanwhile
        with self.device.beside():
            self.take_real(self.x[N:])
        self.device.each('noise', -(-self.z.size // 4), self.z, self.z.size, self.step_count, *key(self.seed))
        if self.classes:
            self.device.each('put_labels', N * self.classes, self.labels, self.order, self.z, N, self.z.shape[1], self.classes,
                             self.step_count, self.per_epoch)
        self.G.forward(N)
        self.add_noise(self.fake, self.x[:N], 1)
        self.device.join()
        if 'D' in turns:
            self.update_D('P' in turns, ends_step='G' not in turns)
        if 'G' in turns:
            self.update_G()

    def take_real(self, real):
        if not self.endless:
            self.device.each('minibatch', real.size, self.dataset, self.order, real, self.N, real.size // self.N,
                             *self.shape[1:], self.step_count, self.per_epoch, (1 - self.black) / 255, float(self.black))
        self.add_noise(real, real, 2)

    def add_noise(self, x, y, purpose):
        if self.gan.instance_noise:
            self.device.each('add_noise', -(-y.size // 4), x, y, y.size, float(self.gan.instance_noise),
                             self.step_count, *key(self.seed), purpose)

    def update_D(self, penalised, ends_step):
        D, N, optim = self.D, self.N, self.gan.optim_D
        D.forward(2 * N, groups=2)
        (kind, real, weight), (_, fake, _) = self.terms['real'], self.terms['fake']
        rests_at = -np.inf if self.gan.D_rests_at is None else self.gan.D_rests_at
        self.device.pointwise(
            'discriminator_loss', (1,), (256,), D.y, D.dy, N, kind, real, fake, weight, float(rests_at), self.D_count,
            self.D_corrections, *betas(optim), self.log, LOG_ROWS, self.step_count, int(ends_step and not penalised))
        D.backward(2 * N, groups=2)
        if penalised:
            self.penalty.play(self.step_count, key(self.seed), self.log, ends_step)
        self.adam(optim, self.D.weights, self.D_corrections)

    def update_G(self):
        G, D, N, optim = self.G, self.D, self.N, self.gan.optim_G
        D.forward(N)
        self.device.pointwise(
            'generator_loss', (1,), (256,), D.y, D.dy, N, *self.terms['generator'], self.G_count, self.G_corrections,
            *betas(optim), self.log, LOG_ROWS, self.step_count)
        D.backward(N, frozen=True)
        G.backward(N)
        self.adam(optim, self.G.weights, self.G_corrections)
        if self.gan.average:
            self.follow(self.gan.average)

    def adam(self, optim, weights, corrections):
        theta = optim.network.parameters
        self.device.each('adam', theta.size, theta, weights, optim.m, optim.v, optim.network.gradients, theta.size, corrections,
                         float(optim.lr), 1. - optim.beta1, 1. - optim.beta2, optim.eps)

    def follow(self, average):
        for name in 'parameters', 'statistics':
            vector = getattr(average.network, name)
            if vector.size:
                self.device.each('follow', vector.size, vector, getattr(average.original, name), vector.size,
                                 1 - average.decay, self.G_count)

    def state(self):
        """GAN.state, as of the last step; this waits for it."""
        _, self.gan.optim_G.t, self.gan.optim_D.t = map(int, to_numpy(self.counts))
        return self.gan.state()

    def close(self):
        self.stream.synchronize()                 # nothing is on its way any more to memory that others may get


class Metric:
    """A number in the log of an engine, until it is fetched."""
    __slots__ = 'engine', 'number', 'column'

    def __init__(self, engine, number, column):
        self.engine, self.number, self.column = engine, number, column

    def __float__(self):
        return float(self.engine.fetch(self.number)[(self.number - 1) % LOG_ROWS, self.column])


def turns_of(gan, number):
    """Which updates are part of that step, and P for a penalty on D: GAN.step."""
    if gan.order == 'alternate':
        turns, earlier = 'D' if number % 2 else 'G', number // 2          # updates of D
    else:
        turns, earlier = 'D' if number % gan.critic_steps else 'DG', number - 1
    return turns + 'P' if gan.penalty and 'D' in turns and earlier % gan.penalty_every == 0 else turns


def term(loss):
    """A function of losses.py, perhaps with its target, as the numbers that the kernels take: kind, target, weight."""
    function, keywords = (loss.func, loss.keywords) if isinstance(loss, partial) else (loss, {})
    if function not in LOSSES:
        raise NotCovered('a loss of your own')
    kind, weight = LOSSES[function]
    return kind, float(keywords.get('sign', keywords.get('target', 0))), weight


def betas(optim):
    return np.float64(optim.beta1), np.float64(optim.beta2)


def key(seed):
    """The seed as Philox's key, two numbers of 32 bits."""
    return np.uint32(seed & 0xffffffff), np.uint32(seed >> 32)


def upload(cupy, images, shape):
    """All images of a dataset on the GPU, uint8 in the network's shape; None for a dataset without end."""
    if not isinstance(images, ImageSet):
        return None
    dataset = cupy.empty((len(images), *shape), np.uint8)
    for start in range(0, len(images), 1000):
        dataset[start:start + 1000] = cupy.asarray(fit(images.images[start:start + 1000], shape))
    return dataset
