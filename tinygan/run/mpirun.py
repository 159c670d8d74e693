"""A run that mpirun starts in several processes, on one machine or on several: mpirun -n 4 python train_mnist.py ...

All run the same program. The first one leads: it has the run's folder, it prints, logs and saves. The others take their parts of
its steps (engines/ranks.py), and do nothing else. Nobody begins before all agree on what is trained.
"""
import atexit
import contextlib
import hashlib
import math
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import traceback
import warnings
from pathlib import Path

from ..engines.ranks import Ranks, all_in
from ..errors import UserError, line_of

MOMENT = 2                          # seconds
LAUNCHED = {'PMI_SIZE': 'PMI_RANK', 'OMPI_COMM_WORLD_SIZE': 'OMPI_COMM_WORLD_RANK'}           # what MPICH and Open MPI set


@contextlib.contextmanager
def joined():
    """The Ranks of which this process is one, or None if it was started alone. UserError if they cannot find each other.

    The first ends all, after an error too. If some do not hear it, as they are in the middle of a step, MPI aborts them.
    """
    count, first = next(((int(os.environ[size]), os.environ.get(rank) == '0') for size, rank in LAUNCHED.items()
                         if size in os.environ), (1, True))
    if count == 1:
        yield None
        return
    try:
        MPI = find_mpi(count)
    except UserError as error:
        if first:
            raise
        time.sleep(MOMENT)                        # in which the first one has said it, unless only this machine lacks MPI
        print(f'error: on {socket.gethostname()}: {error}', file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)      # upon which mpirun ends all
    near = MPI.COMM_WORLD.Split_type(MPI.COMM_TYPE_SHARED)        # the ranks of this machine
    ranks, patience = Ranks(MPI.COMM_WORLD, near), MOMENT
    try:
        with contextlib.ExitStack() as stack:
            if near.rank == 0:
                stack.enter_context(sentinel(count))
            if not first:
                stack.enter_context(in_silence(MPI))
            yield ranks
        patience = math.inf                       # where there is no error, even a rank that is late comes
    finally:
        if ranks.leave(patience):
            MPI.Finalize()
        else:
            atexit.register(MPI.COMM_WORLD.Abort, 2)              # then, the error has been said


def find_mpi(count):
    """mpi4py's module MPI, which only this function imports."""
    if sys.platform == 'win32':
        raise UserError('on Windows a run has one process: start it without mpiexec')
    try:
        import mpi4py
        mpi4py.rc.finalize = False                # at the end of Python, MPI would wait for ranks that are gone
        with warnings.catch_warnings(action='ignore'):            # of an mpirun that is another MPI's: see below
            from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # there is no mpi4py, or no MPI beneath it
        raise UserError(f"mpirun has started {count} processes, but {str(error).splitlines()[0]}: install both with pip install "
                        "'mpi4py>=4.1' mpich") from None
    if MPI.COMM_WORLD.size != count:
        found = MPI.Get_library_version().replace(',', '\n').split('\n')[0].strip(' \0')
        raise UserError(f'mpirun has started {count} processes, but mpi4py uses another MPI ({found}), in which each is alone: '
                        'use the mpirun that belongs to it')
    return MPI


@contextlib.contextmanager
def sentinel(count):
    """If this process is killed, or mpirun kills it because another one has ended, a line says what can be done: from a process in
    a session of its own, which ends with this one. There is one on each machine, as not all may be heard."""
    text = (f'error: one of the {count} processes was ended from outside, and all with it; --resume goes on from the last '
            'checkpoint, if there is one')
    child = subprocess.Popen(['sh', '-c', 'cat; echo "$0" >&2', text], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                             start_new_session=True)
    try:
        yield
    finally:
        child.kill()
        child.wait()
        child.stdin.close()


@contextlib.contextmanager
def in_silence(MPI):
    """What the first process says need not be said twice, and what a signal means is for it to decide. But an error that only this
    process has is heard, and ends all."""
    for signum in signal.SIGINT, signal.SIGTERM, signal.SIGHUP:
        signal.signal(signum, signal.SIG_IGN)
    try:
        with (open(os.devnull, 'w', encoding='utf-8', errors='ignore') as nothing,        # names of files may be no text
              contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing)):
            yield
    except BaseException as error:
        known = isinstance(error, (UserError, OSError, MemoryError))
        said = f'error: on {socket.gethostname()}: {line_of(error)}' if known else traceback.format_exc()
        print(said, file=sys.stderr, flush=True)
        time.sleep(0.2)                           # in which mpirun passes it on
        MPI.COMM_WORLD.Abort(1)


def count_of(ranks):
    return ranks.count if ranks else 1


def agree(ranks, config):
    """Before a run with these settings begins, or goes on: UserError unless all processes can take part."""
    if not ranks:
        return
    if config['plain']:
        raise UserError('--plain is the core as it stands, in one process: start it without mpirun')
    N = config['batch_size']
    if N % ranks.count:
        fewer = max(count for count in range(1, ranks.count) if N % count == 0)
        raise UserError(f'minibatches of {N} cannot be divided among {ranks.count} processes: {fewer} can have them')
    ranks.tell((config, *same_everywhere()))
    all_in(ranks.near)
    for rank in range(1, ranks.count):
        if problem := ranks.receive(rank):
            raise UserError(f'process {rank}, {problem}')


def prepared(ranks, prepare):
    """What prepare(config) makes, in another process than the first, which hears whether it could; None if the first goes no
    further."""
    told = ranks.hear()
    if told is None:
        return None
    config, *theirs = told
    if ranks.near.rank:
        all_in(ranks.near)                        # one on each machine goes ahead: then the images are in a cache
    try:
        for name, mine, first_one_s in zip(('options', 'sources'), same_everywhere(), theirs):
            if mine != first_one_s:
                raise UserError(f'it has other {name}: {mine}, and process 0 has {first_one_s}')
        made, problem = prepare(config), None
    except (UserError, OSError, MemoryError) as error:
        made, problem = None, f'on {socket.gethostname()}: {line_of(error)}'
    if not ranks.near.rank:
        all_in(ranks.near)
    ranks.comm.send(problem, 0)
    return made


def same_everywhere():
    """The options and a digest of the package's sources, whose version says little where people change them."""
    files = sorted(Path(__file__).parents[1].rglob('*.py'))
    digest = hashlib.sha256(b''.join(file.read_bytes() for file in files)).hexdigest()
    return shlex.join(sys.argv[1:]) or 'none', digest[:12]
