"""benchmarks/mutants.py: what it changes, what it never does, and how it counts."""
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import pytest
from commands import ROOT

sys.path.insert(0, str(ROOT / 'benchmarks'))
import mutants  # noqa: E402
from mutations import Mutant, Places, differ, draw_mutants  # noqa: E402

SOURCE = '''
"""A docstring with 1 < 2."""
def step(x: Array[2], n=1, *, plain=False) -> 3:
    if x < n and plain is not True:
        raise UserError(f'{n + 1} is too many' + str(2 + 2))
    x[1:] += 4 * -n          # é has two bytes
    while [i for i in x if i]:
        print('a' + 'b', help='no')
        continue
    return shape(n, x, 'a', 'b', plain=plain)
'''
MUTANT = Mutant('tinygan/data/own.py', 3, 2, 4, b'ONE = 2\n', 'ONE = 1', 'ONE = 2')
PASS = '''
import subprocess, sys
import pytest, tinygan

@pytest.fixture
def two():
    return tinygan.f(0)

def test_here():
    tinygan.f(0)

def test_in_a_process():
    subprocess.run([sys.executable, '-c', 'import tinygan; tinygan.f(1)'], check=True)

def test_fixture(two):
    pass

def test_that_fails():
    assert False
'''
NOW_AND_THEN = '''
from pathlib import Path

def test_one():
    if not Path('failed').exists():
        Path('failed').touch()
        assert False
'''
CHANGES = {
    ('1', '2'), ('1', ''), ('4', '5'), ('4', '8'), ('False', 'True'), ('True', 'False'), ('<', '<='), ('<', '>='), ('and', 'or'),
    ('is not', 'is'), ('+', '-'), ('*', '/'), ('*', '+'), ('-', ''), ('continue', 'break'), (', plain=plain', ''), ('n, x', 'x, n'),
    *[('x < n and plain is not True', value) for value in ('True', 'False')], ('[i for i in x if i]', 'False'), ('i', 'True'),
    *[(statement, 'pass') for statement in ("raise UserError(f'{n + 1} is too many' + str(2 + 2))", 'x[1:] += 4 * -n',
                                            "print('a' + 'b', help='no')")],
    ("shape(n, x, 'a', 'b', plain=plain)", 'None')}


@pytest.fixture
def small(tmp_path):
    """A project of two files."""
    (tmp_path / 'tinygan').mkdir()
    for file in 'tinygan/conv.py', 'train_mnist.py':
        shutil.copy(ROOT / file, tmp_path / file)
    return tmp_path


def test_all_is_changed_but_texts_annotations_and_what_is_raised():
    source = SOURCE.encode()
    assert CHANGES == {(source[start:end].decode(), text.decode())
                       for (start, end), (_, _, texts) in Places(source).found.items() for text in texts}


def test_a_mutant_has_lines_which_a_pass_over_the_tests_may_have_seen():
    def lines(source):
        return {(first, last) for first, last, _ in Places(source).found.values()}
    assert lines(b'A = 1\nB = 2\n') == {(0, 3)} and lines(b'A = 1\nB = lambda: 2\n') == {(1, 3)}           # the import, or all
    assert lines(b'def f(a=1):\n    """f"""\n    if (a and\n            b):\n        c = 1\n        d\n') == {
        (2, 6), (3, 4), (5, 5), (6, 6)}


def test_a_seed_draws_the_same_mutants_again_and_another_seed_others(small):
    drawn, places = draw_mutants(small, 20, 7)
    assert draw_mutants(small, 30, 7)[0][:20] == drawn and draw_mutants(small, 20, 8)[0] != drawn
    assert len(drawn) == 20 < places and {mutant.file for mutant in drawn} == {'tinygan/conv.py', 'train_mnist.py'}
    for mutant in drawn:
        assert mutant.before != mutant.after and differ((ROOT / mutant.file).read_bytes(), mutant.source)


@pytest.mark.parametrize('wrong', [b'a = 1 +', b'a = (1)', b'a = 1  # 2'])
def test_what_is_no_python_or_the_same_python_is_no_mutant(wrong):
    assert not differ(b'a = 1', wrong)


