"""Starting several processes by mpirun, as the tests of ranks do, on this machine alone."""
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BESIDE = Path(sys.executable).with_name('mpirun')
MPIRUN = str(BESIDE) if BESIDE.exists() else shutil.which('mpirun')
OPEN_MPI = {'OMPI_ALLOW_RUN_AS_ROOT': '1', 'OMPI_ALLOW_RUN_AS_ROOT_CONFIRM': '1',            # which asks for leave, and for
            'PRTE_MCA_rmaps_default_mapping_policy': ':oversubscribe'}                       # as many cores as ranks


def missing():
    if {'PMI_RANK', 'OMPI_COMM_WORLD_RANK'} & os.environ.keys() and 'PYTEST_CURRENT_TEST' in os.environ:     # by a test's mpirun
        return None
    if importlib.util.find_spec('mpi4py') is None or not MPIRUN:
        return "needs mpi4py and an MPI: pip install -e '.[mpi]'"
    hello = [MPIRUN, '-n', '2', sys.executable, '-c', 'from mpi4py import MPI; assert MPI.COMM_WORLD.size == 2']
    try:
        done = subprocess.run(hello, env={**os.environ, **OPEN_MPI}, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return 'mpirun hangs here'
    return f'mpirun does not work here: {done.stderr.strip()[:200]}' if done.returncode else None


WHY_NOT = missing()
needs_mpi = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
