"""One run, killed again and again at random moments: in the end it is the unbroken one, bit for bit."""
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import train_mnist
from commands import NARROW, ROOT, begun, contents, finish, same_run

from tinygan.recipes import RECIPES
from tinygan.run.checkpoint import newest_checkpoint

KILLS = int(os.environ.get('TINYGAN_KILLS', 12))


def begin(run, steps):
    """The number of a process, forked from this one, that begins the run or goes on with it."""
    if child := os.fork():
        return child
    code = 1
    try:
        how = ['--resume'] if any(run.glob('checkpoint*.npz')) else ['--recipe', 'narrow', '--data', 'digits', '--out']
        often = f'--device cpu --max-steps {steps} --sample-every 5 --checkpoint-every 1'.split()
        code = train_mnist.main([*often, *how, str(run)])
    finally:
        os._exit(code)


def kill_again_and_again(folder):
    """Make two runs, one of them unbroken, and print which step the other had saved at each kill. On average, it is killed after
    the time that the unbroken one took to begin and a KILLS-th of the rest."""
    import matplotlib.figure  # noqa: F401        once, for all that are forked
    RECIPES['narrow'] = NARROW
    steps, clock, saved, start = 5 * KILLS, random.Random(0), [], time.monotonic()
    child = begin(folder / 'unbroken', steps)
    while not (folder / 'unbroken' / 'checkpoint.npz').exists() and time.monotonic() - start < 60:
        time.sleep(0.001)
    first = time.monotonic() - start
    assert os.waitpid(child, 0)[1] == 0
    mean = first + (time.monotonic() - start - first) / KILLS
    while len(saved) < KILLS or max(saved) < 1:
        child = begin(folder / 'run', steps)
        time.sleep(clock.uniform(0, 2 * mean))
        os.kill(child, signal.SIGKILL)
        if status := os.waitpid(child, 0)[1]:     # else it came to the end before
            assert status == signal.SIGKILL
            there = any((folder / 'run').glob('checkpoint*.npz'))
            saved.append(newest_checkpoint(folder / 'run')[2] if there else -1)
    assert os.waitpid(begin(folder / 'run', steps), 0)[1] == 0
    print(json.dumps(saved))


def test_a_run_that_is_killed_at_random_moments_becomes_the_unbroken_one(tmp_path):
    """In a process of its own, as one with threads is not forked."""
    process = begun([sys.executable, __file__, tmp_path], env={**os.environ, 'PYTHONPATH': str(ROOT)},
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = finish(process)
    saved = json.loads(out.splitlines()[-1])
    print(saved)
    assert err == '' and len(saved) >= KILLS and saved == sorted(saved)
    assert not [name for name in contents(tmp_path / 'run') if name.endswith('.part')]
    assert same_run(tmp_path / 'run', tmp_path / 'unbroken')


if __name__ == '__main__':
    kill_again_and_again(Path(sys.argv[1]))
