"""Work that need not be done before training goes on."""
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import copy_context

from ..engines.threads import one_thread


class Worker:
    """Calls functions, one after another: in a thread beside the training or, unless `beside`, at once. None waits in a queue: a
    call begins when the one before has ended. What that one raised is raised by the next call or by wait().

    From a call beside the training until it was waited for, BLAS has one thread. The limit is for all threads, so the one that
    trains sets it and ends it: if the other did, the two could each restore what the other had set."""

    def __init__(self, beside):
        self.pool, self.pending, self.limit = ThreadPoolExecutor(1) if beside else None, None, ExitStack()

    def call(self, function, *arguments):
        self.wait()
        if self.pool:                             # in a context where np.errstate is what it is here
            self.limit.enter_context(one_thread())
            self.pending = self.pool.submit(copy_context().run, function, *arguments)
        else:
            function(*arguments)

    def wait(self):
        """Until all that was called has been done."""
        pending, self.pending = self.pending, None
        with self.limit:
            if pending:
                pending.result()

    def close(self):
        with self.limit:
            if self.pool:
                self.pool.shutdown()
