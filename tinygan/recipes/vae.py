"""The other family: a variational autoencoder (Kingma & Welling 2014, "Auto-encoding variational Bayes"), with the G of a GAN.

A GAN's G is told by D whether an image could be real. Here it is told which image to make. An encoder E looks at x and says
where in the space of z it belongs: at N(mean, exp(log_var)). G makes an image of a z drawn there, and both pay for how far
it is from x. So that a z from nowhere in particular makes an image too, E pays for how far its Gaussian is from N(0, 1).
"""
import numpy as np

from ..arrays import array_module
from ..gan import GAN
from ..gradcheck import enlarge, nearest_kink, network_error
from ..layers import BatchNorm2d, Conv2d, Flatten, LeakyReLU, Linear
from ..models import down
from ..network import Sequential
from ..optim import SGD

SD = 0.7                            # of the noise that G assumes in every pixel, where white is 2 above black


def encoder(width=64, z_dim=16, hidden=128, **new):
    """images (N, 28, 28, 1) -> (N, 2 z_dim), two heads side by side: mean and log_var. Like
    networks.dcgan_hidden_discriminator, with one more BatchNorm and another end."""
    return Sequential(
        Conv2d(1, width, 4, stride=2, padding=1, **new), LeakyReLU(0.2),
        *down(width, 2 * width, **new),
        Conv2d(2 * width, hidden, 7, bias=False, **new), BatchNorm2d(hidden, **new), LeakyReLU(0.2), Flatten(),
        Linear(hidden, 2 * z_dim, **new))


def reconstruction(image, x):
    """-log N(x; image, SD^2), without its constant: loss = mean over images of the sum of (image - x)^2 / (2 SD^2);
    dimage = (image - x) / (SD^2 N).

    For a given z, the expected sum of squares is least if the image is the mean of all x that it may stand for. Where E
    cannot say how a stroke runs, the best that G can make is the mean of all the ways in which it may run: a blur.
    """
    error = (image - x) / SD
    return (error * error).sum() / (2 * len(x)), error / (SD * len(x))


def divergence(mean, log_var):
    """KL(N(mean, var) || N(0, 1)): loss = mean over images of the sum of (mean^2 + var - log_var - 1) / 2 (appendix B);
    dmean = mean / N, dlog_var = (var - 1) / (2 N), as var = exp(log_var)."""
    var, N = array_module(mean).exp(log_var), len(mean)
    return (mean * mean + var - log_var - 1).sum() / (2 * N), mean / N, (var - 1) / (2 * N)


class VAE(GAN):
    """The pair of an encoder, which stands where a GAN has D, and a decoder G. What is saved, averaged and sampled is the
    same."""
    metrics = 'reconstruction', 'divergence'

    def step(self, x, z, *_):
        """Train on images x (N, H, W, C) and noise z (N, z_dim), from N(0, 1). Returns both terms of the loss, as arrays that
        are still on the device.

        The z that G is given is drawn as mean + sd * noise, section 2.4: so mean and sd have a gradient, however random it is.
        """
        E, G, xp = self.D, self.G, array_module(x)
        E.zero_grad()
        G.zero_grad()
        mean, log_var = xp.split(E(x), 2, axis=1)
        sd = xp.exp(log_var / 2)
        loss_x, dimage = reconstruction(G(mean + sd * z), x)
        loss_z, dmean, dlog_var = divergence(mean, log_var)
        dz = G.backward(dimage)                   # of mean + sd * z, and dsd/dlog_var = sd / 2
        E.backward(xp.concatenate([dmean + dz, dlog_var + dz * z * sd / 2], axis=1))
        self.optim_D.step()
        self.optim_G.step()
        if self.average:
            self.average.step(self.optim_G.t)
        return {'reconstruction': loss_x, 'divergence': loss_z}

    @staticmethod
    def check(recipe, rng, xp=np):
        """The gradients that a step hands to the optimisers, against finite differences for a fixed noise: see check_gan."""
        kink = 0
        while kink < 1e-4:
            G = recipe.generator(z_dim=3, width=1, rng=rng, dtype=np.float64)
            E = recipe.discriminator(z_dim=3, width=1, hidden=4, rng=rng, dtype=np.float64)
            enlarge(G, E, rng, xp)
            x, noise = xp.asarray(rng.uniform(-1, 1, (3, *recipe.shape))), xp.asarray(rng.standard_normal((3, 3)))

            def drawn_z():
                mean, log_var = xp.split(E(x), 2, axis=1)
                return mean + xp.exp(log_var / 2) * noise
            kink = min(nearest_kink(E, x), nearest_kink(G, drawn_z()))
        VAE(G, E, None, SGD(G, lr=0), SGD(E, lr=0)).step(x, noise)

        def loss():
            return reconstruction(G(drawn_z()), x)[0] + divergence(*xp.split(E(x), 2, axis=1))[0]
        return {'E gradients': network_error(E, loss, rng), 'G gradients': network_error(G, loss, rng)}
