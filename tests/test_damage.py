"""Files that were damaged at random: no traceback, and nothing wrong that nobody is told of.

What cannot be noticed, as no checksum guards it: a digit of metrics.csv that has become another, or a cell that is empty; that it
lacks its first rows, or all, as it does where the old one was moved away; a shade in a picture without a checksum, or in an .npy
or an IDX file.
"""
import io
import itertools
import re
import shutil
import warnings
import zipfile

import numpy as np
import pytest
import train_mnist
from commands import NARROW, contents, own_cache
from PIL import Image

from tinygan.data.own import read_own
from tinygan.errors import UserError, line_of
from tinygan.judge.classifier import build_classifier, freeze, read_digits
from tinygan.judge.frozen import Judge
from tinygan.recipes import RECIPES
from tinygan.run import checkpoint, generator
from tinygan.run.checkpoint import open_checkpoint

CASES = 40                                        # of every file
OTHER = b'', b'{}', b'<html>404 Not Found</html>'


def damaged(content, *seed):
    """The bytes of a file after one accident, half of the time near the header of an array or of a part of a zip."""
    rng = np.random.default_rng(seed)
    headers = [found.start() for found in re.finditer(b'PK|NUMPY', content)] or [0]
    start = rng.choice([rng.integers(len(content)), (rng.choice(headers) + rng.integers(128)) % len(content)])
    before, block, after = np.split(np.frombuffer(content, np.uint8), [start, start + rng.integers(1, 64)])
    flipped = block ^ (np.arange(len(block)) == 0) * np.uint8(1 << rng.integers(8))
    parts = [(before, flipped, after), (before, flipped, after), (before,), (before, after), (before, 0 * block, after),
             (before, block, block, after), (before, np.frombuffer(OTHER[2], np.uint8), after)]
    choice = rng.integers(len(parts) + 1)
    return rng.choice(OTHER) if choice == len(parts) else np.concatenate(parts[choice]).astype(np.uint8).tobytes()


