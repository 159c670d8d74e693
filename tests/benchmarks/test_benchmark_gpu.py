"""benchmarks/gpu.py, as far as it goes without a GPU: on the stand-in for CuPy, with PyTorch on the CPU."""
import json
import operator
import os
import subprocess
import sys
import time
from functools import partial

import cuda_on_host
import fake_cupy
import numpy as np
import pytest
from commands import ROOT, one_line

from tinygan import data, layers
from tinygan.engines import cuda
from tinygan.engines.cuda.device import Device, source
from tinygan.recipes import RECIPES, make_gan

sys.path.insert(0, str(ROOT / 'benchmarks'))
import gpu  # noqa: E402
import gpu_account  # noqa: E402
import gpu_waits  # noqa: E402
import torch_gpu  # noqa: E402
import torch_process  # noqa: E402

needs_compiler = pytest.mark.skipif(cuda_on_host.COMPILER is None, reason='no C++ compiler for the kernels')
N = 4


@pytest.fixture
def tiny(monkeypatch):
    """A recipe of that name: dcgan with next to no channels."""
    dcgan = RECIPES['dcgan']
    networks = {key: partial(getattr(dcgan, key), width=2) for key in ('generator', 'discriminator')}
    monkeypatch.setitem(RECIPES, 'tiny', dcgan._replace(**networks, z_dim=3))
    return RECIPES['tiny']


@pytest.fixture
def images():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 28, 28, 1), dtype=np.uint8)
    return data.ImageSet(pixels, name='noise')


@pytest.fixture
def setting(tiny, images, monkeypatch):
    monkeypatch.setitem(sys.modules, 'cupy', fake_cupy)
    monkeypatch.setattr(cuda.device, 'SHARES', 2**14)           # the stand-in copies them for every launch
    return gpu.Setting('tiny', images, N, 'fp32', fake_cupy)


@pytest.fixture
def no_cupy(tmp_path, monkeypatch):
    """In processes that a test starts, whatever this computer has."""
    (tmp_path / 'trap').mkdir()
    (tmp_path / 'trap' / 'cupy.py').write_text('raise ModuleNotFoundError("No module named \'cupy\'")\n')
    path = os.pathsep.join([str(tmp_path / 'trap'), str(ROOT)])
    monkeypatch.setenv('PYTHONPATH', path)
    return path


def test_without_cupy_the_command_says_so_in_one_line(command, no_cupy):
    done = command('benchmarks/gpu.py', check=2, PYTHONPATH=no_cupy)
    assert one_line(done.stderr, 'no GPU', 'CuPy is not installed', 'pip install', program='gpu.py')
    assert not done.stdout


# The account ------------------------------------------------------------------------------------------------

@needs_compiler
def test_the_account_has_every_launch_of_a_step_once(setting):
    captured = setting.captured()
    captured.step(1)
    captured.step(2)
    expected = [(launch.kernel.name, *np.ravel(launch.sizes)) for launch in captured.graphs['DG']._launches]
    _, launches = gpu_account.record(setting)
    found = [(launch.kernel, *(*launch.grid, 1, 1)[:3], *(*launch.block, 1, 1)[:3]) for launch in launches]
    assert found == expected
    places = [(launch.kernel, launch.where) for launch in launches]
    assert len(set(places)) == len(places)
    assert {kernel for kernel, where in places if not where} == {'noise', 'minibatch'}
    assert places[2] == ('input_grad', 'G0 ConvTranspose2d forward')
    assert ('weight_grad', 'D learns: D1 Conv2d backward') in places
    assert ('adam', 'G learns:') == places[-1]
    assert Device.compile.__name__ == 'compile'             # nothing is recorded any more


