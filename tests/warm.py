"""Tests of a copy of the project, each time in a fork of one process that has imported what is slow to import."""
import multiprocessing
import os
import signal
import sys

import pytest

TESTS = os.path.dirname(os.path.abspath(__file__))
ORIGINAL = os.path.dirname(TESTS)
FORKS = multiprocessing.get_context('forkserver')
FORKS.set_forkserver_preload(['warm', 'numpy', 'numpy.testing', 'PIL.Image', 'threadpoolctl', 'hypothesis'])


def run_pytest(project, arguments, seconds=240):
    """(pytest's exit code, what it printed) in the folder tests of that project, of which nothing has been imported yet."""
    printed = os.path.join(project, 'printed')
    process = FORKS.Process(target=in_a_fork, args=(str(project), arguments, printed))
    process.start()
    process.join(seconds)
    if process.exitcode is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
        raise TimeoutError(f'pytest {" ".join(arguments)} was not ready after {seconds} s')
    with open(printed, encoding='utf-8') as file:
        return process.exitcode, file.read()


def in_a_fork(project, arguments, printed):
    os.setsid()                                   # with what the tests start, a group of its own
    tests = os.path.join(project, 'tests')
    os.chdir(tests)
    os.environ['PYTHONPATH'] = project
    sys.path[:] = [project, tests, *(path for path in sys.path if path not in ('', ORIGINAL) and not path.startswith(TESTS))]
    file = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.exit(pytest.main(arguments))
