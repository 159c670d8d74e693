"""A run's folder, whatever happens to it: files cut short, damaged, forged, power gone at any moment."""
import gc
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
import weakref
import zipfile
from pathlib import Path

import numpy as np
import pytest
from commands import begun, leave_none

from tinygan.run import checkpoint
from tinygan.run.checkpoint import Run, newest_checkpoint, open_checkpoint
from tinygan.run.files import atomically
from tinygan.errors import UserError
from tinygan.run.pictures import save_png

ROOT = Path(__file__).parent.parent.parent
CONFIG = {'recipe': 'dcgan', 'seed': 3, 'lr': 2e-4, 'steps_per_epoch': 4}
HEADER = 'step,loss_D,loss_G,D_x,D_G_z1,D_G_z2,frechet'


def load(folder):
    """(config, step, state) of the newest checkpoint that can be read."""
    return newest_checkpoint(folder)[1:]


def state(step):
    return {'G.parameters': np.full(40, step + 0.1, np.float32), 'D.parameters': np.arange(step, step + 9.0),
            'G.statistics': np.zeros(0, np.float32), 'G.t': np.array(step)}


def metrics(step):
    return {name: np.float32(1 / (step + i)) for i, name in enumerate(HEADER.split(',')[1:-1], 1)}


def steps(run, first, last, distances={}, every=1):
    """Make steps first to last, saving after each, or after so many; at some, a distance is measured."""
    for step in range(first, last + 1):
        run.log(step, metrics(step))
        if step in distances:
            run.record_distance(distances[step], state(step))
        if step % every == 0:
            run.save(step, state(step))
    return run


def resume(folder):
    run, state = Run.open(folder)
    run.rewind()
    return run, state


@pytest.fixture
def run(tmp_path):
    """A run whose checkpoint is of step 2, the one before of step 1."""
    return steps(Run.start(tmp_path / 'run', dict(CONFIG), state(0), {'tinygan': '0.1'}), 1, 2)


def loaded_step(folder):
    """The step of the checkpoint that is loaded, after a look at all the rest of it."""
    config, step, arrays = load(folder)
    assert config == CONFIG and arrays.keys() == state(step).keys()
    for name, array in state(step).items():
        assert arrays[name].dtype == array.dtype and arrays[name].shape == array.shape
        assert np.array_equal(arrays[name], array), name
    return step


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def refusal(folder):
    """The one line that says why a folder cannot be loaded."""
    with pytest.raises(UserError) as error:
        load(folder)
    assert '\n' not in str(error.value)
    return str(error.value)


