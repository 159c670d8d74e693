"""The generator of a run as an object that people hold."""
import json

import numpy as np
import pytest
import threadpoolctl

import tinygan
from tinygan.arrays import random_stream
from tinygan.data import to_uint8
from tinygan.errors import UserError
from tinygan.judge.frozen import SHIPPED
from tinygan.recipes import RECIPES, make_gan
from tinygan.run.checkpoint import Run
from tinygan.run.generator import TRAINED, draw


def save(folder, recipe, seed=0):
    gan = make_gan(RECIPES[recipe], seed)
    for network in [gan.G] + ([gan.average.network] if gan.average else []):
        network.statistics += random_stream(seed, 'statistics').uniform(0.1, 1, network.statistics.size).astype('f')
    if gan.average:
        gan.average.network.parameters += 0.01
    Run.start(folder, {'recipe': recipe, 'z_dim': RECIPES[recipe].z_dim, 'steps_per_epoch': 1}, gan.state(), {})
    return gan


@pytest.mark.parametrize('recipe', ['dcgan', 'fast'])
def test_a_run_s_generator_is_loaded_ready_to_call(recipe, tmp_path):
    gan = save(tmp_path / 'run', recipe)
    z = random_stream(0, 'z').standard_normal((3, RECIPES[recipe].z_dim), np.float32)
    for run in tmp_path / 'run', str(tmp_path / 'run' / 'checkpoint.npz'):
        G = tinygan.load(run)
        np.testing.assert_array_equal(G.parameters, gan.sampler.parameters)
        assert G(z).shape == (3, 28, 28, 1)
        np.testing.assert_array_equal(G(z), gan.sampler.eval()(z))
        np.testing.assert_allclose(G(z[:1]), G(z)[:1], atol=1e-6)          # in evaluation mode: neighbours play no part
        np.testing.assert_array_equal(G.statistics, gan.sampler.statistics)
        np.testing.assert_array_equal(tinygan.generate(G, z), G(z))
        assert not G.training                                              # and stays so


def test_where_there_is_no_run_one_sentence_says_so(tmp_path):
    with pytest.raises(UserError, match='absent holds no checkpoint'):
        tinygan.load(tmp_path / 'absent')
    save(tmp_path / 'run', 'dcgan')
    with np.load(tmp_path / 'run' / 'checkpoint.npz') as file:
        arrays = {name: file[name] for name in file.files}
    arrays['G.parameters'] = arrays['G.parameters'][1:]
    np.savez(tmp_path / 'run' / 'checkpoint.npz', **arrays)
    with pytest.raises(UserError, match=r'run: its generator is not one that its recipe makes \(floats \(\d+,\) are needed'):
        tinygan.load(tmp_path / 'run')
    Run.start(tmp_path / 'other', {'recipe': 'dcgan'}, {}, {})
    with pytest.raises(UserError, match='its generator is not one that its recipe makes'):
        tinygan.load(tmp_path / 'other')


# ---- the one that comes with the package

def test_the_trained_generator_is_small_and_says_how_it_was_made_and_how_good_it_is():
    assert TRAINED.stat().st_size <= 1e6
    with np.load(TRAINED, allow_pickle=False) as file:
        about = json.loads(str(file['about']))
    assert about['config']['recipe'] == 'fast' and about['step'] == 10 * about['config']['steps_per_epoch']
    assert about['made by'] == 'python train_mnist.py --recipe fast --seed 0'
    for name in SHIPPED:
        assert about['Frechet distance of 10000 samples'][f'{name} ({SHIPPED[name][1][:8]})'] < 1.2


def test_it_is_loaded_without_a_run():
    z = random_stream(0, 'z').standard_normal((3, 16), np.float32)
    np.testing.assert_array_equal(tinygan.load()(z), tinygan.load(TRAINED)(z))
    assert tinygan.load(None)(z).shape == (3, 28, 28, 1)


# ---- drawing

def test_what_all_cores_draw_is_what_one_draws(rng):
    G = tinygan.load()
    z = rng.standard_normal((300, 16), np.float32)
    with threadpoolctl.threadpool_limits(2, 'blas'):
        images = draw(G, z, black=-1)
    np.testing.assert_array_equal(images, to_uint8(tinygan.generate(G, z), -1))
    assert images.shape == (300, 28, 28, 1) and images.dtype == np.uint8


def test_a_generator_that_learns_draws_as_in_evaluation_and_goes_on_learning(rng):
    G = RECIPES['fast'].generator(16, rng=rng)
    z, before = rng.standard_normal((300, 16), np.float32), G.statistics.copy()

    with threadpoolctl.threadpool_limits(2, 'blas'):
        images = draw(G, z, -1)
    assert all(leaf.training for leaf in G.leaves()) and G.training
    np.testing.assert_array_equal(images, draw(G.eval(), z, -1))
    np.testing.assert_array_equal(G.statistics, before)


def test_its_mode_is_put_back_even_when_it_cannot_draw(rng):
    G = RECIPES['fast'].generator(16, rng=rng)
    with pytest.raises(ValueError):
        draw(G, rng.standard_normal((3, 33), np.float32), -1)
    assert all(leaf.training for leaf in G.leaves()) and G.training


@pytest.mark.parametrize('change', [{'config': None}, {'config': []}, {'config': {'recipe': ['x'], 'z_dim': 16}},
                                    {'config': {'recipe': 'fast', 'z_dim': 'a'}}, {'average.parameters': np.float32(0)},
                                    {'average.parameters': np.full(150049, np.nan)},
                                    {'average.statistics': np.full(288, -1.0)}], ids=str)
def test_a_file_with_something_else_in_it_draws_nothing(change, tmp_path):
    with np.load(TRAINED) as file:
        arrays = {name: file[name] for name in file.files}
    arrays['about'] = np.array(json.dumps(json.loads(str(arrays['about'])) | {k: change[k] for k in change if k == 'config'}))
    np.savez(tmp_path / 'it.npz', **arrays | {k: change[k] for k in change if k != 'config'})
    with pytest.raises(UserError, match='it.npz: its generator is not one that its recipe makes'):
        tinygan.load(tmp_path / 'it.npz')
