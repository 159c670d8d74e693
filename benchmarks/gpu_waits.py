"""How long a user of the GPU waits: for the first step of a new process, and for ten epochs of MNIST. Used by gpu.py."""
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from torch_process import Failed

ROOT = Path(__file__).resolve().parent.parent
SETUP_SECONDS, EPOCHS_SECONDS = 30, 60

FIRST_STEP = '''
import json, sys, time
laps = [time.perf_counter()]
import cupy, numpy as np
from tinygan import data
from tinygan.run.device import select_device
from tinygan.data.minibatches import Minibatches
from tinygan.engines.cuda import CapturedGAN
from tinygan.recipes import RECIPES, make_gan
laps.append(time.perf_counter())
select_device('gpu')
laps.append(time.perf_counter())
recipe = RECIPES[sys.argv[1]]._replace(batch_size=int(sys.argv[2]))
images = data.ImageSet(np.zeros((recipe.batch_size, *recipe.shape), np.uint8))
CapturedGAN(make_gan(recipe, 0, cupy), Minibatches(images, recipe), sys.argv[3]).step(1)
cupy.cuda.Device().synchronize()
laps.append(time.perf_counter())
seconds = [round(after - before, 2) for before, after in zip(laps, laps[1:])]
print(json.dumps(dict(zip(('import', 'device', 'kernels'), seconds))))
'''


def setup_times(setting):
    """Seconds of a new process until its first step is done, with and without compiled kernels in a cache."""
    command = [sys.executable, '-c', FIRST_STEP, setting.name, str(setting.N), setting.precision]
    times = {}
    with tempfile.TemporaryDirectory() as folder:
        for cache in 'empty cache', 'warm cache':
            done = subprocess.run(command, cwd=ROOT, env={**os.environ, 'CUPY_CACHE_DIR': folder},
                                  capture_output=True, text=True, timeout=SETUP_SECONDS)
            if done.returncode:
                raise Failed(done.stderr.strip().splitlines()[-1])
            times[cache] = json.loads(done.stdout)
    return times


def ten_epochs(setting, *more):
    """Seconds of train_mnist.py for ten epochs, with all that it writes: until the first step is done, from
    there to the last one, and for the pictures after it."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile('w+') as errors:
        command = [sys.executable, 'train_mnist.py', '--device', 'gpu', '--data', 'mnist', '--epochs', '10',
                   '--recipe', setting.name, '--batch-size', str(setting.N), '--precision', setting.precision,
                   '--out', str(Path(folder, 'run')), *more]
        start, laps = time.perf_counter(), []
        pipes = {'stdout': subprocess.PIPE, 'stderr': errors, 'text': True}
        with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
            limit = threading.Timer(EPOCHS_SECONDS, process.kill)
            limit.start()
            for line in process.stdout:
                if found := re.match(r'step (\d+)/', line):
                    laps.append((time.perf_counter() - start, int(found[1])))
        limit.cancel()
        total = time.perf_counter() - start
        if process.returncode:
            errors.seek(0)
            raise Failed((errors.read().strip().splitlines() or [f'no end in {EPOCHS_SECONDS} s'])[-1])
    (first, _), (last, steps) = laps[0], laps[-1]
    return {'total': round(total, 2), 'start': round(first, 2), 'training': round(last - first, 2),
            'end': round(total - last, 2), 'steps': steps}
