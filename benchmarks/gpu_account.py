"""An account of a captured step: what each of its kernels does, how long it takes alone, and how long it would have to.

Used by gpu.py. A launch is recorded with its arguments, then timed as one of many of its kind in a graph; so the times
hold the gaps between a graph's kernels. FLOP are those of the products, bytes those that cannot be avoided: each number
read or written once.
"""
import contextlib
import re
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from tinygan.engines.cuda.device import Device, source
from tinygan.engines.cuda.step import turns_of

REPEATS = 50                        # of each kernel, when it is timed alone
PRODUCT, COPY = 8192, 2**30         # a square matrix and bytes, so many that they show the GPU's rates


def repeat(function, times):
    for _ in range(times):
        function()


def elapsed(xp, stream, work):
    """Milliseconds that the GPU takes for what work() gives it to do on the stream."""
    start, end = xp.cuda.Event(), xp.cuda.Event()
    start.record(stream)
    work()
    end.record(stream)
    end.synchronize()
    return xp.cuda.get_elapsed_time(start, end)


def numbers_of(gan):
    """The first steps, until both networks have been updated."""
    return (1, 2) if gan.order == 'alternate' else tuple(range(1, gan.critic_steps + 1))


def play(captured, number):
    """A step kernel by kernel, without a graph."""
    captured.feed(number)
    with captured.stream:
        captured.play(turns_of(captured.gan, number))


@dataclass
class Launch:
    """One launch of a kernel in a .cu file, compiled for `sizes`; `where` says for what in the step."""
    run: object
    file: str
    sizes: dict
    kernel: str
    grid: tuple
    block: tuple
    arguments: tuple
    number_bytes: int
    where: str = ''

    def again(self):
        self.run(self.kernel, self.grid, self.block, *self.arguments)


@contextlib.contextmanager
def recording():
    """A list that gets every launch, now and later, of the kernels compiled in the meantime."""
    launches, compile = [], Device.compile

    def recorded(device, file, **sizes):
        run = compile(device, file, **sizes)

        def launch(kernel, grid, block, *arguments):
            launches.append(Launch(run, file, sizes, kernel, grid, block, arguments, np.dtype(device.number).itemsize))
            launches[-1].again()
        return launch
    Device.compile = recorded
    try:
        yield launches
    finally:
        Device.compile = compile


def name_places(captured, launches):
    """From now on, launches say which update, network and stage they belong to."""
    def name(owner, method, what):
        function = getattr(owner, method)

        def named(*arguments, **keywords):
            start = len(launches)
            function(*arguments, **keywords)
            for launch in launches[start:]:
                launch.where = f'{what} {launch.where}'.strip()
        setattr(owner, method, named)
    for net in 'DG':
        name(captured, f'update_{net}', f'{net} learns:')
        for i, stage in enumerate(getattr(captured, net).stages):
            layer = type(getattr(stage, 'layer', stage)).__name__
            for method in 'forward', 'backward':
                name(stage, method, f'{net}{i} {layer} {method}')


def record(setting):
    """(captured, the launches of its step): where updates alternate, of two steps."""
    with recording() as launches:
        captured = setting.captured()
    launches.clear()                              # those of its making
    name_places(captured, launches)
    for number in numbers_of(captured.gan):
        play(captured, number)
    return captured, launches[:]


