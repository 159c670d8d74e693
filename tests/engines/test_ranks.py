"""A minibatch divided among the processes that mpirun starts: to the bit what as many lanes make of it."""
import os
import subprocess
import sys
from contextlib import closing
from functools import partial

import numpy as np
import pytest
from mpi import MPIRUN, OPEN_MPI, needs_mpi
from test_conversion import images
from test_lanes import minibatch, mixed_minibatch, small_gan, small_vae, told_gan, train

from tinygan.data.minibatches import Minibatches
from tinygan.engines import Plain
from tinygan.engines.divided import Divided
from tinygan.engines.lanes import Lanes
from tinygan.engines.ranks import Ranks
from tinygan.penalties import GradientPenalty, r1, wgan_gp
from tinygan.recipes import RECIPES, make_gan


def narrow(name):
    recipe = RECIPES[name]._replace(batch_size=12, z_dim=5)
    networks = {key: partial(getattr(recipe, key), width=4, dtype=np.float64) for key in ('generator', 'discriminator')}
    return make_gan(recipe._replace(**networks)), Minibatches(images(recipe), recipe)


SMALL = {                                         # 12 images, which 2, 3 and 4 divide
    'bce': lambda: (small_gan('bce', instance_noise=0.3), minibatch),
    'mse': lambda: (small_gan('mse', order='alternate', D_rests_at=0.55), minibatch),
    'wgan_gp': lambda: (told_gan(penalty=GradientPenalty(wgan_gp, 10)), mixed_minibatch),
    'lazy r1': lambda: (told_gan(penalty=GradientPenalty(r1, 10), penalty_every=3), minibatch),
    'vae': lambda: (small_vae(), minibatch),
}
NARROW = {name: partial(narrow, name) for name in RECIPES}
STEPS = range(1, 11)


def work(path, per_machine, names):
    """What each rank does: it trains these GANs, and the first one writes what came out."""
    from mpi4py import MPI
    comm, made = MPI.COMM_WORLD, {}
    for name in names.split(','):
        gan, batches = (SMALL | NARROW)[name]()
        gan.G.parameters[...] += comm.rank        # only the first one's count
        engine = Divided(gan, batches, Ranks(comm, comm.Split(comm.rank // int(per_machine))))
        if comm.rank:
            engine.serve()
            continue
        made |= {f'{name}/{number}/{key}': value for number, metrics in enumerate(train(engine, STEPS))
                 for key, value in metrics.items()}
        made |= {f'{name}/{key}': vector for key, vector in engine.state().items()}
        made[f'{name}/sampler'] = engine.snapshot()().parameters
        engine.close()
    if comm.rank == 0:
        np.savez(path, **made)


def by_ranks(path, count, names, per_machine=None):
    code = f'import sys; sys.path[:] = {sys.path!r}; import test_ranks; test_ranks.work(*sys.argv[1:])'
    command = [MPIRUN, '-n', str(count), sys.executable, '-c', code, path, str(per_machine or count), ','.join(names)]
    done = subprocess.run(command, env={**os.environ, **OPEN_MPI}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    with np.load(path) as arrays:
        return dict(arrays)


def by(engine, name):
    with closing(engine):
        made = {f'{name}/{number}/{key}': value for number, metrics in enumerate(train(engine, STEPS))
                for key, value in metrics.items()}
        return made | {f'{name}/{key}': vector for key, vector in engine.state().items()}


def check(made, name, count=None):
    """That ranks have made what as many lanes make, to the bit; or what the plain core makes, but for rounding."""
    gan, batches = (SMALL | NARROW)[name]()
    expected = by(Divided(gan, batches, Lanes(count)) if count else Plain(gan, batches), name)
    assert {key for key in made if key.startswith(f'{name}/')} == {*expected, f'{name}/sampler'}
    for key, value in expected.items():
        if count:
            np.testing.assert_array_equal(made[key], value, err_msg=key)
        else:
            np.testing.assert_allclose(made[key], value, rtol=1e-5, atol=1e-7, err_msg=key)
    average = made.get(f'{name}/average.parameters', made[f'{name}/G.parameters'])
    np.testing.assert_array_equal(made[f'{name}/sampler'], average)


@needs_mpi
@pytest.mark.parametrize('count', [2, 3, 4])
def test_ranks_make_to_the_bit_what_as_many_lanes_make(tmp_path, count):
    made = by_ranks(tmp_path / 'made.npz', count, SMALL)
    for name in SMALL:
        check(made, name, count)
        check(made, name)


@needs_mpi
@pytest.mark.parametrize('count, per_machine', [(4, 2), (3, 2)])
def test_ranks_of_several_machines_add_up_their_own_first(tmp_path, count, per_machine):
    """As if these were two machines; in the second case, one with two ranks and one with the third. They do the same twice."""
    made, again = (by_ranks(tmp_path / f'{len(names)}.npz', count, names, per_machine) for names in (SMALL, ['bce']))
    for name in SMALL:
        check(made, name)
    for key, value in again.items():
        np.testing.assert_array_equal(value, made[key], err_msg=key)


@needs_mpi
def test_ten_steps_of_two_ranks_are_ten_of_the_plain_core_for_every_recipe(tmp_path):
    made = by_ranks(tmp_path / 'made.npz', 2, NARROW)
    for name in NARROW:
        check(made, name)


@needs_mpi
def test_ranks_go_on_from_the_state_that_the_first_has_loaded(tmp_path):
    code = f'''
import sys; sys.path[:] = {sys.path!r}
from test_ranks import *
from mpi4py import MPI
comm = MPI.COMM_WORLD
unbroken, begun, resumed = (Divided(small_gan(), minibatch, Ranks(comm, comm)) for _ in range(3))
if comm.rank:
    for engine in unbroken, begun, resumed:
        engine.serve()
else:
    train(unbroken, range(1, 6))
    states = [unbroken.state()]
    unbroken.close()
    train(begun, range(1, 4))
    resumed.original.load_state(begun.state())
    begun.close()
    train(resumed, [4, 5])
    states.append(resumed.state())
    resumed.close()
    print(*(name for name, vector in states[0].items() if not np.array_equal(states[1][name], vector)), 'differ')
'''
    done = subprocess.run([MPIRUN, '-n', '3', sys.executable, '-c', code], env={**os.environ, **OPEN_MPI}, capture_output=True,
                          text=True, timeout=60)
    assert done.stdout == 'differ\n' and done.returncode == 0, done.stdout + done.stderr
