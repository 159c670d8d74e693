"""Makes tests/training.npz with PyTorch: python tests/make_training_reference.py (needs torch; the tests do not).

Each entry is a whole GAN, trained for ten steps in float64: its first weights, the metrics of each step, and all that it has
become after the last, in this project's layout. Networks and settings are written out once more, with PyTorch's own layers,
so that a slip in ours is not repeated here. Only the images and the noise are ours.
"""
from pathlib import Path
from typing import Callable, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss
from training import STEPS, Z_DIM, minibatches

from tinygan.gan import GAN
from tinygan.recipes import RECIPES


def up28(w):
    """The end of both generators for 28x28 pixels, from (N, 2w, 7, 7) on."""
    return (nn.BatchNorm2d(2 * w), nn.ReLU(),
            nn.ConvTranspose2d(2 * w, w, 4, 2, 1, bias=False), nn.BatchNorm2d(w), nn.ReLU(),
            nn.ConvTranspose2d(w, 1, 4, 2, 1), nn.Tanh())


def down28(w):
    """The beginning of both discriminators, down to (N, 2w, 7, 7)."""
    return (nn.Conv2d(1, w, 4, 2, 1), nn.LeakyReLU(0.2),
            nn.Conv2d(w, 2 * w, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * w), nn.LeakyReLU(0.2))


def dcgan(z, w):
    return ([nn.Unflatten(1, (z, 1, 1)), nn.ConvTranspose2d(z, 2 * w, 7, 1, 0, bias=False), *up28(w)],
            [*down28(w), nn.Conv2d(2 * w, 1, 7, 1, 0), nn.Flatten()])


def lsgan(z, w):
    return ([nn.Linear(z, 2 * w * 7 * 7, bias=False), nn.Unflatten(1, (2 * w, 7, 7)), *up28(w)],
            [*down28(w), nn.Flatten(), nn.Linear(2 * w * 7 * 7, 1)])


def tutorial64(nz, ngf, nc=3, bias=False):
    """netG and netD of PyTorch's DCGAN tutorial, without netD's sigmoid: the loss has it."""
    ndf = ngf
    return ([nn.Unflatten(1, (nz, 1, 1)),
             nn.ConvTranspose2d(nz, ngf * 8, 4, 1, 0, bias=bias), nn.BatchNorm2d(ngf * 8), nn.ReLU(True),
             nn.ConvTranspose2d(ngf * 8, ngf * 4, 4, 2, 1, bias=bias), nn.BatchNorm2d(ngf * 4), nn.ReLU(True),
             nn.ConvTranspose2d(ngf * 4, ngf * 2, 4, 2, 1, bias=bias), nn.BatchNorm2d(ngf * 2), nn.ReLU(True),
             nn.ConvTranspose2d(ngf * 2, ngf, 4, 2, 1, bias=bias), nn.BatchNorm2d(ngf), nn.ReLU(True),
             nn.ConvTranspose2d(ngf, nc, 4, 2, 1, bias=bias), nn.Tanh()],
            [nn.Conv2d(nc, ndf, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True),
             nn.Conv2d(ndf, ndf * 2, 4, 2, 1, bias=False), nn.BatchNorm2d(ndf * 2), nn.LeakyReLU(0.2, inplace=True),
             nn.Conv2d(ndf * 2, ndf * 4, 4, 2, 1, bias=False), nn.BatchNorm2d(ndf * 4), nn.LeakyReLU(0.2, inplace=True),
             nn.Conv2d(ndf * 4, ndf * 8, 4, 2, 1, bias=False), nn.BatchNorm2d(ndf * 8), nn.LeakyReLU(0.2, inplace=True),
             nn.Conv2d(ndf * 8, 1, 4, 1, 0, bias=False), nn.Flatten()])


