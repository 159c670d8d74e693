"""The core's source as material: looked up, cut, spoiled, and run from a copy. Nothing of it is written down a second time."""
import ast
import importlib
import importlib.util
import itertools
import shutil
import sys
import textwrap
from functools import cache
from pathlib import Path
from types import ModuleType

from ..errors import UserError

CORE = 'arrays', 'conv', 'gan', 'gradcheck', 'layers', 'losses', 'models', 'network', 'optim', 'penalties', 'show'
FOLDER = Path(__file__).resolve().parent.parent
copies = itertools.count(1)


def text_of(file):
    """The source of a file of the core: text_of('layers')."""
    return (FOLDER / f'{file}.py').read_text(encoding='utf-8')


def nodes(text):
    """{'Linear': node, 'Linear.backward': node ...} of all classes, functions and methods in a source."""
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            found[node.name] = node
            found |= {f'{node.name}.{part.name}': part for part in ast.iter_child_nodes(node) if isinstance(part, ast.FunctionDef)}
    return found


@cache
def excerpt(file, names, without=()):
    """The lines of a file of the core that define these classes and functions; methods of the names in `without` are left out."""
    text = text_of(file)
    found, lines = nodes(text), text.splitlines()
    out = {i for name, node in found.items() if name.partition('.')[2] in without
           for i in range(node.lineno - 2, node.end_lineno)}      # with the empty line above
    return '\n\n\n'.join('\n'.join(lines[i] for i in range(found[name].lineno - 1, found[name].end_lineno) if i not in out)
                         for name in names) + '\n'


def blanked(text, name, task):
    """The source with the body of a function or method cut out. What remains of it is its docstring and, where they open the
    body, the lines that read the cache; below them stands the task."""
    node, lines = nodes(text)[name], text.splitlines()
    given = [part for part in node.body[:1] if isinstance(part, ast.Expr)]           # the docstring
    given += itertools.takewhile(reads_cache, node.body[len(given):])
    kept = [line for part in given for line in lines[part.lineno - 1:part.end_lineno]]
    indent = ' ' * (node.col_offset + 4)
    blank = [*textwrap.wrap(task, 120, initial_indent=f'{indent}# ', subsequent_indent=f'{indent}# '),
             f"{indent}raise NotImplementedError('{name} is still blank')"]
    head = lines[:signature_end(node)]
    return '\n'.join([*head, *kept, *blank, *lines[node.end_lineno:]]) + '\n'


def reads_cache(statement):
    return not isinstance(statement, ast.Return) and any(
        isinstance(part, ast.Attribute) and part.attr == 'cache' and isinstance(part.ctx, ast.Load) for part in ast.walk(statement))


def signature_end(node):
    """The number of the line on which a function's signature ends: comments may stand between it and the body."""
    arguments = [*node.args.args, *node.args.defaults, *node.args.kwonlyargs]
    return max([node.lineno, *(part.end_lineno for part in arguments)])


def imports_for(text, names, file):
    """The import lines that an excerpt needs on its own."""
    module, found = importlib.import_module(f'tinygan.{file}'), nodes(text)
    used = {node.id for name in names for node in ast.walk(found[name]) if isinstance(node, ast.Name)}
    homes = {}                                    # modules of tinygan: what is imported from each
    for name in sorted(used - set(names) - {'np'}):
        value = getattr(module, name, None)
        home = value.__name__.rpartition('.')[0] if isinstance(value, ModuleType) else getattr(value, '__module__', '')
        if home.startswith('tinygan') or home == 'typing':
            homes.setdefault(home, []).append(name)
    lines = {home: f'from {home} import {", ".join(found)}' for home, found in sorted(homes.items())}
    typing = [lines.pop('typing'), ''] if 'typing' in lines else []
    return '\n'.join([*typing, 'import numpy as np', '', *lines.values()])


def copy_core(folder, mistake=None):
    """Write the core's files into a new folder, with a mistake planted in one of them. UserError where something is already."""
    try:
        Path(folder).mkdir(parents=True)
    except FileExistsError:
        raise UserError(f'{folder} is there already: move it away to begin anew') from None
    try:
        for file in CORE:
            text = text_of(file)
            Path(folder, f'{file}.py').write_text(mistake.planted(text) if mistake and file == mistake.file else text, 'utf-8')
    except OSError as error:                      # half a copy is none
        shutil.rmtree(folder)
        error.filename = str(folder)
        raise


def load_core(folder):
    """The core in a folder as a package of its own, beside the one that is installed: core.layers.Conv2d. Raises whatever its
    files raise."""
    name = f'core_{next(copies)}'
    spec = importlib.util.spec_from_loader(name, loader=None, is_package=True)
    spec.submodule_search_locations = [str(Path(folder).resolve())]
    core = sys.modules[name] = importlib.util.module_from_spec(spec)
    for file in CORE:
        importlib.import_module(f'{name}.{file}')
    return core