def test_a_run_that_another_process_trains_is_left_alone(tmp_path):
    folder = tmp_path / 'run'
    for go in ('run = steps(Run.start(folder, CONFIG, state(0), {}), 1, 2)', 'run = resume(folder)',
               'run = resume(folder); run = resume(folder)'):              # as a cell of a notebook, run twice
        script = f'import sys; sys.path[:0] = "tests", "tests/run"; from test_checkpoint import *; folder = sys.argv[1]; {go}'
        other = begun([sys.executable, '-c', f'{script}; print(flush=True); sys.stdin.read()', folder],
                      stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
        assert other.stdout.readline() == b'\n'
        before = contents(folder)
        for train in resume, lambda folder: Run.start(folder, CONFIG, state(0), {'tinygan': '0'}):
            with pytest.raises(UserError, match='is being trained by another process'):
                train(folder)
        assert contents(folder) == before and loaded_step(folder) == 2
        leave_none()
    resume(folder)


def test_the_names_of_the_folders_that_a_run_makes_are_synced_too(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(checkpoint, 'sync_names', synced.append)
    Run.start(tmp_path / 'runs' / 'fast', CONFIG, state(0), {'tinygan': '0'})
    assert {tmp_path, tmp_path / 'runs'} <= {*synced}


# ---- one file, whole or not at all

def test_a_file_cut_off_in_the_middle_never_was(tmp_path):
    path = tmp_path / 'file'
    path.write_bytes(b'old')
    with pytest.raises(RuntimeError), atomically(path, previous=tmp_path / 'before') as file:
        file.write(b'ne')
        file.flush()
        raise RuntimeError('in the middle')
    assert contents(tmp_path) == {'file': b'old'}


def test_a_file_does_not_bear_its_name_before_it_is_whole_and_on_the_disk(tmp_path, monkeypatch):
    path, on_disk = tmp_path / 'file', []
    path.write_bytes(b'old')
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, 'fsync', lambda file: on_disk.append(os.fstat(file).st_size) or fsync(file))
    monkeypatch.setattr(os, 'replace', lambda a, b: on_disk.append(path.read_bytes()) or replace(a, b))
    with atomically(path) as file:
        file.write(b'newer')
        assert path.read_bytes() == b'old'
    assert on_disk[:2] == [5, b'old']             # all five bytes synced first, the old ones there until then
    assert contents(tmp_path) == {'file': b'newer'}


def test_of_two_who_write_a_file_at_the_same_time_the_last_to_end_wins_and_both_are_whole(tmp_path):
    with atomically(tmp_path / 'file') as one:
        one.write(b'one')
        with atomically(tmp_path / 'file') as other:
            other.write(b'other')
        assert contents(tmp_path)['file'] == b'other'
        one.write(b', whole')
    assert contents(tmp_path) == {'file': b'one, whole'}


def test_where_a_link_leads_is_written_and_the_link_stays(tmp_path):
    (tmp_path / 'link').symlink_to('file')
    with atomically(tmp_path / 'link') as file:
        file.write(b'there')
    assert (tmp_path / 'link').is_symlink() and (tmp_path / 'file').read_bytes() == b'there'


def test_what_stood_there_before_is_kept_as_the_previous_file(tmp_path):
    for content in (b'one', b'two', b'three'):
        with atomically(tmp_path / 'file', previous=tmp_path / 'before') as file:
            file.write(content)
    assert contents(tmp_path) == {'file': b'three', 'before': b'two'}


def test_a_disk_that_is_full_leaves_both_checkpoints_as_they_were(run, monkeypatch):
    before = contents(run.folder)

    def full_disk(file):
        raise OSError(28, 'No space left on device')
    monkeypatch.setattr(os, 'fsync', full_disk)
    with pytest.raises(OSError, match='No space left'):
        run.save(3, state(3))
    assert contents(run.folder) == before


# ---- a run

def test_a_run_is_complete_from_its_first_moment(tmp_path):
    run = Run.start(tmp_path / 'deep' / 'run', CONFIG, state(0), {'tinygan': '0.1'})
    assert loaded_step(run.folder) == 0
    assert json.loads((run.folder / 'config.json').read_text()) == CONFIG | {'versions': {'tinygan': '0.1'}}
    assert resume(run.folder)[0].step == 0


def test_a_checkpoint_comes_back_bit_for_bit_and_so_does_the_one_before(run):
    assert loaded_step(run.folder) == 2
    (run.folder / 'checkpoint.npz').unlink()
    assert loaded_step(run.folder) == 1


@pytest.mark.parametrize('left', [('checkpoint.npz', 'checkpoint.previous.npz'), ('checkpoint.npz',),
                                  ('checkpoint.previous.npz',), ('best.npz',)], ids=' and '.join)
def test_a_folder_that_holds_a_run_is_never_begun_anew(run, left):
    run.log(3, metrics(3))
    run.record_distance(5.0, state(3))
    for name in {'checkpoint.npz', 'checkpoint.previous.npz', 'best.npz'} - set(left):
        (run.folder / name).unlink()
    before = contents(run.folder)
    with pytest.raises(UserError, match='already holds (a run: go on with --resume .*run, or .* --out|metrics.csv: choose)'):
        Run.start(run.folder, CONFIG, state(0), {'tinygan': '0'})
    assert contents(run.folder) == before


def test_a_folder_without_a_checkpoint_is_not_a_run(tmp_path):
    (tmp_path / 'file').touch()
    for name in ('absent', '.', 'file'):
        message = refusal(tmp_path / name)
        assert 'holds no checkpoint' in message and 'train_mnist.py' in message


# ---- damage

def test_a_newest_checkpoint_cut_short_anywhere_gives_way_to_the_one_before(run):
    path = run.folder / 'checkpoint.npz'
    whole = path.read_bytes()
    for cut in [*range(0, len(whole), 7), len(whole) - 1]:
        path.write_bytes(whole[:cut])
        assert loaded_step(run.folder) == 1


def test_no_single_damaged_byte_goes_unnoticed(run):
    """It either carries no meaning, or the checkpoint before is taken. All its bits are flipped, or the last."""
    path = run.folder / 'checkpoint.npz'
    whole = path.read_bytes()
    taken = set()
    for i, flip in zip(range(len(whole)), itertools.cycle((0xff, 0x01, 0xff))):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ flip]) + whole[i + 1:])
        taken.add(loaded_step(run.folder))
    assert taken == {1, 2}


