"""The same GAN in PyTorch: the networks of dcgan, dcgan64 and tutorial64 with the same weights, and the tutorial's loop."""
import torch
from torch import nn

from tinygan import layers


def to_torch(network):
    """nn.Sequential with the layers and weights of a tinygan network; images are then (N, C, H, W)."""
    return nn.Sequential(*(module for layer in network.layers for module in _module(layer)))


def _module(layer):
    def tensor(array):
        return nn.Parameter(torch.from_numpy(array.copy()))
    kind = type(layer)
    if kind in (layers.Conv2d, layers.ConvTranspose2d):
        K, _, C, F = layer.w.shape if kind is layers.Conv2d else layer.w.transpose(0, 1, 3, 2).shape
        module = (nn.Conv2d if kind is layers.Conv2d else nn.ConvTranspose2d)(
            C, F, K, layer.stride, layer.padding, bias=layer.b is not None)
        module.weight = tensor(layer.w.transpose(3, 2, 0, 1))
    elif kind is layers.BatchNorm2d:
        module = nn.BatchNorm2d(layer.gamma.size)
        module.weight, module.bias = tensor(layer.gamma), tensor(layer.beta)
    elif kind is layers.LeakyReLU:
        module = nn.LeakyReLU(layer.slope, inplace=True)
    elif kind is layers.Reshape and len(layer.shape) == 3:
        H, W, C = layer.shape
        module = nn.Unflatten(1, (C, H, W))
    else:
        module = {layers.ReLU: lambda: nn.ReLU(True), layers.Tanh: nn.Tanh, layers.Sigmoid: nn.Sigmoid,
                  layers.Flatten: nn.Flatten, layers.Reshape: nn.Flatten}[kind]()
    if getattr(layer, 'b', None) is not None:
        module.bias = tensor(layer.b)
    return [module]


def to_tinygan(torch_network, network):
    """Copy the weights and running statistics of to_torch's network back."""
    layers_with_state = [layer for layer in network.layers if layer.parameter_names]
    modules = [module for module in torch_network if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d))]
    for layer, module in zip(layers_with_state, modules, strict=True):
        state = {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}
        if isinstance(module, nn.BatchNorm2d):
            layer.gamma[...], layer.beta[...] = state['weight'], state['bias']
            layer.running_mean[...], layer.running_var[...] = state['running_mean'], state['running_var']
        else:
            layer.w[...] = state['weight'].transpose(2, 3, 1, 0)
            if layer.b is not None:
                layer.b[...] = state['bias']


class TorchGAN:
    """One step as the PyTorch DCGAN tutorial writes it; `tuned` adds what an expert would: D frozen while G learns,
    channels_last, fused Adam."""

    def __init__(self, G, D, lr, betas, tuned=False):
        self.G, self.D, self.tuned = to_torch(G), to_torch(D), tuned
        if tuned:
            self.G, self.D = (network.to(memory_format=torch.channels_last) for network in (self.G, self.D))
        self.optim_G, self.optim_D = (torch.optim.Adam(network.parameters(), lr, betas, fused=tuned or None)
                                      for network in (self.G, self.D))
        self.loss = nn.BCEWithLogitsLoss()

    def step(self, x, z):
        """x (N, H, W, C) and z (N, z_dim), NumPy arrays. The loop reads its losses each step, as the tutorial does."""
        G, D, loss = self.G, self.D, self.loss
        x = torch.from_numpy(x).permute(0, 3, 1, 2)
        x = x.contiguous(memory_format=torch.channels_last if self.tuned else torch.contiguous_format)
        real, fake_label = torch.ones(len(x), 1), torch.zeros(len(x), 1)

        D.zero_grad()
        loss_real = loss(D(x), real)
        loss_real.backward()
        fake = G(torch.from_numpy(z))
        loss_fake = loss(D(fake.detach()), fake_label)
        loss_fake.backward()
        self.optim_D.step()

        G.zero_grad()
        if self.tuned:
            D.requires_grad_(False)
        loss_G = loss(D(fake), real)
        loss_G.backward()
        self.optim_G.step()
        if self.tuned:
            D.requires_grad_(True)
        return (loss_real + loss_fake).item(), loss_G.item()
