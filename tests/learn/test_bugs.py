"""The gallery of bugs: each is noticed, and seen; and one that is hidden can be found, mended and looked up."""
import difflib
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from commands import one_line, tinygan
from PIL import Image

from tinygan.data.digits import Digits
from tinygan.data.ours import MADE_BY
from tinygan.errors import UserError
from tinygan.learn import bugs, source
from tinygan.learn.mistakes import MISTAKES


@pytest.mark.parametrize('name', MISTAKES)
def test_every_mistake_is_one_change_to_the_line_it_names(name):
    mistake = MISTAKES[name]
    before, after = source.text_of(mistake.file), mistake.planted(source.text_of(mistake.file))
    assert before != after
    assert before.count(mistake.right) == 1 or name not in bugs.GALLERY
    compile(after, name, 'exec')


def test_the_core_passes_every_check():
    rows = list(bugs.check(bugs.core_with()))
    assert len(rows) > 100 and not [row for row in rows if row.words]


@pytest.mark.parametrize('name', bugs.GALLERY)
def test_every_bug_of_the_gallery_is_noticed(name):
    assert any(row.words for row in bugs.check(bugs.core_with(MISTAKES[name])))


def test_both_sides_of_a_picture_see_the_same_and_only_the_bug_differs():
    (right, samples), (again, _), (wrong, others) = (bugs.train(bugs.core_with(mistake), Digits(0), steps=4)
                                                     for mistake in (None, None, MISTAKES['norm-mean']))
    assert right['loss_D'].shape == (4,) and samples.shape == (bugs.SHOWN, 28, 28, 1) and samples.dtype == np.uint8
    np.testing.assert_array_equal(right['loss_G'], again['loss_G'])
    assert right['loss_D'][0] == wrong['loss_D'][0]                # a wrong backward shows in the second step
    assert (right['loss_D'][1:] != wrong['loss_D'][1:]).all() and (samples != others).any()


def test_a_bug_is_drawn_and_what_gives_it_away_is_said(here, capsys):
    assert tinygan('bug', 'norm-mean', '--steps', 3) == 0
    out = capsys.readouterr().out
    assert MISTAKES['norm-mean'].says in out and MISTAKES['norm-mean'].seen in out and 'the checks of BatchNorm2d' in out
    with Image.open('norm-mean.png') as picture:
        assert picture.info['Software'] == MADE_BY and picture.width > 800
    tinygan('bug', 'adam-t', '--steps', 2, '--out', 'norm-mean.png')             # its own picture may be replaced
    Path('mine.png').write_bytes(b'mine')
    for arguments, words in ((['norm-mean', '--out', 'mine.png'], 'mine.png is there already'),
                             (['norm-mean', '--out', 'no/such.png'], 'no such folder'), (['norm-mean', '--blind'], 'either a NAME'),
                             (['--steps', 5], 'either a NAME'), (['--check', 'x', '--out', 'x.png'], 'either a NAME')):
        with pytest.raises(UserError, match=words):
            tinygan('bug', *arguments)
    assert Path('mine.png').read_bytes() == b'mine'


def test_a_bug_that_leads_out_of_the_numbers_is_drawn_all_the_same(here):
    tinygan('bug', 'adam-unsquared', '--steps', 3)
    assert Path('adam-unsquared.png').exists()


def test_ctrl_c_ends_both_trainings_at_once(monkeypatch):
    def train(core, images, steps, tell):
        for _ in range(3000):
            time.sleep(0.01)
            tell()
    monkeypatch.setattr(bugs, 'train', train)
    start = time.monotonic()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)            # nohup pytest & would not hear it
    threading.Timer(0.3, lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            bugs.compare('norm-mean', None, 3000, 'no.png')
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - start < 5


def test_a_hidden_bug_is_found_mended_and_looked_up(here, capsys):
    assert tinygan('bug', '--blind', 3) == 0
    folder = Path('blind-3')
    assert sorted(path.stem for path in folder.glob('*.py')) == sorted(source.CORE)
    changed = [file for file in source.CORE if (folder / f'{file}.py').read_text() != source.text_of(file)]
    assert len(changed) == 1 and changed[0] not in capsys.readouterr().out       # nothing gives it away
    assert tinygan('bug', '--check', folder) == 1
    assert 'WRONG' in capsys.readouterr().out
    assert tinygan('bug', '--solution', folder) == 0
    diff = capsys.readouterr().out
    spoiled = folder / f'{changed[0]}.py'
    lines = difflib.ndiff(spoiled.read_text().splitlines(), source.text_of(changed[0]).splitlines())
    assert all(line[2:] in diff for line in lines if line[0] in '+-')
    spoiled.write_text(source.text_of(changed[0]))
    assert tinygan('bug', '--check', folder) == 0
    assert 'checks pass: blind-3 is right again' in capsys.readouterr().out
    tinygan('bug', '--solution', folder)
    assert capsys.readouterr().out == 'blind-3 is the core, to the letter\n'


def test_another_seed_hides_another_bug_and_the_same_seed_the_same(here):
    def text(folder):
        return ''.join(path.read_text() for path in sorted(Path(folder).glob('*.py')))
    for seed in range(6):
        tinygan('bug', '--blind', seed)
    assert len({text(f'blind-{seed}') for seed in range(6)}) > 2
    bugs.hide('again', 4)
    assert text('again') == text('blind-4')
    tinygan('bug', '--blind')                     # some seed
    assert len(list(here.glob('blind-*'))) == 7


def test_a_copy_that_does_not_run_is_wrong_in_one_line(here, capsys, command):
    bugs.hide('copy', 0)
    good = Path('copy/optim.py').read_text()
    for bad, words in ((good.replace('def step', 'def stp'), 'AttributeError'), ('def (', 'optim.py, line 1: SyntaxError'),
                       (good.replace('self.t += 1', 'self.t += one'), "name 'one' is not defined")):
        Path('copy/optim.py').write_text(bad)
        assert tinygan('bug', '--check', 'copy') == 1
        assert words in capsys.readouterr().out
    Path('copy/optim.py').write_text(good)
    gan = Path('copy/gan.py').read_text()
    Path('copy/gan.py').write_text(gan.replace('return random_stream(', 'return nothing('))
    assert tinygan('bug', '--check', 'copy') == 1
    assert "gan.py, line" in capsys.readouterr().out
    Path('copy/gan.py').write_bytes(b'\xff')
    with pytest.raises(UserError, match='not a text in UTF-8'):
        tinygan('bug', '--solution', 'copy')
    Path('copy/optim.py').unlink()
    for option in '--check', '--solution':
        assert one_line(command('tinygan', 'bug', option, 'copy', check=2).stderr, 'no copy of the core: it has no optim.py',
                        program='tinygan')
    with pytest.raises(UserError, match='is there already'):
        bugs.hide('copy', 0)


def test_the_list_names_every_bug_of_the_gallery(here, capsys):
    tinygan('bug')
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:len(bugs.GALLERY)]] == list(bugs.GALLERY)
    assert len(bugs.GALLERY) >= 12
    with pytest.raises(UserError, match='invalid choice'):
        tinygan('bug', 'no-such')
