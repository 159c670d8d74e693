"""What a result says of itself: when it was measured, on what, with what, by which command, and from which sources.

    python benchmarks/provenance.py

lists what was measured for benchmarks/results, and which of its sources have changed since. A comment changes them too: whether to
measure again is for a person to decide. Until then the READMEs name the commit beside the figures.
"""
import hashlib
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import threadpoolctl

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / 'benchmarks' / 'results'
CORE = 'tinygan/[a-z]*.py', 'tinygan/recipes/*.py'
CPU = *CORE, 'tinygan/engines/*.py', 'tinygan/engines/*.[ch]'              # what trains on a CPU
RUN = *CPU, 'train_mnist.py', 'tinygan/data/*.py', 'tinygan/run/*.py'       # and all that a run does besides
CODE = '.py', '.c', '.h', '.cpp', '.cu', '.cuh'
GPU = *RUN, 'tinygan/engines/cuda/*'


def provenance(sources, device=None, command=None, **versions):
    """Of what this process measures, on a CPU if no other device is named. Sources are patterns of paths."""
    command = command or ['python', f'benchmarks/{Path(sys.argv[0]).name}', *sys.argv[1:]]
    return {'commit': commit(), 'date': time.strftime('%Y-%m-%d'), 'device': device or f'{processor()}, {os.cpu_count()} cores',
            'versions': {'python': platform.python_version(), 'numpy': np.__version__, 'blas': blas(), 'cc': said('cc', '--version'),
                         **versions},
            'command': shlex.join(command), 'sources': {pattern: digest(pattern) for pattern in sources}}


def gpu_provenance(sources, xp, command=None):
    """Of what this process measures on the GPU; xp is CuPy."""
    cuda, device = xp.cuda.runtime.runtimeGetVersion(), xp.cuda.runtime.getDeviceProperties(0)['name'].decode()
    driver = said('nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader')
    return provenance((*GPU, *sources), device, command, cupy=xp.__version__, cuda=f'{cuda // 1000}.{cuda % 1000 // 10}',
                      driver=driver, torch=version('torch'))


def digest(pattern):
    """Of the names and contents of all sources that match."""
    found = hashlib.sha256()
    for path in sorted(ROOT.glob(pattern)):
        if path.suffix in (*CODE, '.npz'):
            found.update(f'{path.relative_to(ROOT).as_posix()}\n'.encode() + path.read_bytes())
    return found.hexdigest()[:12]


def changed(origin):
    """The sources that are not what they were when it was measured."""
    return [pattern for pattern, before in origin['sources'].items() if digest(pattern) != before]


def origins(result):
    """Each provenance in a result, which may have several: not all runs need be of one commit."""
    if isinstance(result, dict):
        if 'sources' in result:
            yield result
        for value in result.values():
            yield from origins(value)


def commit():
    """Of these sources, or None outside a clone. A copy without its history is told in TINYGAN_COMMIT."""
    if told := os.environ.get('TINYGAN_COMMIT'):
        return told
    git = 'git', '-C', str(ROOT)
    found, edited = said(*git, 'rev-parse', '--short=7', 'HEAD'), said(*git, 'status', '--porcelain', '--',
                        *(f'*{suffix}' for suffix in CODE))
    return f'{found}-dirty' if edited else found


def said(*command):
    """The first line of what a command says, or None."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.splitlines()[0]
    except (OSError, IndexError, subprocess.TimeoutExpired):
        return None


def processor():
    about = Path('/proc/cpuinfo')
    lines = about.read_text().splitlines() if about.exists() else []
    return next((line.split(':')[1].strip() for line in lines if line.startswith('model name')), platform.processor())


def blas():
    """The library that multiplies, and the kernels that it has chosen for this processor."""
    built = np.show_config(mode='dicts')['Build Dependencies']['blas']
    kernels = {library.get('architecture') for library in threadpoolctl.threadpool_info() if library['user_api'] == 'blas'}
    return ' '.join([built['name'], built['version'], *sorted(filter(None, kernels))])


def version(package):
    """Its version, or None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def main():
    for path in sorted(RESULTS.glob('*.json')):
        for origin in origins(json.loads(path.read_text('utf-8'))):
            print(f'{path.name:24}{origin["commit"]!s:9}{origin["date"]}  changed since:', ', '.join(changed(origin)) or 'nothing')


if __name__ == '__main__':
    main()
