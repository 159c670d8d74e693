"""Whole training against PyTorch, of all that takes steps: the plain core, the CPU's engine and the captured step.

make_training_reference.py says what PyTorch did, from the same weights, images and noise.
"""
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from test_cuda import cupy                        # on the host, or on a GPU
from training import STEPS, Z_DIM, minibatches

from tinygan.engines import Plain, toomcook
from tinygan.engines.cuda import CapturedGAN
from tinygan.engines.divided import Divided
from tinygan.engines.lanes import Lanes
from tinygan.gan import GAN
from tinygan.recipes import RECIPES, make_gan

CASES = {'dcgan64': {}, 'tutorial64': {}, 'lsgan': {}, 'lsgan64': {'D_rests_at': 0.65}} | {       # D rests in the third step
    f'dcgan, {loss}, {order}': {'loss': loss, 'order': order}
    for loss in ('bce', 'minimax', 'lsgan') for order in ('both', 'alternate')}
ON_DEVICE = 'dcgan, bce, alternate', 'dcgan, minimax, both', 'lsgan', 'lsgan64'        # each takes the host seconds

# of each metric, of a vector's length or, for parameters, of that of their way. Measured: 3e-14, 9e-13 and 7e-5
FLOAT64, POLYNOMIALS, FLOAT32 = 1e-12, 1e-11, 5e-4
# a bias before BatchNorm has a gradient of rounding alone, which Adam divides by eps. Measured: 2e-9 and 9e-12
LOOSER = {('dcgan64', 'G.parameters'): 1e-7, ('dcgan64', 'G.statistics'): 5e-10}


class Training:
    """A case: a GAN with the weights that PyTorch's had at first, its minibatches, and what they made of PyTorch's."""

    def __init__(self, case, dtype=np.float64, xp=np):
        recipe = RECIPES[case.partition(',')[0]]._replace(z_dim=Z_DIM, **CASES[case])
        self.case, self.in_float32 = case, minibatches(recipe)
        width = 1 if recipe.shape[0] == 64 else 2
        G, D = (partial(network, width=width, dtype=dtype) for network in (recipe.generator, recipe.discriminator))
        self.gan = make_gan(recipe._replace(generator=G, discriminator=D), xp=xp)
        with np.load(Path(__file__).parent.with_name('training.npz'), allow_pickle=False) as file:
            self.expected = {key.rpartition('/')[2]: file[key] for key in file.files if key.startswith(case + '/')}
        self.start = {name: self.expected.pop(f'{name}.start') for name in 'GD'}
        for name, start in self.start.items():
            getattr(self.gan, name).parameters[...] = xp.asarray(start.astype(dtype))

    def in_float64(self, number):
        x, z, *others = self.in_float32(number)
        return x.astype(float), z.astype(float), *others

    def check(self, engine, tolerance):
        metrics = {key: self.expected.pop(key) for key in GAN.metrics}
        with closing(engine):
            for number in range(1, STEPS + 1):
                expected = {key: values[number - 1] for key, values in metrics.items() if not np.isnan(values[number - 1])}
                found = {key: float(value) for key, value in engine.step(number).items()}
                assert found == pytest.approx(expected, rel=tolerance), number
            state = engine.state()
        assert state.keys() == self.expected.keys()
        for key, expected in self.expected.items():
            way = expected - self.start[key[0]] if key.endswith('.parameters') else expected
            limit = max(tolerance, LOOSER.get((self.case, key), 0))
            assert state[key].shape == expected.shape
            assert np.linalg.norm(state[key] - expected) <= limit * np.linalg.norm(way), key


@pytest.mark.parametrize('case', CASES)
def test_ten_steps_of_the_plain_core_are_those_of_pytorch(case):
    training = Training(case)
    training.check(Plain(training.gan, training.in_float64), FLOAT64)


@pytest.mark.parametrize('lanes', [1, 2])
@pytest.mark.parametrize('case', CASES)
def test_ten_steps_of_the_cpu_s_engine_are_those_of_pytorch(case, lanes, monkeypatch):
    monkeypatch.setattr(toomcook, 'FEWEST_CHANNELS', 1)      # polynomials, though the networks are small
    monkeypatch.setattr(toomcook, 'FEWEST_ROWS', 1)
    training = Training(case)
    training.check(Divided(training.gan, training.in_float64, Lanes(lanes)), POLYNOMIALS)


class GivenNoise(CapturedGAN):
    """The captured step without the kernel that makes noise: z is that of the minibatches."""

    def __init__(self, gan, batches):
        super().__init__(gan, batches, 'fp32')
        self.batches, each = batches, self.device.each
        self.device.each = lambda kernel, *arguments: kernel == 'noise' or each(kernel, *arguments)

    def feed(self, number):
        super().feed(number)
        self.z[...] = self.device.cupy.asarray(self.batches(number)[1])


@pytest.mark.parametrize('case', ON_DEVICE)
def test_ten_captured_steps_are_those_of_pytorch(case, cupy):
    training = Training(case, np.float32, cupy)
    training.check(GivenNoise(training.gan, training.in_float32), FLOAT32)
