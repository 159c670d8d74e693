"""How many threads compute: one in BLAS, or as many as there are cores, each with its own part of the work."""
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import cache


@cache
def blas():
    from threadpoolctl import ThreadpoolController
    return ThreadpoolController()                 # which looks for the libraries once


def core_count():
    """How many cores BLAS may use."""
    return max((library['num_threads'] for library in blas().info() if library['user_api'] == 'blas'), default=1)


@contextmanager
def one_thread():
    """In a with block, or a function that this decorates, BLAS has one thread. Its threads spin while they wait for one
    another. In small products they gain little, and beside other work they lose much: each waits for one that has no
    core."""
    with blas().limit(limits=1, user_api='blas'):
        yield


def on_all_cores(function, parts, about):
    """[function(part) for part in parts], by a thread for each core, each with one BLAS thread; with a bar on a terminal
    when it takes a while. The parts must be large: NumPy lets other threads run only within its functions."""
    from tqdm import tqdm
    context = copy_context()                      # in which np.seterr may have been called

    def work(part):
        return context.copy().run(function, part)
    with ThreadPoolExecutor(core_count()) as pool, one_thread():
        return list(tqdm(pool.map(work, parts), about, len(parts), leave=False, disable=None, delay=1,
                         bar_format='{desc} {bar} {percentage:3.0f}% {remaining}'))
