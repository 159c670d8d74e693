"""The kernels of engines/cuda and the captured step: as the layers compute, on a GPU and, wherever there is a C++
compiler, on the CPU, where cuda_on_host.py runs the same source."""
import ctypes
import importlib.metadata
import re
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import cuda_on_host
import fake_cupy
import numpy as np
import pytest

from tinygan import conv, data, losses, optim, penalties
from tinygan.arrays import to_numpy
from tinygan.data.minibatches import Minibatches
from tinygan.engines.cuda import CapturedGAN, NotCovered, device as gpu, step
from tinygan.engines.cuda.device import Device, floats
from tinygan.engines.cuda.network import Network
from tinygan.engines.cuda.penalty import Penalty
from tinygan.engines.cuda.product import BACKWARD, BACKWARD_NORM, FORWARD, Product, Sizes, after
from tinygan.layers import (BatchNorm2d, Conv2d, ConvTranspose2d, Flatten, GlobalAvgPool2d, LeakyReLU, Linear, ReLU,
                            Reshape, Sigmoid, Tanh)
from tinygan.network import Sequential
from tinygan.recipes import RECIPES, make_gan
from tinygan.recipes.labels import ConditionalGAN, LabelPlanes, with_labels
from tinygan.run.device import select_device

# float32 is up to 1e-6 off float64 here; a number cut to TF32's 10 bits as device.cuh does it is 1.8e-4 off on average
TOLERANCE = {'fp32': 5e-6, 'tf32': 1e-3, 'bf16': 6e-3}
LAUNCHES = {'dcgan': 51, 'fast': (69, 52), 'dcgan_gap': 57, 'lsgan': 51, 'dcgan64': 72, 'tutorial64': 89, 'lsgan64': (47, 59),
            'wgan_gp': (47, 68), 'conditional': 66}
needs_compiler = pytest.mark.skipif(cuda_on_host.COMPILER is None,
                                    reason='no C++ compiler to run the kernels on the CPU')


@pytest.fixture(params=[pytest.param('host', marks=needs_compiler), pytest.param('gpu', marks=pytest.mark.gpu)])
def cupy(request, monkeypatch):
    if request.param == 'gpu':
        xp, line = select_device('auto')
        return pytest.skip(line) if xp is np else xp
    monkeypatch.setitem(sys.modules, 'cupy', fake_cupy)
    monkeypatch.setattr(gpu, 'SHARES', 2**16)                         # of which the host copies each, every time
    fake_cupy.count.clear()
    return fake_cupy


@pytest.fixture(params=['fp32', 'tf32', 'bf16'])
def precision(request, cupy):
    if request.param != 'fp32' and int(cupy.cuda.Device().compute_capability) < 80:
        pytest.skip('this GPU has neither TF32 nor bfloat16')
    return request.param


def close(on_device, expected, tolerance):
    found = floats(on_device).reshape(expected.shape)
    assert np.isfinite(found).all()
    assert np.linalg.norm(found - expected) <= tolerance * np.linalg.norm(expected)


def poisoned(cupy, shape):
    return cupy.asarray(np.full(shape, np.nan, np.float32))


def numbers(device, array):
    """An array as the kernels of a device take it."""
    return device.convert(device.cupy.asarray(np.asarray(array, np.float32)))


ARRIVALS = Path(gpu.__file__).with_name('device.cuh').read_text() + '''
extern "C" __global__ void arrivals(int* arrived, int* last) {
    if (last_to_arrive(arrived + blockIdx.y, gridDim.x)) atomicAdd(last + blockIdx.y, 1);
}'''


@pytest.mark.parametrize('block', [(128,), (32, 8), (1, 64)])
def test_of_the_blocks_that_finish_a_sum_one_is_the_last(cupy, block):
    """And knows it in all its threads. (If more than one thread counted a block, each of these would be the last.)"""
    kernel = cupy.RawModule(code=ARRIVALS, options=('-std=c++17', '-DTF32=0', '-DBF16=0')).get_function('arrivals')
    arrived, last = cupy.zeros(3, np.int32), cupy.zeros(3, np.int32)
    for times in 1, 2:
        kernel((4, 3), block, (arrived, last))
        assert to_numpy(last).tolist() == 3 * [times * np.prod(block)]
        assert not to_numpy(arrived).any()


GEOMETRIES = {                                    # N, H, W, C, F, K, S, P
    'of the DCGAN': (3, 14, 14, 8, 12, 4, 2, 1), 'one channel in': (5, 9, 9, 1, 3, 5, 2, 2),
    '3x3': (3, 5, 4, 2, 3, 3, 1, 1),
    'odd sizes': (2, 7, 5, 16, 16, 3, 2, 1), 'stride beyond the kernel': (2, 7, 9, 2, 2, 2, 3, 0),
    'the whole image': (4, 3, 3, 8, 4, 3, 1, 0), 'more than a tile each way': (3, 6, 6, 80, 72, 4, 2, 1),
    'a long sum, in slices': (3, 2, 2, 320, 4, 2, 1, 0),
    'a sum in slices': (40, 8, 8, 4, 4, 4, 2, 1), 'few weights of many channels, in slices': (40, 8, 8, 1, 20, 4, 2, 1)}


@pytest.mark.parametrize('geometry', GEOMETRIES)
def test_products_are_those_of_conv_in_float64(cupy, precision, geometry, rng):
    N, H, W, C, F, K, S, P = GEOMETRIES[geometry]
    OH, OW = conv.output_size(H, K, S, P), conv.output_size(W, K, S, P)
    x, w, dy = (rng.standard_normal(shape) for shape in ((N, H, W, C), (K, K, C, F), (N, OH, OW, F)))
    device = Device(cupy, precision)
    on_device = [numbers(device, a) for a in (x, w, dy)]
    product = Product(device, Sizes(H, W, C, OH, OW, F, K, S, P), on_device[1])
    y, dx, dw = numbers(device, np.nan * dy), numbers(device, np.nan * x), poisoned(cupy, w.shape)
    product.forward(on_device[0], N, after(device, FORWARD, y))
    product.input_grad(on_device[2], N, after(device, FORWARD, dx))
    product.weight_grad(on_device[0], on_device[2], dw, N)
    close(y, conv.forward(x, w, S, P), TOLERANCE[precision])
    close(dx, conv.input_grad(dy, w, (H, W), S, P), TOLERANCE[precision])
    close(dw, conv.weight_grad(x, dy, K, S, P), TOLERANCE[precision])