def test_when_both_are_damaged_both_are_named_in_one_line(run):
    (run.folder / 'checkpoint.npz').write_bytes(b'')
    previous = run.folder / 'checkpoint.previous.npz'
    previous.write_bytes(previous.read_bytes()[:-30])
    message = refusal(run.folder)
    assert f"{run.folder / 'checkpoint.npz'} is damaged (" in message
    assert f"{previous} is damaged (" in message


def test_resuming_beside_a_damaged_newest_checkpoint_keeps_the_good_one_until_another_is_there(run, moments):
    (run.folder / 'checkpoint.npz').write_bytes(b'damaged')
    resumed, _ = resume(run.folder)
    for folder in moments(run.folder, lambda: steps(resumed, 2, 3)):
        assert load(folder)[1] in (1, 2, 3)


# ---- a power failure, at every moment

@pytest.fixture
def moments(tmp_path, monkeypatch):
    """moments(folder, action): copies of the folder as it was before and after every call of the operating
    system by which action changes what a file's name means; what a kill -9 or a power cut would have left."""
    def watch(folder, action, into='moments'):
        copies = []

        def watched(call):
            def wrapper(*arguments, **options):
                copies.append(tmp_path / into / str(len(copies)))
                shutil.copytree(folder, copies[-1])
                return call(*arguments, **options)
            return wrapper
        with monkeypatch.context() as patch:
            for name in ('fsync', 'replace', 'rename', 'unlink', 'remove', 'link'):
                patch.setattr(os, name, watched(getattr(os, name)))
            action()
        return copies + [folder]
    return watch


def test_whenever_the_power_fails_the_run_goes_on_as_if_it_had_not(run, tmp_path, moments):
    unbroken = steps(Run.start(tmp_path / 'unbroken', CONFIG, state(0), {'tinygan': '0.1'}), 1, 6)
    found = []
    for folder in moments(run.folder, lambda: steps(run, 3, 4)):
        found.append(loaded_step(folder))
        resumed, _ = resume(folder)
        steps(resumed, found[-1] + 1, 6)
        assert contents(folder) == contents(unbroken.folder)
    assert found == sorted(found) and set(found) == {2, 3, 4} and len(found) > 8


def test_whenever_the_power_fails_at_the_start_the_folder_can_be_begun_again_or_resumed(tmp_path, moments):
    folder = tmp_path / 'run'
    folder.mkdir()
    resumable = []
    for copy in moments(folder, lambda: Run.start(folder, CONFIG, state(0), {'tinygan': '0'})):
        resumable.append((copy / 'checkpoint.npz').exists())
        run = resume(copy)[0] if resumable[-1] else Run.start(copy, CONFIG, state(0), {'tinygan': '0'})
        steps(run, 1, 1)
        assert loaded_step(copy) == 1
    assert resumable[0] is False and resumable[-1] is True


def test_whenever_the_power_fails_while_resuming_the_run_can_be_resumed(run, tmp_path, moments):
    run.log(3, metrics(3))
    run.flush()
    for folder in moments(run.folder, lambda: resume(run.folder)):
        resumed, _ = resume(folder)
        assert resumed.step == 2 and (folder / 'metrics.csv').read_text().splitlines()[-1].startswith('2,')


# ---- forgery

