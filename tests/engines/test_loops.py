"""loops.c and toomcook.c against what NumPy computes in float64, and when they are used."""
import platform
import shutil
import subprocess
from functools import partial

import numpy as np
import pytest

from tinygan.engines import convert, loops, patches
from tinygan.engines.toomcook import Plan
from tinygan.errors import UserError
from tinygan.layers import BatchNorm2d, Conv2d, LeakyReLU, ReLU
from tinygan.network import Sequential
from tinygan.recipes import RECIPES, make_gan

needs_compiler = pytest.mark.skipif(shutil.which('cc') is None, reason='no C compiler')
MARGIN = 64                         # numbers before and behind each array that nobody must read or write
#           (N, H, W, C): one and many vectors of channels, blocks of them, and rows
SHAPES = [(1, 1, 1, 16), (5, 3, 2, 16), (9, 4, 5, 48), (3, 7, 7, 64), (2, 3, 3, 272), (65, 528)]
#            K, S, P and the size of the output: points and tiles with and without a loop of their own
SETTINGS = [(4, 2, 1, 7), (4, 2, 1, 14), (4, 2, 1, 4), (4, 2, 1, 8), (4, 2, 1, 16), (4, 2, 1, 5), (3, 1, 1, 9), (2, 1, 0, 11),
            (4, 1, 3, 6), (6, 2, 2, 6), (6, 3, 0, 5)]


@pytest.fixture(autouse=True)
def fresh():
    yield
    loops.library.cache_clear()


@pytest.fixture
def guarded(monkeypatch):
    """The functions in C that are called. Arrays that they get lie between NaN, and afterwards it must still be there."""
    lent, called = [], set()

    def guard(array):
        room = np.full(array.size + 2 * MARGIN, True, array.dtype)
        if array.dtype == np.float32:
            room.view(np.uint32)[...] = 0x7fc00000 + len(lent)                # no array has the NaN of another
        inner = room[MARGIN:-MARGIN]
        inner[...] = array.ravel()
        lent.append((room, room.copy(), array, inner))
        return inner

    class Guarded(loops.Library):
        def __getattr__(self, name):
            function = super().__getattr__(name)

            def call(*arguments):
                lent.clear()
                called.add(name)
                function(*(guard(a) if isinstance(a, np.ndarray) else a for a in arguments))
                for room, before, array, inner in lent:
                    for margin in slice(MARGIN), slice(-MARGIN, None):
                        assert room[margin].tobytes() == before[margin].tobytes(), name
                    array[...] = inner.reshape(array.shape)
            return call
    guarded = Guarded(loops.library()._library._name)
    monkeypatch.setattr(loops, 'library', lambda: guarded)
    return called


def close(ours, exact, limit=1e-6):
    for found, expected in zip(ours, exact, strict=True):
        assert found.shape == expected.shape
        assert found.dtype == np.float32 or found.dtype == bool
        np.testing.assert_allclose(found, expected, rtol=0, atol=limit * max(1, np.abs(expected).max()))


def in_float64(value):
    return value.astype(float) if isinstance(value, np.ndarray) and value.dtype == np.float32 else value


CALLS = {
    'channel_sum': lambda x, y, a, b, c: [loops.channel_sum(x, x.shape[-1])],
    'add_bias': lambda x, y, a, b, c: [loops.add_bias(x.copy(), a)],
    'centre': lambda x, y, a, b, c: loops.centre(x, a),
    'scale': lambda x, y, a, b, c: [loops.scale(x, a, b, c), x],              # which x is overwritten by
    'sum_and_dot': lambda x, y, a, b, c: loops.sum_and_dot(x, y, x.shape[-1]),
    'scale_grad': lambda x, y, a, b, c: [loops.scale_grad(x, y, a, b, c)],
    'leaky_relu': lambda x, y, a, b, c: loops.leaky_relu(x, 0.2),
    'relu': lambda x, y, a, b, c: loops.leaky_relu(x, 0),
    'leaky_relu_grad': lambda x, y, a, b, c: [loops.leaky_relu_grad(x, y > 0, 0.2)],
    'relu_grad': lambda x, y, a, b, c: [loops.leaky_relu_grad(x, y > 0, 0)]}


