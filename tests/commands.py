"""What the tests of the command line share: processes that run it, and looks at what they leave behind."""
import contextlib
import csv
import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import threadpoolctl

from tinygan import __main__, models
from tinygan.data.cache import cache_folder
from tinygan.recipes import RECIPES, networks
from tinygan.run.checkpoint import newest_checkpoint

ROOT = Path(__file__).resolve().parent.parent
QUICK = os.pathsep.join([str(ROOT / 'tests' / 'quick'), str(ROOT)])              # PYTHONPATH of a run whose curves nobody looks at
LIMIT = 120                                       # seconds, for a process that ends by itself
COMPILED = cache_folder('c')                      # loops, which tests with a cache of their own need not compile again
started = []                                      # processes, of which a test leaves none behind
STEPS = 8                                         # of the run `trained`
SMALL = '--device', 'cpu', '--data', 'digits', '--batch-size', '8', '--recipe', 'dcgan'
NARROW = RECIPES['fast']._replace(batch_size=4, generator=partial(models.dcgan_generator, width=4),      # a step takes milliseconds
                                  discriminator=partial(networks.critic, width=2, hidden=4))
NO_NETWORK = {'https_proxy': 'http://127.0.0.1:9', 'no_proxy': '', 'TINYGAN_DATA': ''}


def own_cache(folder):
    """For XDG_CACHE_HOME: an empty cache, but for the loops that are compiled."""
    COMPILED.mkdir(parents=True, exist_ok=True)
    (folder / 'cache' / 'tinygan').mkdir(parents=True)
    (folder / 'cache' / 'tinygan' / 'c').symlink_to(COMPILED)
    return str(folder / 'cache')


TINY_DATA = '''
import numpy as np
from tinygan import data
images = np.random.default_rng(0).integers(0, 256, (40, 28, 28, 1), dtype=np.uint8)
data.load = lambda name, folder, seed, *_: data.ImageSet(images, seed)
'''

MEASURED = '''
from tinygan.run import generator
draw = generator.draw
generator.draw = lambda G, z, black: draw(G, z[:64], black)      # as many as a preview has, of those that are measured
'''

DIVERGING = '''
import numpy as np
from tinygan.gan import GAN
step = GAN.step
def diverging(self, *arguments):
    metrics = step(self, *arguments)
    return metrics | {'loss_G': np.float32('nan')} if self.optim_G.t == 5 else metrics
GAN.step = diverging
'''


def load(folder):
    """(config, step, state) of the newest checkpoint that can be read."""
    return newest_checkpoint(folder)[1:]


def begun(command, **options):
    """A process, which is killed at the end of the test, should it still be there."""
    started.append(subprocess.Popen(command, **options))
    return started[-1]


def leave_none():
    """End the processes that a test has begun, and close their pipes. True if none was left that nobody had waited for."""
    while started:
        process = started.pop()
        process.kill()
        with process:
            pass
    with contextlib.suppress(ChildProcessError, AttributeError):                 # there is none at all; macOS
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    return True


def start(folder, program, *arguments, patch=None, environment={}, curves=False, **options):
    """A process that runs a real command line in the folder, after a patch, Python code, if there is one."""
    name, arguments = str(ROOT / program), list(map(str, arguments))
    if patch:
        go = 'run_module("tinygan"' if program == 'tinygan' else f'run_path({name!r}'
        code = f'{patch}\nimport runpy, sys\nsys.argv[0] = {name!r}\nrunpy.{go}, run_name="__main__")'
        arguments = ['-c', code, *arguments]
    else:
        arguments = [*(['-m', 'tinygan'] if program == 'tinygan' else [name]), *arguments]
    environment = {**os.environ, 'PYTHONPATH': str(ROOT) if curves else QUICK, **environment}
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
    return begun([sys.executable, *arguments], cwd=folder, env=environment, **pipes | options)


def finish(process, check=0):
    """What a process wrote to stdout and stderr until it ended, as it should, with exit code `check`."""
    out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == check, f'{out}{err}'
    assert 'Traceback' not in err
    return out, err


def train(folder, *arguments, check=0, **options):
    return finish(start(folder, 'train_mnist.py', *SMALL, *arguments, **options), check)


def tinygan(*arguments):
    """The exit code of tinygan with these arguments, in this process."""
    return __main__.main(list(map(str, arguments)))


def threads():
    """How many BLAS has now: a set of one number, where all its libraries agree."""
    return {library['num_threads'] for library in threadpoolctl.threadpool_info() if library['user_api'] == 'blas'}


def counting_threads(function, seen):
    """The function, which from now on notes in a set how many threads BLAS has when it is called."""
    def looking(*arguments, **keywords):
        seen.update(threads())
        return function(*arguments, **keywords)
    return looking


def one_line(err, *parts, program='train_mnist.py'):
    """All of stderr is one line, and says what it should."""
    assert err.startswith(f'{program}: error: ') and err.count('\n') == 1 and err.endswith('\n'), err
    for part in parts:
        assert part in err
    return True


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def metrics(run):
    with open(run / 'metrics.csv', newline='') as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


LOOKS = 'max_steps', 'sample_every', 'checkpoint_every', 'evaluate_every', 'judge'               # that change no weight


def trained_by(config):
    """What a run was asked for, as far as its weights depend on it."""
    return {name: value for name, value in config.items() if name not in LOOKS}


def same_arrays(one, other):
    with np.load(one) as a, np.load(other) as b:
        assert a.files == b.files
        for name in set(a.files) - {'about'}:
            assert a[name].dtype == b[name].dtype and np.array_equal(a[name], b[name]), name
        about, also = (json.loads(str(file['about'])) for file in (a, b))
    assert trained_by(about.pop('config')) == trained_by(also.pop('config')) and about == also
    return True


def same_run(one, other):
    """Two runs are the same bit for bit: every array of the checkpoint, every metric and every picture."""
    assert same_arrays(one / 'checkpoint.npz', other / 'checkpoint.npz')
    assert trained_by(json.loads((one / 'config.json').read_text())) == trained_by(json.loads((other / 'config.json').read_text()))
    a, b = ({name: content for name, content in contents(run).items() if not name.endswith(('.npz', '.json'))}
            for run in (one, other))
    assert a.keys() == b.keys()
    for name in a:
        assert a[name] == b[name], name
    return True


def wait_for(condition, process):
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, 'it ended, or never came so far'
        time.sleep(0.01)