def test_tf32_keeps_10_bits_and_errs_to_both_sides_alike(cupy, rng):
    if int(cupy.cuda.Device().compute_capability) < 80:
        pytest.skip('this GPU has no TF32')
    device = Device(cupy, 'tf32')

    def product(x, w):
        y = numbers(device, np.full((len(x), w.shape[1]), np.nan))
        Product(device, Sizes(1, 1, len(w), 1, 1, w.shape[1]), numbers(device, w)).forward(numbers(device, x), len(x),
                                                                                          after(device, FORWARD, y))
        return floats(y)

    x, w = np.exp(rng.standard_normal((64, 512))), np.exp(rng.standard_normal((512, 16)))
    error = product(x, w) / (x @ w) - 1
    assert 2e-4 < np.abs(error).max() < 7e-4 and abs(error.mean()) < 4e-5
    exact, shift = rng.integers(-2047, 2048, (64, 8)) / 512, np.diag(2.0 ** rng.integers(-3, 4, 8))
    assert (product(exact, shift) == exact @ shift).all()
    assert np.isnan(product(np.full((1, 8), np.nan), np.ones((8, 1)))).all()


@pytest.mark.parametrize('geometry, activation', [
    ('of the DCGAN', (0, 0.2)), ('a sum in slices', (0, 0.2)), ('one channel in', (1, 1.0)), ('odd sizes', (2, 1.0))], ids=str)
