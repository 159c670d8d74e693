"""Do the tests notice when a line is changed? Mutants of tinygan/ and train_mnist.py, drawn at random, and the tests run on each.

    python benchmarks/mutants.py [--number 300] [--seed 0] [--workers 2] [--out FILE.json]

needs git, and what the tests need. mutations.py says what is changed: never a text, an annotation or what follows `raise`. One pass
over the tests, in the processes that they start too, notes which test runs which line. A mutant meets those that run its line: the
file that mirrors its own, then its folder, then all others. One outside of functions meets those that run any line of its file's
functions, and the quick tests of all that import it. Tests that read the source notice any change, and are left out; those
of tinygan/learn, which do in part, meet its own mutants alone. Tests that take ten times as long as without the mutant, and a
minute, are stopped: it counts as killed.

The JSON file is written after each mutant, and a run that was stopped goes on from it, unless a source or a test has changed.
Whoever reads a survivor writes there, at "why", what it changes: 'nothing: ...', 'looks: ...' (messages, progress bars, pictures)
or 'speed: ...'; or 'test: ...': which test has been added for it. The next run keeps that. A survivor without a reason is a gap in
the tests.
"""
import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from queue import SimpleQueue

from mutations import draw_mutants
from provenance import provenance

ROOT = Path(__file__).resolve().parent.parent
SOURCES = 'train_mnist.py', 'tinygan/**/*', 'tests/**/*'
HARMLESS = 'nothing', 'looks', 'speed'               # what the reason for a survivor begins with, or 'test'
LEFT_OUT = 'test_planted_bugs.py', 'test_package.py', 'test_structure.py', 'test_readme.py', 'test_mutants.py'
QUICK = 0.3                                          # seconds
MEMORY = 8 << 30                                     # bytes: a mutant may ask for more than there is
TRACER = '''
import contextlib, os, sys, threading
if path := os.environ.get('LINES_RUN'):
    seen, out, root = set(), os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), os.path.dirname(__file__) + os.sep
    def trace(frame, event, _):
        name = frame.f_code.co_filename.removeprefix(root)
        if not name.startswith('tinygan/') and name != 'train_mnist.py':
            return None
        test = os.environ.get('PYTEST_CURRENT_TEST', '')
        in_function = frame.f_code.co_flags & 1
        def line(frame, event, _):
            number = frame.f_lineno if in_function else 0
            if (test, name, number) not in seen:
                seen.add((test, name, number))
                with contextlib.suppress(OSError):          # where a test plays a full disk
                    os.write(out, f'{name}\\t{number}\\t{test}\\n'.encode())
            return line
        return line(frame, event, None)
    threading.settrace(trace)
    sys.settrace(trace)
'''                                               # sitecustomize.py of the pass that notes who runs which line


def copy_to(folder):
    """The project in a folder, where a worker may spoil it."""
    for name in subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    return folder


def run_tests(folder, tests, limit, *flags, **environment):
    """(exit code or None if they were stopped, what pytest wrote)."""
    from resource import RLIMIT_DATA, prlimit     # which Linux alone has; the READMEs' test needs but the table
    command = [sys.executable, '-m', 'pytest', '-n', '0', '-p', 'no:cacheprovider', '-p', 'no:randomly', '--tb=no', '-rfE', *flags,
               f'--basetemp={folder}.tmp', *tests]
    environment = {**os.environ, 'PYTHONPATH': str(folder), 'OPENBLAS_NUM_THREADS': '1', 'COLUMNS': '1000', **environment}
    with tempfile.TemporaryFile('w+') as out:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=out, start_new_session=True)
        prlimit(process.pid, RLIMIT_DATA, (MEMORY, MEMORY))
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        with suppress(ProcessLookupError):        # whatever they have left running, too
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        out.seek(0)
        return code, out.read()


def failures(out):
    return re.findall(r'^(?:FAILED|ERROR) (.+?)(?: - .*)?$', out, re.MULTILINE)


def survey(folders, workers):
    """Of the tests without a mutant: ({test: seconds}, {(file, line): tests, or whole files of tests, that run it})."""
    seconds, runs = defaultdict(float), defaultdict(set)

    def look_at(path):
        with borrowed(folders) as folder:
            lines = folder / path.replace('/', '-')
            _, out = run_tests(folder, [path], None, '-vv', '--durations=0', LINES_RUN=str(lines))
            return path, out, lines.read_text().splitlines()

    for path, out, lines in workers.map(look_at, test_files()):
        failed = failures(out)
        if failed:
            print('fail without a mutant, and are left out:', *failed, flush=True)
        for each, test in re.findall(r'^([\d.]+)s (?:setup|call|teardown) +(.+)$', out, re.MULTILINE):
            if test not in failed:
                seconds[test] += float(each)
        for line in lines:
            file, number, test = line.split('\t')
            test, _, phase = test.rpartition(' ')
            runs[file, int(number)].add(test if phase == '(call)' else path)          # a fixture may be there for all the others
    return seconds, runs


def test_files():
    return [str(path.relative_to(ROOT)) for path in sorted((ROOT / 'tests').rglob('test_*.py')) if path.name not in LEFT_OUT]


@contextmanager
def borrowed(folders):
    folder = folders.get()
    try:
        yield folder
    finally:
        folders.put(folder)


