"""What a user sees of a run while it trains, and how they end it."""
import contextlib
import errno
import os
import signal
import sys
import time

from ..errors import drop

WIDE = {'loss_D': 'loss D {:.2f}', 'loss_G': 'G {:.2f}', 'D_x': 'D(x) {:.2f}', 'D_G_z1': 'D(G(z)) {:.2f}', 'D_G_z2': '-> {:.2f}',
        'penalty': 'penalty {:.2g}', 'reconstruction': 'reconstruction {:.1f}', 'divergence': 'divergence {:.1f}',
        'frechet': 'Frechet {:.1f}'}
NARROW = {name: form.removeprefix('loss ') for name, form in WIDE.items() if name not in ('D_G_z2', 'penalty')}


class Progress:
    """A tqdm bar on a terminal or in a notebook, or a line every few seconds in a log file. When nobody reads them any more,
    SIGTERM is added to `signals`, the list of signals_caught."""
    SECONDS, COLUMNS = 10, 120                    # between two lines; that WIDE and the speed have room in

    def __init__(self, done, last, config, signals):
        from tqdm.auto import tqdm
        terminal = bool(sys.stderr and sys.stderr.isatty())
        self.narrow = terminal and os.get_terminal_size(sys.stderr.fileno()).columns < self.COLUMNS
        form = '{desc} {percentage:.0f}% {bar} {remaining}{postfix}'
        self.bar = tqdm(initial=done, total=last, unit=' steps', dynamic_ncols=True,
                        disable=not (terminal or 'ipykernel' in sys.modules),
                        bar_format=form if self.narrow else form + ' {rate_fmt}')
        self.first, self.last, self.per_epoch, self.signals = done + 1, last, config['steps_per_epoch'], signals
        self.epochs = config['epochs']
        self.start = self.shown = time.monotonic()
        self.metrics = {}

    def close(self):
        self.bar.close()

    def show(self, step, rows):
        """The newest of each metric in these rows: when updates alternate, a step has only half of them."""
        metrics = {name: value for row in rows for name, value in row.items()}
        self.metrics |= metrics
        forms = NARROW if self.narrow else WIDE
        text = ' '.join(form.format(self.metrics[name]) for name, form in forms.items() if name in self.metrics)
        epoch = f'epoch {(step - 1) // self.per_epoch + 1}/{self.epochs}'
        now = time.monotonic()
        try:
            if not self.bar.disable:
                self.bar.set_description_str(epoch, refresh=False)
                self.bar.set_postfix_str(text, refresh=False)
                self.bar.update(step - self.bar.n)
            elif now - self.shown > self.SECONDS or step in (self.first, self.last) or 'frechet' in metrics:
                self.shown = now
                print(f'step {step}/{self.last}  {epoch}  {text}  {(step + 1 - self.first) / (now - self.start):.1f} steps/s',
                      flush=True)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):                     # a full disk, perhaps
                raise
            drop(sys.stdout if self.bar.disable else sys.stderr)
            self.signals.append(signal.SIGTERM)

    def say(self, lines):
        """Lines on stderr, above the bar if there is one."""
        with contextlib.suppress(OSError):        # advice that nobody can read is no reason to stop
            for line in lines:
                self.bar.write(line, file=sys.stderr)


@contextlib.contextmanager
def signals_caught():
    """A list to which a signal to end adds its number, so that no step is cut in two. A second signal kills, but not a
    second SIGHUP: a closed terminal may send several. What signals did before, they do afterwards."""
    caught, second = [], {signal.SIGINT: signal.SIG_DFL, signal.SIGTERM: signal.SIG_DFL}
    if hasattr(signal, 'SIGHUP'):                 # Windows has none
        second[signal.SIGHUP] = signal.SIG_IGN

    def note(signum, frame):
        caught.append(signum)
        signal.signal(signum, second[signum])
        if sys.stderr:
            with contextlib.suppress(OSError):    # the terminal may be gone
                os.write(2, b'\nsaving; once more to stop at once\n')   # print could meet itself, interrupted
    before = {signum: signal.getsignal(signum) for signum in second}
    before = {signum: handler for signum, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    try:
        for signum in before:
            signal.signal(signum, note)
        yield caught
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