@needs_compiler
@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('name', CALLS)
def test_c_computes_what_numpy_does(rng, guarded, name, shape):
    arrays = [rng.standard_normal(size).astype('f') for size in (shape, shape, *[shape[-1]] * 3)]
    exact = CALLS[name](*map(in_float64, arrays))
    close(CALLS[name](*arrays), exact)
    assert guarded is None or guarded == {name.replace('relu', 'leaky_relu', 'leaky' not in name)}


@needs_compiler
@pytest.mark.parametrize('H, W, C, K, S, P', [(5, 7, 3, 4, 2, 1), (6, 6, 16, 3, 1, 1), (5, 5, 1, 5, 1, 0), (2, 3, 2, 3, 2, 4),
                                              (9, 5, 3, 2, 3, 0)])
def test_c_gathers_patches(rng, guarded, H, W, C, K, S, P):
    x = rng.standard_normal((3, H, W, C)).astype('f')
    cols, shape = patches.gather(x, K, S, P)
    expected, expected_shape = patches.gather(x.astype(float), K, S, P)
    assert shape == expected_shape
    np.testing.assert_array_equal(cols, expected)
    assert guarded == {'gather'}


@needs_compiler
@pytest.mark.parametrize('C, F', [(16, 16), (48, 32), (16, 112), (80, 96), (96, 272)])      # panels of all widths, and several
@pytest.mark.parametrize('K, S, N', [(4, 2, 1), (4, 2, 130), (6, 2, 2), (4, 1, 5), (2, 1, 8)])       # 4, 9, 16 taps; few and many rows
def test_c_multiplies_values_and_sums_the_gradient_of_w(rng, guarded, K, S, N, C, F):
    ours, exact = (Plan(K, S, 1, 5, np.dtype(dtype)) for dtype in ('f4', 'f8'))
    points, rows = exact.n ** 2, N * exact.T ** 2
    X, Y, w = (rng.standard_normal(shape).astype('f') for shape in ((points, rows, S * S * C), (points, rows, F), (K, K, C, F)))
    products = [exact.multiply(in_float64(X), in_float64(w)), exact.multiply(in_float64(Y), in_float64(w), transposed=True)]
    close([ours.multiply(X, w), ours.multiply(Y, w, transposed=True)], products, 2e-6)
    close([ours.to_weight(X, Y)], [exact.to_weight(in_float64(X), in_float64(Y))], 2e-6)
    assert guarded is None or guarded == {'to_panels', 'multiply', 'weight_grad'}


@needs_compiler
@pytest.mark.skipif(platform.machine() != 'x86_64', reason='its options are those of x86-64')
@pytest.mark.parametrize('without', ['-mno-avx512f', '-mno-avx'])
def test_processors_with_narrower_vectors_compute_the_same(rng, home, monkeypatch, without):
    monkeypatch.setattr(loops, 'OPTIONS', (*loops.OPTIONS, without))
    assert loops.library()
    for name in CALLS:
        test_c_computes_what_numpy_does(rng, None, name, (5, 3, 2, 48))
    for setting in SETTINGS[:2]:
        test_c_evaluates_and_interpolates(rng, None, setting, 80)
    test_c_multiplies_values_and_sums_the_gradient_of_w(rng, None, 4, 2, 9, 80, 48)


@needs_compiler
@pytest.mark.parametrize('C', [16, 80])
@pytest.mark.parametrize('setting', SETTINGS)
def test_c_evaluates_and_interpolates(rng, guarded, setting, C):
    """Whatever was in the memory before: images between others have pixels that belong to no tile, and tiles that overlap."""
    K, S, P, size = setting
    N, side = 3, S * (size - 1) + K - 2 * P + (S > 1)               # with a row that no patch reaches
    ours, exact = (Plan(K, S, P, size, np.dtype(dtype)) for dtype in ('f4', 'f8'))
    x, dy = (rng.standard_normal(shape).astype('f') for shape in ((N, side, side, C), (N, size, size, C)))
    X, Y = exact.of_images(x.astype(float)), exact.of_outputs(dy.astype(float))
    close([ours.of_images(x), ours.of_outputs(dy)], [X, Y])
    x_back, dy_back = exact.to_images(X, x.shape), exact.to_outputs(Y, N)
    close([ours.to_images(X.astype('f'), x.shape), ours.to_outputs(Y.astype('f'), N)], [x_back, dy_back], 5e-5)
    assert guarded is None or guarded == {'of_tiles', 'to_tiles'}


