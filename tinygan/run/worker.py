"""Work that need not be done before training goes on."""
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import copy_context

from ..engines.threads import one_thread

MOST = 16           # calls that may be left to do: the first grids, of steps 1, 2, 4 ..., are due faster than they are drawn


class Worker:
    """Calls functions, one after another: in a thread beside the training or, unless `beside`, at once. What one raised is raised
    by a later call, at the latest when there are MOST to do, or by wait(). close() ends the thread, and drops what is left to do:
    wait() comes before, if all goes well.

    From a call until wait() has seen it done, BLAS has one thread. The limit is for all threads, so the one that trains sets it
    and ends it: if the other did, the two could each restore what the other had set."""

    def __init__(self, beside):
        self.pool, self.pending, self.limit = ThreadPoolExecutor(1) if beside else None, deque(), ExitStack()

    def call(self, function, *arguments):
        if not self.pool:
            function(*arguments)
            return
        self.wait(MOST - 1)
        if not self.pending:
            self.limit.enter_context(one_thread())
        self.pending.append(self.pool.submit(copy_context().run, function, *arguments))      # with np.errstate as it is here

    def wait(self, most=0):
        """Until at most so many calls are left to do."""
        while self.pending and (len(self.pending) > most or self.pending[0].done()):
            self.pending.popleft().result()
        if not self.pending:
            self.limit.close()

    def close(self):
        with self.limit:
            if self.pool:
                self.pool.shutdown(cancel_futures=True)