def test_near_tests_come_first_then_quick_ones_and_those_of_learn_for_learn_alone():
    tests = 'tests/test_cli.py::a', 'tests/data/test_mnist.py::b', 'tests/data/test_own.py::c', 'tests/learn/test_bugs.py::d'
    cli, mnist, own, bugs = tests
    quick, seconds = 'tests/data/test_own.py::e', dict.fromkeys(tests, 2) | {'tests/data/test_own.py::e': 1}
    assert mutants.groups(MUTANT, seconds, {('tinygan/data/own.py', 3): set(tests)}) == [[own], [mnist], [cli]]
    assert mutants.groups(MUTANT, seconds, {('tinygan/data/own.py', 3): {'tests/data/test_own.py'}}) == [[quick, own]]
    assert mutants.groups(MUTANT, seconds, {('tinygan/data/own.py', 5): set(tests)}) == []
    whole, seconds['tests/test_cli.py::f'] = MUTANT._replace(first=1, last=9), 0.1          # not in a function
    runs = {('tinygan/data/own.py', 3): {own}, ('tinygan/data/own.py', 0): {'tests/test_cli.py', bugs, mnist}}
    assert mutants.groups(whole, seconds, runs) == [[own], ['tests/test_cli.py::f']]
    page = MUTANT._replace(file='tinygan/learn/page.py')
    assert mutants.groups(page, seconds, {('tinygan/learn/page.py', 3): {*tests, quick}}) == [[bugs], [cli, mnist, quick, own]]


def test_a_survivor_without_a_reason_is_a_gap():
    rows = [{'file': f'tinygan/{file}.py', 'result': result, 'why': why} for file, result, why in [
        ('conv', 'killed', ''), ('conv', 'timed out', ''), ('data/own', 'survived', ''),
        ('data/own', 'survived', 'nothing: it is sorted'), ('data/own', 'survived', 'looks: the order of its words'),
        ('data/own', 'survived', 'test: test_own.py'), ('data/own', 'survived', 'nothing is said')]]
    assert mutants.table(rows).splitlines()[2:] == [
        '| tinygan | 2 | 1 | 1 | 0 | 0 | 0 | 0 | 0 |', '| tinygan/data | 5 | 0 | 0 | 1 | 1 | 0 | 1 | 2 |',
        '| all | 7 | 1 | 1 | 1 | 1 | 0 | 1 | 2 |', '',
        '28.6% are killed, 40.0% of those that change what is computed.']


def test_a_pass_notes_who_runs_a_line_in_processes_and_fixtures_too(tmp_path, monkeypatch):
    for folder in 'tinygan', 'tests':
        (tmp_path / folder).mkdir()
    (tmp_path / 'sitecustomize.py').write_text(mutants.TRACER)
    (tmp_path / 'tinygan' / '__init__.py').write_text('def f(x):\n    if x:\n        return 1\n    return 2\n')
    (tmp_path / 'tests' / 'test_a.py').write_text(PASS)
    monkeypatch.setattr(mutants, 'ROOT', tmp_path)
    monkeypatch.delenv('PYTEST_CURRENT_TEST')     # this one's
    folders = SimpleQueue()
    folders.put(tmp_path)
    with ThreadPoolExecutor(1) as workers:
        seconds, runs = mutants.survey(folders, workers)
    a, both = 'tests/test_a.py', {'tests/test_a.py::test_here', 'tests/test_a.py::test_in_a_process'}
    assert seconds.keys() == {*both, f'{a}::test_fixture'}
    assert [runs['tinygan/__init__.py', line] for line in (0, 2, 3, 4)] == [
        {a, f'{a}::test_in_a_process'}, {a, *both}, {f'{a}::test_in_a_process'}, {a, f'{a}::test_here'}]


def test_a_file_is_as_it_was_after_its_mutant(tmp_path):
    (tmp_path / 'tests').mkdir()
    (tmp_path / 'tests' / 'test_a.py').write_text('import a\n\ndef test_one():\n    assert a.ONE == 1\n')
    (tmp_path / 'a.py').write_text('ONE = 1\n')
    mutant, test = MUTANT._replace(file='a.py', first=1, last=1), 'tests/test_a.py::test_one'
    seconds, runs = {test: 0}, {('a.py', 1): {'tests/test_a.py'}}
    assert mutants.try_out(mutant, 1, tmp_path, seconds, runs) == ('killed', test)
    assert (tmp_path / 'a.py').read_text() == 'ONE = 1\n'
    assert mutants.try_out(mutant._replace(source=b'ONE = 2 - 1\n'), 2, tmp_path, seconds, runs) == ('survived', '1 tests')
    assert mutants.try_out(mutant, 3, tmp_path, seconds, {}) == ('survived', '0 tests')


def test_what_fails_only_now_and_then_proves_nothing(tmp_path):
    (tmp_path / 'test_a.py').write_text(NOW_AND_THEN)
    (tmp_path / 'a.py').touch()
    mutant, seconds, runs = MUTANT._replace(file='a.py', first=1, last=1), {'test_a.py::test_one': 0}, {('a.py', 1): {'test_a.py'}}
    assert mutants.try_out(mutant, 1, tmp_path, seconds, runs) == ('survived', '1 tests')
    assert (tmp_path / 'failed').exists()