def forge(run, **entries):
    """Make the newest checkpoint one of step 2 with these entries instead of its own; None takes one away."""
    path = run.folder / 'checkpoint.npz'
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files} | entries
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


class Trap:
    """Unpickled, it makes a folder."""
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_is_refused_and_not_executed(run, tmp_path):
    (run.folder / 'checkpoint.previous.npz').unlink()
    forge(run, **{'G.parameters': np.array([Trap(tmp_path / 'sprung')], object)})
    with np.load(run.folder / 'checkpoint.npz', allow_pickle=True) as file:      # it is a trap indeed
        file['G.parameters']
    assert (tmp_path / 'sprung').is_dir()
    (tmp_path / 'sprung').rmdir()
    assert 'checkpoint.npz is damaged' in refusal(run.folder)
    assert not (tmp_path / 'sprung').exists()


def test_a_bare_pickle_and_a_bare_array_are_no_checkpoints(run, tmp_path):
    path = run.folder / 'checkpoint.npz'
    array = io.BytesIO()
    np.save(array, np.arange(3))
    for content in (array.getvalue(), b'\x80\x04K\x01.', b'PK\x05\x06' + bytes(18), b'hello'):
        path.write_bytes(content)
        assert loaded_step(run.folder) == 1


@pytest.mark.parametrize('about', [None, 'not json', '[]', '7', '{}', '{"version": 1, "step": 2}',
                                   '{"version": 1, "config": {}}', '{"step": 2, "config": {}}'])
def test_a_checkpoint_that_does_not_say_what_it_is_gives_way_to_the_one_before(run, about):
    forge(run, about=about and np.array(about))
    assert loaded_step(run.folder) == 1


@pytest.mark.parametrize('name', state(0))
def test_a_checkpoint_that_lacks_an_array_gives_way_to_the_one_before(run, name):
    forge(run, **{name: None})
    assert loaded_step(run.folder) == 1


def test_a_checkpoint_of_a_newer_version_is_refused_even_where_an_older_one_lies_beside_it(run):
    with np.load(run.folder / 'checkpoint.npz') as file:
        about = json.loads(str(file['about']))
    forge(run, about=np.array(json.dumps(about | {'version': about['version'] + 1})))
    message = refusal(run.folder)
    assert 'checkpoint.npz was written by a newer tinygan' in message
    assert f"format {about['version'] + 1}, not {about['version']}" in message


def test_a_checkpoint_is_an_ordinary_npz_of_plain_arrays(run):
    with zipfile.ZipFile(run.folder / 'checkpoint.npz') as file:
        assert file.testzip() is None
        assert {name.removesuffix('.npy') for name in file.namelist()} >= set(state(0))


# ---- metrics.csv

@pytest.mark.parametrize('content', [
    b'', b'step;loss_D\n1;2\n', b'\xff\xfe\n', b'step,loss_D\nabc,1\n', b'\xef\xbb\xbfstep\n1\n', b'step,lost_D\n1,1\n2,1\n',
    b'step\n1\n', b'step\n2\n2\n', b'step\n0\n2\n', b'step\n1\x0b2\n', b'step,loss_D\n1,1\n2,0.x\n', b'step,loss_D\n1,1\n2,nan\n',
    b'step,loss_D\n1,1\n2\n', b'step,loss_D\n1,1\n2,1,1\n',
    b'step,loss_D\n1,"1\n2,1\n', b'step,loss_D\n1,"' + b'1\n2,' * 50_000 + b'1\n'],
                         ids=lambda content: repr(content)[:40])
def test_a_damaged_metrics_csv_is_named_in_one_line(run, content):
    (run.folder / 'metrics.csv').write_bytes(content)
    (run.folder / 'samples' / 'step_000099.png').write_bytes(b'of a later step')
    with pytest.raises(UserError, match=r'metrics.csv is damaged \(.*\); moved away, it stops no run$'):
        resume(run.folder)
    assert (run.folder / 'samples' / 'step_000099.png').exists()          # nothing has been changed


def test_a_run_whose_samples_were_deleted_goes_on(run):
    shutil.rmtree(run.folder / 'samples')
    resumed, _ = resume(run.folder)
    resumed.save_pictures()
    assert (run.folder / 'curves.png').exists() and not (run.folder / 'samples.gif').exists()