def dcgan64(z, w):
    """A generator with biases, and a discriminator with biases and without BatchNorm."""
    return (tutorial64(z, w, 1, bias=True)[0],
            [nn.Conv2d(1, w, 4, 2, 1), nn.LeakyReLU(0.1), nn.Conv2d(w, 2 * w, 4, 2, 1), nn.LeakyReLU(0.1),
             nn.Conv2d(2 * w, 4 * w, 4, 2, 1), nn.LeakyReLU(0.1), nn.Conv2d(4 * w, 8 * w, 4, 2, 1), nn.LeakyReLU(0.1),
             nn.Conv2d(8 * w, 1, 4, 1, 0), nn.Flatten()])


def lsgan64(z, w):
    """No more than 4 * w channels, and a sigmoid at the end of both."""
    return ([nn.Unflatten(1, (z, 1, 1)),
             nn.ConvTranspose2d(z, 4 * w, 4, 1, 0, bias=False), nn.BatchNorm2d(4 * w), nn.ReLU(),
             nn.ConvTranspose2d(4 * w, 4 * w, 4, 2, 1, bias=False), nn.BatchNorm2d(4 * w), nn.ReLU(),
             nn.ConvTranspose2d(4 * w, 2 * w, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * w), nn.ReLU(),
             nn.ConvTranspose2d(2 * w, w, 4, 2, 1, bias=False), nn.BatchNorm2d(w), nn.ReLU(),
             nn.ConvTranspose2d(w, 3, 4, 2, 1, bias=False), nn.Sigmoid()],
            [nn.Conv2d(3, w, 4, 2, 1, bias=False), nn.LeakyReLU(0.2),
             nn.Conv2d(w, 2 * w, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * w), nn.LeakyReLU(0.2),
             nn.Conv2d(2 * w, 4 * w, 4, 2, 1, bias=False), nn.BatchNorm2d(4 * w), nn.LeakyReLU(0.2),
             nn.Conv2d(4 * w, 4 * w, 4, 2, 1, bias=False), nn.BatchNorm2d(4 * w), nn.LeakyReLU(0.2),
             nn.Conv2d(4 * w, 1, 4, 1, 0, bias=False), nn.Flatten(), nn.Sigmoid()])


class Loss(NamedTuple):
    """real, fake and generator are functions of D's scores, as is what D(x) and D(G(z)) in the metrics are the mean of."""
    real: Callable
    fake: Callable
    generator: Callable
    output: Callable = torch.sigmoid


def to(target, rule, sign=1):
    return lambda score: sign * rule(score, torch.full_like(score, target))


def half_mse(score, target):
    return mse_loss(score, target) / 2


BCE = Loss(*(to(target, binary_cross_entropy_with_logits) for target in (1, 0, 1)))
MINIMAX = BCE._replace(generator=to(0, binary_cross_entropy_with_logits, -1))
LSGAN, MSE = (Loss(*(to(target, rule) for target in (1, 0, 1)), lambda score: score) for rule in (half_mse, mse_loss))


class Case(NamedTuple):
    networks: Callable
    width: int
    loss: Loss = BCE
    alternate: bool = False
    rests_at: float = -np.inf
    lr: float = 2e-4
    betas: tuple = 0.5, 0.999


CASES = {'dcgan64': Case(dcgan64, 1), 'tutorial64': Case(tutorial64, 1), 'lsgan': Case(lsgan, 2, LSGAN),
         'lsgan64': Case(lsgan64, 1, MSE, True, 0.65, 1e-3, (0.9, 0.999))}
CASES |= {f'dcgan, {name}, {order}': Case(dcgan, 2, loss, order == 'alternate')
          for name, loss in (('bce', BCE), ('minimax', MINIMAX), ('lsgan', LSGAN)) for order in ('both', 'alternate')}


