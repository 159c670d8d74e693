"""The same source on a device as on the CPU: on a stand-in for CuPy it gives NumPy's bits and never waits."""
import copy
import functools
import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import fake_cupy
import numpy as np
import pytest
from commands import same_arrays
from cuda_on_host import COMPILER

from tinygan import data, gradcheck, losses, optim
from tinygan.arrays import array_module, to_numpy
from tinygan.run.device import find_precision, select_device
from tinygan.errors import UserError
from tinygan.gan import GAN, draw_z, generate
from tinygan.engines import start
from tinygan.engines.cuda import NotCovered
from tinygan.recipes.labels import with_labels
from tinygan.network import Sequential
from tinygan.recipes import RECIPES, make_gan

ROOT = Path(__file__).resolve().parent.parent.parent
LAUNCHES = {'bce': 745, 'bce_smooth': 745, 'minimax': 741, 'lsgan': 709, 'lsgan_chi2': 709,      # in a DCGAN's step
            'mse': 715, 'wgan': 709, 'hinge': 715}
OPTIMISERS = {name: getattr(optim, name) for name in ('SGD', 'Momentum', 'RMSprop', 'Adam')}


needs_compiler = pytest.mark.skipif(COMPILER is None, reason='no C++ compiler to run the kernels on the CPU')


@pytest.fixture
def cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, 'cupy', fake_cupy)
    fake_cupy.count.clear()
    return fake_cupy


@pytest.fixture
def trap(tmp_path):
    """A folder whose cupy ends the process that imports it, with exit code 99; as a PYTHONPATH."""
    (tmp_path / 'trap').mkdir()
    (tmp_path / 'trap' / 'cupy.py').write_text('import os\nos._exit(99)\n')
    return os.pathsep.join([str(tmp_path / 'trap'), str(ROOT)])


def small_gan(xp, loss='bce', dtype=np.float32, optimiser=optim.Adam):
    rng, recipe = np.random.default_rng(3), RECIPES['dcgan']
    G = recipe.generator(z_dim=3, width=2, rng=rng, dtype=dtype).to(xp)
    D = recipe.discriminator(width=2, rng=rng, dtype=dtype).to(xp)
    return GAN(G, D, losses.LOSSES[loss](), optimiser(G, lr=2e-4), optimiser(D, lr=2e-4))


