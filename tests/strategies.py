"""What properties are tried on: convolutions of every shape, arrays in every layout that NumPy has, and layers of both."""
import itertools
import os
from typing import NamedTuple

import numpy as np
from hypothesis import HealthCheck, settings, strategies as st

from tinygan.layers import (BatchNorm2d, Conv2d, ConvTranspose2d, Flatten, GlobalAvgPool2d, LeakyReLU, Linear, ReLU, Reshape,
                            Sigmoid, Tanh)

# Examples are drawn by the name of a test and the source that is imported, not by chance, and however long that takes;
# HYPOTHESIS_PROFILE=search tries others, and more.
settings.register_profile('tests', derandomize=True, max_examples=60, deadline=None, database=None,
                          suppress_health_check=[HealthCheck.too_slow])
settings.register_profile('search', settings.get_profile('tests'), derandomize=False, max_examples=2000)
settings.load_profile(os.environ.get('HYPOTHESIS_PROFILE', 'tests'))
FEWER = settings(max_examples=settings().max_examples // 4)       # of each kind


def every_other(x):
    """x with gaps between its numbers, in which nothing may be read."""
    room = np.full([2 * size + 1 for size in x.shape], np.nan, x.dtype)
    view = room[(slice(1, None, 2),) * x.ndim]
    view[...] = x
    return view


def with_new_axes(x):
    """x with no stride along axes of length 1, as x[:, None] has it."""
    return np.lib.stride_tricks.as_strided(x, strides=[stride * (size > 1) for size, stride in zip(x.shape, x.strides)])


SEEDS = st.integers(0, 2**32)
LAYOUTS = {'C': np.ascontiguousarray, 'Fortran': np.asfortranarray, 'backwards': lambda x: np.flip(np.flip(x).copy()),
           'every other': every_other, 'with new axes': with_new_axes}


class Arrays:
    """arrays(*shape) is an array of random numbers of magnitude 0.1 and more, read-only, in the next of these layouts."""

    def __init__(self, dtype, layouts, seed):
        self.dtype, self.layouts, self.rng = dtype, itertools.cycle(layouts), np.random.default_rng(seed)

    def __call__(self, *shape):
        x = self.rng.standard_normal(shape)
        x = LAYOUTS[next(self.layouts)]((x + np.copysign(0.1, x)).astype(self.dtype))
        x.flags.writeable = False
        return x


def some_arrays(*dtypes):
    return st.builds(Arrays, st.sampled_from(dtypes or (np.float32, np.float64)),
                     st.lists(st.sampled_from(list(LAYOUTS)), min_size=1, max_size=3), SEEDS)


class Geometry(NamedTuple):
    """A convolution of x (N, H, W, C) to y (N, OH, OW, F); and the transposed one, of y to images which are O pixels larger than
    the smallest that shrink to y."""
    N: int
    H: int
    W: int
    C: int
    F: int
    K: int
    S: int
    P: int
    O: int

    @property
    def x(self):
        return self.N, self.H, self.W, self.C

    @property
    def w(self):
        return self.K, self.K, self.C, self.F

    @property
    def y(self):
        OH, OW = ((size + 2 * self.P - self.K) // self.S + 1 for size in (self.H, self.W))
        return self.N, OH, OW, self.F


@st.composite
def geometries(draw, kernels=st.tuples(st.integers(1, 4), st.integers(1, 4)), largest=7, square=False):
    (K, S), P, O = draw(kernels), draw(st.integers(0, 4)), draw(st.integers(0, 3))
    sides = st.integers(max(1, K - 2 * P), largest)
    H, N, C, F = draw(sides), draw(st.integers(0, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    g = Geometry(N, H, H if square else draw(sides), C, F, K, S, P, min(O, S - 1))
    smallest = (min(g.y[1:3]) - 1) * S - 2 * P + K
    return g._replace(O=max(g.O, 1 - smallest))


KINDS = {           # name: (layer made of a geometry, shape of its x)
    'Conv2d': lambda g, **new: (Conv2d(g.C, g.F, g.K, g.S, g.P, **new), g.x),
    'Conv2d without a bias': lambda g, **new: (Conv2d(g.C, g.F, g.K, g.S, g.P, bias=False, **new), g.x),
    'ConvTranspose2d': lambda g, **new: (ConvTranspose2d(g.F, g.C, g.K, g.S, g.P, g.O, **new), g.y),
    'BatchNorm2d': lambda g, **new: (BatchNorm2d(g.C, **new), g.x),
    'BatchNorm2d of features': lambda g, **new: (BatchNorm2d(g.C, **new), (g.N, g.C)),
    'Linear': lambda g, **new: (Linear(g.C, g.F, **new), (g.N, g.C)),
    'Linear without a bias': lambda g, **new: (Linear(g.C, g.F, bias=False, **new), (g.N, g.C)),
    'LeakyReLU': lambda g, **new: (LeakyReLU(g.P / 5), g.x),
    'ReLU': lambda g, **new: (ReLU(), g.x),
    'Tanh': lambda g, **new: (Tanh(), g.x),
    'Sigmoid': lambda g, **new: (Sigmoid(), g.x),
    'GlobalAvgPool2d': lambda g, **new: (GlobalAvgPool2d(), g.x),
    'Reshape': lambda g, **new: (Reshape(g.W, g.C * g.H), g.x),
    'Flatten': lambda g, **new: (Flatten(), g.x),
}
CURVED = 'BatchNorm2d', 'BatchNorm2d of features', 'Tanh', 'Sigmoid'


def made(kind, g, arrays):
    """A layer with random parameters, and an x for it."""
    layer, shape = KINDS[kind](g, dtype=arrays.dtype)
    for name in layer.parameter_names:
        getattr(layer, name)[...] = arrays(*getattr(layer, name).shape)
    return layer, arrays(*shape)


def can_train(layer, x):
    """BatchNorm takes two values of a channel."""
    return not isinstance(layer, BatchNorm2d) or x.size >= 2 * layer.num_features


def close(found, exact, digits=1000):
    """Are they equal but for rounding, relative to the largest? digits says how often the smallest difference between numbers may
    add up."""
    found, exact = np.asarray(found), np.asarray(exact)
    np.testing.assert_allclose(found, exact, rtol=0, atol=digits * np.finfo(found.dtype).eps * max(1, abs(exact).max(initial=0)))
    return True