def make(layers, seed):
    """A network in float64 whose first weights, which float32 can hold, are large enough for its kinks to matter."""
    torch.manual_seed(seed)
    network = nn.Sequential(*layers)
    for module in network:
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1:
                nn.init.kaiming_normal_(parameter)
            else:
                nn.init.normal_(parameter, float(isinstance(module, nn.BatchNorm2d) and name == 'weight'), 0.3)
    return network.double()


def ours(tensor):
    """A tensor of the size of a parameter or of statistics, in our layout, as a vector."""
    array = tensor.detach().numpy()
    if array.ndim == 4:                           # (F, C, K, K) -> (K, K, C, F)
        array = array.transpose(2, 3, 1, 0)
    elif array.ndim == 2 and len(array) == 1:     # a Linear behind images (N, C, 7, 7): ours sees them as (N, 7, 7, C)
        array = array.reshape(-1, 7, 7).transpose(1, 2, 0)
    elif array.ndim == 2:                         # a Linear before them
        array = array.reshape(-1, 7, 7, array.shape[1]).transpose(3, 1, 2, 0)
    return array.ravel()


def vector(tensors):
    return np.concatenate([np.zeros(0), *map(ours, tensors)])


def state(name, network, optimiser):
    """What GAN.state says of a network."""
    remembered = [optimiser.state[parameter] for parameter in network.parameters()]
    return {f'{name}.parameters': vector(network.parameters()),
            f'{name}.statistics': vector(buffer for buffer in network.buffers() if buffer.ndim),      # not their count
            f'{name}.m': vector(of_one['exp_avg'] for of_one in remembered),
            f'{name}.v': vector(of_one['exp_avg_sq'] for of_one in remembered),
            f'{name}.t': np.array(int(remembered[0]['step']))}


def step(case, G, D, optim_G, optim_D, x, z, number):
    """A step of the DCGAN tutorial's loop or, where updates alternate, D's half of it in odd steps and G's in even ones."""
    loss, fake, metrics = case.loss, G(z), {}
    if number % 2 == 1 or not case.alternate:
        D.zero_grad()
        score, fake_score = D(x), D(fake.detach())
        loss_D = loss.real(score) + loss.fake(fake_score)
        loss_D.backward()
        if loss_D > case.rests_at:
            optim_D.step()
        metrics |= {'loss_D': loss_D, 'D_x': loss.output(score), 'D_G_z1': loss.output(fake_score)}
    if number % 2 == 0 or not case.alternate:
        G.zero_grad()
        score = D(fake)
        loss_G = loss.generator(score)
        loss_G.backward()
        optim_G.step()
        metrics |= {'loss_G': loss_G, 'D_G_z2': loss.output(score)}
    return {key: value.mean().item() for key, value in metrics.items()}


def train(name, case, seed):
    """All arrays of a case. A metric is NaN in a step that does not have it."""
    G, D = (make(layers, seed + i) for i, layers in enumerate(case.networks(Z_DIM, case.width)))
    start = {'G.start': vector(G.parameters()).astype('f'), 'D.start': vector(D.parameters()).astype('f')}
    optim_G, optim_D = (torch.optim.Adam(network.parameters(), case.lr, case.betas) for network in (G, D))
    batches, steps = minibatches(RECIPES[name.partition(',')[0]]), []
    for number in range(1, STEPS + 1):
        x, z = (torch.from_numpy(array).double() for array in batches(number)[:2])
        steps.append(step(case, G, D, optim_G, optim_D, x.permute(0, 3, 1, 2), z, number))
    metrics = {key: np.array([of_one.get(key, np.nan) for of_one in steps]) for key in GAN.metrics}
    return start | metrics | state('G', G, optim_G) | state('D', D, optim_D)


if __name__ == '__main__':
    arrays = {f'{name}/{key}': array for i, (name, case) in enumerate(CASES.items())
              for key, array in train(name, case, 2 * i).items()}
    made_by = np.array(f'torch {torch.__version__}')
    np.savez_compressed(Path(__file__).with_name('training.npz'), made_by=made_by, **arrays)