def products(network, shape):
    """FLOP of each layer's product for one image of that shape."""
    x, found = np.zeros((2, *shape), np.float32), []
    for layer in network.layers:
        y = layer(x)
        if isinstance(layer, layers.Weighted):
            pixels = x if isinstance(layer, layers.ConvTranspose2d) else y
            found.append(2 * (pixels.size // 2) * layer.w.size // pixels.shape[-1])
        x = y
    return found


@needs_compiler
def test_the_account_adds_up(setting):
    recipe, gan = setting.recipe, make_gan(setting.recipe)
    G, D = products(gan.G, (recipe.z_dim,)), products(gan.D, recipe.shape)
    # G: all three products, but no gradient of z. D: the same on real and fake images, but no gradient of
    # them; and then, on the fake ones alone, forward and all gradients of inputs
    expected = N * (3 * sum(G) - G[0] + 2 * (3 * sum(D) - D[0]) + 2 * sum(D))
    _, launches = gpu_account.record(setting)
    found = [(launch, *gpu_account.work(launch)) for launch in launches]
    assert sum(flop for _, flop, _ in found) == expected
    assert {launch.kernel for launch, flop, _ in found if flop} == {'forward', 'score', 'input_grad', 'weight_grad'}
    traffic = {(launch.kernel, launch.where): bytes_ for launch, _, bytes_ in found}
    assert traffic['adam', 'D learns:'] == 8 * gan.D.parameters.nbytes
    assert traffic['normalise', 'D learns: D1 Conv2d forward'] == 2 * 2 * N * 7 * 7 * 4 * 4
    numbers = 2 * N * (28 * 28 + 14 * 14 * 2) + 4 * 4 * 2
    assert traffic['forward', 'D learns: D0 Conv2d forward'] == 4 * numbers


@needs_compiler
def test_where_updates_alternate_there_are_two_steps(setting, monkeypatch):
    monkeypatch.setitem(RECIPES, 'tiny', RECIPES['tiny']._replace(order='alternate'))
    monkeypatch.setattr(gpu_account, 'time_launches', lambda captured, launches, xp: [2.0] * len(launches))
    monkeypatch.setattr(gpu_account, 'matmul_rate', lambda setting: 1e12)
    monkeypatch.setattr(gpu_account, 'copy_rate', lambda setting: 1e9)
    totals, rows = gpu_account.account(setting, 0.5)
    assert [row['kernel'] for row in rows].count('noise') == 2
    assert totals['launches'] == len(rows) // 2
    assert totals['kernels_ms'] == pytest.approx(len(rows) / 1e3) and totals['step_ms'] == 0.5
    assert totals['floor_ms']['flop'] == round(sum(row['flop'] for row in rows) / 2 / 1e9, 4)
    errors = gpu.errors_of_a_step(setting, 'fp32')
    assert errors.keys() == {'D', 'G'} and max(errors.values()) < 1e-5


def test_the_account_knows_every_pointwise_kernel():
    assert {name for name, _ in gpu_account.KERNEL.findall(source('pointwise'))} == set(gpu_account.BYTES)
    assert gpu_account.parameters('pointwise', 'noise') == ['z', 'n', 'step', 'seed_low', 'seed_high']
    assert gpu_account.parameters('conv', 'weight_grad')[:4] == ['x', 'dy', 'dw', 'N']


@needs_compiler
def test_timing_the_launches_leaves_training_as_it_was(setting, monkeypatch):
    monkeypatch.setattr(gpu_account, 'REPEATS', 3)
    monkeypatch.setattr(gpu_account, 'elapsed', lambda xp, stream, work: work() or 6.0)
    captured, launches = gpu_account.record(setting)
    before = captured.state()
    chosen = [launch for launch in launches if launch.kernel in ('adam', 'generator_loss', 'normalise')]
    assert list(gpu_account.time_launches(captured, chosen, fake_cupy)) == [2000.0] * len(chosen)
    after = captured.state()
    for name in before:
        np.testing.assert_array_equal(after[name], before[name], name)


# The checks -------------------------------------------------------------------------------------------------

def test_a_failed_check_is_told_and_remembered(monkeypatch, capsys):
    def checks(setting):
        yield True, 'one'
        yield False, 'two'
        raise RuntimeError('three')
    monkeypatch.setattr(gpu, 'checks', checks)
    assert not gpu.print_checks(None)
    assert capsys.readouterr().out.splitlines() == ['PASS one', 'FAIL two', 'FAIL RuntimeError: three']


@needs_compiler
def test_a_wrong_kernel_does_not_pass(setting, monkeypatch):
    monkeypatch.setattr(gpu, 'CHECKED_STEPS', 2)
    channels = Device.channels
    monkeypatch.setattr(Device, 'channels', lambda self, kernel, *arguments: (
        None if kernel == 'sums_of_parts' else channels(self, kernel, *arguments)))
    passed = [good for (good, _), _ in zip(gpu.checks(setting), ('replays', 'tf32'))]
    assert passed == [True, False]
    monkeypatch.setattr(gpu, 'errors_of_a_step', lambda setting, precision: {'D': 0.0, 'G': float('nan')})
    assert [good for good, _ in gpu.checks(setting)][1:] == [False, False, False]


# Measuring --------------------------------------------------------------------------------------------------

def test_parties_take_turns_and_one_that_fails_leaves_the_others():
    turns = []

    def party(name, *answers):
        answers = iter(answers)

        def block(steps):
            turns.append(name)
            if (answer := next(answers)) is None:
                raise torch_process.Failed('it broke')
            return answer
        return block
    blocks = {'ours': party('ours', 1, 2, 4), 'quick': party('quick', 3, 2, 20),
              'broken': party('broken', 1, None), 'absent': {'failed': 'never there'}}
    times = gpu.measure(blocks, 3)
    assert turns == ['ours', 'quick', 'broken', 'ours', 'quick', 'broken', 'ours', 'quick']
    assert times['broken'] == {'failed': 'it broke'} and times['absent'] == {'failed': 'never there'}
    assert gpu.summary(times['quick'], times['ours']) == {'median': 3, 'min': 2, 'max': 20, 'times_ours': 3}


@needs_compiler
def test_the_whole_benchmark_on_the_stand_in(setting, images, monkeypatch, capsys, tmp_path):
    small = {gpu: {'STEPS': 1, 'LAYER_STEPS': 1, 'LEAD': 0, 'WARM_UP': 3, 'CHECKED_STEPS': 3},
             gpu_account: {'REPEATS': 1, 'PRODUCT': 8, 'COPY': 64}}
    for module, values in small.items():
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)

    def elapsed(xp, stream, work):
        start = time.perf_counter()
        work()
        return (time.perf_counter() - start) * 1e3
    time_launches = gpu_account.time_launches

    def time_some(captured, launches, xp):        # each costs the stand-in a whole step
        return [*time_launches(captured, launches[:5], xp), *[2.0] * len(launches[5:])]
    for module in gpu, gpu_account:
        monkeypatch.setattr(module, 'elapsed', elapsed)
    monkeypatch.setattr(gpu_account, 'time_launches', time_some)
    monkeypatch.setattr(gpu_account, 'products_in', lambda precision: None)
    monkeypatch.setattr(gpu, 'dataset', lambda recipe, download: images)
    monkeypatch.setattr(gpu, 'setup_times', lambda setting: {'empty cache': {'import': 1.0}})
    monkeypatch.setattr(gpu, 'ten_epochs', lambda setting: json.loads(file.read_text())[setting.precision])   # it is saved by then
    monkeypatch.setattr(fake_cupy.cuda.runtime, 'runtimeGetVersion', lambda: 13020, raising=False)
    monkeypatch.setattr(torch_process.importlib.util, 'find_spec', lambda name: None)
    monkeypatch.setenv('TINYGAN_COMMIT', 'abc1234')
    file = tmp_path / 'new' / 'gpu.json'
    arguments = ['--recipe', 'tiny', '--batch-size', str(N), '--quick', '--out', str(file)]
    assert gpu.main(arguments) == 0
    out = capsys.readouterr().out
    assert out.count('PASS') == 4 and 'FAIL' not in out and 'ours alone' in out
    assert len(out.splitlines()) <= 42 - 4                  # with PyTorch compiled there are four more
    result = json.loads(file.read_text())
    assert not list(file.parent.glob('*.part'))
    measured = result['provenance']
    assert measured['commit'] == 'abc1234' and measured['versions']['cuda'] == '13.2' and 'setup_s' in result
    assert {'cupy', 'driver', 'torch'} < measured['versions'].keys()
    asked = {'recipe': 'tiny', 'batch_size': N, 'precision': 'tf32', 'runs': 3, 'checks': 'passed'}
    assert {key: result[key] for key in asked} == asked
    assert measured['command'].startswith('python benchmarks/gpu.py --recipe tiny')
    assert list(result['ms_per_step']) == ['tf32', 'bf16', 'fp32'] and result['ms_per_step']['tf32']['times_ours'] == 1
    for row in *result['ms_per_step'].values(), result['eager_layers_ms']:
        assert 0 < row['min'] <= row['median'] <= row['max']
    variants = 'graph tf32', 'graph bf16', 'eager tf32', 'eager bf16'
    assert result['pytorch_ms'] == dict.fromkeys(variants, {'failed': 'PyTorch is not installed'})
    assert result['ten_epochs_s'] == {precision: {'failed': f"KeyError: '{precision}'"} for precision in ('tf32', 'bf16')}
    totals, rows = result['totals'], result['account']
    assert totals['launches'] == len(rows) and totals['flop'] == sum(row['flop'] for row in rows)
    assert totals['step_ms'] == result['ms_per_step']['tf32']['median']
    floor = totals['floor_ms']
    assert floor['launch by launch'] >= max(floor['flop'], floor['bytes']) > 0
    assert all(row.keys() == {'kernel', 'where', 'grid', 'block', 'us', 'flop', 'bytes', 'share_of_matmul'}
               for row in rows)


def test_ten_epochs_are_those_of_the_real_training_loop(images):
    setting = gpu.Setting('dcgan', images, 4, 'fp32', None)
    times = gpu_waits.ten_epochs(setting, '--device', 'cpu', '--data', 'digits', '--max-steps', '2')
    assert times['steps'] == 2
    assert min(times['start'], times['end']) > 0
    assert times['total'] == pytest.approx(times['start'] + times['training'] + times['end'], abs=0.03)


def test_a_process_that_fails_gives_its_last_line(images, no_cupy):
    setting = gpu.Setting('dcgan', images, 4, 'fp32', None)
    with pytest.raises(torch_process.Failed, match='^train_mnist.py: error: --device gpu: CuPy is not installed'):
        gpu_waits.ten_epochs(setting)
    with pytest.raises(torch_process.Failed, match=r"^ModuleNotFoundError: No module named 'cupy'$"):
        gpu_waits.setup_times(setting)


# PyTorch ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('compiled', [False, True])
@pytest.mark.parametrize('precision, limits', [('tf32', (1e-5, 1e-2, 1e-6)), ('bf16', (2e-1, 4e-1, 1e-2))])
def test_a_step_of_pytorch_is_our_step(precision, limits, compiled, tiny, images, monkeypatch):
    torch = pytest.importorskip('torch')
    monkeypatch.setattr(torch, 'compile', lambda function, fullgraph: function)          # as it is before it is translated
    gan, x = make_gan(tiny), data.normalise(images.images[10:26], np)
    z = np.random.default_rng(1).standard_normal((16, tiny.z_dim), np.float32)
    theirs = torch_gpu.Training(tiny, images.images, 16, precision, 'cpu')
    if compiled:
        theirs.compile()
    theirs.index.copy_(torch.arange(10, 26))
    theirs.noise = lambda: torch.from_numpy(z)
    before = {name: getattr(gan, name).parameters.copy() for name in 'GD'}
    theirs.play()
    gan.step(x, z)
    for name in 'GD':
        ours, network, optim = (getattr(*which) for which in (
            (gan, name), (theirs, name), (theirs, f'optim_{name}')))
        parameters = list(network.parameters())
        gradients = [optim.state[parameter]['exp_avg'] / (1 - tiny.beta1) for parameter in parameters]
        statistics = [buffer for key, buffer in network.named_buffers() if 'running' in key]
        distances = (distance(gradients, ours.gradients), distance(parameters, ours.parameters, before[name]),
                     distance(statistics, ours.statistics))
        assert all(map(operator.lt, distances, limits))
        settings = [optim.param_groups[0][key] for key in ('lr', 'betas', 'eps')]
        assert settings == [tiny.lr, (tiny.beta1, tiny.beta2), 1e-8]
        assert all(parameter.grad is None and parameter.requires_grad for parameter in parameters)


def distance(theirs, ours, start=0):
    """|theirs - ours| / |ours - start| of a whole vector; a weight of theirs has the kernel's axes last."""
    arrays = [tensor.detach().numpy() for tensor in theirs]
    flat = np.concatenate([(a.transpose(2, 3, 1, 0) if a.ndim == 4 else a).ravel() for a in arrays])
    return np.linalg.norm(flat - ours) / np.linalg.norm(ours - start)


def test_pytorch_goes_through_the_images_of_an_epoch_once(tiny, images):
    torch = pytest.importorskip('torch')
    training = torch_gpu.Training(tiny, images.images, 8, 'tf32', 'cpu')
    for _ in range(2):
        seen = []
        for _ in range(5):
            training.choose_minibatch()
            seen += training.index.tolist()
        assert sorted(seen) == list(range(40))
    with torch.no_grad():
        for parameter in training.G.parameters():
            parameter.fill_(float('nan'))
    with pytest.raises(RuntimeError, match='does not train'):
        training.check()


@pytest.mark.parametrize('name, what', [('lsgan', 'loss'), ('fast', 'penalty, lr_d, average'), ('vae', 'game, loss'),
                                        ('wgan_gp', 'loss, penalty, critic_steps'), ('lsgan64', 'loss, order, D_rests_at'),
                                        ('conditional', 'game, lr_d, instance_noise, average')])
def test_what_pytorch_is_not_told_is_refused(name, what, images):
    pytest.importorskip('torch')
    with pytest.raises(NotImplementedError, match=f'^only for recipes that leave {what} as in dcgan$'):
        torch_gpu.Training(RECIPES[name], images.images, 8, 'tf32', 'cpu')


@pytest.mark.parametrize('name', ['dcgan', 'dcgan64'])
def test_the_layer_that_is_written_as_a_product_is_the_same(name, monkeypatch):
    torch = pytest.importorskip('torch')
    monkeypatch.setattr(torch, 'compile', lambda function, fullgraph: function)
    training = torch_gpu.Training(RECIPES[name], np.zeros((8, 1, 1, 1), np.uint8), 8, 'tf32', 'cpu')
    assert (training.G[1].bias is None) == (name == 'dcgan')
    torch.manual_seed(0)
    z = training.noise()
    with torch.no_grad():
        if name == 'dcgan64':
            training.G[1].bias.normal_()
        expected = training.G(z)
        training.compile()
        training.G[1].forward = None              # which is not asked any more
        assert torch.allclose(training.generate(z), expected, atol=1e-5)


def test_a_variant_is_prepared_and_timed(tiny, images, monkeypatch):
    pytest.importorskip('torch')
    monkeypatch.setattr(torch_gpu, 'dataset', lambda recipe, download: images)
    monkeypatch.setattr(torch_gpu, 'WARM_UP', 2)
    training = torch_gpu.load('eager', 'bf16', tiny, 8, 'cpu')
    torch_gpu.prepare(training, 'eager')
    assert training.number == 2 + 3
    assert torch_gpu.milliseconds(training.step, 2, 'cpu') > 0
    assert training.number == 2 + 3 + torch_gpu.LEAD + 2


@pytest.mark.parametrize('deed, replies', [
    ('None', [{'ready': True}, {'ms': 0.5}, {'failed': 'ZeroDivisionError: division by zero'}]),
    ('None.G', [{'failed': "AttributeError: 'NoneType' object has no attribute 'G'"}])])
def test_a_variant_answers_in_lines_of_json(deed, replies):
    code = f'''import sys, types
sys.path.insert(0, {str(ROOT / 'benchmarks')!r})
import torch_gpu
def load(*arguments):
    print('not a reply')
    return types.SimpleNamespace(step=0)
torch_gpu.load, torch_gpu.prepare = load, lambda training, variant: {deed}
torch_gpu.milliseconds = lambda step, steps, device: 1 / steps
torch_gpu.main('eager', 'tf32', 'dcgan', '4')
'''
    done = subprocess.run([sys.executable, '-c', code], input='now\n2\n0\n3\n', capture_output=True, text=True)
    assert list(map(json.loads, done.stdout.splitlines())) == replies
    assert 'not a reply' in done.stderr and done.returncode == 1


REPLIES = {                                       # what a process does, and what is then said of it
    'print(1 / 0)': 'it ended: ZeroDivisionError: division by zero',
    'print(json.dumps({"failed": "no such kernel"}))': 'no such kernel',
    'time.sleep(60)': 'not ready in time'}


@pytest.mark.parametrize('deed', REPLIES)
def test_a_process_of_pytorch_that_never_gets_ready(deed, tmp_path, monkeypatch):
    with doing(deed, tmp_path, monkeypatch, 0.3 if 'sleep' in deed else 30) as variants:
        assert variants.blocks()['graph bf16'] == {'failed': REPLIES[deed]}
        assert all(process.process.poll() is not None for process in variants.processes.values())


def test_a_process_of_pytorch_is_asked_for_blocks(tmp_path, monkeypatch):
    deed = 'sys.stdin.readline()\nprint(json.dumps({"ready": True}), flush=True)\nfor line in sys.stdin:\n' \
           '    print(json.dumps({"ms": 1 / (int(line) - 1)}), flush=True)'
    with doing(deed, tmp_path, monkeypatch) as variants:
        blocks = variants.blocks()
        assert list(blocks) == ['graph tf32', 'graph bf16', 'eager tf32', 'eager bf16']
        assert blocks['eager bf16'](3) == blocks['graph tf32'](3) == 0.5
        with pytest.raises(torch_process.Failed, match='it ended: ZeroDivisionError'):
            blocks['graph tf32'](1)
        assert blocks['eager tf32'](2) == 1
    assert all(process.process.poll() is not None for process in variants.processes.values())


def doing(deed, folder, monkeypatch, seconds=30):
    """Variants whose processes do that, and have so many seconds to get ready."""
    script = folder / 'torch_gpu.py'
    script.write_text(f'import json, sys, time\n{deed}\n')
    monkeypatch.setattr(torch_process, 'SCRIPT', script)
    monkeypatch.setattr(torch_process.importlib.util, 'find_spec', lambda name: True)
    return torch_process.Variants(True, seconds, 'dcgan', 4)
