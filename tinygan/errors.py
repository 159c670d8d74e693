"""A user's mistake is answered with one line that says what and how to mend it, and exit code 2."""
import argparse
import contextlib
import math
import os
import sys


class UserError(Exception):
    """Something the user can mend. Its text is the whole answer: one line, no traceback."""

    def _render_traceback_(self):                 # what a notebook shows of it
        return [f'error: {self}']


@contextlib.contextmanager
def one_line_errors(program):
    """Turn UserError and the operating system's refusals into one line on stderr and exit code 2. What the terminal has no
    character for, in the name of a file say, is printed as an escape sequence."""
    if hasattr(sys.stdout, 'reconfigure'):        # not in a notebook
        sys.stdout.reconfigure(errors='backslashreplace')
    try:
        try:
            yield
        except SystemExit:
            flush(sys.stdout)
            raise
        flush(sys.stdout)
    except BrokenPipeError:
        drop(sys.stdout)
        sys.exit(1)
    except (UserError, OSError, MemoryError) as error:
        message = line_of(error)
    except KeyboardInterrupt:                     # before training began there is nothing to save
        print(f'{program}: interrupted', file=sys.stderr)
        sys.exit(130)
    else:
        return
    with contextlib.suppress(OSError):
        flush(sys.stdout)
    print(f'{program}: error: {message}', file=sys.stderr)
    sys.exit(2)


def line_of(error):
    """What a UserError, OSError or MemoryError says, in one line."""
    message = str(error)
    if isinstance(error, OSError):                # no space left, no permission, not a directory ...
        reason = error.strerror or ' '.join(map(str, error.args))        # NumPy's have a text alone
        message = ': '.join(str(part) for part in (error.filename, reason) if part)
    if isinstance(error, MemoryError):
        message = f'not enough memory: {error}'
    return ' '.join(message.split())


def flush(stream):
    """Write what is still buffered: at its end, Python would answer a full disk or a closed pipe in its own way."""
    try:
        if stream:
            stream.flush()
    except OSError:
        drop(stream)
        raise


def drop(stream):
    """From now on, what is written there is lost: its reader has gone, as `... | head` does."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def printable(text):
    """The text without what could play with a terminal, which the name of a file may hold."""
    return ''.join(character if character.isprintable() or '\udc80' <= character <= '\udcff' else '?' for character in text)


def listed(names, most=10):
    """The first names, in a line, and how many more there are."""
    return printable(', '.join([*names[:most], *[f'and {len(names) - most} more'] * (len(names) > most)]))


class Parser(argparse.ArgumentParser):
    """An argument parser that raises UserError instead of printing its usage."""

    def error(self, message):
        raise UserError(f'{message} (--help lists the options)')


def number(kind, low, below=math.inf):
    """The type of an option: a number of the given kind, at least low and below another."""
    def parse(text):
        value = kind(text)
        if not low <= value < below:
            limit = ' and finite' if below == math.inf else f' and below {below}'
            raise argparse.ArgumentTypeError(f'must be at least {low}{limit}, not {text}')
        return value
    parse.__name__ = kind.__name__                # argparse says "invalid int value"
    return parse


def path(text):
    """The type of an option: a path, ~ being the home folder, and not the empty one that an unset variable leaves."""
    if not text:
        raise argparse.ArgumentTypeError('it is empty')
    return os.path.expanduser(text)


def colour(text):
    """The type of an option: a colour that Pillow knows, by its name or as #rrggbb."""
    from PIL import ImageColor
    try:
        ImageColor.getrgb(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(error) from None
    return text


def named(suffix):
    """The type of an option: the path of a file to write, whose name says what it will be."""
    def parse(text):
        if not text.lower().endswith(suffix):
            raise argparse.ArgumentTypeError(f'{text!r} does not end in {suffix}')
        return os.path.expanduser(text)
    return parse


count = number(int, 1, 2 ** 31)
count_or_never = number(int, 0, 2 ** 31)          # 0: never
seed = number(int, 0, 2 ** 63)