def minibatch(xp, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    x, z = rng.uniform(-1, 1, (4, 28, 28, 1)), rng.standard_normal((4, 3))
    return xp.asarray(x.astype(dtype)), xp.asarray(z.astype(dtype))


def equal_bits(on_device, on_cpu):
    """The first is an array of the device, the second NumPy's; dtype, shape and every bit are the same."""
    assert isinstance(on_device, fake_cupy.ndarray) and isinstance(on_cpu, np.ndarray | np.generic)
    assert on_device.dtype == on_cpu.dtype
    np.testing.assert_array_equal(to_numpy(on_device), on_cpu, strict=True)


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
@pytest.mark.parametrize('name', gradcheck.LAYERS)
def test_a_layer_computes_the_same_bits_on_the_device(cupy, name, dtype):
    make, shape = gradcheck.LAYERS[name]
    found = []
    for xp in cupy, np:
        rng = np.random.default_rng(0)
        network = Sequential(make(rng=rng, dtype=dtype)).to(xp)
        y = network(xp.asarray(rng.standard_normal(shape).astype(dtype)))
        dx = network.backward(xp.asarray(rng.standard_normal(y.shape).astype(dtype)))
        network.eval()
        z = network(xp.asarray(rng.standard_normal(shape).astype(dtype)))
        found.append((y, dx, z, network.gradients, network.statistics))
    for on_device, on_cpu in zip(*found, strict=True):
        equal_bits(on_device, on_cpu)


@pytest.mark.parametrize('name', gradcheck.LOSSES)
def test_a_loss_computes_the_same_bits_on_the_device(cupy, rng, name):
    score = 3 * rng.standard_normal((5, 1), np.float32)
    for pair in zip(gradcheck.LOSSES[name](cupy.asarray(score)), gradcheck.LOSSES[name](score), strict=True):
        equal_bits(*pair)


@pytest.mark.parametrize('name', OPTIMISERS)
def test_an_optimiser_computes_the_same_bits_on_the_device(cupy, name):
    networks = [small_gan(xp).D for xp in (cupy, np)]
    optimisers = [OPTIMISERS[name](network, lr=0.01) for network in networks]
    for seed in range(3):
        g = np.random.default_rng(seed).standard_normal(networks[0].parameters.shape, np.float32)
        for network, optimiser in zip(networks, optimisers):
            network.gradients[...] = array_module(network.gradients).asarray(g)
            optimiser.step()
    equal_bits(*(network.parameters for network in networks))
    for state in optimisers[0].state_names:
        equal_bits(*(getattr(optimiser, state) for optimiser in optimisers))


@pytest.mark.parametrize('loss', losses.LOSSES)
def test_steps_of_training_compute_the_same_bits_and_stay_on_the_device(cupy, loss):
    on_device, on_cpu = small_gan(cupy, loss), small_gan(np, loss)
    for seed in range(3):
        metrics = on_device.step(*minibatch(cupy, seed)), on_cpu.step(*minibatch(np, seed))
        for name in metrics[1]:
            equal_bits(metrics[0][name], metrics[1][name])
    for name, vector in on_device.vectors().items():
        equal_bits(vector, on_cpu.vectors()[name])
    for network in on_device.G, on_device.D:
        for leaf in network.leaves():
            for name in leaf.parameter_names:       # still views: no assignment has made a new array
                assert np.shares_memory(getattr(leaf, name)._host, network.parameters._host)
                assert np.shares_memory(getattr(leaf, 'd' + name)._host, network.gradients._host)


@pytest.mark.parametrize('name', ['wgan_gp', 'fast', 'conditional', 'vae'])
def test_a_step_of_any_recipe_computes_the_same_bits_and_does_not_wait(cupy, name):
    recipe, rng = RECIPES[name], np.random.default_rng(0)
    small = {part: functools.partial(getattr(recipe, part), width=2) for part in ('generator', 'discriminator')}
    x, z = rng.uniform(-1, 1, (4, 28, 28, 1)), with_labels(rng.standard_normal((4, 3)), rng.integers(10, size=4), recipe.classes)
    noise, epsilon = rng.standard_normal((2, *x.shape)), rng.random((4, 1, 1, 1)) if name == 'wgan_gp' else None
    gans, metrics = [make_gan(recipe._replace(z_dim=3, critic_steps=1, **small), 0, xp) for xp in (cupy, np)], []
    for gan, xp in zip(gans, (cupy, np)):
        batch = [None if a is None else xp.asarray(a.astype(np.float32)) for a in (x, z, noise, epsilon)]
        cupy.count.clear()
        metrics.append(gan.step(*batch[:2], 1, *batch[2:]))
        assert (cupy.count['syncs'], cupy.count['h2d']) == (0, 0)
    for key in metrics[1]:
        equal_bits(metrics[0][key], metrics[1][key])
    for key, vector in gans[0].vectors().items():
        equal_bits(vector, gans[1].vectors()[key])


def test_generated_images_are_the_same_numpy_arrays_from_either(cupy):
    z = draw_z(0, 1, 5, 3)
    on_device, on_cpu = (generate(small_gan(xp).G, z, batch_size=2) for xp in (cupy, np))
    assert type(on_device) is np.ndarray
    np.testing.assert_array_equal(on_device, on_cpu, strict=True)


@pytest.mark.parametrize('loss', losses.LOSSES)
def test_a_step_never_waits_copies_nothing_in_and_keeps_to_its_launches(cupy, loss):
    gan, (x, z) = small_gan(cupy, loss), minibatch(cupy)
    cupy.count.clear()
    metrics = gan.step(x, z)
    assert (cupy.count['syncs'], cupy.count['h2d']) == (0, 0)
    assert cupy.count["launches"] == LAUNCHES[loss]
    float(metrics['loss_D'])
    assert cupy.count['syncs'] == 1


def test_a_copy_of_a_network_of_the_device_stays_there(cupy):
    G = small_gan(cupy).G
    twin = copy.deepcopy(G)
    assert isinstance(twin.parameters, cupy.ndarray) and twin.leaves()[1].w.shape == G.leaves()[1].w.shape
    assert G.summary(3).splitlines()[-1].endswith('(N, 28, 28, 1)')


def test_a_run_on_the_device_begins_where_it_was_left(cupy, monkeypatch):
    monkeypatch.setattr('tinygan.engines.CapturedGAN', lambda gan, batches, precision, first: (precision, first))
    assert start(small_gan(cupy), None, 7, precision='tf32') == ('tf32', 7)


@pytest.mark.parametrize('capability, usual', [('75', 'fp32'), ('90', 'tf32')])
def test_a_precision_is_refused_where_the_gpu_lacks_it(cupy, monkeypatch, capability, usual):
    monkeypatch.setattr(cupy.cuda.Device, 'compute_capability', capability)
    assert find_precision(None, cupy) == usual and find_precision('fp32', cupy) == 'fp32'
    with pytest.raises(UserError, match='--precision fp8: there is fp32, tf32, bf16'):
        find_precision('fp8', cupy)
    for asked in 'tf32', 'bf16':
        if usual == 'tf32':
            assert find_precision(asked, cupy) == asked
        else:
            with pytest.raises(UserError, match=f'--precision {asked}.*use fp32'):
                find_precision(asked, cupy)


def test_bytes_and_noise_are_all_that_training_copies_in(cupy):
    gan, batch = small_gan(cupy), np.zeros((4, 28, 28, 1), np.uint8)
    cupy.count.clear()
    for step in 1, 2, 3:
        gan.step(data.normalise(batch, cupy), cupy.asarray(draw_z(0, step, 4, 3)))
    assert (cupy.count['syncs'], cupy.count['h2d']) == (0, 3 * 2)


def test_a_state_of_the_device_is_numpy_all_through_and_goes_on_on_the_cpu(cupy):
    on_device, on_cpu = small_gan(cupy), small_gan(np)
    on_device.step(*minibatch(cupy))
    state = on_device.state()
    assert {type(value) for value in state.values()} == {np.ndarray}
    on_cpu.load_state(state)
    on_device.step(*minibatch(cupy, 1))
    on_cpu.step(*minibatch(np, 1))
    for name, vector in on_cpu.state().items():
        np.testing.assert_array_equal(on_device.state()[name], vector, err_msg=name)


def test_the_gradient_checks_of_layers_and_losses_pass_on_the_device(cupy):
    rows = list(gradcheck.all_checks(xp=cupy))
    assert {what for what, _, _ in rows} == {*gradcheck.LAYERS, *gradcheck.LOSSES}
    assert max(error for _, _, error in rows) < gradcheck.TOLERANCE
    assert cupy.count['launches'] > 10_000


def refusals(xp):
    a, n = xp.ones((3, 4), np.float32), np.ones((3, 4), np.float32)
    square, small = np.ones((3, 3), np.float32), xp.zeros((3, 4), np.uint8)
    return {
        'device + NumPy': (TypeError, lambda: a + n),
        'NumPy + device': (TypeError, lambda: n + a),
        'device + NumPy of one number': (TypeError, lambda: a + np.array(1.0)),
        'device + list': (TypeError, lambda: a + [1.0] * 4),
        'device @ NumPy': (TypeError, lambda: a @ n.T),
        'device += NumPy': (TypeError, lambda: a.__iadd__(n)),
        'NumPy += device': (TypeError, lambda: n.__iadd__(a)),
        'device[:] = NumPy': (ValueError, lambda: a.__setitem__(slice(None), n)),
        'exp of NumPy': (TypeError, lambda: xp.exp(n)),
        'sum of NumPy': (TypeError, lambda: xp.sum(n)),
        'np.asarray': (TypeError, lambda: np.asarray(a)),
        'np.array of a list': (TypeError, lambda: np.array([a, a])),
        'where=': (TypeError, lambda: xp.exp(a, where=True)),
        'where= in np.exp': (TypeError, lambda: np.exp(a, where=True)),
        'out= of NumPy': (TypeError, lambda: xp.exp(a, out=n)),
        'out= of NumPy in np.exp': (TypeError, lambda: np.exp(a, out=n)),
        'out= of NumPy in matmul': (TypeError, lambda: xp.matmul(a, a.T, out=square)),
        'out= of another shape': (ValueError, lambda: xp.exp(a, out=xp.ones((4, 4), np.float32))),
        'out= of integers': (TypeError, lambda: xp.exp(a, out=small)),
        'floats into integers in place': (TypeError, lambda: small.__iadd__(a)),
        'np.add.at': (TypeError, lambda: np.add.at(a, 0, 1)),
        'an index from the device': (TypeError, lambda: range(3)[xp.ones((), int)]),
        'xp.errstate': (AttributeError, lambda: xp.errstate),
        'a method of NumPy alone': (AttributeError, lambda: a.setflags(write=False)),
        'a new attribute': (AttributeError, lambda: setattr(a, 'grad', 0)),
    }


@pytest.mark.parametrize('what', refusals(fake_cupy))
def test_the_stand_in_refuses_what_cupy_refuses(cupy, what):
    error, attempt = refusals(cupy)[what]
    with pytest.raises(error):
        attempt()


def test_the_stand_in_counts_what_waits_launches_and_copies(cupy):
    a, count = cupy.asarray(np.arange(6.0).reshape(2, 3)), cupy.count

    def costs(action):
        count.clear()
        action()
        return count['launches'], count['syncs'], count['h2d']
    assert costs(lambda: cupy.asarray([1.0])) == (0, 0, 1)
    for view in (lambda: a[1:], lambda: a[0, 0], lambda: a.T, lambda: a.reshape(3, 2), lambda: list(a),
                 lambda: cupy.asarray(a), lambda: cupy.broadcast_to(a, (4, 2, 3)), lambda: a.transpose(1, 0)):
        assert costs(view) == (0, 0, 0)
    for kernel in (lambda: a + 1, lambda: np.exp(a), lambda: a.T.reshape(6), lambda: a @ a.T, a.sum, a.copy,
                   lambda: a.fill(0), lambda: cupy.zeros(3), lambda: a.__setitem__(0, a[1])):
        assert costs(kernel) == (1, 0, 0)
    for wait in (lambda: float(a[0, 0]), lambda: int(a[0, 0]), lambda: bool(a[0, 0]), a.get, a[0, 0].item,
                 lambda: repr(a), lambda: 1 if a[0, 0] else 0):
        assert costs(wait) == (0, 1, 0)
    mask = a > 2
    assert costs(lambda: a[mask]) == costs(lambda: a.__setitem__(mask, 0)) == (1, 1, 0)
    assert costs(lambda: a[[0, 1]]) == (1, 0, 1)

    def add_in_place():
        a[:, 1:] += a[:, :2]
    assert costs(add_in_place) == (1, 0, 0)
    assert costs(lambda: cupy.lib.stride_tricks.sliding_window_view(a, (2, 2)))[1:] == (2, 1)


def test_the_stand_in_promotes_as_cupy_does(cupy):
    a = cupy.ones(3, np.float32)
    assert (a * 2.0).dtype == (a / 3).dtype == (a * np.float32(2)).dtype == a.mean().dtype == np.float32
    double = a.sum().astype(np.float64)
    assert (a * np.float64(2)).dtype == (np.float64(2) * a).dtype == (a * double).dtype == np.float64
    assert isinstance(a.sum(), cupy.ndarray) and a.sum().shape == a[0].shape == ()


def test_every_name_of_the_stand_in_is_one_of_cupy():
    cupy = pytest.importorskip('cupy', reason='CuPy is not installed: nothing to compare the names with')
    ours = {name for name in vars(fake_cupy) if name[0] != '_'} - {'count', 'driver_error', 'np'}
    assert ours - {'Counter', 'SimpleNamespace'} - set(dir(cupy)) == set()
    assert {name for name in vars(fake_cupy.ndarray) if name[0] != '_'} - set(dir(cupy.ndarray)) == set()


def test_auto_and_gpu_choose_a_device_that_computes(cupy):
    for device in 'auto', 'gpu':
        assert select_device(device) == (cupy, 'gpu: a stand-in, CuPy 14.2.0')
    assert cupy.count['launches'] > 0


def test_without_cupy_gpu_says_what_to_install_and_auto_says_why_not(monkeypatch):
    monkeypatch.setitem(sys.modules, 'cupy', None)
    with pytest.raises(UserError) as failure:
        select_device('gpu')
    message = str(failure.value)
    assert '\n' not in message and 'CuPy is not installed' in message
    assert "'cupy-cuda12x[ctk]'" in message and "'cupy-cuda13x[ctk]'" in message and '--device cpu' in message
    assert select_device('auto') == (np, 'cpu: NumPy (CuPy is not installed)')


def test_a_broken_driver_is_named_and_auto_goes_round_it(cupy, monkeypatch):
    monkeypatch.setattr(cupy, 'driver_error', RuntimeError('cudaErrorInsufficientDriver: too old\nand more'))
    with pytest.raises(UserError, match='cudaErrorInsufficientDriver: too old') as failure:
        select_device('gpu')
    assert '\n' not in str(failure.value) and 'nvidia-smi' in str(failure.value)
    xp, line = select_device('auto')
    assert xp is np and 'cudaErrorInsufficientDriver: too old' in line and '\n' not in line


def test_a_device_that_computes_wrongly_is_not_chosen(cupy, monkeypatch):
    monkeypatch.setattr(cupy, 'add', lambda a, b, out=None: a)
    xp, line = select_device('auto')
    assert xp is np and 'a test product came out wrong' in line


def test_cpu_never_imports_cupy(trap):
    def choose(device):
        code = f'from tinygan.run.device import select_device; print(select_device({device!r})[1])'
        return subprocess.run([sys.executable, '-c', code], env={**os.environ, 'PYTHONPATH': trap},
                              capture_output=True, text=True, timeout=60)
    assert choose('cpu').stdout == 'cpu: NumPy, as asked\n'
    assert choose('auto').returncode == 99                      # the trap does close


@pytest.mark.parametrize('kernels', [pytest.param(True, marks=needs_compiler), False])
def test_a_run_trained_on_the_device_goes_on_without_it(cupy, command, trap, monkeypatch, tmp_path, capsys, kernels):
    if not kernels:
        def refuse(*_):
            raise NotCovered('this GAN')
        monkeypatch.setattr('tinygan.engines.CapturedGAN', refuse)
    monkeypatch.syspath_prepend(ROOT)
    train_mnist = importlib.import_module('train_mnist')
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setattr(train_mnist, 'EVALUATED', 50)
    options = '--recipe dcgan --device gpu --data digits --max-steps 2 --batch-size 2 --evaluate-every 2 --out'.split()
    try:
        assert train_mnist.main([*options, str(tmp_path / 'run')]) == 0
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert same_arrays(tmp_path / 'run' / 'best.npz', tmp_path / 'run' / 'checkpoint.npz')
    said = capsys.readouterr().out
    if kernels:
        assert cupy.count['graphs'] == 1 and 'a captured step of kernels in TF32' in said
    else:
        assert cupy.count['launches'] > 2 * 550 and 'no kernels for this GAN: going on layer by layer' in said
    command('tinygan', 'sample', 'run', '-n', '4', '--out', 'grid.png', check=0, PYTHONPATH=trap)
    assert (tmp_path / 'grid.png').stat().st_size > 0
    done = command('train_mnist.py', '--resume', 'run', '--max-steps', '3', '--device', 'cpu', check=0,
                   PYTHONPATH=trap)
    assert 'cpu: NumPy, as asked' in done.stdout and 'step 3 saved' in done.stdout
