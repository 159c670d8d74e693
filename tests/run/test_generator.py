"""The generator of a run as an object that people hold."""
import numpy as np
import pytest

import tinygan
from tinygan.arrays import random_stream
from tinygan.errors import UserError
from tinygan.recipes import RECIPES, make_gan
from tinygan.run.checkpoint import Run


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
    with pytest.raises(UserError, match='its generator is not the one of recipe dcgan'):
        tinygan.load(tmp_path / 'run')
    Run.start(tmp_path / 'other', {}, {}, {})
    with pytest.raises(UserError, match='its generator is not the one of recipe None'):
        tinygan.load(tmp_path / 'other')
