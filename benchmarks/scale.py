"""How training scales: what a step sends, lanes beside ranks on this machine, and how many machines like it would pay.

    python benchmarks/scale.py [--rounds 5] [--steps N] [--most N] [--out FILE.json]

needs MPI (pip install -e '.[mpi]'). What a step sends is counted. Its time is measured in 1, 2, 4, ... lanes and as many ranks, one
for each core at most: a round runs all contenders, in random order, each in fresh processes. Tables show medians over the rounds,
and ratios taken round by round; speed-up is over one process.

The model is arithmetic, not a measurement: no step was taken on two machines. How long one computes for its part of the images is
measured here, in lanes; to that the model adds messages, as NETWORKS and `communication` assume them. It charges a machine for all
of Adam instead of its share, but not for what its own ranks send each other, nor for telling every rank the step's number. The
messages of a step between two ranks on this machine are timed: beside the model's between two machines, to see whether the order of
magnitude is right, and as the latency and bandwidth of a model of more cores in one machine. That one knows nothing of cores that
share memory or slow each other down.
"""
import argparse
import importlib.util
import json
import shutil
import subprocess
import sys
import time
import timeit
from importlib.metadata import version
from pathlib import Path

import numpy as np

from provenance import CPU, provenance
from tinygan.data.images import ImageSet
from tinygan.data.minibatches import Minibatches
from tinygan.engines.divided import Divided
from tinygan.engines.group import Group, pack
from tinygan.engines.lanes import Lanes
from tinygan.engines.threads import core_count, one_thread
from tinygan.errors import count
from tinygan.recipes import RECIPES, make_gan
from tinygan.run.mpirun import joined

SETTINGS = ('dcgan', 128), ('dcgan', 1024), ('dcgan64', 128), ('tutorial64', 128), ('tutorial64', 1024)      # recipe, N
MODELLED = 'dcgan', 'tutorial64'
COUNTS = 1, 2, 4, 8, 16, 32, 64     # of machines, and of lanes or ranks
NETWORKS = {                        # the seconds that any message takes, and bytes a second
    '10 Gbit/s': (30e-6, 1.25e9),   # TCP over Ethernet: two kernels, an interrupt and a switch
    '100 Gbit/s': (5e-6, 12.5e9),   # InfiniBand or RoCE, past the kernels: 1 to 2 us, the rest for MPI and Python
}
PAYS = 1.3                          # times as short a step: what twice the machines must bring, of about 2 at most
SECONDS = 5                         # of steps that a contender takes in a round, if --steps does not say how many
MPIRUN = shutil.which('mpirun', path=Path(sys.executable).parent) or shutil.which('mpirun')


