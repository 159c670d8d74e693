"""Launches that overlap: what reaches CUDA's driver, and which kernels of a step they are."""
import ctypes
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cuda_on_host
import fake_cupy
import numpy as np
import pytest
from test_cuda import captured_gan, needs_compiler

from tinygan.engines.cuda import device as gpu, launch
from tinygan.recipes import RECIPES
from tinygan.run.device import select_device

# cuda.h's types as its documentation lists them, and a driver that adds what it is asked for to `seen`
DRIVER = '''
#include <cstring>
struct Attribute { int id; char pad[8 - sizeof(int)]; union { char pad[64]; int allowed; } value; };
struct Config {
    unsigned grid_x, grid_y, grid_z, block_x, block_y, block_z, shared;
    void* stream;
    Attribute* attributes;
    unsigned count;
};
extern "C" double seen[16];
double seen[16];
extern "C" int cuLaunchKernelEx(const Config* c, void* function, void** arguments, void** extra) {
    double a[] = {(double)c->grid_x, (double)c->grid_y, (double)c->grid_z, (double)c->block_x, (double)c->block_y,
                  (double)c->block_z, (double)c->shared, (double)(size_t)c->stream, (double)c->count, (double)c->attributes->id,
                  (double)c->attributes->value.allowed, (double)(size_t)function, (double)*(size_t*)arguments[0],
                  (double)*(int*)arguments[1], (double)*(float*)arguments[2], *(double*)arguments[3]};
    memcpy(seen, a, sizeof a);
    return extra ? -1 : c->grid_x == 13 ? 700 : 0;
}'''


@needs_compiler
def test_the_driver_is_asked_in_its_own_words(tmp_path, monkeypatch):
    (tmp_path / 'driver.cpp').write_text(DRIVER)
    subprocess.run([cuda_on_host.COMPILER, '-shared', '-fPIC', '-o', tmp_path / 'driver.so', tmp_path / 'driver.cpp'], check=True)
    library = ctypes.CDLL(str(tmp_path / 'driver.so'))
    monkeypatch.setattr(launch, 'driver', lambda: library)
    arguments = 2**40 + 8, np.int32(-5), np.float32(0.5), np.float64(0.1)
    launch.launch_overlapping(2**41, (7, 6), (64, 2, 3), arguments, 2**42)
    seen = (ctypes.c_double * 16).in_dll(library, 'seen')
    assert list(seen) == [7, 6, 1, 64, 2, 3, 0, 2**42, 1, 6, 1, 2**41, 2**40 + 8, -5, 0.5, 0.1]
    with pytest.raises(RuntimeError, match='error 700 '):
        launch.launch_overlapping(2**41, (13,), (1,), arguments, 2**42)


def test_every_kernel_waits_for_the_one_before_it_first():
    sources = [path.read_text() for path in Path(gpu.__file__).parent.glob('*.cu')]
    kernels = [kernel for text in sources for kernel in re.findall(r'extern "C" __global__[^{]*\{\n.*\n', text)]
    assert len(kernels) == sum(text.count('__global__') for text in sources) > 20
    assert all(kernel.endswith('{\n    begin();\n') for kernel in kernels)


@pytest.fixture
def hopper(monkeypatch):
    """The stand-in as a GPU that lets launches overlap. What happens in its streams goes into a list."""
    happened, asked, cuda, call = [], [], fake_cupy.cuda, cuda_on_host.RawKernel.__call__

    def note(what, stream):
        happened.append((stream, what))

    def in_turn(kernel, grid, block, arguments):
        note('in turn', cuda.get_current_stream().ptr)
        call(kernel, grid, block, arguments)

    def overlapping(function, grid, block, arguments, stream):
        kernel, given = asked.pop()
        assert (function, stream) == (id(kernel), cuda.get_current_stream().ptr)
        assert arguments == [argument.data.ptr if isinstance(argument, fake_cupy.ndarray) else argument for argument in given]
        note('overlapping', stream)
        call(kernel, grid, block, given)

    def launch(device, kernel, grid, block, arguments, launch=gpu.Device.launch):
        asked.append((kernel, arguments))
        launch(device, kernel, grid, block, arguments)
    monkeypatch.setitem(sys.modules, 'cupy', fake_cupy)
    monkeypatch.setattr(gpu, 'SHARES', 2**16)
    monkeypatch.setattr(cuda.Device, 'compute_capability', '90')
    monkeypatch.setattr(cuda_on_host.RawKernel, 'kernel', property(lambda self: SimpleNamespace(ptr=id(self))), raising=False)
    monkeypatch.setattr(cuda_on_host.RawKernel, '__call__', in_turn)
    monkeypatch.setattr(gpu, 'launch_overlapping', overlapping)
    monkeypatch.setattr(gpu.Device, 'launch', launch)
    wait = cuda.Stream.wait_event
    monkeypatch.setattr(cuda.Stream, 'wait_event', lambda self, event: note('wait', self.ptr) or wait(self, event))
    return happened


@needs_compiler
@pytest.mark.parametrize('name', ['dcgan', 'wgan_gp', 'conditional'])
def test_all_but_the_first_kernels_after_a_wait_for_another_stream_overlap(hopper, name):
    captured = captured_gan(fake_cupy, RECIPES[name], precision='bf16')
    for _ in 1, 2:
        hopper.clear()
        with captured.stream:
            captured.play('DG')
        waited, overlapping = dict.fromkeys({stream for stream, _ in hopper}, True), 0
        for stream, what in hopper:
            if what != 'wait':
                assert what == ('in turn' if waited[stream] else 'overlapping')
                overlapping += what == 'overlapping'
            waited[stream] = what == 'wait'
        assert overlapping > len(hopper) / 2


@needs_compiler
def test_a_step_of_launches_that_overlap_is_the_same(hopper, monkeypatch):
    overlapping = captured_gan(fake_cupy, RECIPES['dcgan'], precision='bf16')
    monkeypatch.setattr(fake_cupy.cuda.Device, 'compute_capability', '89')
    in_turn = captured_gan(fake_cupy, RECIPES['dcgan'], precision='bf16')
    states = []
    for captured in overlapping, in_turn:
        hopper.clear()
        for number in 1, 2:                       # kernel by kernel, captured
            captured.step(number)
        assert ('overlapping' in dict(map(reversed, hopper))) == (captured is overlapping)
        states.append(captured.state())
    for name, array in states[0].items():
        np.testing.assert_array_equal(array, states[1][name], name)


def test_only_hopper_under_a_driver_of_today_is_asked(monkeypatch):
    def asked(capability='90', driver=12030, platform='linux'):
        monkeypatch.setattr(fake_cupy.cuda.Device, 'compute_capability', capability)
        monkeypatch.setattr(fake_cupy.cuda.runtime, 'driverGetVersion', lambda: driver)
        monkeypatch.setattr(sys, 'platform', platform)
        return launch.can_overlap(fake_cupy)
    assert asked() and not (asked('89') or asked('120') or asked(driver=12020) or asked(platform='win32'))


@pytest.mark.gpu
def test_a_step_on_a_gpu_overlaps_where_it_can(monkeypatch):
    xp, line = select_device('auto')
    if xp is np or not launch.can_overlap(xp):
        pytest.skip(f'no launches overlap here: {line}')
    launches = []
    monkeypatch.setattr(gpu, 'launch_overlapping', lambda *arguments: launches.append(launch.launch_overlapping(*arguments)))
    captured_gan(xp, RECIPES['dcgan'], precision='bf16').step(1)
    assert len(launches) > 25
