"""The game: one step of training, first D and then G (Goodfellow et al. 2014, Algorithm 1, with the same fakes for both)."""
import numpy as np

from .arrays import array_module, random_stream, to_numpy
from .penalties import between


class GAN:
    """A generator G, a discriminator D, the loss that sets the rules, and an optimiser for each.

    order is 'both' for an update of D in every step and of G in every critic_steps-th, or 'alternate' for D in the first,
    third ... step and G in the others. D is not updated while its loss is at most D_rests_at. instance_noise is the
    standard deviation of the noise added to every image that D sees, real or fake: both distributions spread until they
    overlap, and D cannot tell all of one from all of the other (Sønderby et al. 2017, "Amortised MAP inference for image
    super-resolution"). penalty is a GradientPenalty on D, or None. It is taken in one of penalty_every updates of D, and its
    weight should be so many times as large, as make_gan has it (Karras et al. 2020, "Analyzing and improving the image quality
    of StyleGAN", section 3.1, "Lazy regularization"). Samples are drawn from `sampler`: G itself or, if there is one, the
    network of its Average. A step freezes D and then unfreezes all of it.
    """
    metrics = 'loss_D', 'loss_G', 'D_x', 'D_G_z1', 'D_G_z2'       # that a step returns, besides the penalty

    def __init__(self, G, D, loss, optim_G, optim_D, order='both', D_rests_at=None, average=None,
                 instance_noise=0, penalty=None, critic_steps=1, penalty_every=1):
        self.G, self.D, self.loss, self.optim_G, self.optim_D = G, D, loss, optim_G, optim_D
        self.order, self.D_rests_at, self.average, self.instance_noise = order, D_rests_at, average, instance_noise
        self.penalty, self.critic_steps, self.penalty_every = penalty, critic_steps, penalty_every
        self.sampler = average.network if average else G

    def step(self, x, z, number=1, image_noise=None, epsilon=None):
        """Train on real images x (N, H, W, C) and noise z (N, z_dim). number counts the run's steps, from 1. With
        instance noise, image_noise (2, N, H, W, C) is drawn from N(0, 1), for the real and for the fake images. epsilon
        (N, 1, 1, 1) says where between them, noise included, the penalty is taken: at the real ones, if there is none.

        Returns a dictionary of arrays, still on the device: the losses, and D's mean output on x, on G(z) before D's
        update, and on the same G(z) after it; the penalty, if it was taken. Without what belongs to a network whose turn
        it was not.
        """
        fake = self.G(z)
        if self.instance_noise:                   # d(fake + noise)/dfake = 1, so update_G is the same
            x, fake = x + self.instance_noise * image_noise[0], fake + self.instance_noise * image_noise[1]
        if self.order == 'alternate':
            return self.update_D(x, fake, epsilon) if number % 2 else self.update_G(fake)
        metrics = self.update_D(x, fake, epsilon)
        return metrics if number % self.critic_steps else metrics | self.update_G(fake)

    def update_D(self, x, fake, epsilon=None):
        """D learns to tell real from fake; the gradients of both, and of a penalty, add up. The chain rule would lead on
        from the fakes into G. It stops here because nobody passes D's gradient on to G.backward."""
        D, loss = self.D, self.loss
        D.zero_grad()
        score = D(x)
        loss_real, dscore = loss.real(score)
        D.backward(dscore)
        fake_score = D(fake)
        loss_fake, dscore = loss.fake(fake_score)
        D.backward(dscore)
        loss_D = loss_real + loss_fake
        metrics = {'loss_D': loss_D, 'D_x': loss.output(score).mean(), 'D_G_z1': loss.output(fake_score).mean()}
        if self.penalty and self.optim_D.t % self.penalty_every == 0:
            metrics['penalty'] = self.penalty(D, x if epsilon is None else between(x, fake, epsilon))
        if self.D_rests_at is None or loss_D > self.D_rests_at:
            self.optim_D.step()
        return metrics

    def update_G(self, fake):
        """G learns to fool the updated D. D is frozen: it passes the gradient on and keeps none for itself."""
        G, D, loss = self.G, self.D, self.loss
        G.zero_grad()
        D.freeze()
        try:
            score = D(fake)
            loss_G, dscore = loss.generator(score)
            G.backward(D.backward(dscore))
        finally:
            D.unfreeze()
        self.optim_G.step()
        if self.average:
            self.average.step(self.optim_G.t)
        return {'loss_G': loss_G, 'D_G_z2': loss.output(score).mean()}

    def vectors(self):
        """Every vector that training changes, by name."""
        networks = {'G': self.G, 'D': self.D} | ({'average': self.average.network} if self.average else {})
        vectors = {f'{name}.{key}': getattr(network, key)
                   for name, network in networks.items() for key in ('parameters', 'statistics')}
        return vectors | {f'{name}.{key}': getattr(optimiser, key)
                          for name, optimiser in (('G', self.optim_G), ('D', self.optim_D))
                          for key in optimiser.state_names}

    def state(self):
        """What a checkpoint holds: `vectors` as NumPy arrays, and how often each optimiser has stepped."""
        state = {name: to_numpy(vector) for name, vector in self.vectors().items()}
        return state | {'G.t': np.array(self.optim_G.t), 'D.t': np.array(self.optim_D.t)}

    def load_state(self, state):
        """Go on from a `state`. Raises ValueError when it belongs to other networks."""
        for name, vector in self.vectors().items():
            if name not in state:
                raise ValueError(f'{name} was not saved')
            if state[name].shape != vector.shape:
                raise ValueError(f'{name}: {state[name].size} values were saved, this network has {vector.size}')
            vector[...] = array_module(vector).asarray(state[name])
        self.optim_G.t, self.optim_D.t = int(state['G.t']), int(state['D.t'])


def draw_z(seed, step, count, z_dim):
    """z ~ N(0, 1), (count, z_dim): the noise of a training step."""
    return random_stream(seed, 'noise', step).standard_normal((count, z_dim), np.float32)


def draw_epsilon(seed, step, count):
    """Uniform in [0, 1), (count, 1, 1, 1): where between real and fake images a step takes its gradient penalty."""
    return random_stream(seed, 'epsilon', step).random((count, 1, 1, 1), np.float32)


def draw_image_noise(seed, step, shape):
    """N(0, 1), (2, *shape): the instance noise of a training step, for its real and its fake images."""
    return random_stream(seed, 'image noise', step).standard_normal((2, *shape), np.float32)


def generate(G, z, batch_size=128):
    """Images (N, H, W, C) that G in evaluation mode makes of z (N, z_dim), as a NumPy array. Afterwards all of G is in the
    mode that G was in, so it may be called between two steps of training."""
    xp, training = array_module(G.parameters), G.training
    G.eval()
    batches = [to_numpy(G(xp.asarray(z[i:i + batch_size]))) for i in range(0, len(z), batch_size)]
    G.set_flags(training=training)
    return np.concatenate(batches)
