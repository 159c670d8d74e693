"""A training step on the CPU, ours beside PyTorch's: same networks, same minibatches, taken in turn.

    python benchmarks/cpu.py [--steps 20]        needs torch (pip install torch==2.13.0)
"""
import argparse
import time

import numpy as np
import torch
from torch import nn

from tinygan.gan import GAN, noise
from tinygan.models import RECIPES


def torch_networks():
    """nn.Modules with the layers of recipe dcgan."""
    G = nn.Sequential(
        nn.ConvTranspose2d(100, 128, 7, bias=False), nn.BatchNorm2d(128), nn.ReLU(True),
        nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(True),
        nn.ConvTranspose2d(64, 1, 4, 2, 1), nn.Tanh())
    D = nn.Sequential(
        nn.Conv2d(1, 64, 4, 2, 1), nn.LeakyReLU(0.2, True),
        nn.Conv2d(64, 128, 4, 2, 1, bias=False), nn.BatchNorm2d(128), nn.LeakyReLU(0.2, True),
        nn.Conv2d(128, 1, 7), nn.Flatten())
    return G, D


class TorchGAN:
    def __init__(self):
        self.G, self.D = torch_networks()
        self.opt_G, self.opt_D = (torch.optim.Adam(n.parameters(), 2e-4, (0.5, 0.999)) for n in (self.G, self.D))
        self.loss = nn.BCEWithLogitsLoss()

    def step(self, x, z):
        G, D, loss = self.G, self.D, self.loss
        ones, zeros = torch.ones(len(x), 1), torch.zeros(len(x), 1)
        D.zero_grad()
        loss_real = loss(D(x), ones)
        loss_real.backward()
        fake = G(z)
        loss_fake = loss(D(fake.detach()), zeros)
        loss_fake.backward()
        self.opt_D.step()
        G.zero_grad()
        loss_G = loss(D(fake), ones)
        loss_G.backward()
        self.opt_G.step()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--steps', type=int, default=20)
    steps = parser.parse_args().steps
    ours, theirs = GAN.from_recipe(RECIPES['dcgan']), TorchGAN()
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (128, 28, 28, 1)).astype(np.float32)
    times = []
    for step in range(steps + 3):
        z = noise(0, step, 128, 100)
        start = time.perf_counter()
        ours.step(x, z)
        middle = time.perf_counter()
        theirs.step(torch.from_numpy(x.reshape(-1, 1, 28, 28)), torch.from_numpy(z).reshape(-1, 100, 1, 1))
        times.append((middle - start, time.perf_counter() - middle))
    a, b = np.median(times[3:], axis=0) * 1e3
    print(f'ours {a:.1f} ms  torch {b:.1f} ms  ratio {a / b:.2f}')


main()
