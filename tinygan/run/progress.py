"""What a user sees of a run while it trains, and how they end it."""
import contextlib
import errno
import os
import signal
import sys
import time

import numpy as np

from .checkpoint import COLUMNS
from ..errors import drop


class Progress:
    """A tqdm bar on a terminal, or a line every few seconds in a log file. When nobody reads them any more, SIGTERM is added
    to `signals`, a list made by catch_signals."""
    SECONDS = 10

    def __init__(self, done, last, per_epoch, signals):
        from tqdm import tqdm
        on_terminal = sys.stderr and sys.stderr.isatty()
        self.bar = tqdm(initial=done, total=last, unit=' steps', disable=not on_terminal, dynamic_ncols=True,
                        bar_format='{n_fmt}/{total_fmt} {bar} {remaining} {rate_fmt}{postfix}')
        self.first, self.last, self.per_epoch, self.signals = done + 1, last, per_epoch, signals
        self.start = self.shown = time.monotonic()
        self.metrics = dict.fromkeys(COLUMNS, float('nan'))

    def close(self):
        self.bar.close()

    def show(self, step, metrics):
        self.metrics |= metrics                   # when updates alternate, each step has half of them
        text = ('loss D {loss_D:.2f} G {loss_G:.2f} D(x) {D_x:.2f} D(G(z)) {D_G_z1:.2f} -> {D_G_z2:.2f}'
                .format(**self.metrics))
        if not np.isnan(self.metrics['frechet']):
            text += f' Frechet {self.metrics["frechet"]:.1f}'
        now = time.monotonic()
        try:
            if not self.bar.disable:
                self.bar.set_postfix_str(text, refresh=False)
                self.bar.update(step - self.bar.n)
            elif now - self.shown > self.SECONDS or step in (self.first, self.last) or 'frechet' in metrics:
                self.shown = now
                print(f'step {step}/{self.last}  epoch {(step - 1) // self.per_epoch + 1}  {text}  '
                      f'{(step + 1 - self.first) / (now - self.start):.1f} steps/s', flush=True)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):                     # a full disk, perhaps
                raise
            drop(sys.stdout if self.bar.disable else sys.stderr)
            self.signals.append(signal.SIGTERM)


def catch_signals():
    """A list to which a signal to end adds its number, so that no step is cut in two. A second signal kills, but not a
    second SIGHUP: a closed terminal may send several."""
    caught, second = [], {signal.SIGINT: signal.SIG_DFL, signal.SIGTERM: signal.SIG_DFL}
    if hasattr(signal, 'SIGHUP'):                 # Windows has none
        second[signal.SIGHUP] = signal.SIG_IGN

    def note(signum, frame):
        caught.append(signum)
        signal.signal(signum, second[signum])
        if sys.stderr:
            with contextlib.suppress(OSError):    # the terminal may be gone
                os.write(2, b'\nsaving; once more to stop at once\n')   # print could meet itself, interrupted
    for signum in second:
        if signal.getsignal(signum) != signal.SIG_IGN:
            signal.signal(signum, note)
    return caught
