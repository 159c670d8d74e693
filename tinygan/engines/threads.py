"""BLAS with one thread.

Its threads spin while they wait for one another. In small products they gain little, and beside other work they lose
much: each waits for one that has no core.
"""
from contextlib import contextmanager
from functools import cache


@cache
def blas():
    from threadpoolctl import ThreadpoolController
    return ThreadpoolController()                 # which looks for the libraries once


@contextmanager
def one_thread():
    """In a with block, or a function that this decorates, BLAS has one thread."""
    with blas().limit(limits=1, user_api='blas'):
        yield