def table(run):
    return (run.folder / 'metrics.csv').read_bytes()


def test_metrics_have_a_header_and_a_row_for_every_step_in_full_precision(run):
    header, *rows = table(run).decode().splitlines()
    assert header.split(',')[0] == 'step' and sorted(header.split(',')) == sorted(HEADER.split(','))
    for step, row in enumerate(rows, 1):
        numbers = {name: np.float32(value) for name, value in zip(header.split(','), row.split(',')) if value}
        assert numbers == {'step': step} | metrics(step)
    assert len(rows) == 2


def test_rows_beyond_the_checkpoint_leave_when_the_run_goes_on(run):
    before = table(run)
    for step in (3, 4):
        run.log(step, metrics(step))
    assert run.flush()[-1]["step"] == 4
    assert len(table(run)) > len(before)
    resume(run.folder)
    assert table(run) == before


def test_rows_logged_but_not_yet_written_are_written_before_their_checkpoint(run):
    run.log(3, metrics(3))
    run.save(3, state(3))
    run.log(4, metrics(4))                        # never flushed: lost, and made again
    resume(run.folder)
    assert [row.partition(b',')[0] for row in table(run).split()] == [b'step', b'1', b'2', b'3']


def test_a_last_row_cut_short_anywhere_is_made_again(run):
    before = table(run)
    run.log(34, metrics(34))                      # cut to "3" it must not become step 3
    run.flush()
    whole = table(run)
    for cut in range(len(before), len(whole) + 1):
        (run.folder / 'metrics.csv').write_bytes(whole[:cut])
        resumed, _ = resume(run.folder)
        assert resumed.step == 2 and table(run) == before, whole[len(before):cut]


@pytest.mark.parametrize('poison', [np.nan, np.inf])
def test_a_loss_that_is_no_number_stops_the_run_before_it_is_saved(run, poison):
    run.log(3, metrics(3) | {'loss_G': np.float32(poison)})
    with pytest.raises(UserError, match='diverged: step 3 .* checkpoint of step 2 .* is sound.*--lr'):
        run.save(3, state(3))
    assert loaded_step(run.folder) == 2
    resume(run.folder)
    assert table(run).split()[-1].startswith(b'2,')


