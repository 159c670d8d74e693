"""Makes tests/reference.npz with PyTorch: python tests/make_reference.py (needs torch; the tests do not).

Every entry is what PyTorch computed from the inputs beside it, in float64, in this project's NHWC layout.
"""
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

arrays = {}
rng = np.random.default_rng(7)


def tensor(*shape):
    return torch.from_numpy(rng.standard_normal(shape)).requires_grad_()


def keep(name, **tensors):
    for key, value in tensors.items():
        value = value.detach().numpy().copy()
        if value.ndim == 4:                       # NCHW -> NHWC; weights (F, C, K, K) -> (K, K, C, F)
            value = value.transpose((2, 3, 1, 0) if key in ('w', 'dw') else (0, 2, 3, 1))
        arrays[f'{name}/{key}'] = value


def convolution(name, function, x, w, b, **settings):
    y = function(x, w, b, **settings)
    dy = tensor(*y.shape)
    y.backward(dy)
    keep(name, x=x, w=w, b=b, y=y, dy=dy, dx=x.grad, dw=w.grad, db=b.grad)


# (kernel, stride, padding, output_padding) and an image size that the stride does not always divide
for K, S, P, O in ((1, 1, 0, 0), (3, 1, 1, 0), (4, 2, 1, 0), (3, 2, 1, 1), (2, 3, 0, 2), (5, 3, 2, 1), (5, 2, 4, 0)):
    setting = f'{K}{S}{P}{O}'
    convolution(f'Conv2d/{setting}', functional.conv2d, tensor(2, 3, 8, 7), tensor(2, 3, K, K), tensor(2),
                stride=S, padding=P)
    convolution(f'ConvTranspose2d/{setting}', functional.conv_transpose2d, tensor(2, 3, 4, 5), tensor(3, 2, K, K),
                tensor(2), stride=S, padding=P, output_padding=O)

norm = nn.BatchNorm2d(3, dtype=torch.float64)
norm.weight.data, norm.bias.data = tensor(3).data, tensor(3).data
for step in range(3):                             # the running statistics move from step to step
    x = tensor(2, 3, 4, 5)
    norm.zero_grad()
    y = norm(x)
    dy = tensor(*y.shape)
    y.backward(dy)
    keep(f'BatchNorm2d/{step}', x=x, y=y, dy=dy, dx=x.grad, dgamma=norm.weight.grad, dbeta=norm.bias.grad,
         gamma=norm.weight, beta=norm.bias, running_mean=norm.running_mean, running_var=norm.running_var)
norm.eval()
keep('BatchNorm2d/eval', x=x, y=norm(x))

for name, function in (('LeakyReLU', lambda x: functional.leaky_relu(x, 0.2)), ('ReLU', functional.relu),
                       ('Tanh', torch.tanh), ('Sigmoid', torch.sigmoid)):
    x = torch.tensor([-1000., -3, -0.5, 0, 0.5, 3, 1000], dtype=torch.float64, requires_grad=True)
    y = function(x)
    dy = tensor(7)
    y.backward(dy)
    keep(name, x=x, y=y, dy=dy, dx=x.grad)

s = torch.tensor([-1000., -30, -2, 0, 0.7, 30, 1000], dtype=torch.float64, requires_grad=True)
for target in (0., 0.9, 1.):
    loss = functional.binary_cross_entropy_with_logits(s, torch.full_like(s, target))
    keep(f'bce/{target:g}', s=s, loss=loss, ds=torch.autograd.grad(loss, s)[0])

for name, make in (('SGD', lambda p: torch.optim.SGD(p, 0.1)),
                   ('Momentum', lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
                   ('RMSprop', lambda p: torch.optim.RMSprop(p, 0.1)),
                   ('Adam', lambda p: torch.optim.Adam(p, 2e-4, (0.5, 0.999)))):
    theta = tensor(6)
    start, optimizer, path = theta.detach().clone(), make([theta]), []
    gradients = tensor(10, 6)
    for g in gradients.detach():
        theta.grad = g * torch.tensor([1e-6, 1e-3, 1, 1, 10, 1000])
        optimizer.step()
        path.append(theta.detach().clone())
    keep(name, start=start, gradients=gradients * torch.tensor([1e-6, 1e-3, 1, 1, 10, 1000]), path=torch.stack(path))

# a penalty on the slope of a small D by its images, whose own gradient autograd finds by differentiating twice
weights = [(tensor(F, C, 3, 3), tensor(F)) for C, F in ((2, 3), (3, 2), (2, 1))]
for i, (w, b) in zip((0, 2, 4), weights):
    keep(f'D/{i}', w=w, b=b)
x = tensor(3, 2, 6, 6)
for name, rule in (('r1', lambda size: (size ** 2).mean() / 2), ('wgan_gp', lambda size: ((size - 1) ** 2).mean())):
    y = x
    for (w, b), settings in zip(weights, (dict(stride=2, padding=1), dict(padding=1), {})):
        y = functional.leaky_relu(functional.conv2d(y, w, b, **settings), 0.2 if settings else 1)
    g = torch.autograd.grad(y.sum(), x, create_graph=True)[0]
    loss = 10 * rule(g.flatten(1).norm(dim=1))
    keep(name, x=x, loss=loss)
    for i, (w, b), dw in zip((0, 2, 4), weights, torch.autograd.grad(loss, [w for w, b in weights])):
        keep(f'{name} of D/{i}', dw=dw)

np.savez_compressed(Path(__file__).with_name('reference.npz'), made_by=np.array(f'torch {torch.__version__}'), **arrays)
