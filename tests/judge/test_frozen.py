"""The judges that ship: what they are, and that the same images have the same distance everywhere."""
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import ROOT

from tinygan import data
from tinygan.errors import UserError
from tinygan.judge import frozen
from tinygan.judge.frozen import SHIPPED, Judge, check_shape, shipped
from tinygan.judge.measures import frechet_distance

HERE = Path(__file__).parent
JUDGES = pytest.mark.parametrize('name', SHIPPED)
DISTANCES = {'judge 1': 6.498813006, 'second judge 1': 4.922145711}       # of the 200 stored images


@pytest.fixture(scope='module')
def generated():
    """200 images that the trained generator made: `tinygan sample -n 200 --seed 1 --npy` on one machine."""
    with np.load(HERE / 'generated.npz', allow_pickle=False) as file:
        return file['images'][..., None]


@JUDGES
def test_a_stored_set_of_images_has_the_distance_it_had_on_another_machine(name, generated):
    assert shipped(name).distance(generated) == pytest.approx(DISTANCES[name], rel=1e-9)


PRINT = '''
import sys, threadpoolctl, numpy as np
from tinygan.judge.frozen import SHIPPED, shipped
with np.load(sys.argv[1]) as file:
    print(*(repr(shipped(name).distance(file['images'][..., None])) for name in SHIPPED))
    print(threadpoolctl.threadpool_info()[0].get('architecture'))
'''


def test_neither_the_threads_nor_the_kernels_of_blas_show_in_its_first_nine_digits():
    found, kernels = [], set()
    for setting in {'OPENBLAS_NUM_THREADS': '1'}, {'OPENBLAS_NUM_THREADS': '2', 'OPENBLAS_CORETYPE': 'Nehalem'}:
        environment = {**os.environ, 'PYTHONPATH': str(ROOT), **setting}
        done = subprocess.run([sys.executable, '-c', PRINT, HERE / 'generated.npz'], env=environment, capture_output=True,
                              text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        *distances, kernel = done.stdout.split()
        found.append([float(distance) for distance in distances])
        kernels.add(kernel)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-9)
    if len(kernels) == 1:
        pytest.skip(f'BLAS has the kernels {kernels} alone here')


def test_the_shipped_judges_are_small():
    sizes = [Path(frozen.__file__).with_name(file).stat().st_size for file, _ in SHIPPED.values()]
    assert max(sizes) <= 1e6 and sum(sizes) <= 1.5e6


