"""The same GAN in PyTorch, as fast as PyTorch's documentation knows to make it, for gpu.py to measure.

    python benchmarks/torch_gpu.py VARIANT tf32|bf16 RECIPE BATCH_SIZE [cuda|cpu]

    eager           PyTorch as it comes
    graph           a whole step, captured by hand in a CUDA graph
    compile_graph   G and both losses by torch.compile, and a whole step captured by hand

All of them: channels_last, products in TF32 or, by autocast, in bfloat16, cudnn.benchmark, Adam in one fused kernel, the images
as uint8 on the GPU and the noise drawn there, D's parameters without gradients while G learns, nothing read back between steps.
They are spared D(x) and D(G(z)), which our step reports as well.

It is a process that torch_process.py starts and talks to. It loads PyTorch, the networks and the images, and
waits for a line before it tries out and compiles. When it is ready it writes a line of JSON, {"ready": true} or
{"failed": why}, and for each number of steps that it then reads another, {"ms": milliseconds a step}.
"""
import json
import os
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tinygan import data  # noqa: E402
from tinygan.recipes import RECIPES, Recipe, make_gan  # noqa: E402
from torch_process import why  # noqa: E402

LEAD = 20                           # steps before those that are timed: somebody else has just had the GPU
LEFT_OUT = 'game', 'loss', 'penalty', 'critic_steps', 'order', 'D_rests_at', 'lr_d', 'instance_noise', 'average'  # of a recipe
WARM_UP = 30                        # steps after which whatever chooses kernels has chosen


def dataset(recipe, download):
    """MNIST in the recipe's shape; where it cannot be had, noise, which takes as long to train on."""
    try:
        return data.ImageSet(data.fit(data.mnist.load_images('train', download=download), recipe.shape))
    except data.mnist.Unavailable:
        pixels = np.random.default_rng(0).integers(0, 256, (60000, *recipe.shape), dtype=np.uint8)
        return data.ImageSet(pixels, name='noise')