def test_what_follows_a_product(cupy, rng, geometry, activation):
    """Forward a bias and an activation, and what BatchNorm needs; backward the same of what comes before: in two groups."""
    _, H, W, C, F, K, S, P = GEOMETRIES[geometry]
    N, OH, OW = 42, conv.output_size(H, K, S, P), conv.output_size(W, K, S, P)
    x, dy, w = (rng.standard_normal(shape) for shape in ((N, H, W, C), (N, OH, OW, F), (K, K, C, F)))
    device = Device(cupy, 'fp32')
    product = Product(device, Sizes(H, W, C, OH, OW, F, K, S, P), numbers(device, w))
    results = ('forward', x, conv.forward(x, w, S, P)), ('input_grad', dy, conv.input_grad(dy, w, (H, W), S, P))
    for kernel, given, result in results:
        channels = result.shape[-1]
        b, mu, rstd = rng.standard_normal(channels), rng.standard_normal((2, channels)), rng.uniform(0.5, 2, (2, channels))
        y, pre = np.tanh(rng.standard_normal(result.shape)), rng.standard_normal(result.shape)
        slopes = {0: np.where(y > 0, 1, 0.2), 1: 1 - y * y, 2: y * (1 - y)}[activation[0]]
        d, xhat = result * slopes, (np.stack(np.split(pre, 2)) - mu[:, None, None, None]) * rstd[:, None, None, None]
        linear = result + b
        activated = {0: np.where(linear > 0, linear, 0.2 * linear), 1: np.tanh(linear), 2: 1 / (1 + np.exp(-linear))}[activation[0]]
        forward = {'b': cupy.asarray(b.astype('f')), 'activation': activation}
        on_device = {'y': numbers(device, y), 'pre': numbers(device, pre), 'channels': channels, 'activation': activation,
                     'mu': cupy.asarray(mu.astype('f')), 'rstd': cupy.asarray(rstd.astype('f'))}
        for kind, options, expected, squares in (
                (FORWARD, forward, (activated, linear), linear * linear), (BACKWARD, on_device, (d, d), 0 * d),
                (BACKWARD_NORM, on_device, (d, d), d * xhat.reshape(d.shape))):
            out, count = numbers(device, np.nan * result), product.parts(kernel, N, 2)
            parts = poisoned(cupy, (2, count // channels, channels, 2))
            getattr(product, kernel)(numbers(device, given), N, after(device, kind, out, parts=parts, **options), 2)
            close(out, expected[0], 2e-6)
            sums = to_numpy(parts).sum(axis=1, dtype=float)
            for i, summands in enumerate((expected[1], squares)):
                groups = np.stack(np.split(summands, 2))
                assert (np.abs(sums[..., i] - groups.sum(axis=(1, 2, 3))) <= 1e-6 * np.abs(groups).sum(axis=(1, 2, 3))).all()


NETWORKS = {                                      # layers, and the shape of an input
    'Conv2d, LeakyReLU': (lambda **new: [Conv2d(3, 5, 3, stride=2, padding=1, **new), LeakyReLU(0.2)], (5, 6, 3)),
    'Conv2d alone': (lambda **new: [Conv2d(2, 3, 3, bias=False, **new)], (4, 5, 2)),
    'Conv2d, no bias, ReLU': (lambda **new: [Conv2d(2, 3, 3, bias=False, **new), ReLU()], (4, 5, 2)),
    'ConvTranspose2d, BatchNorm2d, ReLU': (lambda **new: [
        ConvTranspose2d(3, 4, 4, stride=2, padding=1, **new), BatchNorm2d(4, **new), ReLU()], (3, 2, 3)),
    'ConvTranspose2d, output padding, Tanh': (lambda **new: [
        ConvTranspose2d(2, 3, 3, stride=2, padding=1, output_padding=1, **new), Tanh()], (3, 2, 2)),
    'Linear, BatchNorm2d of channels': (lambda **new: [
        Linear(6, 2 * 3 * 40, bias=False, **new), Reshape(2, 3, 40), BatchNorm2d(40, **new), LeakyReLU(0.1)], (6,)),
    'odd numbers of channels, rows for two blocks': (lambda **new: [
        Conv2d(1, 3, 3, **new), BatchNorm2d(3, **new), Tanh(),
        ConvTranspose2d(3, 1, 4, stride=2, padding=1, **new), BatchNorm2d(1, **new), LeakyReLU(0.2)], (8, 8, 1)),
    'Linear with a bias for each number, before a convolution of fewer channels': (lambda **new: [
        Linear(6, 12, **new), LeakyReLU(0.2), Reshape(2, 2, 3), ConvTranspose2d(3, 5, 4, stride=2, padding=1, **new), Tanh()], (6,)),
    'BatchNorm2d, before a convolution of fewer channels': (lambda **new: [
        Conv2d(1, 4, 3, padding=1, bias=False, **new), BatchNorm2d(4, **new), LeakyReLU(0.2), Reshape(8, 8, 1),
        Conv2d(1, 3, 2, **new)], (4, 4, 1)),
    'BatchNorm2d of one number an image': (lambda **new: [
        Conv2d(2, 1, 4, bias=False, **new), BatchNorm2d(1, **new), Sigmoid()], (4, 4, 2)),
    'Linear, Sigmoid': (lambda **new: [Flatten(), Linear(8, 3, **new), Sigmoid()], (2, 2, 2)),
    'two stages and a pool': (lambda **new: [
        Conv2d(2, 4, 3, **new), BatchNorm2d(4, **new), LeakyReLU(0.2), GlobalAvgPool2d(), Linear(4, 1, **new)],
        (5, 4, 2))}


@pytest.mark.parametrize('name', NETWORKS)
def test_a_network_computes_what_its_layers_do(cupy, rng, name):
    """On more rows than one block takes, in two groups: to the layers, two minibatches whose gradients add up."""
    make, shape = NETWORKS[name]
    N = 40
    x = rng.standard_normal((2 * N, *shape)).astype(np.float32)
    ours, layers = (Sequential(*make(rng=np.random.default_rng(1))).to(xp) for xp in (cupy, np))
    arrays = {'x': cupy.asarray(x), 'dx': poisoned(cupy, x.shape)}
    kernels = Network(Device(cupy, 'fp32'), ours, shape, 2 * N, 2, **arrays)
    dy = rng.standard_normal(kernels.y.shape).astype(np.float32)
    kernels.dy[...] = cupy.asarray(dy)
    kernels.forward(2 * N, 2)
    ours.gradients.fill(np.nan)
    kernels.backward(2 * N, 2)
    dx = []
    for group in slice(N, None), slice(N):        # the last group first, as the running statistics follow them
        y = layers(x[group])
        close(kernels.y[group], y, 2e-6)
        dx.insert(0, layers.backward(dy[group].reshape(y.shape)))
    bias_before_norm = [leaf for leaf, after in zip(ours.leaves(), ours.leaves()[1:])
                        if isinstance(after, BatchNorm2d) and leaf.parameter_names == ('w', 'b')]
    for leaf in bias_before_norm:
        assert not np.isfinite(to_numpy(leaf.db)).any()                   # nothing is written there
        leaf.db.fill(0)
    close(ours.gradients, layers.gradients, 5e-6)
    close(ours.statistics, layers.statistics, 1e-6)

    kernels.dy[...] = cupy.asarray(dy)            # frozen: the same dx, and the gradients stay as they are
    ours.gradients.fill(7)
    kernels.backward(2 * N, 2, frozen=True)
    close(arrays['dx'], np.concatenate(dx), 5e-6)
    assert (to_numpy(ours.gradients) == 7).all()


def test_batchnorm_keeps_its_digits_where_the_running_mean_has_caught_up(cupy, rng):
    x = 100 + rng.standard_normal((40, 6, 6, 3))
    ours, layers = (Sequential(Conv2d(3, 4, 3, rng=np.random.default_rng(1), dtype=dtype), BatchNorm2d(4, dtype=dtype))
                    for dtype in (np.float32, np.float64))
    layers.parameters[...] = ours.parameters
    ours.layers[1].running_mean[...] = layers.layers[0](x).mean(axis=(0, 1, 2)) + 0.1
    dx = poisoned(cupy, x.shape)
    kernels = Network(Device(cupy, 'fp32'), ours.to(cupy), x.shape[1:], 40, x=cupy.asarray(x.astype('f')), dx=dx)
    kernels.forward(40)
    close(kernels.y, layers(x), 3e-5)
    dy = rng.standard_normal(kernels.y.shape).astype('f')
    kernels.dy[...] = cupy.asarray(dy)
    kernels.backward(40, frozen=True)
    close(dx, layers.backward(dy.astype(float)), 3e-5)


def images_for(recipe):
    rng = np.random.default_rng(0)
    return data.ImageSet(rng.integers(0, 256, (7, *recipe.shape), np.uint8), flip=True, labels=np.array([3, 1, 4, 0, 5, 9, 2]))


def small_gan(xp, recipe):
    G, D = (partial(network, width=2 if recipe.shape[0] == 64 else 4) for network in (recipe.generator, recipe.discriminator))
    return make_gan(recipe._replace(z_dim=5, generator=G, discriminator=D), 3, xp)


def captured_gan(xp, recipe, N=3, precision='fp32', number=1, gan=None, seed=0, images=None):
    gan = gan or small_gan(xp, recipe)
    batches = Minibatches(images or images_for(recipe), recipe._replace(batch_size=N, z_dim=5), seed)
    return CapturedGAN(gan, batches, precision, number)


def narrow(recipe):
    """The same with fewer hidden units, and with what is due in every few steps due in every second."""
    return recipe._replace(discriminator=partial(recipe.discriminator, hidden=8), critic_steps=min(recipe.critic_steps, 2),
                           penalty_every=min(recipe.penalty_every, 2))


def small_critic(width=4, classes=10, **new):
    return Sequential(LabelPlanes(classes), Conv2d(1 + classes, width, 4, stride=2, padding=1, **new), LeakyReLU(0.2), Flatten(),
                      Linear(14 * 14 * width, 1, **new))


EVERYTHING = RECIPES['wgan_gp']._replace(discriminator=small_critic, game=ConditionalGAN, classes=10, loss='bce', critic_steps=1,
                                         instance_noise=0.3)
FEWER_STEPS = {'conditional': 2, 'everything': 2, 'dcgan64': 2, 'tutorial64': 2}           # there, the third is but one more replay
VARIANTS = {name: recipe for name, recipe in RECIPES.items() if recipe.loss} | {
    name: narrow(RECIPES[name]) for name in ('wgan_gp', 'fast', 'conditional')} | {
    'everything': EVERYTHING,
    'fast, its average at its slowest': narrow(RECIPES['fast'])._replace(average=0.05),
    'D rests': RECIPES['dcgan']._replace(D_rests_at=1.386)}               # 2 log 2 = 1.38629: D rests soon


@pytest.mark.parametrize('name', VARIANTS)
def test_steps_are_those_of_the_gan_on_the_same_minibatches_and_noise(cupy, name):
    recipe = VARIANTS[name]
    captured, plain, images = captured_gan(cupy, recipe), small_gan(np, recipe), images_for(recipe)
    ours = captured.gan
    for number in range(1, FEWER_STEPS.get(name, 3) + 1):                 # by kernels, captured, and replayed, then in the second epoch
        before = captured.state()
        if cupy is fake_cupy:
            fake_cupy.count.clear()
        metrics = captured.step(number)
        if cupy is fake_cupy and name in LAUNCHES:
            check_launches(LAUNCHES[name], number)
        x = data.normalise(images.batch(number - 1, 3), np, recipe.black)
        noise = captured_noise(captured, x) if recipe.instance_noise else None
        if not recipe.instance_noise:
            np.testing.assert_allclose(floats(captured.x[3:]), x, atol=1e-6)
        z = floats(captured.z)
        if recipe.classes:
            labels = images.batch_labels(number - 1, 3)
            np.testing.assert_array_equal(z, with_labels(z[:, :5], labels, recipe.classes))
        plain.load_state(before)
        expected = plain.step(x, z, number, noise, epsilons(3, number) if recipe.penalty == 'wgan_gp' else None)
        assert set(metrics) == set(expected)
        for key, value in expected.items():
            assert float(metrics[key]) == pytest.approx(float(value), rel=1e-4, abs=1e-5), (number, key)
        for turn in {name[-1] for name in expected if name in ('loss_D', 'loss_G')}:
            close(getattr(ours, turn).gradients, without_biases_before_norms(getattr(plain, turn)), 2e-5)
        close(ours.G.statistics, plain.G.statistics, 1e-5)
        if plain.D.statistics.size:
            close(ours.D.statistics, plain.D.statistics, 1e-5)
        check_adam(ours, plain, before, captured.state())


def captured_noise(captured, x):
    """The N(0, 1) that was added to real images x and to fake ones: what D saw, less what there was."""
    noise = (floats(captured.x) - np.concatenate([floats(captured.fake), x])) / captured.gan.instance_noise
    assert abs(noise.mean()) < 0.05 and abs(noise.std() - 1) < 0.05
    assert abs(np.corrcoef(noise[:3].ravel(), noise[3:].ravel())[0, 1]) < 0.05
    return noise[3:], noise[:3]


def check_launches(expected, number):
    """A step is one call of a graph that neither waits nor copies anything in, but for the order of a new epoch. There are
    two graphs, for odd and for even steps, if they differ."""
    new_epoch, each = number in (1, 3), np.atleast_1d(expected)
    kernels, captured = each[(number - 1) % len(each)], number > len(each)
    assert fake_cupy.count == Counter(launches=kernels + new_epoch, h2d=new_epoch, graphs=captured)


def without_biases_before_norms(network):
    """The gradients of a network, with zeros where BatchNorm subtracts the bias again: rounding is all there is."""
    leaves = network.leaves()
    for leaf, next_leaf in zip(leaves, leaves[1:]):
        if isinstance(next_leaf, BatchNorm2d) and 'b' in leaf.parameter_names:
            leaf.db.fill(0)
    return network.gradients


def check_adam(ours, plain, before, after):
    """What a step made of parameters, m and v is what Adam makes of the gradients that the step found."""
    plain.load_state(before)
    for name, optimiser in (('G', plain.optim_G), ('D', plain.optim_D)):
        network = optimiser.network
        if after[f'{name}.t'] > before[f'{name}.t']:
            network.gradients[...] = to_numpy(getattr(ours, name).gradients)
            optimiser.step()
        np.testing.assert_allclose(after[f'{name}.parameters'], network.parameters, rtol=1e-6, atol=1e-4 * optimiser.lr)
        for vector in 'm', 'v':
            close(after[f'{name}.{vector}'], getattr(optimiser, vector), 1e-6)
        assert after[f'{name}.t'] == optimiser.t
    if ours.average:
        plain.G.parameters[...], plain.G.statistics[...] = after['G.parameters'], after['G.statistics']
        plain.average.step(after['G.t'])
        for vector in 'parameters', 'statistics':
            expected = getattr(plain.sampler, vector)
            np.testing.assert_allclose(after[f'average.{vector}'], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize('precision', ['fp32', 'bf16'], indirect=True)
def test_a_whole_dcgan_in_its_real_width(cupy, precision):
    """With its tiles full, its sums in slices, numbers read four at a time."""
    recipe = RECIPES['dcgan']
    gan, plain = (make_gan(recipe._replace(z_dim=5), 0, xp) for xp in (cupy, np))
    captured = captured_gan(cupy, recipe, 2, precision, gan=gan)
    captured.step(1)
    plain.step(floats(captured.x[2:]), floats(captured.z))
    close(captured.x[:2], make_gan(recipe._replace(z_dim=5)).G(floats(captured.z)), 5 * TOLERANCE[precision])
    if precision == 'fp32':                       # of two images, the others give gradients that are percents off
        close(gan.G.gradients, plain.G.gradients, 1e-4)
        close(gan.D.gradients, plain.D.gradients, 1e-4)


@pytest.mark.parametrize('precision', ['tf32', 'bf16'], indirect=True)
def test_what_products_read_is_what_adam_has_made(cupy, precision):
    captured = captured_gan(cupy, RECIPES['dcgan'], precision=precision)
    captured.step(1)
    for kernels, network in (captured.G, captured.gan.G), (captured.D, captured.gan.D):
        close(kernels.weights, to_numpy(network.parameters), TOLERANCE[precision] / 2)


@pytest.mark.parametrize('settings', [{}, {'order': 'alternate'}, {'critic_steps': 3}], ids=str)
def test_each_has_its_turn_where_the_core_has_it(settings, rng):
    recipe = narrow(RECIPES['fast'])._replace(**settings)
    gan = make_gan(recipe)
    for number in range(1, 8):
        metrics = gan.step(rng.uniform(-1, 1, (2, 28, 28, 1)).astype('f'), rng.standard_normal((2, 16)).astype('f'), number)
        turns = {'D': 'loss_D' in metrics, 'G': 'loss_G' in metrics, 'P': 'penalty' in metrics}
        assert sorted(step.turns_of(gan, number)) == sorted(letter for letter in turns if turns[letter])


@pytest.mark.parametrize('name', ['dcgan', 'everything'])
def test_replayed_steps_equal_steps_launched_kernel_by_kernel(cupy, request, monkeypatch, name):
    """And, on the host, these with threads and blocks in the opposite order."""
    on_gpu = request.node.callspec.params['cupy'] == 'gpu'
    recipe, steps = VARIANTS[name], 100 if on_gpu else FEWER_STEPS.get(name, 4)
    replayed, launched = captured_gan(cupy, recipe), captured_gan(cupy, recipe)
    for number in range(1, steps + 1):
        replayed.step(number)
        launched.feed(number)
        with launched.stream, monkeypatch.context() as patch:
            patch.setattr(cuda_on_host, 'reverse', True)
            launched.play(step.turns_of(launched.gan, number))
    for name, array in replayed.state().items():
        np.testing.assert_array_equal(array, launched.state()[name], name)


def test_a_run_resumed_goes_on_as_the_unbroken_one_bit_for_bit(cupy):
    recipe = RECIPES['dcgan']
    unbroken = captured_gan(cupy, recipe)
    states = []
    for number in range(1, 6):
        unbroken.step(number)
        states.append(unbroken.state())
    gan = small_gan(cupy, recipe)
    gan.load_state(states[2])
    resumed = captured_gan(cupy, recipe, gan=gan, number=4)
    resumed.step(4)
    resumed.step(5)
    for name, array in resumed.state().items():
        np.testing.assert_array_equal(array, states[4][name], name)


class Endless:
    """A dataset that draws minibatch `step` when it is asked for."""

    def __len__(self):
        return 100

    def steps_per_epoch(self, size):
        return len(self) // size

    def batch(self, step, size):
        return np.full((size, 28, 28, 1), 10 * step, np.uint8)

    def batch_labels(self, step, size):
        return (step + np.arange(size)).astype(np.uint8)


def test_a_dataset_without_end_has_labels_too(cupy):
    captured = captured_gan(cupy, EVERYTHING, images=Endless())
    for number in 1, 2:
        captured.feed(number)
        with captured.stream:
            captured.play('')
        labels = np.arange(3) + number - 1
        np.testing.assert_array_equal(floats(captured.z)[:, 5:], labels[:, None] == np.arange(10))


@needs_compiler
def test_results_do_not_depend_on_the_order_of_blocks_and_threads(monkeypatch):
    monkeypatch.setitem(sys.modules, 'cupy', fake_cupy)
    states = []
    for reverse in False, True:
        monkeypatch.setattr(cuda_on_host, 'reverse', reverse)
        captured = captured_gan(fake_cupy, RECIPES['dcgan'], precision='tf32')
        captured.step(1)
        states.append(captured.state())
    for name, array in states[0].items():
        np.testing.assert_array_equal(array, states[1][name], name)


def launch(what, cupy):
    """A kernel in which threads wait for each other, on zeros, whose result no race would change."""
    device, C, N = Device(cupy, 'fp32'), 40, 40

    def zeros(*sizes):
        return [cupy.zeros(size, np.float32) for size in sizes]
    parts, mu, rstd, dgamma, dbeta, sums = zeros(2 * 2 * 90 * C, 2 * C, 2 * C, C, C, 4 * C)
    score, dscore, corrections, log, image, dimage, w, dw = zeros(2 * N, 2 * N, 2, 6, N * 512, N * 128, 1024, 256)
    count, number = cupy.zeros(1, np.int32), cupy.zeros(1, np.int32)
    if what == 'parts':
        device.channels('sums_of_parts', C, C, parts, 90, 2, sums, dgamma, dbeta)
    elif what == 'statistics':
        device.channels('statistics', C, 300, C, parts, 90, 2, mu, rstd, dgamma, dbeta, 1e-5, 0.1)
    elif what == 'loss':
        device.pointwise('discriminator_loss', (1,), (256,), score, dscore, N, 0, 1.0, 0.0, 1.0, 0.0, count,
                         corrections, np.float64(0.5), np.float64(0.9), log, 1, number, 1)
    elif what == 'forward':
        Product(device, Sizes(8, 8, 8, 4, 4, 8, 3, 2, 1), w).forward(image, N, after(device, FORWARD, dimage, parts=parts))
    elif what == 'sum in slices':
        Product(device, Sizes(1, 1, 256, 1, 1, 4), w).forward(image, N, after(device, FORWARD, dimage))
    elif what == 'score':
        Product(device, Sizes(1, 1, 256, 1, 1, 1), w).forward(image, N, after(device, FORWARD, score))
    else:
        Product(device, Sizes(8, 8, 4, 4, 4, 4, 4, 2, 1), w).weight_grad(image, dimage, dw, N)


RACES = {                                         # what is wrong: (the kernels, the right text, the wrong one)
    'a block is counted before its share is in memory':
        ('sum in slices', '__threadfence();                           // my', '//'),
    'a block is counted before all its threads have a share in memory':
        ('sum in slices', '__syncthreads();\n    if (threadIdx.x + threadIdx.y == 0)', 'if (threadIdx.x + threadIdx.y == 0)'),
    'threads do not wait to be told whether their block is the last':
        ('sum in slices', '__syncthreads();\n    __threadfence();\n    return', '__threadfence();\n    return'),
    'the last block may have looked at the shares before': ('sum in slices', '    __threadfence();\n    return', '    return'),
    'blocks leave their shares in the same place': ('sum in slices', '(slice * tiles + tile) * NUMBERS', 'tile * NUMBERS'),
    'a column is summed without a barrier':
        ('parts', '__syncthreads();\n        if (threadIdx.y < n / 2)', 'if (threadIdx.y < n / 2)'),
    'a column is summed where the one before it is still read':
        ('parts', '__syncthreads();                           // nobody', '//'),
    'every row of threads has the sums of a group': ('parts', 'if (threadIdx.y == 0) sums', 'sums'),
    'every row of threads has the sums of all': ('parts', 'if (threadIdx.y == 0) dbeta', 'dbeta'),
    'every row of threads has the statistics': ('statistics', 'if (threadIdx.y > 0) continue;', ''),
    'a loss is summed without a barrier':
        ('loss', '__syncthreads();\n        if (threadIdx.x < half)', 'if (threadIdx.x < half)'),
    'a loss is read before it is there': ('loss', '__syncthreads();\n    return parts[0]', 'return parts[0]'),
    'a tile is read while others write it':
        ('forward', '__syncthreads();                           // this step', '//'),
    'a tile is written while others read it': ('forward', 'fetch(step + STAGES - 1);', 'fetch(step + STAGES);'),
    'the sums are put where tiles are still read':
        ('forward', '__syncthreads();                               // nobody reads the tiles', '//'),
    'sums are read before they are there': ('forward', '__syncthreads();\n    use_sums', 'use_sums'),
    'totals are put where sums are still read':
        ('forward', '__syncthreads();                               // nobody reads the sums', '//'),
    'totals are read before they are there':
        ('forward', '__syncthreads();\n    if (threadIdx.x >= COLUMNS', 'if (threadIdx.x >= COLUMNS'),
    'slices leave their shares in the same place': ('weights', 'dw += blockIdx.z * M * F;', ''),
    'shares are added without a barrier': ('weights', '__syncthreads();\n    if (threadIdx.y > 0 || i', 'if (threadIdx.y > 0 || i'),
    'every row of threads adds shares': ('weights', 'if (threadIdx.y > 0 || i >= n)', 'if (i >= n)'),
    'a score is summed without a barrier':
        ('score', '__syncthreads();\n        if (threadIdx.x < half) sums', 'if (threadIdx.x < half) sums'),
    'every thread has the score': ('score', 'if (threadIdx.x > 0) return;', '')}


@needs_compiler
@pytest.mark.parametrize('race', RACES)
def test_a_race_is_found(race, monkeypatch):
    kernels, right, wrong = RACES[race]
    monkeypatch.setitem(sys.modules, 'cupy', fake_cupy)
    monkeypatch.setattr(gpu, 'SHARES', 2**16)
    launch(kernels, fake_cupy)
    source, spoilt = gpu.source, []

    def spoil(name, **constants):
        text = source(name, **constants)
        spoilt.append(right in text)
        return text.replace(right, wrong)
    monkeypatch.setattr(gpu, 'source', spoil)
    for reverse in False, True:
        monkeypatch.setattr(cuda_on_host, 'reverse', reverse)
        with pytest.raises(cuda_on_host.KernelError, match='nothing orders the two|misaligned'):     # a place that is not there yet
            launch(kernels, fake_cupy)
    assert any(spoilt), 'the line to spoil has changed'


def test_philox_makes_the_bits_of_its_authors(rng):
    """Known answers from the authors' own test file, and the numpy version that the kernel's noise is compared with."""
    zeros, ones = np.zeros((1, 4), np.uint32), np.full((1, 4), 0xffffffff, np.uint32)
    assert [f'{x:08x}' for x in philox(zeros, (0, 0))[0]] == ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    assert [f'{x:08x}' for x in philox(ones, (0xffffffff,) * 2)[0]] == ['408f276d', '41c83b0e', 'a20bc7c6', '6d5451fd']


def philox(counter, key):
    """Philox4x32-10 of counters uint32 (N, 4)."""
    counter, key = counter.astype(np.uint64), [np.uint64(k) for k in key]
    mask = np.uint64(0xffffffff)
    for _ in range(10):
        a, b = counter[:, 0] * np.uint64(0xD2511F53), counter[:, 2] * np.uint64(0xCD9E8D57)
        counter = np.stack([b >> np.uint64(32) ^ counter[:, 1] ^ key[0], b & mask,
                            a >> np.uint64(32) ^ counter[:, 3] ^ key[1], a & mask], 1)
        key = [(key[0] + np.uint64(0x9E3779B9)) & mask, (key[1] + np.uint64(0xBB67AE85)) & mask]
    return counter


@pytest.mark.parametrize('name', losses.LOSSES)
def test_losses_are_those_of_the_core_in_float64(cupy, rng, name):
    N, loss = 300, losses.LOSSES[name]()
    score = 2 * rng.standard_normal(2 * N).astype(np.float32)             # of fakes and behind them of real images
    on_device, dscore, log = cupy.asarray(score), poisoned(cupy, 2 * N), cupy.zeros((1, 6), np.float32)
    count, steps, corrections = cupy.zeros(1, np.int32), cupy.zeros(1, np.int32), cupy.zeros(2, np.float32)
    (kind, real, weight), (_, fake, _), generator = (step.term(getattr(loss, part)) for part in ('real', 'fake', 'generator'))
    launch, rest = Device(cupy, 'fp32').pointwise, (count, corrections, np.float64(0.5), np.float64(0.9), log, 1, steps)
    fakes, reals = score[:N].astype(float), score[N:].astype(float)

    launch('discriminator_loss', (1,), (256,), on_device, dscore, N, kind, real, fake, weight, 0.0, *rest, 0)
    (loss_real, dreal), (loss_fake, dfake) = loss.real(reals), loss.fake(fakes)
    close(dscore, np.concatenate([dfake, dreal]), 1e-6)
    opinions = loss.output(reals).mean(), loss.output(fakes).mean()
    np.testing.assert_allclose(to_numpy(log)[0, :3], [loss_real + loss_fake, *opinions], rtol=1e-5)

    launch('generator_loss', (1,), (256,), on_device[:N], dscore, N, *generator, *rest)
    expected, dfake = loss.generator(fakes)
    close(dscore[:N], dfake, 1e-6)
    np.testing.assert_allclose(to_numpy(log)[0, 3:5], [expected, opinions[1]], rtol=1e-5)


def test_noise_is_philox_and_normal(cupy):
    n, seed, number = 4099, (3 << 32) + 5, 17
    z, count = poisoned(cupy, (n,)), cupy.asarray(np.array([number], np.int32))
    Device(cupy, 'fp32').each('noise', -(-n // 4), z, n, count, np.uint32(5), np.uint32(3))
    i = np.arange(-(-n // 4), dtype=np.uint32)
    counters = np.stack([i, np.full_like(i, number), 0 * i, 0 * i], 1)
    bits = philox(counters, (seed & 0xffffffff, seed >> 32)).astype(float)
    radius = np.sqrt(-2 * np.log((bits[:, ::2] + 1) / 2**32))
    angle = 2 * np.pi * bits[:, 1::2] / 2**32
    expected = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 2).reshape(-1)[:n]
    np.testing.assert_allclose(to_numpy(z), expected, atol=2e-3)          # near 1, log is as good as float32's bits
    assert abs(expected.mean()) < 0.05 and abs(expected.std() - 1) < 0.05


def epsilons(N, number, seed=0):
    """Where between real and fake images the penalty of a step is taken, float32 (N, 1, 1, 1)."""
    counters = np.array([[n, number - 1, 3, 0] for n in range(N)], np.uint32)
    bits = philox(counters, (seed & 0xffffffff, seed >> 32))[:, 0]
    return ((bits >> np.uint64(8)) / 2**24).astype(np.float32).reshape(N, 1, 1, 1)


def test_epsilon_is_uniform():
    epsilon = epsilons(4000, 9)
    assert 0 <= epsilon.min() < 0.01 and 0.99 < epsilon.max() < 1 and abs(epsilon.mean() - 0.5) < 0.02


PENALISED = {                                     # layers, how many images of what shape, how many classes
    'a convolution': (lambda **new: [
        Conv2d(3, 5, 3, stride=2, padding=1, **new), LeakyReLU(0.2), Flatten(), Linear(45, 1, **new)], (5, 5, 6, 3), 0),
    'labels, a transposed convolution, a pool, many images': (lambda **new: [
        LabelPlanes(2), ConvTranspose2d(3, 4, 4, stride=2, padding=1, **new), LeakyReLU(0.2), GlobalAvgPool2d(),
        Linear(4, 1, **new)], (258, 3, 2, 1), 2)}


@pytest.mark.parametrize('name, rule', [(name, rule) for name in PENALISED for rule in penalties.PENALTIES][:3])
def test_a_penalty_is_added_to_the_gradients_as_the_core_does_in_float64(cupy, rng, name, rule):
    make, shape, classes = PENALISED[name]
    penalty, number, seed = penalties.GradientPenalty(penalties.PENALTIES[rule], 3), 7, (3 << 32) + 5
    x, fake, z = (rng.standard_normal(size).astype(np.float32) for size in (shape, shape, (shape[0], 4)))
    z = with_labels(z, rng.integers(max(classes, 1), size=shape[0]), classes)
    ours, layers = Sequential(*make()), Sequential(*make(dtype=np.float64))
    layers.parameters[...] = 0.7 * rng.standard_normal(layers.parameters.size)
    ours.parameters[...] = layers.parameters
    ours.to(cupy).gradients.fill(0.01)
    count, log = cupy.asarray(np.array([number - 1], np.int32)), cupy.zeros((4, 6), np.float32)
    kernels = Penalty(Device(cupy, 'fp32'), ours, ours.parameters, penalty, cupy.asarray(x), cupy.asarray(fake), cupy.asarray(z))
    kernels.play(count, (np.uint32(5), np.uint32(3)), log, ends_step=True)
    mixed = penalties.between(x.astype(float), fake, epsilons(len(x), number, seed))
    close(kernels.mixed, mixed, 1e-6)
    layers.leaves()[0].labels = z[:, 4:]
    value = penalty(layers, mixed)
    close(ours.gradients - 0.01, layers.gradients, 5e-6)
    close(log, value * (np.arange(24).reshape(4, 6) == (number - 1) % 4 * 6 + 5), 1e-6)
    assert int(count[0]) == number


def test_metrics_are_read_before_newer_ones_take_their_place(cupy, monkeypatch):
    assert CapturedGAN.log_every + CapturedGAN.lag <= step.LOG_ROWS
    monkeypatch.setattr(step, 'LOG_ROWS', 2)
    captured = captured_gan(cupy, RECIPES['dcgan'])
    losses_of = [captured.step(number)['loss_D'] for number in (1, 2, 3)]
    assert float(losses_of[1]) != float(losses_of[2])
    with pytest.raises(LookupError, match='step 1 .* step 3'):
        float(losses_of[0])


def test_what_has_no_kernels_is_refused_by_name(cupy):
    device = Device(cupy, 'fp32')
    x = cupy.zeros((2, 4, 4, 2), np.float32)
    for what, layers in (('BatchNorm2d after', [Conv2d(2, 3, 3), ReLU(), BatchNorm2d(3)]),
                         ('Tanh after', [Conv2d(2, 3, 3), Tanh(), Tanh()]),
                         ('BatchNorm2d at the beginning', [BatchNorm2d(2), Conv2d(2, 3, 3)]),
                         ('a bias that differs', [Flatten(), Linear(32, 12), Reshape(2, 2, 3), BatchNorm2d(3)]),
                         ('channels are pixels', [Conv2d(2, 1, 1, bias=False), Reshape(2, 2, 4), BatchNorm2d(4)]),
                         ('one number a channel', [Conv2d(2, 3, 4), BatchNorm2d(3)])):
        with pytest.raises(NotCovered, match=what):
            Network(device, Sequential(*layers).to(cupy), (4, 4, 2), 2, 2, x=x)
    large = Sequential(Conv2d(1, 2, 1))
    with pytest.raises(NotCovered, match='2.31 numbers'):
        Network(device, large.to(cupy), (1024, 1024, 1), 1024, x=x)
    for what, layers, rule in (
            ('on the slope of BatchNorm2d', [Conv2d(2, 3, 4), BatchNorm2d(3), Flatten(), Linear(3, 1)], penalties.r1),
            ('does not end in a product', [Conv2d(2, 1, 4), ReLU(), Flatten()], penalties.r1),
            ('of your own', [Conv2d(2, 1, 4), Flatten()], lambda g: penalties.r1(g))):
        with pytest.raises(NotCovered, match=what):
            D = Sequential(*layers).to(cupy)
            Penalty(device, D, D.parameters, penalties.GradientPenalty(rule, 1), x)
    with pytest.raises(NotCovered, match='a VAE'):
        CapturedGAN(make_gan(RECIPES['vae'], 0, cupy), None, 'fp32')
    recipe = RECIPES['dcgan']
    for change in ({'optim_D': lambda gan: optim.SGD(gan.D, 1e-3)},
                   {'loss': lambda gan: gan.loss._replace(real=lambda s: losses.least_squares(s, 1))},
                   {'loss': lambda gan: gan.loss._replace(real=losses.lsgan().real)},
                   {'G': lambda gan: gan.G.layers[1].freeze() and gan.G}, {'D': lambda gan: gan.D.layers[3].eval() and gan.D}):
        gan = small_gan(cupy, recipe)
        for name, make in change.items():
            setattr(gan, name, make(gan))
        with pytest.raises(NotCovered):
            captured_gan(cupy, recipe, gan=gan)
    gan = small_gan(cupy, RECIPES['fast'])
    gan.D_rests_at = 0.1
    with pytest.raises(NotCovered, match='a penalty in some of the updates of a D that rests'):
        captured_gan(cupy, RECIPES['fast'], gan=gan)


class Nvrtc:
    """The compiler that CuPy uses, which needs no GPU. It refuses things that nvcc takes."""

    def __init__(self):
        try:
            files = importlib.metadata.files('nvidia-cuda-nvrtc')
        except importlib.metadata.PackageNotFoundError:
            pytest.skip('nvidia-cuda-nvrtc is not installed')
        for library in 'libnvrtc-builtins.so', 'libnvrtc.so':     # the second does not always find the first
            self.library = ctypes.CDLL(str(next(file.locate() for file in files if file.name.startswith(library))))

    def compile(self, code, *options):
        """What it says, or an AssertionError with it."""
        program, size = ctypes.c_void_p(), ctypes.c_size_t()
        self.library.nvrtcCreateProgram(ctypes.byref(program), code.encode(), b'kernels.cu', 0, None, None)
        options = (ctypes.c_char_p * len(options))(*map(str.encode, options))
        failed = self.library.nvrtcCompileProgram(program, len(options), options)
        self.library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        self.library.nvrtcGetProgramLog(program, log)
        assert not failed, log.value.decode()
        return log.value.decode()


def constants(*sizes, **more):
    return Sizes(*sizes)._asdict() | more


SIZES = {'conv': constants(14, 14, 64, 7, 7, 128, 4, 2, 1, CLASSES=4, W_ALIGNED=1),
         'conv of channels that DEPTH does not divide': constants(14, 14, 60, 7, 7, 120, 4, 2, 1, CLASSES=4, W_ALIGNED=1),
         'conv of one channel': constants(28, 28, 1, 14, 14, 64, 4, 2, 1, CLASSES=1, W_ALIGNED=0),
         'conv of three channels': constants(64, 64, 3, 32, 32, 64, 4, 2, 1, CLASSES=4, W_ALIGNED=1),
         'conv of eleven channels': constants(28, 28, 11, 14, 14, 60, 4, 2, 1, CLASSES=4, W_ALIGNED=0),
         'pointwise': {}}


@pytest.mark.parametrize('name, architecture', [
    *((name, 'sm_90') for name in SIZES),
    *((name, architecture) for name in ('conv', 'conv of one channel', 'pointwise') for architecture in ('sm_75', 'sm_80'))])
def test_kernels_compile_for_a_gpu_without_spilling(name, architecture):
    """sm_75 in float32, sm_80 in TF32, sm_90 in bfloat16. What registers cannot hold, spilled numbers or arrays
    on the stack, is in memory: slow."""
    by_cupy = '-ftz=true', '--device-as-default-execution-space'          # CuPy 14 adds these
    log = Nvrtc().compile(gpu.source(name.split()[0], **SIZES[name]), '-std=c++17', '--ptxas-options=-v', *by_cupy,
                          f'--gpu-architecture={architecture}', f'-DTF32={int(architecture == "sm_80")}',
                          f'-DBF16={int(architecture == "sm_90")}', f'-DOVERLAPS={int(architecture == "sm_90")}')
    outside = re.findall(r'(\d+) bytes stack frame, (\d+) bytes spill stores', log)
    assert len(outside) >= 3 and set(outside) == {('0', '0')}, log