@needs_compiler
def test_sums_of_many_rows_keep_their_digits(guarded):
    x = np.full((4096, 16), 0.1, 'f')
    np.testing.assert_allclose(loops.channel_sum(x, 16), 4096 * np.float64(np.float32(0.1)), rtol=1e-6)
    np.testing.assert_allclose(loops.centre(x, np.zeros(16, 'f'))[1], 4096 * np.float64(np.float32(0.1))**2, rtol=1e-6)


@needs_compiler
def test_infinities_and_nan_go_through_as_with_numpy(guarded):
    x = np.array([[np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-45, -1e-45, 3e38] * 2], 'f')
    with np.errstate(invalid='ignore'):
        y, above = loops.leaky_relu(x, 0.2)
        np.testing.assert_array_equal(y, np.maximum(x, np.float32(0.2) * x))
        np.testing.assert_array_equal(above, x > 0)
    np.testing.assert_array_equal(loops.leaky_relu_grad(x, x > 0, 0.2), np.where(x > 0, x, np.float32(0.2) * x))


@needs_compiler
def test_only_arrays_that_c_reads_rightly_are_given_to_it(rng):
    x, b = rng.standard_normal((4, 3, 3, 32)).astype('f'), np.ones(32, 'f')
    assert loops.in_c(32, x, b, x)
    for C, *arrays in ((32, x.astype(float), b), (32, x, b.astype(float)), (24, x[..., :24].copy()), (32, x[:, ::2], b),
                       (32, x, b[::-1]), (32, x, x[:3].copy()), (32, np.asfortranarray(x)), (32, x.astype('>f4'))):
        assert loops.in_c(C, *arrays) is None
    dy, above = rng.standard_normal((2, 4, 16)).astype('f'), np.asfortranarray(rng.random((2, 4, 16)) < 0.5)
    np.testing.assert_array_equal(loops.leaky_relu_grad(dy, above, 0.25), np.where(above, dy, dy / 4))


@needs_compiler
def test_what_does_not_fit_together_is_left_to_numpy_which_says_so(rng):
    plan, w = Plan(4, 2, 1, 7, np.dtype('f')), rng.standard_normal((4, 4, 16, 32)).astype('f')
    X = plan.of_images(rng.standard_normal((9, 14, 14, 32)).astype('f'))
    Y = plan.of_outputs(rng.standard_normal((8, 7, 7, 32)).astype('f'))
    for wrong in (lambda: plan.multiply(X, w), lambda: plan.multiply(X, w, transposed=True), lambda: plan.to_weight(X, Y),
                  lambda: loops.leaky_relu_grad(X[..., :16].copy(), X > 0, 0.2),
                  lambda: plan.of_outputs(np.zeros((9, 6, 7, 32), 'f')), lambda: loops.sum_and_dot(X, X[:3].copy(), 128),
                  lambda: loops.scale_grad(X, X[:3].copy(), *3 * [w[0, 0, 0]])):
        with pytest.raises(ValueError):
            wrong()


@needs_compiler
@pytest.mark.parametrize('activation', [ReLU, partial(LeakyReLU, 0.2)])
def test_layers_in_float32_compute_what_the_core_s_do_in_float64(rng, guarded, activation):
    new = {'rng': np.random.default_rng(1)}
    core = Sequential(Conv2d(16, 32, 4, stride=2, padding=1, dtype=float, **new), BatchNorm2d(32, dtype=float, **new), activation(),
                      Conv2d(32, 16, 4, stride=2, padding=1, dtype=float, **new))
    ours = convert(Sequential(Conv2d(16, 32, 4, stride=2, padding=1), BatchNorm2d(32), activation(),
                              Conv2d(32, 16, 4, stride=2, padding=1)))
    ours.parameters[...] = core.parameters
    x, dy = (rng.standard_normal(shape).astype('f') for shape in ((24, 16, 16, 16), (24, 4, 4, 16)))
    exact = core(x.astype(float)), core.backward(dy.astype(float)), core.gradients
    close([ours(x), ours.backward(dy), ours.gradients], exact, 3e-5)
    close([ours.statistics], [core.statistics], 1e-5)


@needs_compiler
def test_sizes_may_be_numpy_s_integers(rng, guarded):
    x, sizes = rng.standard_normal((8, 14, 14, 16)).astype('f'), np.array([3, 1, 1, 16])
    np.testing.assert_array_equal(patches.gather(x, *sizes[:3])[0], patches.gather(x, 3, 1, 1)[0])
    np.testing.assert_array_equal(loops.channel_sum(x, sizes[3]), loops.channel_sum(x, 16))
    plans = [Plan(*settings, np.dtype('f')) for settings in ((4, 2, 1, 7), np.array([4, 2, 1, 7]))]
    np.testing.assert_array_equal(*(plan.of_images(x) for plan in plans))
    assert guarded == {'gather', 'channel_sum', 'of_tiles'}


