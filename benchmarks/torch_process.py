"""PyTorch's variants, each a process of its own that runs torch_gpu.py: a search for kernels that takes too long can be
ended, and what goes wrong in one spoils no other measurement."""
import contextlib
import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

SCRIPT = Path(__file__).with_name('torch_gpu.py')
VARIANTS = 'graph', 'eager', 'compile_graph'                         # in the order in which they get ready
PRECISIONS = 'tf32', 'bf16'
BLOCK_SECONDS = 30


class Failed(Exception):
    """Why something could not be measured, in one line."""


def why(error):
    line = (str(error).strip() or 'no reason given').splitlines()[0][:200]
    return line if isinstance(error, Failed) else f'{type(error).__name__}: {line}'


def attempt(measure, *arguments):
    """What measure returns, or {'failed': why}: what cannot be had takes nothing else with it."""
    try:
        return measure(*arguments)
    except Exception as error:
        if not isinstance(error, Failed):
            traceback.print_exc()
        return {'failed': why(error)}


class TorchProcess:
    """A variant in a process of its own. What takes too long or goes wrong there raises Failed here."""

    def __init__(self, variant, precision, recipe, N, device='cuda'):
        self.errors = tempfile.TemporaryFile('w+')
        self.process = subprocess.Popen(
            [sys.executable, SCRIPT, variant, precision, recipe, str(N), device], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
            start_new_session=True)               # to be ended together with the compilers that it starts

    def prepare(self, seconds):
        """Have it get ready, in at most so many seconds."""
        self.ask('it is your turn', seconds, 'not ready in time')

    def block(self, steps):
        """Milliseconds a step."""
        return self.ask(steps, BLOCK_SECONDS, f'no answer in {BLOCK_SECONDS} s')['ms']

    def ask(self, line, seconds, otherwise):
        """Its reply to a line, or what to say if there is none in so many seconds."""
        with contextlib.suppress(BrokenPipeError):          # it has ended, and its last words say why
            self.process.stdin.write(f'{line}\n')
            self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], max(0, seconds))
        line = self.process.stdout.readline() if ready else json.dumps({'failed': otherwise})
        words = json.loads(line) if line else {'failed': f'it ended: {self.last_words()}'}
        if 'failed' in words:
            self.stop()
            raise Failed(words['failed'])
        return words

    def last_words(self):
        self.process.wait()
        self.errors.seek(0)
        return (self.errors.read().strip().splitlines() or ['without a word'])[-1][:200]

    def stop(self):
        """End it, if it still runs. Nothing can be asked of it then."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in self.process.stdin, self.process.stdout, self.errors:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


class Variants:
    """PyTorch's variants in both precisions. All load at once; then one after another gets ready, since each finds its
    fastest kernels by timing them, until `seconds` have gone by. As a context it ends them all."""

    def __init__(self, quick, seconds, recipe, N):
        names = VARIANTS[:2] if quick else VARIANTS
        self.commands = {f'{variant} {precision}': (variant, precision, recipe, N)
                         for variant in names for precision in PRECISIONS}
        self.processes, self.deadline = {}, time.monotonic() + seconds
        self.installed = importlib.util.find_spec('torch') is not None

    def __enter__(self):
        if self.installed:
            self.processes = {name: TorchProcess(*command) for name, command in self.commands.items()}
        return self

    def __exit__(self, *_):
        for process in self.processes.values():
            process.stop()

    def blocks(self):
        """{name: a function from steps to milliseconds a step, or {'failed': why}}, when all are ready."""
        if not self.installed:
            return dict.fromkeys(self.commands, {'failed': 'PyTorch is not installed'})
        return {name: attempt(self.block, process) for name, process in self.processes.items()}

    def block(self, process):
        process.prepare(self.deadline - time.monotonic())
        return process.block