KERNEL = re.compile(r'__global__ void (?:__launch_bounds__\([^()]*\) )?(\w+)\(([^()]*)\)')
BYTES = {                           # that a kernel reads and writes, by its parameters, its grid's last side, and a Number's size
    'noise': lambda a: a.size * a.n,
    'add_noise': lambda a: 2 * a.size * a.n,
    'minibatch': lambda a: (1 + a.size) * a.N * a.numbers,
    'statistics': lambda a: 8 * a.count * a.C * a.groups,
    'sums_of_parts': lambda a: 8 * a.count * a.C * a.groups,
    'add_slices': lambda a: 4 * a.n * (a.slices + 1),
    'normalise': lambda a: 2 * a.size * a.rows * a.C * a.groups,
    'normalise_grad': lambda a: 3 * a.size * a.rows * a.C * a.groups,
    'activation_sums': lambda a: 3 * a.size * a.rows * a.C * a.groups,
    'join_planes': lambda a: a.size * (a.n - a.n * a.classes // (a.C + a.classes) + a.n),
    'cut_planes': lambda a: 2 * a.size * a.n,
    'put_labels': lambda a: a.size * a.N * a.classes,
    'between': lambda a: 3 * a.size * a.n,
    'penalty': lambda a: 2 * a.size * a.numbers * a.groups,
    'pool': lambda a: a.size * (a.pixels + 1) * a.n,
    'pool_grad': lambda a: a.size * (a.n + a.n // a.pixels),
    'discriminator_loss': lambda a: 4 * a.size * a.N,
    'generator_loss': lambda a: 2 * a.size * a.N,
    'adam': lambda a: (28 + a.size) * a.n,
    'convert': lambda a: (4 + a.size) * a.n,
    'follow': lambda a: 12 * a.n}


def parameters(file, kernel):
    """The names of a kernel's parameters."""
    return re.findall(r'(\w+)\s*(?:,|$)', dict(KERNEL.findall(source(file)))[kernel])


def work(launch):
    """(FLOP of its product, bytes) that it cannot do without: each number is read or written once. The bytes
    are None for a kernel that BYTES does not know."""
    a = SimpleNamespace(groups=launch.grid[-1], size=launch.number_bytes, **launch.sizes)
    vars(a).update(zip(parameters(launch.file, launch.kernel), launch.arguments, strict=False))
    a.N = getattr(a, 'N', launch.grid[0])         # score has a block for each image
    if launch.sizes:
        y = a.N * a.OH * a.OW * a.F
        x, w, out = a.N * a.H * a.W * a.C, a.K * a.K * a.C * a.F, {'input_grad': a.N * a.H * a.W * a.C}.get(launch.kernel, y)
        also_read = getattr(a, 'kind', 0)         # BACKWARD reads y of the stage below, BACKWARD_NORM what BatchNorm was given, too
        return 2 * y * a.K * a.K * a.C, a.size * (x + w + y + also_read * out)
    return 0, BYTES[launch.kernel](a) if launch.kernel in BYTES else None


def time_launches(captured, launches, xp):
    """Microseconds of each, as one of many of its kind in a graph. Before it, parameters and counters are as
    they were, and all arrays hold the numbers of a step, whatever the last has made of them."""
    vectors = *captured.gan.vectors().values(), captured.counts
    kept = [vector.copy() for vector in vectors]
    for launch in launches:
        for number in numbers_of(captured.gan):
            play(captured, number)
        yield time_alone(launch, captured.stream, xp)
        for vector, copy in zip(vectors, kept):
            vector[...] = copy


def time_alone(launch, stream, xp):
    with stream:
        stream.begin_capture()
        try:
            repeat(launch.again, REPEATS)
        finally:
            graph = stream.end_capture()
        graph.launch()
        times = [elapsed(xp, stream, graph.launch) for _ in range(5)]
    return 1e3 * float(np.median(times)) / REPEATS


def matmul_rate(setting):
    """FLOP a second of a large product, in the precision of ours; CuPy has none in bfloat16, and TF32's stands in."""
    xp, n = setting.xp, PRODUCT
    a = xp.asarray(np.random.default_rng(0).standard_normal((n, n), np.float32))
    out = xp.empty((n, n), np.float32)
    products_in('fp32' if setting.precision == 'fp32' else 'tf32')
    try:
        return 2 * n**3 / fastest(xp, lambda: xp.matmul(a, a, out=out))
    finally:
        products_in('fp32')


def products_in(precision):
    """CuPy's switch for cuBLAS: but for a variable of the environment, read once, it has no public one."""
    from cupy._core import _routines_linalg as linalg
    kinds = {'tf32': linalg.COMPUTE_TYPE_TF32, 'fp32': linalg.COMPUTE_TYPE_DEFAULT}
    linalg.set_compute_type(np.float32, kinds[precision])


def copy_rate(setting):
    """Bytes a second that a large copy reads and writes."""
    a, b = (setting.xp.zeros(COPY // 4, np.float32) for _ in range(2))

    def copy():
        b[...] = a
    return 2 * COPY / fastest(setting.xp, copy)


def fastest(xp, work):
    """Seconds of the fastest of several."""
    repeat(work, 3)
    stream = xp.cuda.get_current_stream()
    return min(elapsed(xp, stream, lambda: repeat(work, 10)) for _ in range(5)) / 10 / 1e3


def account(setting, step_ms):
    """({name: total of a step}, [what each launch does, and its time])."""
    captured, launches = record(setting)
    matmul, copy = matmul_rate(setting), copy_rate(setting)
    rows, steps = [], len(numbers_of(captured.gan))
    for launch, us in zip(launches, time_launches(captured, launches, setting.xp)):
        flop, traffic = work(launch)
        rows.append({'kernel': launch.kernel, 'where': launch.where or 'input', 'grid': launch.grid,
                     'block': launch.block, 'us': round(us, 2), 'flop': flop, 'bytes': traffic,
                     'share_of_matmul': round(flop / us * 1e6 / matmul, 4)})
    flop, traffic, us = (sum(row[key] or 0 for row in rows) / steps for key in ('flop', 'bytes', 'us'))
    each = sum(max(row['flop'] / matmul, (row['bytes'] or 0) / copy) for row in rows) / steps
    floor = {'flop': flop / matmul, 'bytes': traffic / copy, 'launch by launch': each}
    return {'launches': len(rows) // steps, 'flop': flop, 'bytes': traffic, 'kernels_ms': round(us / 1e3, 4),
            'step_ms': step_ms, 'matmul_flop_s': matmul, 'copy_bytes_s': copy,
            'floor_ms': {name: round(s * 1e3, 4) for name, s in floor.items()}}, rows
