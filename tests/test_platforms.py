"""Where Windows and macOS differ from Linux, pretended here."""
import ast
import ctypes
import os
import signal
import sys
from types import SimpleNamespace

import pytest
from commands import ROOT, contents, load, train

from tinygan.data import cache
from tinygan.engines.divided import keep_freed_memory
from tinygan.engines.lanes import divide
from tinygan.errors import UserError
from tinygan.run import mpirun

LIKE_WINDOWS = '''
import os, signal, sys
for name in 'fork', 'getuid', 'sched_yield':
    delattr(os, name)
del signal.SIGHUP
sys.modules['fcntl'] = None
'''
SOURCES = [ROOT / 'train_mnist.py', *(ROOT / 'tinygan').rglob('*.py')]


def test_without_fork_locks_and_sighup_a_run_trains_in_one_process(tmp_path):
    environment = {'OPENBLAS_NUM_THREADS': '2', 'HOME': str(tmp_path)}           # Python looks for no user of that number there
    out, err = train(tmp_path, '--max-steps', '2', '--out', 'run', patch=LIKE_WINDOWS, environment=environment)
    assert 'processes' not in out and err == '' and '.lock' not in contents(tmp_path / 'run')
    assert load(tmp_path / 'run')[1] == 2


def test_on_macos_where_blas_does_not_survive_a_fork_there_is_one_lane(monkeypatch):
    assert divide(128, 2) == 2
    monkeypatch.setattr(sys, 'platform', 'darwin')
    assert divide(128, 2) == 1


@pytest.mark.parametrize('library', [lambda _: SimpleNamespace(), os.fspath])            # macOS has one, Windows a TypeError
def test_a_c_library_without_mallopt_is_left_as_it_is(monkeypatch, library):
    monkeypatch.setattr(ctypes, 'CDLL', library)
    keep_freed_memory()


def test_where_users_have_no_numbers_a_user_without_a_home_has_a_cache_too(monkeypatch, tmp_path):
    monkeypatch.delattr(os, 'getuid')
    monkeypatch.setattr(cache.tempfile, 'gettempdir', lambda: str(tmp_path))
    lstat = os.lstat
    with monkeypatch.context() as patch:          # undone before pytest removes tmp_path
        patch.setattr(os, 'lstat', lambda path: SimpleNamespace(st_mode=lstat(path).st_mode, st_uid=0))
        assert cache.temporary() == tmp_path / 'cache-0' and (tmp_path / 'cache-0').is_dir()


def test_several_processes_on_windows_are_refused_in_a_line(monkeypatch):
    monkeypatch.setattr(sys, 'platform', 'win32')
    with pytest.raises(UserError, match='^on Windows a run has one process: start it without mpiexec$'):
        mpirun.find_mpi(4)


def test_a_silent_process_may_print_a_name_that_is_no_text(monkeypatch):
    monkeypatch.setattr(signal, 'signal', lambda *_: None)
    with mpirun.in_silence(None):
        print('caf\udce9')


def unnamed_encodings(source):
    """The lines that read or write text in the encoding of whatever system it is."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or any(keyword.arg == 'encoding' for keyword in node.keywords):
            continue
        name = ast.unparse(node.func).rpartition('.')[2]
        binary = any(isinstance(argument, ast.Constant) and 'b' in str(argument.value) for argument in node.args[1:])
        if ast.unparse(node.func) == 'open' and not binary or \
                name in ('read_text', 'write_text') and len(node.args) <= (name == 'write_text'):
            yield node.lineno


@pytest.mark.parametrize('code, named', [
    ("open(p, 'rb')", True), ("open(p)", False), ("open(p, 'w')", False), ("open(p, 'w', encoding='utf-8')", True),
    ("p.read_text()", False), ("p.read_text('utf-8')", True), ("p.write_text(t)", False), ("p.write_text(t, 'utf-8')", True)])
def test_an_encoding_that_is_not_named_is_found(code, named):
    assert named != bool([*unnamed_encodings(code)])


def test_every_text_file_has_a_named_encoding():
    found = {str(path): [*unnamed_encodings(path.read_text('utf-8'))] for path in SOURCES}
    assert len(found) > 50 and not any(found.values()), found
