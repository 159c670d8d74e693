"""The house: who may import whom, and what the core must not know."""
import ast
import re
import sys
from pathlib import Path

import pytest

TINYGAN = Path(__file__).resolve().parent.parent / 'tinygan'
CORE = 'arrays', 'conv', 'layers', 'network', 'losses', 'penalties', 'optim', 'models', 'gan', 'gradcheck', 'show'
FLOORS = [                                        # what is written further down may be imported, never the other way round
    {'__init__', '__main__'},
    {'learn'},
    {'judge'},
    {'run'},
    {'engines'},
    {'recipes', 'data'},
    {'errors', *CORE},
]


def module_of(path):
    """('data', 'mnist') for data/mnist.py, ('data',) for data/__init__.py."""
    parts = path.relative_to(TINYGAN).with_suffix('').parts
    return parts[:-1] if parts[-1] == '__init__' and len(parts) > 1 else parts


MODULES = {module_of(path): path for path in TINYGAN.rglob('*.py')}


def imports(module):
    """(modules of the package, names of others) that a module imports, at its top or inside a function."""
    ours, others = set(), set()
    package = MODULES[module].relative_to(TINYGAN).parent.parts
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            others |= {alias.name.partition('.')[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            others.add(node.module.partition('.')[0])
        elif isinstance(node, ast.ImportFrom):
            start = package[:len(package) - node.level + 1] + tuple(node.module.split('.') if node.module else ())
            for alias in node.names:              # a module of that package, or a name in it
                ours.add((*start, alias.name) if (*start, alias.name) in MODULES else start or ('__init__',))
    return ours, others


def floor(module):
    return next(i for i, names in enumerate(FLOORS) if module[0] in names)


def test_modules_import_each_other_by_relative_names():
    assert not [module for module in MODULES if 'tinygan' in imports(module)[1]]


def test_every_module_has_its_floor():
    assert len(MODULES) > 25 and {module[0] for module in MODULES} == set().union(*FLOORS)


@pytest.mark.parametrize('name', CORE)
def test_the_core_imports_itself_and_numpy(name):
    ours, others = imports((name,))
    assert ours <= {(other,) for other in CORE}
    assert others <= {'numpy', *sys.stdlib_module_names}


@pytest.mark.parametrize('name', CORE)
def test_the_core_does_not_know_that_it_can_be_made_faster(name):
    words = r'\b\w*(?:engine|(?<!p)lanes?\b|scratch|fast|quick|speed|blas|toom|to_input|piece|cache-sized|performan)\w*'
    assert not re.findall(words, MODULES[(name,)].read_text(), re.IGNORECASE)


def test_no_import_points_up():
    for module in MODULES:
        for other in imports(module)[0]:
            assert floor(module) <= floor(other) or other == ('__init__',), f'{module} imports {other}'
            if other == ('__init__',):            # for its version alone
                assert module in (('__main__',), ('learn', 'xray'))


def test_no_imports_make_a_circle():
    """Whoever imports only what is done with is done too; a circle, and what leads to it, never is."""
    left, done = {module: imports(module)[0] - {module, ('__init__',)} for module in MODULES}, set()
    while ready := {module for module, needs in left.items() if needs <= done}:
        done |= ready
        left = {module: needs for module, needs in left.items() if module not in done}
    assert not left


@pytest.mark.parametrize('path', [*MODULES.values(), TINYGAN.parent / 'train_mnist.py'], ids=lambda path: path.name)
def test_a_file_has_at_most_300_lines(path):
    assert len(path.read_text().splitlines()) <= 300