class Training:
    """G and D with the weights that ours start from; step() trains them on the next minibatch of `images`."""

    def __init__(self, recipe, images, N, precision, device, seed=0):
        import torch
        from torch_gan import to_torch
        if other := [name for name in LEFT_OUT if getattr(recipe, name) != Recipe._field_defaults[name]]:
            raise NotImplementedError(f'only for recipes that leave {", ".join(other)} as in dcgan')
        gan = make_gan(recipe, seed)
        self.G, self.D = (to_torch(net).to(device, memory_format=torch.channels_last) for net in (gan.G, gan.D))
        betas, on_gpu = (recipe.beta1, recipe.beta2), device == 'cuda'
        self.optim_G, self.optim_D = (
            torch.optim.Adam(net.parameters(), recipe.lr, betas, fused=True, capturable=on_gpu)
            for net in (self.G, self.D))
        self.N, self.z_dim, self.black = N, recipe.z_dim, recipe.black
        self.autocast = partial(torch.autocast, device, torch.bfloat16, enabled=precision == 'bf16')
        self.images = torch.tensor(images, device=device)
        self.index = torch.zeros(N, dtype=torch.int64, device=device)         # of a minibatch's images
        self.number, self.order = 0, None

    def step(self):
        self.choose_minibatch()
        self.play()

    def choose_minibatch(self):
        """The next images of the epoch's order, which the GPU has shuffled."""
        import torch
        start = self.number % (len(self.images) // self.N) * self.N
        if start == 0:
            self.order = torch.randperm(len(self.images), device=self.images.device)
        self.index.copy_(self.order[start:start + self.N])
        self.number += 1

    def play(self):
        """GAN.step. It leaves no gradients behind: a capture then takes them from memory of its own. Nor does
        autocast leave weights in bfloat16: it forgets them at the end of each `with`."""
        with self.autocast():
            fake = self.generate(self.noise())
            loss = self.loss_D(self.images[self.index], fake.detach())
        loss.backward()
        self.optim_D.step()
        self.optim_D.zero_grad()
        self.D.requires_grad_(False)
        with self.autocast():
            loss = self.loss_G(fake)
        loss.backward()
        self.D.requires_grad_(True)
        self.optim_G.step()
        self.optim_G.zero_grad()

    def noise(self):
        import torch
        return torch.randn(self.N, self.z_dim, device=self.images.device)

    def generate(self, z):
        return self.G(z)

    def loss_D(self, images, fake):
        """Real and fake images in passes of their own: to BatchNorm they are two minibatches."""
        from torch.nn.functional import softplus
        x = images.permute(0, 3, 1, 2).float() * ((1 - self.black) / 255) + self.black
        return softplus(-self.D(x)).mean() + softplus(self.D(fake)).mean()

    def loss_G(self, fake):
        from torch.nn.functional import softplus
        return softplus(-self.D(fake)).mean()

    def compile(self):
        """What torch.compile can translate. Of a transposed convolution of images of one pixel, G's first layer, PyTorch 2.11
        expects the gradient with other strides than it gets; so that layer becomes the matrix product that it is."""
        import torch
        first, rest = self.G[1], self.G[2:]
        first.weight.data = first.weight.contiguous()

        def generate(z):
            images = (z @ first.weight.flatten(1)).unflatten(1, first.weight.shape[1:])
            return rest(images if first.bias is None else images + first.bias[:, None, None])
        self.generate = generate
        for name in ('generate', 'loss_D', 'loss_G'):
            setattr(self, name, torch.compile(getattr(self, name), fullgraph=True))

    def capture(self):
        """From now on, play() is one launch of a CUDA graph."""
        import torch
        side = torch.cuda.Stream()                # the warm-up that PyTorch's notes on CUDA graphs ask for
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self.step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.play()
        self.play = graph.replay

    def check(self):
        """RuntimeError unless three more steps move every parameter, to numbers: nobody sees the losses."""
        import torch
        parameters = [*self.G.parameters(), *self.D.parameters()]
        before = [parameter.detach().clone() for parameter in parameters]
        for _ in range(3):
            self.step()
        for parameter, old in zip(parameters, before):
            if not torch.isfinite(parameter).all() or torch.equal(parameter, old):
                raise RuntimeError('it runs, but does not train')


def load(variant, precision, recipe, N, device, seed=0):
    """A Training that has made no step yet."""
    import torch
    if device == 'cuda':
        if not torch.cuda.is_available():
            raise RuntimeError(f'PyTorch {torch.__version__} finds no GPU')
        torch.set_float32_matmul_precision('high')                  # TF32
        torch.backends.cudnn.fp32_precision = 'tf32'                # torch.compile asks here
        torch.backends.cudnn.benchmark = True
    torch.manual_seed(seed)
    return Training(recipe, dataset(recipe, download=False).images, N, precision, device, seed)


def prepare(training, variant):
    """Make it that variant, and warm it up: whatever a step may choose or compile, it has."""
    if variant == 'compile_graph':
        training.compile()
    if variant.endswith('graph'):
        training.capture()
    for _ in range(WARM_UP):
        training.step()
    training.check()


def milliseconds(step, steps, device):
    """Of one of so many steps, by the GPU's own clock."""
    import torch
    for _ in range(LEAD):
        step()
    if device == 'cpu':
        start = time.perf_counter()
        for _ in range(steps):
            step()
        return (time.perf_counter() - start) * 1e3 / steps
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(steps):
        step()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / steps


def main(variant, precision, recipe, N, device='cuda'):
    replies = os.fdopen(os.dup(1), 'w', buffering=1)
    os.dup2(2, 1)                                 # what PyTorch prints is no reply

    def reply(**words):
        replies.write(json.dumps(words) + '\n')

    try:
        training = load(variant, precision, RECIPES[recipe], int(N), device)
        sys.stdin.readline()                      # it is this one's turn
        prepare(training, variant)
        reply(ready=True)
        for line in sys.stdin:
            reply(ms=milliseconds(training.step, int(line), device))
    except Exception as error:
        reply(failed=why(error))
        raise


if __name__ == '__main__':
    main(*sys.argv[1:])
