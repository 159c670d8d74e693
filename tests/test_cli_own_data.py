"""Data and machines as people bring them, through the command line, and what a run remembers of what it was asked."""
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from commands import ROOT, contents, finish, load, metrics, one_line, own_cache, same_run, start, train
from PIL import Image

import train_mnist
from tinygan.__main__ import main
from tinygan.data import cache, digits
from tinygan.errors import UserError

PLAIN = '--device', 'cpu', '--plain'


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch, without_curves):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('XDG_CACHE_HOME', own_cache(tmp_path))


@pytest.fixture
def go(capsys):
    """Run the script in this process; what it wrote to stdout and stderr."""
    def run(line, *more):
        capsys.readouterr()
        assert train_mnist.main([*PLAIN, *line.split(), *map(str, more)]) == 0
        return capsys.readouterr()
    return run


def pictures(folder, n, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(np.random.default_rng(seed).integers(0, 256, (n, 9, 9, 3), np.uint8)):
        Image.fromarray(image).save(folder / f'{i}.png')
    return folder


def config(run):
    return json.loads((run / 'config.json').read_text())


def steps_of_samples(run):
    return sorted(path.stem for path in (run / 'samples').iterdir())


# ---- data

def test_a_set_smaller_than_a_minibatch_is_a_minibatch(tmp_path, go):
    pictures(tmp_path / 'few', 5)
    out, _ = go('--data few --max-steps 2 --out run')
    assert 'minibatches of 5: there are no more images' in out and config(tmp_path / 'run')['batch_size'] == 5
    with pytest.raises(UserError, match='a minibatch of 6 is more than the 5 images'):
        go('--data few --batch-size 6 --out other')


def test_its_own_samples_never_become_data(tmp_path, go):
    pictures(tmp_path, 6)
    go('--data . --batch-size 3 --max-steps 3')
    out, err = go('--max-steps 5 --resume runs/fast')
    assert 'going on after step 3' in out and 'folder of a run: runs/fast' in err
    assert 'epochs of 2 steps' in out


@pytest.mark.parametrize('change, same_number', [
    (lambda data: pictures(data, 6, seed=1), True), (lambda data: pictures(data, 9), False),
    (lambda data: (data / '0.png').unlink(), False)],
    ids=['others', 'more', 'fewer'])
def test_a_run_goes_on_only_with_its_images_or_with_others_if_asked_to(tmp_path, go, change, same_number):
    data = pictures(tmp_path / 'data', 6)
    go('--data data --batch-size 3 --max-steps 3 --out run')
    change(data)
    before = contents(tmp_path / 'run')
    with pytest.raises(UserError, match='run: the [569] images of .*data are not those that the run began with; --new-images'):
        go('--resume run --max-steps 4')
    assert contents(tmp_path / 'run') == before
    old = config(tmp_path / 'run')
    go('--resume run --max-steps 6 --new-images')
    new = config(tmp_path / 'run')
    assert new['images'] != old['images'] and (new['steps_per_epoch'] == old['steps_per_epoch']) == same_number
    names = steps_of_samples(tmp_path / 'run')
    assert load(tmp_path / 'run')[1] == 6 and {'step_000001', 'step_000002'} < set(names) and 'epoch_001' not in names
    go('--resume run --max-steps 7')              # from now on they are its images


def test_a_run_that_is_killed_when_it_has_just_gone_on_remembers_what_it_was_asked_for(tmp_path, go, monkeypatch):
    data = pictures(tmp_path / 'data', 6)
    go('--data data --batch-size 3 --max-steps 3 --out run')
    pictures(data, 9)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train_mnist, 'train', lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        go('--resume run --max-steps 9 --sample-every 4 --new-images')
    out, err = go('--resume run')
    assert err == '' and load(tmp_path / 'run')[1] == 9 and 'step_000008' in steps_of_samples(tmp_path / 'run')


def test_a_limit_can_be_lifted(tmp_path, go):
    pictures(tmp_path / 'data', 4)
    go('--data data --batch-size 2 --epochs 2 --max-steps 1 --out run')
    out, _ = go('--resume run --epochs 3')
    assert 'raise --max-steps to go on' in out
    out, _ = go('--resume run --epochs 3 --max-steps 0')
    assert load(tmp_path / 'run')[1] == 6
    out, _ = go('--resume run')
    assert 'has made all its 6 steps; raise --epochs to go on' in out


def test_where_no_step_is_made_nothing_is_changed(tmp_path, go):
    data = pictures(tmp_path / 'data', 6)
    go('--data data --batch-size 2 --max-steps 5 --out run')
    before = contents(tmp_path / 'run')
    go('--resume run --max-steps 3 --sample-every 2')
    pictures(data, 4)
    (data / '4.png').unlink()
    go('--resume run --new-images --max-steps 4')
    assert {name: content for name, content in contents(tmp_path / 'run').items() if name not in ('samples.gif', 'curves.png')} == {
        name: content for name, content in before.items() if name not in ('samples.gif', 'curves.png')}


def test_too_few_images_and_images_that_are_gone_are_answered_with_what_can_be_done(tmp_path, go):
    data = pictures(tmp_path / 'data', 6)
    go('--data data --batch-size 4 --max-steps 1 --out run')
    for i in range(3):
        (data / f'{i}.png').unlink()
    with pytest.raises(UserError, match='run: 3 images are fewer than its minibatches have: begin a new run'):
        go('--resume run --new-images --max-steps 2')
    shutil.rmtree(data)
    with pytest.raises(UserError, match='^run: its images are no longer at .*data: name their place with --data$'):
        go('--resume run --max-steps 2')


def test_a_folder_with_samples_of_somebody_else_is_refused(tmp_path, go):
    data = pictures(tmp_path / 'data', 4)
    pictures(data / 'samples', 2)
    before = contents(data)
    with pytest.raises(UserError, match='data already holds samples: choose another --out'):
        go('--data data --batch-size 2 --max-steps 1 --out data')
    (data / 'config.json').write_text('{"versions": {"mymodel": 3}}')
    with pytest.raises(UserError, match='data already holds config.json: choose'):
        go('--data data --batch-size 2 --max-steps 1 --out data')
    (data / 'config.json').unlink()
    assert contents(data) == before


def test_links_that_lead_to_themselves_are_answered_with_one_line(tmp_path, go):
    (tmp_path / 'loop').symlink_to('loop')
    with pytest.raises(UserError, match='loop: no such file or folder'):
        go('--data loop')


def test_images_that_moved_or_are_written_anew_are_still_the_same(tmp_path, go):
    pictures(tmp_path / 'data', 6)
    go('--data data --batch-size 3 --max-steps 1 --out run')
    shutil.copytree(tmp_path / 'data', tmp_path / 'moved', copy_function=shutil.copyfile)
    shutil.rmtree(tmp_path / 'data')
    go('--resume run --data moved --max-steps 2')
    assert config(tmp_path / 'run')['data'] == str(tmp_path / 'moved')


def test_a_resumed_run_on_flipped_pictures_equals_an_unbroken_one(tmp_path, go):
    pictures(tmp_path / 'data', 6)
    go('--data data --batch-size 3 --max-steps 5 --flip --background black --out unbroken')
    go('--data data --batch-size 3 --max-steps 2 --flip --background black --out broken')
    go('--resume broken --max-steps 5')
    assert same_run(tmp_path / 'broken', tmp_path / 'unbroken') and config(tmp_path / 'broken')['flip']
    go('--data data --batch-size 3 --max-steps 5 --out straight')
    assert metrics(tmp_path / 'straight') != metrics(tmp_path / 'unbroken')
    with pytest.raises(UserError, match='begun with --background black and cannot go on with red'):
        go('--resume broken --background red')


@pytest.mark.parametrize('option', ['--flip', '--background black'])
def test_digits_are_neither_flipped_nor_laid_on_another_ground(go, option):
    with pytest.raises(UserError, match='--flip and --background are for images of your own'):
        go(f'--data digits {option} --out run')


def test_a_colour_that_is_none_is_answered_with_one_line(go):
    with pytest.raises(UserError, match="--background: unknown color specifier: 'whyte'"):
        go('--data . --background whyte')


def test_what_may_be_wrong_with_the_images_is_said_again_in_the_end(tmp_path, go):
    np.save(tmp_path / 'black.npy', np.zeros((5, 28, 28), np.uint8))
    out, err = go('--data black.npy --max-steps 1 --out run')
    assert err.count('warning: every image is blank') == 2 and err.rstrip().endswith('how it was made')


def test_a_name_of_ours_that_is_a_folder_here_is_pointed_out(tmp_path, go):
    pictures(tmp_path / 'digits', 3)
    _, err = go('--data digits --batch-size 2 --max-steps 1 --out run')
    assert err == '--data digits means our own; for the digits in this folder, --data ./digits\n'
    go('--data ./digits --batch-size 2 --max-steps 1 --out other')
    assert config(tmp_path / 'other')['data'] == str(tmp_path / 'digits')


def test_data_and_data_dir_are_not_both_given(go):
    with pytest.raises(UserError, match='--data .*few needs no --data-dir, which is for MNIST'):
        go('--data few --data-dir few')
    with pytest.raises(UserError, match='--new-images is for a run that goes on'):
        go('--data few --new-images')


# ---- distances that would mean nothing

def test_images_that_are_no_digits_are_not_measured_against_mnist(tmp_path, go):
    pictures(tmp_path / 'data', 3)
    with pytest.raises(UserError, match='data shows images of your own, and the judges that ship know only MNIST'):
        go('--data data --batch-size 2 --evaluate-every 1 --out run')
    assert not (tmp_path / 'run').exists()
    go('--data data --batch-size 2 --max-steps 1 --out run')
    with pytest.raises(UserError, match='know only MNIST'):
        go('--resume run --evaluate-every 1')
    for command in ['evaluate', 'run', '--samples', '20'], ['arithmetic', 'run', '--digits', '1', '2', '3']:
        with pytest.raises(UserError, match='^run shows images of your own'):
            main(command)


def test_they_are_if_the_user_says_that_they_are_digits(tmp_path, go, capsys, monkeypatch):
    monkeypatch.setenv('TINYGAN_DATA', str(tmp_path))                            # no MNIST to measure beside them
    drawn = digits.draw(np.random.default_rng(0), 5)[0]
    np.save(tmp_path / 'mine.npy', drawn)
    go('--data mine.npy --batch-size 2 --max-steps 1 --out run')
    main(['evaluate', 'run', '--samples', '20', '--judge', 'judge 1'])
    assert 'Frechet distance' in capsys.readouterr().out


# ---- what a run remembers

def test_a_run_remembers_how_it_wanted_to_be_looked_at(tmp_path, go):
    run = tmp_path / 'run'
    go('--data digits --batch-size 2 --max-steps 3 --sample-every 3 --checkpoint-every 2 --out run')
    out, _ = go('--resume run')
    assert 'run has made all its 3 steps; raise --max-steps to go on' in out
    out, _ = go('--resume run/checkpoint.npz --max-steps 7')
    assert out.startswith('run run/checkpoint.npz\n')
    assert {'step_000003', 'step_000006'} < set(steps_of_samples(run))
    assert {name: config(run)[name] for name in ('max_steps', 'sample_every', 'checkpoint_every', 'evaluate_every')} == {
        'max_steps': 7, 'sample_every': 3, 'checkpoint_every': 2, 'evaluate_every': None} and load(run)[0]['max_steps'] == 7
    go('--resume run --max-steps 10 --sample-every 0')
    assert 'step_000009' not in steps_of_samples(run) and config(run)['sample_every'] == 0


def test_an_edited_config_is_noticed_and_does_not_count(tmp_path, go):
    go('--data digits --batch-size 2 --max-steps 1 --out run')
    path = tmp_path / 'run' / 'config.json'
    path.write_text(path.read_text().replace('"epochs": 10', '"epochs": 20'))
    _, err = go('--resume run --max-steps 2')
    assert err == ('run/config.json has epochs 20, but the checkpoint 10, which counts: settings are changed on the command line\n')
    assert config(tmp_path / 'run')['epochs'] == 10


def test_alternating_updates_show_no_number_that_is_not_there(go):
    out, _ = go('--data digits --recipe lsgan64 --batch-size 2 --max-steps 2 --out run')
    assert 'nan' not in out and 'step 1/2  epoch 1/10  loss D ' in out


# ---- machines

def test_somebody_without_a_home_has_a_cache_among_the_temporary_files(tmp_path, monkeypatch):
    monkeypatch.delenv('XDG_CACHE_HOME')
    monkeypatch.setattr(cache.tempfile, 'gettempdir', lambda: str(tmp_path / 'tmp'))
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    assert cache.cache_folder('own') == tmp_path / 'home' / '.cache' / 'tinygan' / 'own'
    there = tmp_path / 'tmp' / f'cache-{os.getuid()}' / 'tinygan' / 'own'
    (tmp_path / 'tmp').mkdir()
    monkeypatch.setattr(cache.os, 'access', lambda path, mode: False)
    assert cache.cache_folder('own') == there
    monkeypatch.undo()
    monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
    monkeypatch.setattr(cache.tempfile, 'gettempdir', lambda: str(tmp_path / 'tmp'))
    monkeypatch.setattr(cache.os.path, 'expanduser', lambda path: path)          # as where no user has that number
    assert cache.cache_folder('own') == there and (tmp_path / 'tmp' / f'cache-{os.getuid()}').stat().st_mode & 0o777 == 0o700
    (tmp_path / 'tmp' / f'cache-{os.getuid()}').rmdir()
    (tmp_path / 'tmp' / f'cache-{os.getuid()}').symlink_to(tmp_path)
    with pytest.raises(UserError, match='belongs to somebody else; name a folder for the cache with XDG_CACHE_HOME'):
        cache.cache_folder('own')


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which('setpriv'), reason='only root can become somebody else')
def test_a_user_with_neither_name_nor_home_trains(tmp_path):
    """As docker run --user makes them. Python itself may lie where only root may look: then there is nothing to try."""
    somebody = ['setpriv', '--reuid', '12345', '--regid', '12345', '--clear-groups', 'env', '-i', f'PATH={os.environ["PATH"]}',
                f'PYTHONPATH={ROOT}', sys.executable]
    if subprocess.run([*somebody, '-c', 'import tinygan, train_mnist'], capture_output=True).returncode:
        pytest.skip('that user may not run this Python')
    arguments = '--device', 'cpu', '--data', 'digits', '--batch-size', '2', '--dry-run'
    done = subprocess.run([*somebody, str(ROOT / 'train_mnist.py'), *arguments], cwd='/', capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and 'Traceback' not in done.stderr, done.stderr
    assert done.stdout.splitlines()[-1].startswith('dry run: ')


@pytest.mark.parametrize('encoding', ['utf-8:strict', 'cp1252:strict', 'ascii:strict'])
def test_names_that_the_output_has_no_characters_for_end_no_run(tmp_path, encoding):
    data = pictures(tmp_path / os.fsdecode(b'caf\xe9 \xe2\x82\xac'), 4)
    out, err = finish(start(tmp_path, 'train_mnist.py', *PLAIN, '--data', data, '--batch-size', '2', '--max-steps', '1',
                            '--out', data / 'run', environment={'PYTHONIOENCODING': encoding}, encoding='latin-1'))
    assert 'caf' in out and load(data / 'run')[1] == 1


def test_a_tilde_is_the_home_folder_wherever_it_stands(tmp_path, monkeypatch, go):
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    pictures(tmp_path / 'home' / 'photos', 4)
    go('--data=~/photos --batch-size 2 --max-steps 1 --out=~/run')
    go('--resume=~/run --max-steps 2')
    main(['sample', '~/run', '-n', '1', '--out', '~/grid.png', '--npy', '~/it.npy'])
    assert {'run', 'grid.png', 'it.npy'} < {path.name for path in (tmp_path / 'home').iterdir()} and not (tmp_path / '~').exists()


def test_a_notebook_s_backend_ends_no_run(tmp_path):
    backend = {'MPLBACKEND': 'module://matplotlib_inline.backend_inline'}
    _, err = train(tmp_path, '--max-steps', '1', '--out', 'run', environment=backend, curves=True)
    assert err == '' and (tmp_path / 'run' / 'curves.png').exists()


def test_a_temporary_folder_that_is_not_there_is_answered_with_one_line(tmp_path):
    patch = 'import tempfile; tempfile._candidate_tempdir_list = lambda: ["/dev/null/none"]'
    _, err = train(tmp_path, '--dry-run', check=2, patch=patch)
    assert one_line(err, 'No usable temporary directory found')


def test_main_leaves_a_notebook_as_it_found_it(go):
    import signal
    before = signal.getsignal(signal.SIGINT), np.geterr()
    go('--data digits --batch-size 2 --max-steps 1 --out run')
    assert (signal.getsignal(signal.SIGINT), np.geterr()) == before


def test_a_notebook_shows_a_mistake_in_one_line():
    assert UserError('choose another --out')._render_traceback_() == ['error: choose another --out']