def groups(mutant, seconds, runs):
    """The tests that run what is mutated, the near ones first, and the quick ones first among those. At last those that may only
    read what the file has outside of functions."""
    found = set().union(*(runs.get((mutant.file, line), ()) for line in range(mutant.first, mutant.last + 1)))
    package, _, name = mutant.file.removeprefix('tinygan/').rpartition('/')
    folder = f"tests/{package.split('/')[0]}/".replace('//', '/')
    mirror, near = f"{folder}test_{name.replace('__', '')}", folder if package else 'tests/test_'
    chosen = defaultdict(list)
    for test in sorted(seconds, key=seconds.get):
        if (test in found or file_of(test) in found) and (package == 'learn' or not test.startswith('tests/learn/')):
            chosen[file_of(test)].append(test)
    nearness = [[], [], [], []]
    for file in sorted(chosen, key=lambda file: sum(map(seconds.get, chosen[file]))):
        nearness[0 if file == mirror else 1 if file.startswith(near) else 2] += chosen[file]
    if mutant.first <= 1:                         # outside of functions
        importers = set(map(file_of, runs.get((mutant.file, 0), ())))
        nearness[3] = [test for test in seconds if seconds[test] < QUICK and test not in chosen[file_of(test)] and file_of(test) in
                       importers and (package == 'learn' or not test.startswith('tests/learn/'))]
    return [tests for tests in nearness if tests]


def file_of(test):
    return test.partition('::')[0]


def try_out(mutant, number, folder, seconds, runs):
    """('killed' or 'timed out', by which test), or ('survived', how many tests)."""
    path = folder / mutant.file
    right = path.read_bytes()
    try:
        path.write_bytes(mutant.source)
        os.utime(path, (number, number))          # a time of its own: Python must not take it for what it has compiled before
        near_to_far = groups(mutant, seconds, runs)
        for tests in near_to_far:
            limit = 60 + 10 * sum(map(seconds.get, tests))
            code, out = run_tests(folder, tests, limit, '-x', '-q')
            if code == 4:                         # there is no such test: the mutant has changed its parameters
                code, out = run_tests(folder, sorted({*map(file_of, tests)}), limit, '-x', '-q')
            killers = failures(out)
            if code == 1 and killers:             # what fails only now and then proves nothing
                code, _ = run_tests(folder, killers[:1], limit, '-q')
            if code != 0:
                return 'timed out' if code is None else 'killed', (killers or [file_of(tests[0])])[0]
        return 'survived', f'{sum(map(len, near_to_far))} tests'
    finally:
        path.write_bytes(right)
        os.utime(path, (0, 0))


def table(rows):
    """Markdown: a row for each folder, and one for all."""
    columns = 'killed', 'timed out', *HARMLESS, 'test', 'gap'
    lines = [f"| | mutants | {' | '.join(columns)} |", '| --- ' * (len(columns) + 2) + '|']
    counts = defaultdict(Counter)
    for row in rows:
        for folder in os.path.dirname(row['file']) or row['file'], 'all':
            counts[folder][outcome(row)] += 1
    for folder in sorted(counts, key=lambda folder: (folder == 'all', folder)):
        lines.append(f"| {folder} | {counts[folder].total()} | {' | '.join(str(counts[folder][name]) for name in columns)} |")
    of_all = counts['all']
    killed, harmless = of_all['killed'] + of_all['timed out'], sum(of_all[name] for name in HARMLESS)
    shares = [killed / max(1, number) for number in (of_all.total(), of_all.total() - harmless)]
    return '\n'.join([*lines, '', '{:.1%} are killed, {:.1%} of those that change what is computed.'.format(*shares)])


def outcome(row):
    reason = row['why'].partition(': ')[0]
    return row['result'] if row['result'] != 'survived' else reason if reason in (*HARMLESS, 'test') else 'gap'


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--number', type=int, default=300)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--workers', type=int, default=os.cpu_count())
    parser.add_argument('--out', type=Path, default=ROOT / 'benchmarks' / 'results' / 'mutants.json')
    options = parser.parse_args()
    drawn, places = draw_mutants(ROOT, options.number, options.seed)
    origin = provenance(SOURCES, pytest=version('pytest'))
    earlier = json.loads(options.out.read_text('utf-8')) if options.out.exists() else {'mutants': []}
    known = {(row['file'], row['before'], row['after']): row for row in earlier['mutants']}
    same = bool(known) and earlier['provenance']['sources'] == origin['sources']
    start, folders = time.monotonic(), SimpleQueue()
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(options.workers) as workers:
        for worker in range(options.workers):
            folders.put(copy_to(Path(scratch) / str(worker)))
        for folder in Path(scratch).iterdir():
            (folder / 'sitecustomize.py').write_text(TRACER)
        seconds, runs = survey(folders, workers)
        result = {'provenance': origin, 'seed': options.seed, 'places': places, 'tests': len(seconds), 'workers': options.workers,
                  'seconds': earlier['seconds'] if same else 0, 'mutants': []}

        def judge(number):
            mutant = drawn[number]
            row = known.get((mutant.file, mutant.before, mutant.after), {'why': ''})
            if same and row.get('line') == mutant.line:
                return row
            with borrowed(folders) as folder:
                result, by = try_out(mutant, number + 1, folder, seconds, runs)
            shown = {name: getattr(mutant, name) for name in ('file', 'line', 'before', 'after')}
            print(f'{number + 1}/{len(drawn)}', *shown.values(), result, by, sep=' | ', flush=True)
            return shown | {'result': result, 'by': by, 'why': row['why'] if result == 'survived' else ''}

        for row in workers.map(judge, range(len(drawn))):
            result['mutants'].append(row)
            if row not in known.values() or len(result['mutants']) == len(drawn):
                seconds_now = result['seconds'] + round(time.monotonic() - start)
                part = options.out.with_suffix('.part')
                part.write_text(json.dumps(result | {'seconds': seconds_now}, indent=1) + '\n', 'utf-8')
                part.replace(options.out)         # whole, or as it was
    print(table(result['mutants']))


if __name__ == '__main__':
    main()