@pytest.mark.parametrize('poison', [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_not_saved(run, poison):
    """The losses of a step are those before its update: they can be sound when the weights no longer are."""
    poisoned = state(3)
    poisoned['D.parameters'][4] = poison
    run.log(3, metrics(3))
    with pytest.raises(UserError, match='diverged'):
        run.save(3, poisoned)
    assert loaded_step(run.folder) == 2


# ---- the best generator

DISTANCES = {1: 90.0, 3: 200 / 3, 4: 70.0, 6: 60.0, 8: 65.0, 9: 60.0}
BEST = 'best.npz'


def best_step(run):
    """The step whose state best.npz holds."""
    _, config, step, arrays = open_checkpoint(run.folder / BEST)
    assert config == CONFIG and np.array_equal(arrays['G.parameters'], state(step)['G.parameters'])
    return step


def measured(run):
    return {int(row.split(b',')[0]): float(row.split(b',')[-1]) for row in table(run).split()[1:] if row[-1:] != b','}


def test_the_state_with_the_lowest_distance_so_far_is_kept_and_every_distance_noted(tmp_path):
    run = Run.start(tmp_path / 'run', CONFIG, state(0), {'tinygan': '0'})
    for step, expected in zip(range(1, 10), (1, 1, 3, 3, 3, 6, 6, 6, 6)):
        steps(run, step, step, DISTANCES)
        assert best_step(run) == expected
    assert measured(run) == pytest.approx(DISTANCES) and loaded_step(run.folder) == 9


def test_a_run_that_measures_nothing_keeps_nothing(run):
    assert measured(run) == {} and not (run.folder / BEST).exists()
    with pytest.raises(UserError, match='best.npz holds no checkpoint'):
        open_checkpoint(run.folder / BEST)


def test_the_lowest_distance_is_remembered_by_a_run_that_goes_on(tmp_path):
    steps(Run.start(tmp_path / 'run', CONFIG, state(0), {'tinygan': '0'}), 1, 3, DISTANCES)
    for step, distance, best in (4, 200 / 3, 3), (5, 66.7, 3), (6, 66.6, 6):         # the first as low, not lower
        run, _ = resume(tmp_path / 'run')
        steps(run, step, step, {step: distance})
        assert best_step(run) == best


def test_a_later_best_goes_and_none_is_kept_before_one_is_better_than_all_that_are_left(tmp_path):
    run = steps(Run.start(tmp_path / 'run', CONFIG, state(0), {'tinygan': '0'}), 1, 7, DISTANCES, every=4)
    assert best_step(run) == 6 and loaded_step(run.folder) == 4
    run, _ = resume(run.folder)
    assert not (run.folder / BEST).exists() and measured(run) == pytest.approx({1: 90, 3: 200 / 3, 4: 70})
    steps(run, 5, 6, {5: 66.7})
    assert not (run.folder / BEST).exists()
    steps(run, 7, 7, {7: 66.6})
    assert best_step(run) == 7


def test_a_best_that_was_there_before_the_checkpoint_stays_when_the_run_goes_on(tmp_path):
    run = steps(Run.start(tmp_path / 'run', CONFIG, state(0), {'tinygan': '0'}), 1, 5, DISTANCES, every=4)
    before = (run.folder / BEST).read_bytes()
    run, _ = resume(run.folder)
    assert best_step(run) == 3 and (run.folder / BEST).read_bytes() == before


def test_whenever_the_power_fails_the_best_is_none_or_a_true_one_and_in_the_end_the_same(tmp_path, moments):
    unbroken, run = (steps(Run.start(tmp_path / name, CONFIG, state(0), {'tinygan': '0'}), 1, last, DISTANCES, every=2)
                     for name, last in (('unbroken', 4), ('run', 2)))
    found = set()
    for i, folder in enumerate(moments(run.folder, lambda: steps(run, 3, 4, DISTANCES, every=2))):
        for copy in moments(folder, lambda: resume(folder), f'again {i}'):       # while it is resumed, too
            resumed, _ = resume(copy)
            found.add((copy / BEST).exists() and best_step(resumed))
            if (copy / BEST).exists():
                assert measured(resumed)[best_step(resumed)] == min(measured(resumed).values())
            steps(resumed, resumed.step + 1, 4, DISTANCES, every=2)
            names = 'metrics.csv', 'checkpoint.npz', BEST
            assert [contents(copy)[name] for name in names] == [contents(unbroken.folder)[name] for name in names]
    assert found == {False, 1, 3}


def test_a_best_of_weights_that_are_no_numbers_is_not_kept(tmp_path):
    run = steps(Run.start(tmp_path / 'run', CONFIG, state(0), {'tinygan': '0'}), 1, 3, DISTANCES)
    run.log(4, metrics(4))
    with pytest.raises(UserError, match='diverged: step 4 has a weight'):
        run.record_distance(1.0, state(4) | {'G.parameters': np.full(40, np.nan, np.float32)})
    assert best_step(run) == 3


def test_a_damaged_best_is_named_in_one_line_and_stops_no_run(run):
    steps(run, 3, 3, DISTANCES)
    path = run.folder / BEST
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r'best.npz is damaged \(.*\)$'):
        open_checkpoint(path)
    resumed, _ = resume(run.folder)
    steps(resumed, 4, 6, DISTANCES)
    assert best_step(resumed) == 6


def test_a_run_is_taken_up_again_from_its_checkpoint_and_from_no_other_file(run):
    assert open_checkpoint(run.folder)[2] == open_checkpoint(run.folder / 'checkpoint.npz')[2] == 2
    again, _ = Run.open(run.folder / 'checkpoint.npz')
    assert again.folder == run.folder and again.step == 2
    shutil.copy(run.folder / 'checkpoint.npz', run.folder / 'best.npz')
    for name in 'checkpoint.previous.npz', 'best.npz':
        with pytest.raises(UserError, match=f'^a run does not go on from {run.folder / name}: name its folder$'):
            Run.open(run.folder / name)


# ---- config.json

def test_what_was_changed_by_hand_in_config_json_is_noticed(run):
    path = run.folder / 'config.json'
    written = json.loads(path.read_text())
    assert Run.open(run.folder)[0].edited() == {} and written['versions'] == {'tinygan': '0.1'}
    path.write_text(json.dumps(written | {'lr': 0.1, 'note': 'mine', 'versions': {}}))
    assert Run.open(run.folder)[0].edited() == {'lr': 0.1, 'note': 'mine'}


@pytest.mark.parametrize('content', [None, '', 'not json', '[]', '7', '[' * 100_000])
def test_a_config_json_that_is_lost_or_damaged_is_written_anew(run, content):
    path = run.folder / 'config.json'
    path.unlink() if content is None else path.write_text(content)
    again, _ = resume(run.folder)
    assert again.edited() == {}
    again.write_config()
    assert json.loads(path.read_text()) == CONFIG | {'versions': {}}


def test_a_config_json_that_is_written_anew_keeps_the_versions_that_the_run_began_with(run):
    again, _ = resume(run.folder)
    again.config['lr'] = 1
    again.write_config()
    assert json.loads((run.folder / 'config.json').read_text()) == CONFIG | {'lr': 1, 'versions': {'tinygan': '0.1'}}


def test_metrics_of_a_tinygan_that_did_not_measure_go_on_with_an_empty_column(run):
    wanted = table(run)
    (run.folder / 'metrics.csv').write_bytes(b'\n'.join(row.rpartition(b',')[0] for row in wanted.split()) + b'\n')
    assert table(run) != wanted
    resumed, _ = resume(run.folder)
    assert table(resumed) == wanted
    steps(resumed, 3, 3, DISTANCES)
    assert measured(resumed) == pytest.approx({3: 200 / 3}) and best_step(resumed) == 3


# ---- pictures

def sample(run, name, shade):
    run.save_sample(name, np.full((8, 8, 1), shade, np.uint8))


def test_the_gif_shows_steps_and_epochs_in_the_order_they_were_made(run):
    from PIL import Image
    order = ['step_000001', 'step_000002', 'epoch_001', 'step_000006', 'epoch_002', 'epoch_010']
    for i in (5, 2, 0, 4, 1, 3):
        sample(run, order[i], 40 * i)
    run.save_pictures()
    shades = []
    with Image.open(run.folder / 'samples.gif') as gif:
        for frame in range(gif.n_frames):
            gif.seek(frame)
            shades.append(gif.convert('L').getpixel((0, 0)))
    np.testing.assert_allclose(shades, [0, 40, 80, 120, 160, 200], atol=1)


def test_a_sample_cut_short_by_a_kill_does_not_stop_the_resumed_run(run):
    sample(run, 'step_000002', 100)
    sample(run, 'step_000008', 100)
    path = run.folder / 'samples' / 'step_000008.png'
    path.write_bytes(path.read_bytes()[:-30])
    resumed, _ = resume(run.folder)
    resumed.save_pictures()
    assert (run.folder / 'samples.gif').exists() and (run.folder / 'curves.png').exists()


def test_figures_do_not_pile_up_where_training_makes_too_little_for_python_to_look(run, monkeypatch):
    from tinygan.run.pictures import matplotlib_figure
    drawn = weakref.WeakSet()

    class Watched(matplotlib_figure()):
        def __init__(self, *arguments, **settings):
            super().__init__(*arguments, **settings)
            drawn.add(self)
    monkeypatch.setattr('tinygan.run.pictures.matplotlib_figure', lambda: Watched)
    gc.disable()
    try:
        run.draw_curves(run.folder / 'curves.png')
        assert (run.folder / 'curves.png').exists() and not drawn
    finally:
        gc.enable()


def test_a_long_run_s_gif_shows_a_hundred_of_its_grids_evenly(run, monkeypatch):
    for i in range(1, 251):
        (run.folder / 'samples' / f'step_{i:06d}.png').touch()
    shown = []
    monkeypatch.setattr(checkpoint, 'save_gif', lambda path, frames: shown.extend(int(frame.stem[-6:]) for frame in frames))
    run.draw_samples('any')
    assert len(shown) == 100 and shown[0] == 1 and shown[-1] == 250 and set(np.diff(shown)) == {2, 3}


def test_pictures_and_parts_that_others_left_are_not_touched(run):
    for name in 'film.mkv.abcdefgh.part', 'film.mkv.0123abcd.part', 'inner/a.png.0123abcd.part':
        (run.folder / name).parent.mkdir(exist_ok=True)
        (run.folder / name).touch()
    ours = run.folder / 'samples' / 'step_000001.png.0123abcd.part'
    ours.touch()
    resume(run.folder)
    assert not ours.exists() and len(list(run.folder.rglob('*.part'))) == 3


@pytest.mark.parametrize('where, fault', [((Path, 'read_bytes'), PermissionError(13, 'Permission denied')),
                                          ((checkpoint, 'read'), MemoryError())])
def test_a_checkpoint_that_the_system_does_not_let_us_read_is_not_called_damaged(run, monkeypatch, where, fault):
    monkeypatch.setattr(*where, lambda *_: (_ for _ in ()).throw(fault))
    with pytest.raises(type(fault)):
        Run.open(run.folder)


def test_a_run_whose_checkpoints_were_deleted_is_not_written_over(run):
    sample(run, 'step_000001', 9)
    for path in run.folder.glob('*.npz'):
        path.unlink()
    with pytest.raises(UserError, match='already holds metrics.csv: choose another --out'):
        checkpoint.check_unused(run.folder)


@pytest.mark.parametrize('name', ['metrics.csv', 'curves.png', 'samples/mine.png', 'best.npz'])
def test_a_config_json_that_was_copied_does_not_open_a_folder_of_somebody_else(run, tmp_path, name):
    folder = tmp_path / 'mine'
    (folder / 'samples').mkdir(parents=True)
    shutil.copy(run.folder / 'config.json', folder)
    checkpoint.check_unused(folder)
    (folder / name).write_text('step,loss_D\n1,2\n')
    with pytest.raises(UserError, match=f'mine already holds {name.partition("/")[0]}: choose another --out'):
        checkpoint.check_unused(folder)


def test_a_run_without_its_metrics_goes_on(run):
    (run.folder / 'metrics.csv').unlink()
    again, _ = resume(run.folder)
    steps(again, 3, 4)
    assert table(again).startswith(HEADER.encode()) and len(table(again).splitlines()) == 3


def test_when_epochs_get_another_length_the_grids_so_far_keep_their_steps(run):
    for name in 'step_000001', 'epoch_001', 'epoch_003':
        sample(run, name, 9)
    run.forget_epochs()
    run.config['steps_per_epoch'] = 7
    assert [made_at for made_at, _ in run.samples()] == [1, 4, 12]
    assert {path.stem for _, path in run.samples()} == {'step_000001', 'step_000004', 'step_000012'}


@pytest.mark.parametrize('fault', [ValueError('no such font'), OSError(28, 'No space left on device'), MemoryError()])
def test_pictures_that_cannot_be_drawn_are_said_and_end_no_run(run, monkeypatch, capsys, fault):
    sample(run, 'step_000001', 9)
    for name in 'save_gif', 'plot_curves':
        monkeypatch.setattr(checkpoint, name, lambda *_: (_ for _ in ()).throw(fault))
    run.save_pictures()
    gif, curves = capsys.readouterr().err.splitlines()
    assert gif.startswith(f'{run.folder}/samples.gif cannot be drawn: ') and curves.startswith(f'{run.folder}/curves.png cannot')


def test_a_picture_of_the_user_s_own_among_the_samples_is_left_alone(run):
    sample(run, 'step_000002', 100)
    for name in ('my_best', 'epoch_one', 'step_1_2'):
        save_png(run.folder / 'samples' / f'{name}.png', np.zeros((8, 8, 1), np.uint8))
    run.save_pictures()
    assert (run.folder / 'samples.gif').exists() and (run.folder / 'samples' / 'my_best.png').exists()
