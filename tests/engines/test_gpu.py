"""On a real GPU: CuPy computes what NumPy does, but for rounding. Skipped, and why, where there is none."""
import numpy as np
import pytest
from test_device import minibatch, small_gan

from tinygan import gradcheck, losses, optim
from tinygan.arrays import to_numpy
from tinygan.run.device import select_device
from tinygan.gan import draw_z, generate
from tinygan.network import Sequential

pytestmark = pytest.mark.gpu

# The largest difference, relative to the largest number. NumPy's own float32 is up to 2e-7 off its float64 in
# these layers, 6e-7 in a step's gradients; another order of summation may cost a few times that. TF32 costs
# 1e-3 and would be noticed: CuPy uses it only where CUPY_TF32=1 asks for it.
TOLERANCE = {np.float64: 1e-10, np.float32: 1e-5}


@pytest.fixture(scope='module')
def cupy():
    xp, line = select_device('auto')
    if xp is np:
        pytest.skip(line)
    return xp


def close(on_gpu, on_cpu, dtype):
    assert on_gpu.dtype == on_cpu.dtype == dtype and on_gpu.shape == on_cpu.shape
    if on_cpu.size:
        assert gradcheck.relative_error(on_gpu, on_cpu) < TOLERANCE[dtype]


@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('name', gradcheck.LAYERS)
def test_a_layer_computes_the_same_on_the_gpu(cupy, name, dtype):
    make, shape = gradcheck.LAYERS[name]
    found = []
    for xp in cupy, np:
        rng = np.random.default_rng(0)
        network = Sequential(make(rng=rng, dtype=dtype)).to(xp)
        y = network(xp.asarray(gradcheck.away_from_zero(rng, shape).astype(dtype)))
        dx = network.backward(xp.asarray(rng.standard_normal(y.shape).astype(dtype)))
        found.append((y, dx, network.gradients, network.statistics))
    for on_gpu, on_cpu in zip(*found, strict=True):
        assert isinstance(on_gpu, cupy.ndarray)
        close(on_gpu, on_cpu, dtype if on_cpu.size else on_cpu.dtype)


@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('loss', losses.LOSSES)
def test_a_step_of_training_computes_the_same_on_the_gpu(cupy, loss, dtype):
    """By SGD: Adam's first step is lr times the gradient's sign, which rounding decides where it is tiny."""
    on_gpu, on_cpu = (small_gan(xp, loss, dtype, optim.SGD) for xp in (cupy, np))
    metrics = on_gpu.step(*minibatch(cupy, dtype=dtype)), on_cpu.step(*minibatch(np, dtype=dtype))
    for name in metrics[1]:
        close(metrics[0][name], metrics[1][name], dtype)
    for one, other in (on_gpu.G, on_cpu.G), (on_gpu.D, on_cpu.D):
        for vector in 'gradients', 'parameters', 'statistics':
            close(getattr(one, vector), getattr(other, vector), dtype)


@pytest.mark.parametrize('name', ['SGD', 'Momentum', 'RMSprop', 'Adam'])
def test_an_optimiser_computes_the_same_on_the_gpu(cupy, rng, name):
    networks = [small_gan(xp, dtype=np.float64).D for xp in (cupy, np)]
    optimisers = [getattr(optim, name)(network, lr=0.01) for network in networks]
    for g in rng.standard_normal((3, networks[1].parameters.size)):
        for network, optimiser, xp in zip(networks, optimisers, (cupy, np)):
            network.gradients[...] = xp.asarray(g)
            optimiser.step()
    close(*(network.parameters for network in networks), np.float64)


def test_generated_images_are_numpy_arrays_and_the_same(cupy):
    z = draw_z(0, 1, 5, 3)
    on_gpu, on_cpu = (generate(small_gan(xp).G, z, batch_size=2) for xp in (cupy, np))
    assert type(on_gpu) is np.ndarray
    close(on_gpu, on_cpu, np.float32)


def test_the_gradient_checks_of_layers_and_losses_pass_on_the_gpu(cupy):
    rows = list(gradcheck.all_checks(xp=cupy))
    assert {what for what, _, _ in rows} == {*gradcheck.LAYERS, *gradcheck.LOSSES}
    assert max(error for _, _, error in rows) < gradcheck.TOLERANCE, rows


def test_a_state_of_the_gpu_goes_on_on_the_cpu(cupy):
    on_gpu, on_cpu = (small_gan(xp, dtype=np.float64) for xp in (cupy, np))
    on_gpu.step(*minibatch(cupy, dtype=np.float64))
    on_cpu.load_state(on_gpu.state())
    for gan, xp in (on_gpu, cupy), (on_cpu, np):
        gan.step(*minibatch(xp, 1, dtype=np.float64))
    for name, vector in on_cpu.vectors().items():
        close(to_numpy(on_gpu.vectors()[name]), vector, np.float64)
