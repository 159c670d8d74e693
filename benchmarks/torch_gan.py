"""The same GAN in PyTorch: a recipe's networks with the same weights, and the loop of PyTorch's DCGAN tutorial."""
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
    elif kind is layers.Linear:
        module = nn.Linear(*layer.w.shape, bias=layer.b is not None)
        module.weight = tensor(layer.w.T)
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
    modules = [module for module in torch_network if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.Linear))]
    for layer, module in zip(layers_with_state, modules, strict=True):
        state = {name: tensor.detach().cpu().numpy() for name, tensor in module.state_dict().items()}
        if isinstance(module, nn.BatchNorm2d):
            layer.gamma[...], layer.beta[...] = state['weight'], state['bias']
            layer.running_mean[...], layer.running_var[...] = state['running_mean'], state['running_var']
        else:
            layer.w[...] = state['weight'].transpose(*((1, 0) if state['weight'].ndim == 2 else (2, 3, 1, 0)))
            if layer.b is not None:
                layer.b[...] = state['bias']
    return network


TUNED = {'tuned': True}
VARIANTS = {                        # options of TorchGAN
    'tutorial': {},
    'tuned': TUNED,
    'compiled': TUNED | {'compiled': True},
    'bfloat16': TUNED | {'bfloat16': True},
    'compiled, bfloat16': TUNED | {'compiled': True, 'bfloat16': True},
}


class TorchGAN:
    """`gan`, a GAN of ours, in PyTorch: a step as its DCGAN tutorial writes it. `tuned` adds what an expert would: D frozen
    while G learns, channels_last, fused Adam; `bfloat16` computes the networks under autocast; `compiled` has
    torch.compile translate them, but for R1, which it cannot differentiate twice."""

    def __init__(self, gan, tuned=False, bfloat16=False, compiled=False):
        if gan.order != 'both' or gan.critic_steps > 1 or gan.D_rests_at is not None or gan.instance_noise:
            raise ValueError('of the settings of a GAN, order, critic_steps, D_rests_at and instance_noise are not here')
        self.gan, self.tuned, self.bfloat16 = gan, tuned, bfloat16
        self.G, self.D = to_torch(gan.G), to_torch(gan.D)
        self.average = gan.average and to_torch(gan.average.network)
        if tuned:
            for network in filter(None, (self.G, self.D, self.average)):
                network.to(memory_format=torch.channels_last)
        self.optim_G, self.optim_D = (
            torch.optim.Adam(network.parameters(), optim.lr, (float(optim.beta1), optim.beta2), optim.eps, fused=tuned or None)
            for network, optim in ((self.G, gan.optim_G), (self.D, gan.optim_D)))
        self.fast_G, self.fast_D = (torch.compile(network) if compiled else network for network in (self.G, self.D))
        self.loss, self.updates = nn.BCEWithLogitsLoss(), 0       # of D

    def step(self, x, z, number=1, image_noise=None, epsilon=None):
        """x (N, H, W, C) and z (N, z_dim), NumPy arrays: GAN.step. The loop reads its losses each step, as the tutorial does."""
        G, D, loss = self.fast_G, self.fast_D, self.loss
        x = self.images(x)
        real, fake_label = torch.ones(len(x), 1), torch.zeros(len(x), 1)

        self.D.zero_grad()
        with self.precision():
            loss_real = loss(D(x), real)
        loss_real.backward()
        with self.precision():
            fake = G(torch.from_numpy(z))
            loss_fake = loss(D(fake.detach()), fake_label)
        loss_fake.backward()
        if self.gan.penalty and self.updates % self.gan.penalty_every == 0:
            self.r1(x).backward(inputs=[*self.D.parameters()])
        self.optim_D.step()
        self.updates += 1

        self.G.zero_grad()
        self.D.requires_grad_(not self.tuned)
        with self.precision():
            loss_G = loss(D(fake), real)
        loss_G.backward()
        self.optim_G.step()
        self.D.requires_grad_(True)
        if self.average:
            self.follow()
        return (loss_real + loss_fake).item(), loss_G.item()

    def images(self, x):
        x = torch.from_numpy(x).permute(0, 3, 1, 2)
        return x.contiguous(memory_format=torch.channels_last if self.tuned else torch.contiguous_format)

    def precision(self):
        return torch.autocast('cpu', torch.bfloat16, enabled=self.bfloat16)

    def r1(self, x):
        """penalties.r1, by differentiating twice."""
        x = x.detach().requires_grad_()
        with self.precision():
            score = self.D(x)
        g, = torch.autograd.grad(score.sum(), x, create_graph=True)
        return self.gan.penalty.weight * (g * g).sum() / (2 * len(x))

    @torch.no_grad()
    def follow(self):
        """Average.step."""
        t = next(iter(self.optim_G.state.values()))['step'].item()
        rate = max(1 - self.gan.average.decay, 10 / (9 + t))
        for vectors in zip(self.average.parameters(), self.G.parameters()), zip(self.average.buffers(), self.G.buffers()):
            for average, newest in vectors:
                if average.is_floating_point():   # not BatchNorm's count of minibatches
                    average.lerp_(newest, rate)

    def copy_to_sampler(self):
        """The network that draws samples, to that of `gan`, which is returned."""
        return to_tinygan(self.average or self.G, self.gan.sampler)