@JUDGES
def test_what_a_shipped_judge_says_of_itself_is_true_of_mnist(name):
    try:
        images, labels = data.mnist.load('test', download=False)
    except data.mnist.Unavailable as error:
        pytest.skip(f'needs MNIST: {error}')
    judge = shipped(name)
    features, p = judge.look(images)
    assert 0.994 <= (p.argmax(axis=1) == labels).mean() == judge.about['accuracy']
    assert len(labels) == judge.about['test_images'] and judge.about['data'] == 'MNIST'
    np.testing.assert_allclose(judge.mean, features.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(judge.covariance, np.cov(features, rowvar=False), rtol=1e-9, atol=1e-12)
    assert judge.distance_of(features) == pytest.approx(0, abs=1e-6)


def test_a_distance_is_that_of_the_features_from_the_kept_mean_and_covariance(generated):
    judge = shipped('judge 1')
    features, _ = judge.look(generated[:60])
    wanted = frechet_distance(features.mean(axis=0), np.cov(features, rowvar=False), judge.mean, judge.covariance)
    assert judge.distance(generated[:60]) == judge.distance_of(features) == wanted > 0


def test_noise_is_far_away_and_more_generated_images_are_nearer_than_few(generated, rng):
    judge = shipped('judge 1')
    noise = rng.integers(0, 256, generated.shape, dtype=np.uint8)
    assert judge.distance(noise) > 10 * judge.distance(generated[:50]) > 10 * judge.distance(generated)


# ---- files

def test_a_shipped_judge_that_is_not_byte_for_byte_itself_judges_nothing(tmp_path):
    file, sha256 = SHIPPED['judge 1']
    content = Path(frozen.__file__).with_name(file).read_bytes()
    (tmp_path / file).write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    with pytest.raises(UserError, match=f'{file} is not the file of judge 1: install tinygan again'):
        Judge(tmp_path / file, 'judge 1', sha256)


def one_array():
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


def spoil(**arrays):
    def change(path):
        with np.load(path) as file:
            np.savez(path, **{**file, **arrays})
    return change


def about(**changes):
    """Of a change, None leaves it out."""
    def change(path):
        with np.load(path) as file:
            said = json.loads(str(file['about'])) | changes
        spoil(about=np.array(json.dumps({name: value for name, value in said.items() if value is not None})))(path)
    return change


@pytest.mark.parametrize('accuracy', [0, 1])
def test_a_judge_may_be_never_or_always_right(tmp_path, accuracy):
    path = tmp_path / 'judge.npz'
    path.write_bytes(Path(frozen.__file__).with_name(SHIPPED['judge 1'][0]).read_bytes())
    about(accuracy=accuracy)(path)
    assert Judge(path).about['accuracy'] == accuracy


@pytest.mark.parametrize('damage, said', [
    (lambda path: path.write_bytes(b''), 'No data left in file'),
    (lambda path: path.write_bytes(b'garbage'), 'pickle'),
    (lambda path: path.write_bytes(path.read_bytes()[:-100]), 'not a zip file'),
    (lambda path: path.write_bytes(path.read_bytes()[:1000] + b'x' + path.read_bytes()[1001:]), 'Bad CRC-32'),
    (lambda path: np.savez(path, images=np.zeros(3)), "it lacks 'mean"),
    (lambda path: path.write_bytes(one_array()), 'context manager'),
    (spoil(parameters=np.zeros(1)), 'floats (436426,) are needed, not float64 (1,)'),
    (spoil(statistics=np.full(448, np.nan)), 'floats (448,) are not finite'),
    (spoil(statistics=np.full(448, -1.0)), 'a variance is negative'),
    (spoil(mean=np.zeros(5)), 'floats (128,) are needed, not float64 (5,)'),
    (spoil(mean=np.full(128, np.nan)), 'floats (128,) are not finite'),
    (spoil(covariance=np.full((128, 128), np.inf)), 'floats (128, 128) are not finite'),
    (spoil(covariance=np.full((128, 128), 'x')), 'floats (128, 128) are needed, not <U1'),
    (spoil(about=np.array('{}')), "it lacks 'width"),
    (about(width=-1), 'negative'),
    (about(width='x'), "'str'"),
    (about(features=1), 'features 1, accuracy 0.995'),
    (about(accuracy=float('nan')), 'features 128, accuracy nan'),
    (about(accuracy='x'), "'str'"),
    (about(data=None), "it lacks 'data"),
    (spoil(about=np.array('[]')), 'list indices'),
])
def test_a_file_that_is_no_judge_is_refused_in_one_line(tmp_path, damage, said):
    path = tmp_path / 'judge.npz'
    path.write_bytes(Path(frozen.__file__).with_name(SHIPPED['judge 1'][0]).read_bytes())
    damage(path)
    with pytest.raises(UserError, match=r'judge.npz is no judge, or a damaged one \(.*tinygan.judge.classifier makes them') as error:
        Judge(path)
    assert said in str(error.value)


@pytest.mark.parametrize('shape, what', [((64, 64, 1), 'gray ones of 64x64'), ((28, 28, 3), 'colour ones of 28x28')])
def test_images_that_mnist_s_do_not_compare_with_are_refused(shape, what):
    check_shape((28, 28, 1), 'runs/mine')
    with pytest.raises(UserError, match=f'judges look at gray images of 28x28 pixels, and runs/mine makes {what}'):
        check_shape(shape, 'runs/mine')