def flipped(content, part):
    """The same bytes again and again, each time with another bit of that part flipped."""
    for place, bit in itertools.product(range(len(part)), range(8)) if part in content else ():
        yield content.replace(part, part[:place] + bytes([part[place] ^ 1 << bit]) + part[place + 1:], 1)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', own_cache(tmp_path))
    return tmp_path / 'cache' / 'tinygan' / 'own'


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A run of three steps; best.npz is that of the second."""
    folder = tmp_path_factory.mktemp('narrow') / 'run'
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, 'narrow', NARROW)
        line = '--device cpu --plain --recipe narrow --data digits --checkpoint-every 1 --max-steps 3 --out'
        assert train_mnist.main([*line.split(), str(folder)]) == 0
        shutil.copy(folder / 'checkpoint.previous.npz', folder / 'best.npz')
        yield folder


def accidents(run, tmp_path, name):
    """Copies of the run in which that file is damaged, each in another way."""
    for seed in range(CASES):
        folder = shutil.copytree(run, tmp_path / f'{name} damaged by {seed}')
        (folder / name).write_bytes(damaged((run / name).read_bytes(), seed, len(name)))
        yield folder


def same(state, other):
    return state.keys() == other.keys() and all(
        state[name].dtype == other[name].dtype and np.array_equal(state[name], other[name]) for name in state)


def go_on(folder):
    """(run, state) of train_mnist.py --resume before its first step."""
    gan, _, _, run = train_mnist.resume(str(folder), train_mnist.parse(['--resume', str(folder)], 'program'), np)
    return run, gan.state()


# ---- a run

def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one_and_says_so(run, tmp_path, capsys):
    states = {step: state for _, _, step, state in map(open_checkpoint, (run / 'checkpoint.npz', run / 'best.npz'))}
    taken = []
    for folder in accidents(run, tmp_path, 'checkpoint.npz'):
        capsys.readouterr()
        resumed, state = go_on(folder)
        said = capsys.readouterr().err
        assert same(state, states[resumed.step]), folder
        assert resumed.step == 3 and said == '' or resumed.step == 2 and re.fullmatch(
            r'.*checkpoint.npz is (damaged \(.*\)|no checkpoint: .*); taking .*checkpoint.previous.npz\n', said), (folder, said)
        taken.append(resumed.step)
    assert taken.count(2) > CASES / 2


def test_every_bit_of_the_shape_of_an_array_counts(run, tmp_path, capsys):
    """With one bit less, a shape asks for fewer numbers, and its checksum is never come to."""
    folder = shutil.copytree(run, tmp_path / 'run')
    for content in flipped((run / 'checkpoint.npz').read_bytes(), b'(6873,)'):
        (folder / 'checkpoint.npz').write_bytes(content)
        assert open_checkpoint(folder)[2] == 2 and 'Bad CRC-32' in capsys.readouterr().err


@pytest.mark.parametrize('name', ['checkpoint.previous.npz', 'best.npz', 'config.json', 'samples/step_000002.png'])
def test_a_run_goes_on_from_a_sound_checkpoint_whatever_lies_beside_it(run, tmp_path, capsys, name):
    _, config, _, state = open_checkpoint(run)
    for folder in accidents(run, tmp_path, name):
        capsys.readouterr()
        resumed, found = go_on(folder)
        assert resumed.step == 3 and same(found, state) and resumed.config == train_mnist.DEFAULTS | config, folder
        said = capsys.readouterr().err.splitlines()
        assert all('config.json has' in line and 'which counts' in line for line in said) and (not said or name == 'config.json')


def test_when_both_checkpoints_are_damaged_a_line_names_them(run, tmp_path):
    sound = 0
    for folder in accidents(run, tmp_path, 'checkpoint.npz'):
        (folder / 'checkpoint.previous.npz').write_bytes((folder / 'checkpoint.npz').read_bytes())
        try:
            sound += go_on(folder)[0].step == 3
        except UserError as error:
            assert re.search(r'checkpoint.npz is .*; .*checkpoint.previous.npz is ', line_of(error))
    assert sound < CASES / 2


def test_a_damaged_metrics_csv_is_named_or_has_all_its_rows_and_is_drawn(run, tmp_path, monkeypatch):
    drawn, named = [], 0
    monkeypatch.setattr(checkpoint, 'plot_curves', lambda path, metrics: drawn.append(metrics))
    for folder in accidents(run, tmp_path, 'metrics.csv'):
        before = contents(folder)
        try:
            resumed, _ = go_on(folder)
        except UserError as error:
            assert re.search(r'metrics.csv is damaged \(.*\); moved away, it stops no run$', line_of(error))
            assert contents(folder) == before
            named += 1
            continue
        resumed.draw_curves('any')
        rows = (folder / 'metrics.csv').read_text().splitlines()
        assert rows[0] == before['metrics.csv'].decode().split('\n')[0] or len(rows) == 1, folder
        if len(rows) > 1:
            assert drawn[-1]['step'].tolist() == [1, 2, 3][-len(rows) + 1:], folder
            assert np.isfinite(drawn[-1]['loss_D']).all() and np.isfinite(drawn[-1]['D_x']).all(), folder
    assert named > CASES / 2 and drawn


@pytest.mark.parametrize('name', ['checkpoint.npz', 'best.npz'])
def test_samples_come_from_sound_weights_or_a_line_says_why_there_are_none(run, tmp_path, capsys, name):
    weights = {step: state['average.parameters'] for _, _, step, state in map(open_checkpoint, (run, run / 'best.npz'))}
    for folder in accidents(run, tmp_path, name):
        try:
            found = generator.load(folder / name).parameters
            assert any(np.array_equal(found, sound) for sound in weights.values()), folder
        except UserError as error:
            assert name in line_of(error)


def test_a_damaged_judge_judges_nothing(tmp_path, rng):
    network = build_classifier(4, 8, rng=rng)
    test = rng.integers(0, 256, (20, 28, 28, 1), np.uint8), np.arange(20) % 10
    np.savez(tmp_path / 'judge.npz', **freeze(network, test, {'width': 4, 'features': 8, 'data': 'MNIST'}))
    sound, content, refused = Judge(tmp_path / 'judge.npz'), (tmp_path / 'judge.npz').read_bytes(), 0
    for seed in range(CASES):
        (tmp_path / 'judge.npz').write_bytes(damaged(content, seed))
        try:
            judge = Judge(tmp_path / 'judge.npz')
            assert judge.about == sound.about and np.array_equal(judge.covariance, sound.covariance), seed
            assert all(map(np.array_equal, judge.look(test[0]), sound.look(test[0]))), seed
        except UserError as error:
            assert 'judge.npz is no judge, or a damaged one (' in line_of(error)
            refused += 1
    assert refused > CASES / 2


# ---- images

Image.init()                                      # all formats that this Pillow has
FORMATS = [name for name in 'png jpg gif bmp webp tif ppm tga ico jp2 pcx sgi'.split() if f'.{name}' in Image.EXTENSION]
MODES = '1 L LA P RGB RGBA CMYK I;16'.split()


def pictures(formats=FORMATS):
    """{name: bytes}: a picture in each format and in each mode that Pillow writes in it."""
    noise, made = np.random.default_rng(0).integers(0, 256, (24, 24, 4), np.uint8), {}
    for format in formats:
        for mode in MODES:
            image = Image.fromarray(noise[..., :3] if mode == 'CMYK' else noise)
            image = Image.fromarray(noise[..., 0] * np.uint16(257)) if mode == 'I;16' else image.convert(mode)
            file = io.BytesIO()
            try:
                image.save(file, Image.registered_extensions()[f'.{format}'])
                made[f'{mode}.{format}'] = file.getvalue()
            except (OSError, ValueError):
                continue                          # such a mode it does not write
    return made


def zoo(folder, files):
    """A folder with a class for each file, which is called as the file is."""
    for name, content in files.items():
        (folder / name).mkdir(parents=True)
        (folder / name / name).write_bytes(content)
    return folder


def by_name(path):
    """{name: pixels} of a folder that zoo made, or of a zip of it, as far as they can be read."""
    images, _, _, labels, names = read_own(path, (8, 8, 3), labelled=True)
    assert images.shape == (len(names), 8, 8, 3) and images.dtype == np.uint8
    return {names[label]: image.tolist() for image, label in zip(images, labels)}


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('suffix', [True, False], ids=['with suffixes', 'without'])
def test_damaged_pictures_are_read_or_left_out_and_no_other_suffers(tmp_path, seed, suffix, capsys, recwarn):
    files = pictures()
    assert len(files) > 40
    sound = by_name(zoo(tmp_path / 'sound', files))
    assert len(sound) == len(files)
    some = {name: damaged(content, seed, i) if i % 6 else content for i, (name, content) in enumerate(files.items())}
    folder = zoo(tmp_path / 'damaged', {name if suffix else name.replace('.', ' '): content for name, content in some.items()})
    capsys.readouterr()
    warnings.simplefilter('always')               # none may be hidden because here they are errors
    found = {name.replace(' ', '.'): image for name, image in by_name(folder).items()}
    lines = capsys.readouterr().err.splitlines()
    known = 'passed over: ', 'reading ', 'left out:', '  ', 'classes without'
    assert not recwarn.list and all(line.startswith(known) for line in lines)
    for name in files:
        if files[name] == some[name] and (suffix or not name.endswith('.tga')):              # which have no beginning of their own
            assert found[name] == sound[name], name
        if name.endswith('.png'):                 # which has checksums
            assert found.get(name, sound[name]) == sound[name], name
    assert len(found) < len(files)


def test_a_damaged_zip_is_refused_or_no_picture_in_it_is_another(tmp_path, capsys):
    folder, refused = zoo(tmp_path / 'zoo', pictures(['bmp', 'ppm'])), 0
    sound = by_name(folder)
    with zipfile.ZipFile(tmp_path / 'zoo.zip', 'w') as file:
        for path in sorted(folder.rglob('*.*/*')):
            file.write(path, path.relative_to(folder))
    content = (tmp_path / 'zoo.zip').read_bytes()
    for seed in range(CASES):
        (tmp_path / 'zoo.zip').write_bytes(damaged(content, seed))
        try:
            assert by_name(tmp_path / 'zoo.zip').items() <= sound.items(), seed
        except UserError as error:
            assert str(tmp_path / 'zoo.zip') in line_of(error)
            refused += 1
    assert 0 < refused < CASES


@pytest.mark.parametrize('name', ['digits.npz', 'compressed.npz'])
def test_a_damaged_npz_is_refused_or_every_number_of_it_is_right(tmp_path, rng, name):
    digits = {f'{kind}_{split}': array for split in ('train', 'test')
              for kind, array in (('x', rng.integers(0, 256, (200, 28, 28), np.uint8)), ('y', np.arange(200) % 10))}
    (np.savez if name == 'digits.npz' else np.savez_compressed)(tmp_path / name, **digits)
    content, refused = (tmp_path / name).read_bytes(), 0
    accidents = [damaged(content, seed) for seed in range(CASES)]
    for seed, bad in enumerate([*accidents, *flipped(content, b'(200, 28,')]):               # which a compressed one does not show
        (tmp_path / name).write_bytes(bad)
        try:
            (train, labels), (test, _) = read_digits(tmp_path / name)
            assert np.array_equal(train[..., 0], digits['x_train']) and np.array_equal(test[..., 0], digits['x_test']), seed
            assert np.array_equal(labels, digits['y_train']), seed
        except UserError as error:
            assert name in line_of(error)
            refused += 1
        try:
            images, _, _, labels, _ = read_own(tmp_path / name, (28, 28, 1), labelled=True)
            assert np.array_equal(images[..., 0], digits['x_train']) and np.array_equal(labels, digits['y_train']), seed
        except UserError as error:
            assert name in line_of(error)
    assert refused > CASES / 2


def test_a_kept_array_that_is_damaged_is_made_anew(tmp_path, cache, capsys):
    """Both the pixels and which pictures were left out."""
    files = pictures(['png'])
    folder = zoo(tmp_path / 'zoo', files | {'a.png': b'', 'b.png': files['RGB.png'][:100], 'c.png': files['RGB.png']})
    sound, anew = by_name(folder), 0
    kept, = cache.iterdir()
    content = kept.read_bytes()
    accidents = [damaged(content, seed) for seed in range(2 * CASES)]
    for seed, bad in enumerate([*accidents, *flipped(content, b'<i8')]):       # with one bit more, they are lengths of time
        kept.write_bytes(bad)
        capsys.readouterr()
        assert by_name(folder) == sound, seed
        anew += 'reading 10 pictures' in capsys.readouterr().err
        assert [*cache.iterdir()] == [kept]
    assert anew > CASES
