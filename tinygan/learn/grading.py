"""What somebody has written, against what is right: array by array, in words, and compared with the catalogue of mistakes."""
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np

from ..gradcheck import TOLERANCE, relative_error

STOPS = Exception, SystemExit                     # what stops the code of a learner, who may have written sys.exit()


class Row(NamedTuple):
    what: str
    error: float                    # relative
    words: str                      # what is wrong; '' where nothing is


class Broken(Exception):
    """The code that is graded does not run. Its text says where it stopped, and why."""


def run(text, name):
    """What a source defines, as a module; name is that of its file. Raises Broken."""
    module = ModuleType('exercise')
    module.__file__, sys.modules['exercise'] = name, module       # where dataclasses look for it
    try:
        exec(compile(text, name, 'exec'), vars(module))
    except STOPS as error:
        raise Broken(stopped(error, name)) from None
    return module


def stopped(error, place):
    """Where an error arose, in the file or folder `place`, and what it says, in one line."""
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        frames.append((error.filename, error.lineno))
    where = [f'{Path(file).name}, line {line}: ' for file, line in frames if str(file).startswith(str(place))]
    what = error if isinstance(error, NotImplementedError) else f'{type(error).__name__}: {getattr(error, "msg", error)}'
    return ' '.join(f'{where[-1] if where else ""}{what}'.split())


def attempt(case, code, name):
    """case.mine, or Broken."""
    try:
        with np.errstate(all='ignore'):
            return case.mine(code)
    except STOPS as error:
        raise Broken(stopped(error, name)) from None


def grade(exercise, code, name):
    """(rows, mistakes): what was compared, and the mistakes that it looks like. Of several cases, the first that fails
    counts. Raises Broken when the code stops."""
    right = {}
    for case in exercise.cases:
        mine, truth = attempt(case, code, name), case.truth()
        rows = without_consequences([row_of(what, mine.get(what), truth[what]) for what in truth])
        if wrong := [row.what for row in rows if row.words]:
            return rows, recognised(exercise, case, mine, truth, wrong)
        right |= {row.what: row for row in rows}
    return list(right.values()), []


def without_consequences(rows):
    """The rows but for those of what is wrong already, such as dw after a second backward, if dw was wrong after the first."""
    kept, wrong = [], set()
    for row in rows:
        base = row.what.partition(' after ')[0]
        if base not in wrong:
            kept.append(row)
        if row.words:
            wrong.add(base)
    return kept


def row_of(what, mine, right):
    if mine is None:
        return Row(what, np.inf, 'is not there: was it returned?')
    mine, right = as_numbers(mine), np.asarray(right)
    if mine is None:
        return Row(what, np.inf, 'is no array of real numbers')
    if mine.shape != right.shape:
        return Row(what, np.inf, f'has the shape {mine.shape}, and should have {right.shape}')
    if not right.size:
        return Row(what, np.inf, 'is empty')
    error = relative_error(mine, right) if np.isfinite(mine).all() else np.inf
    return Row(what, error, '' if error < TOLERANCE else in_words(mine, right))


def as_numbers(value):
    """An array of floats, or None if the value is none."""
    try:
        return None if value is None or np.iscomplexobj(value) else np.asarray(value, np.float64)
    except (TypeError, ValueError):
        return None


def in_words(mine, right):
    """What is wrong with an array of the right shape."""
    if not np.isfinite(mine).all():
        return 'is not a number everywhere'
    if not right.any():
        return 'should be zero, and is not'
    if not mine.any():
        return 'is zero'
    factor = float((mine * right).sum() / (right * right).sum())
    if relative_error(mine, factor * right) < TOLERANCE:
        return 'has the wrong sign' if np.isclose(factor, -1) else f'is {factor:.4g} times what it should be'
    if mine.ndim == 2 and mine.shape == mine.T.shape and relative_error(mine.T, right) < TOLERANCE:
        return 'is the transpose of what it should be'
    place = np.unravel_index(abs(mine - right).argmax(), right.shape)
    return f'is {mine[place]:.5g} at [{", ".join(map(str, place))}], and should be {right[place]:.5g}'


def recognised(exercise, case, mine, truth, wrong):
    """The mistakes of the catalogue that make the same wrong arrays, those first that explain most; each explains what no other
    has explained yet."""
    explained = {}
    for mistake in exercise.mistakes().values():
        try:
            code = run(f'{exercise.imports()}\n{exercise.text(mistake)}', 'mistake')
            theirs = attempt(case, code, 'mistake')
        except Broken:
            continue
        explained[mistake] = {what for what in wrong if what in theirs and same(mine.get(what), theirs[what])
                              and not same(truth[what], theirs[what])}
    found, left = [], set(wrong)
    for mistake, whats in sorted(explained.items(), key=lambda item: -len(item[1])):
        if whats & left:
            found.append(mistake)
            left -= whats
    return found


def same(one, other):
    one, other = as_numbers(one), as_numbers(other)
    if one is None or other is None or one.shape != other.shape or (np.isfinite(one) != np.isfinite(other)).any():
        return False
    return relative_error(np.nan_to_num(one), np.nan_to_num(other)) < TOLERANCE
