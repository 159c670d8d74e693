"""Work divided among threads."""
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import threadpoolctl
from commands import threads

from tinygan.engines import threads as module
from tinygan.engines.threads import core_count, on_all_cores


def test_parts_are_worked_on_at_the_same_time_each_with_one_thread_of_blas_and_come_back_in_order():
    together, seen = threading.Barrier(2, timeout=30), []

    def work(part):
        together.wait()                           # passes only if two threads are here
        seen.append(threads())
        return -part
    with threadpoolctl.threadpool_limits(2, 'blas'):
        assert core_count() == 2
        assert on_all_cores(work, range(6), 'working') == [0, -1, -2, -3, -4, -5]
        assert threads() == {2}
    assert seen == 6 * [{1}]


def test_where_no_blas_is_found_there_is_one_core(monkeypatch):
    monkeypatch.setattr(module, 'blas', lambda: SimpleNamespace(info=lambda: [{'user_api': 'openmp', 'num_threads': 4}]))
    assert core_count() == 1


def test_with_one_thread_of_blas_there_is_one_of_ours():
    with threadpoolctl.threadpool_limits(1, 'blas'):
        assert len({*on_all_cores(lambda part: threading.get_ident(), range(20), 'working')}) == 1


def test_what_a_part_raises_is_raised_and_the_others_are_not_waited_for():
    done = []

    def work(part):
        if part == 0:
            raise MemoryError('too large')
        time.sleep(0.01)
        done.append(part)
    with threadpoolctl.threadpool_limits(1, 'blas'), pytest.raises(MemoryError, match='too large'):
        on_all_cores(work, range(1000), 'working')
    assert len(done) < 500


def test_what_numpy_is_told_to_ignore_is_ignored_in_all_threads():
    with np.errstate(all='ignore'):
        on_all_cores(lambda part: np.float32(part) / np.float32(0), range(4), 'working')


def test_a_bar_shows_how_far_it_is_on_a_terminal_only_and_not_at_once(monkeypatch, capsys):
    import sys
    on_all_cores(lambda part: part, range(3), 'working')
    assert capsys.readouterr().err == ''
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: True)
    on_all_cores(lambda part: part, range(3), 'working')
    assert capsys.readouterr().err == ''
    clock = iter(range(10 ** 6))
    monkeypatch.setattr('tqdm.std.time', lambda: next(clock))
    on_all_cores(lambda part: part, range(3), 'working')
    assert 'working' in capsys.readouterr().err