def measure(recipe, N, cores, most, rounds, steps):
    """A row for each contender: so many lanes or ranks, on one of so many machines, or one core of so many, which has its part of
    the minibatch."""
    alone = [(kind, n, 1) for n in COUNTS if n <= min(most, N) for kind in ('lanes', 'ranks') if (kind, n) != ('ranks', 1)]
    parts = [('lanes', n, k) for n in {1, cores} for k in COUNTS if recipe in MODELLED and N // k >= n]
    times, order = {party: [] for party in alone + parts}, np.random.default_rng(0)
    for _ in range(rounds):
        for i in order.permutation(len(times)):
            kind, n, k = list(times)[i]
            seconds = child(n if kind == 'ranks' else 1, 'take_steps', recipe, N, k, n, steps)
            times[kind, n, k].append(np.median(seconds) * 1e3)
    return [{'recipe': recipe, 'N': N, 'group': kind, 'processes': n, 'machines': k, 'ms a step': round(np.median(ms), 2),
             'min': round(min(ms), 2), 'max': round(max(ms), 2),
             'speed-up': round(np.median(np.divide(times['lanes', 1, 1], ms)), 2),
             'ranks / lanes': round(np.median(np.divide(ms, times['lanes', n, 1])), 2) if kind == 'ranks' else ''}
            for (kind, n, k), ms in times.items()]


def child(ranks, *arguments):
    """What a worker prints: a process of its own, or so many ranks."""
    launcher = [MPIRUN, '-n', str(ranks)] if ranks > 1 else []
    command = [*launcher, sys.executable, __file__, '--worker', *map(str, arguments)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def worker(what, recipe, *numbers):
    with joined() as ranks:                       # of which only the first one's print is heard
        print(json.dumps({'take_steps': take_steps, 'pass_messages': pass_messages}[what](ranks, recipe, *map(int, numbers))))


def take_steps(ranks, recipe, N, k, lanes, steps):
    """The seconds of each step but the first, in the ranks or, if there are none, in lanes: of so many or, if 0, until SECONDS are
    over. It is the step of one of k machines: each process makes the whole minibatch, but this machine's part of it is divided."""
    batches, seconds = random_batches(recipe, N), []
    engine = Divided(make_gan(RECIPES[recipe]), lambda number: (*(array[:N // k] for array in batches(number)[:2]), number),
                     ranks or Lanes(lanes))
    if ranks and ranks.index:
        return engine.serve()
    engine.step(1)
    while len(seconds) < steps if steps else sum(seconds) < SECONDS:
        start = time.perf_counter()
        engine.step(len(seconds) + 2)
        seconds.append(time.perf_counter() - start)
    engine.close()
    return seconds


def random_batches(recipe, N):
    images = np.random.default_rng(0).integers(0, 256, (N, *RECIPES[recipe].shape), np.uint8)
    return Minibatches(ImageSet(images), RECIPES[recipe]._replace(batch_size=N))


@one_thread()
def pass_messages(ranks, recipe):
    """The seconds of the means of a step, each as large as they are on average, and of its vectors."""
    gan, size = make_gan(RECIPES[recipe]), sent(recipe)
    own = np.zeros(size['bytes of means'] // size['means'] // 4, np.float32)

    def means():
        for _ in range(size['means']):
            ranks.mean(own)

    def vectors():
        for network in gan.D, gan.G:
            ranks.collect(network)
            ranks.spread(network)
    return [np.median(timeit.repeat(what, number=1, repeat=100)) for what in (means, vectors)]


class Counting(Group):
    """A process alone, which keeps the size of all that it would send to others."""

    def __init__(self):
        self.means, self.vectors = [], []

    def hold(self, gan):
        pass

    def mean(self, *arrays):
        self.means.append(pack(arrays).nbytes)
        return arrays

    def collect(self, network):
        self.vectors.append(network.gradients.nbytes)
        return [network.gradients]

    def spread(self, network):
        self.vectors.append(network.parameters.nbytes)


def sent(recipe):
    """What a process sends in a step, counted in one of two images: on their number it does not depend. The vectors are each
    network's gradients and, when the optimiser has stepped, its parameters."""
    group = Counting()
    Divided(make_gan(RECIPES[recipe]), random_batches(recipe, 2), group).take(1)
    return {'means': len(group.means), 'bytes of means': sum(group.means),
            'vectors': len(group.vectors), 'bytes of vectors': sum(group.vectors)}


def communication(k, sent, ranks, latency, bandwidth):
    """The seconds of a step's means between k machines of so many ranks, and those of its vectors. A mean is an allgather by
    doubling: ceil(log2 k) messages, and what every rank has reaches every machine. A vector is summed up within each machine, and
    exchanged pairwise: k - 1 messages of a k-th of it."""
    return (sent['means'] * (k - 1).bit_length() * latency + sent['bytes of means'] * (k - 1) * ranks / bandwidth,
            sent['vectors'] * (k - 1) * latency + sent['bytes of vectors'] * (k - 1) / k / bandwidth)


def model(compute, sent, ranks, network):
    """A row for each number of machines, or of cores, in {number: ms that each computes}. network is (latency, bandwidth)."""
    rows = []
    for k, ms in compute.items():
        messages = sum(communication(k, sent, ranks, *network)) * 1e3
        rows.append({'number': k, 'compute ms': ms, 'ms a step': round(ms + messages, 2),
                     'speed-up': round(compute[1] / (ms + messages), 2), 'messages': round(messages / (ms + messages), 3)})
    return rows


def memory(sent, means, vectors):
    """The latency and bandwidth within a machine, by the seconds that the messages of a step take between two ranks."""
    return means / sent['means'], sent['bytes of vectors'] / 2 / vectors


def stops_paying(rows):
    """The largest number whose step is at least PAYS times as short as that of half as many."""
    ms = {row['number']: row['ms a step'] for row in rows}
    return max((k for k in ms if k // 2 in ms and ms[k // 2] >= PAYS * ms[k]), default=1)


def mpi():
    import mpi4py
    mpi4py.rc.initialize = False                  # this process starts ranks, and is none
    from mpi4py import MPI
    return {'mpi': ' '.join(MPI.Get_library_version().splitlines()[0].split()), 'mpi4py': version('mpi4py')}


def show(title, rows):
    """A table of dictionaries that have the same keys."""
    cells = [[f'{value:.2f}' if isinstance(value, float) else str(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(rows[0], *cells)]
    print(f'\n{title}\n', *('  '.join(map(str.rjust, line, widths)) for line in (rows[0], *cells)), sep='\n', flush=True)


def main():
    if sys.argv[1:2] == ['--worker']:
        return worker(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=count, default=5)
    parser.add_argument('--steps', type=count, default=0, help=f'of each contender in a round (default: for {SECONDS} s)')
    parser.add_argument('--most', type=count, default=core_count(), help='lanes and ranks (default: one for each core)')
    parser.add_argument('--out', help='write the figures to this file too')
    options = parser.parse_args()
    if MPIRUN is None or importlib.util.find_spec('mpi4py') is None:
        parser.error("mpi4py or mpirun is missing: pip install -e '.[mpi]'")
    cores, sizes = max(n for n in COUNTS if n <= core_count()), {recipe: sent(recipe) for recipe, _ in SETTINGS}
    result = {'provenance': provenance((*CPU, 'benchmarks/scale.py'), **mpi()), 'rounds': options.rounds, 'sent': sizes,
              'two ranks': [], 'measured': [], 'model': [], 'pays': []}
    print(json.dumps(result['provenance'], indent=1))
    show('Counted: what each process sends in a step', [{'recipe': recipe, **size} for recipe, size in sizes.items()])
    networks = {recipe: dict(NETWORKS) for recipe in MODELLED}
    for recipe in MODELLED:
        here = child(2, 'pass_messages', recipe)
        ways = {'two ranks here': here} | {name: communication(2, sizes[recipe], 1, *each) for name, each in NETWORKS.items()}
        networks[recipe]['memory'] = memory(sizes[recipe], *here)
        for i, what in enumerate(('means', 'vectors')):
            result['two ranks'].append({'recipe': recipe, 'ms a step for': what,
                                        **{name: round(seconds[i] * 1e3, 3) for name, seconds in ways.items()}})
    show('Measured between two ranks of this machine, and modelled between two machines', result['two ranks'])
    for recipe, N in SETTINGS:
        found = measure(recipe, N, cores, options.most, options.rounds, options.steps)
        result['measured'] += found
        show('Measured', [row for row in found if row['machines'] == 1])
        for network, speed in networks.get(recipe, {}).items():
            each = 1 if network == 'memory' else cores
            compute = {row['machines']: row['ms a step'] for row in found if (row['group'], row['processes']) == ('lanes', each)}
            about = {'recipe': recipe, 'N': N, 'network': network, 'cores each': each}
            rows = [about | row for row in model(compute, sizes[recipe], each, speed)]
            result['model'] += rows
            result['pays'].append(about | {'number': stops_paying(rows)})
            show(f'Modelled, by {network}: a number of ' + (f'machines of {cores} cores' if each > 1 else 'cores'), rows)
    show(f'Modelled: the last doubling that makes a step {PAYS} times as short ends at', result['pays'])
    if options.out:
        Path(options.out).write_text(json.dumps(result, indent=1) + '\n')


if __name__ == '__main__':
    main()