@needs_compiler
def test_a_step_is_that_of_numpy_but_for_rounding(monkeypatch):
    metrics, recipe = [], RECIPES['fast']
    for library in loops.library, lambda: None:
        monkeypatch.setattr(loops, 'library', library)
        gan, rng = make_gan(recipe), np.random.default_rng(0)
        gan.G, gan.D = convert(gan.G), convert(gan.D)
        x, z = rng.uniform(-1, 1, (16, 28, 28, 1)).astype('f'), rng.standard_normal((2, 16, recipe.z_dim)).astype('f')
        metrics.append([float(value) for number in (1, 2) for value in gan.step(x, z[number - 1], number).values()])
    np.testing.assert_allclose(metrics[0], metrics[1], rtol=2e-4)
    assert metrics[0] != metrics[1], 'both were computed by the same loops'


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A cache of its own, for loops that are compiled quickly and run slowly."""
    monkeypatch.setattr(loops, 'OPTIONS', ('-O0', *loops.OPTIONS[1:]))
    monkeypatch.setattr(loops, 'cache_folder', lambda what: tmp_path / 'home' / what)
    loops.library.cache_clear()
    return tmp_path / 'home'


def kept_in(home, make=False):
    folder = home / 'c'
    if make:
        folder.mkdir(parents=True)
    return list(folder.iterdir())


def library_anew():
    loops.library.cache_clear()
    return loops.library()


@needs_compiler
def test_it_is_compiled_once_and_again_if_damaged_or_for_another_processor(home, tmp_path, monkeypatch):
    runs, run = [], subprocess.run
    monkeypatch.setattr(loops.subprocess, 'run', lambda command, **options: runs.append(command) or run(command, **options))
    assert library_anew() and library_anew() and len(runs) == len(kept_in(home)) == 1
    monkeypatch.setattr(loops, 'processor', lambda: 'another')
    assert library_anew() and len(runs) == len(kept_in(home)) == 2
    compiler = tmp_path / 'cc'
    compiler.symlink_to(shutil.which('cc'))
    monkeypatch.setattr(loops.shutil, 'which', lambda name: str(compiler))
    assert library_anew() and len(runs) == len(kept_in(home)) == 3

    another = tmp_path / 'another'
    monkeypatch.setattr(loops, 'cache_folder', lambda what: another / what)
    kept_in(another, make=True)
    for path in kept_in(home):
        (another / 'c' / path.name).write_bytes(path.read_bytes()[:1000])
    assert library_anew() and len(runs) == 4


@needs_compiler
def test_it_is_compiled_when_a_network_is_converted_before_there_are_threads_or_lanes(home):
    convert(ReLU())
    assert kept_in(home)


def no_home(what):
    raise UserError('the folder belongs to somebody else')


@pytest.mark.parametrize('what', ['no compiler', 'a compiler that fails', 'one that hangs', 'no home', 'a home that is a file'])
def test_without_a_compiler_or_a_home_there_is_numpy(rng, home, tmp_path, monkeypatch, what):
    compiler = tmp_path / 'cc'
    compiler.write_text('#!/bin/sh\nexit 1\n' if 'fails' in what else '#!/bin/sh\nexec sleep 20\n')
    compiler.chmod(0o755)
    if what == 'no compiler':
        monkeypatch.setattr(loops.shutil, 'which', lambda name: None)
    elif 'compiler' in what or 'hangs' in what:
        monkeypatch.setattr(loops.shutil, 'which', lambda name: str(compiler))
        monkeypatch.setattr(loops.subprocess, 'run', run_for_a_moment)
    elif what == 'no home':
        monkeypatch.setattr(loops, 'cache_folder', no_home)
    else:
        home.write_text('')
    assert loops.library() is None
    x = rng.standard_normal((4, 16)).astype('f')
    np.testing.assert_allclose(loops.channel_sum(x, 16), x.sum(axis=0), rtol=1e-5)


def run_for_a_moment(command, timeout, run=subprocess.run, **options):
    assert timeout <= 60
    return run(command, timeout=0.3, **options)
