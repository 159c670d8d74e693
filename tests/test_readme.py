"""What the README shows is what the code does."""
import ast
import contextlib
import io
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
from test_structure import CORE

from tinygan.gan import draw_z
from tinygan.losses import bce_with_logits
from tinygan.recipes import RECIPES, make_gan

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / 'README.md').read_text()
BLOCKS = re.findall(r'```python\n((?:.*\n)*?)```\n+((?:    .*\n)*)', README)
LOOP, PRINTING = BLOCKS[0], [block for block in BLOCKS[1:]]


@pytest.mark.parametrize('code, shown', PRINTING, ids=[shown.split('\n')[0].strip() for _, shown in PRINTING])
def test_an_example_prints_what_the_readme_says(code, shown):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    assert printed.getvalue() == textwrap.dedent(shown) != ''


def test_the_finite_difference_agrees_with_the_gradient_by_hand():
    by_hand, by_moving = re.findall(r'(-?\d+\.\d+) by', PRINTING[0][1])
    assert float(by_hand) == pytest.approx(float(by_moving)) != 0


def test_the_source_that_is_shown_is_the_source():
    shown = re.findall(r'^```\n((?:(?!```).*\n)+)```\n', re.sub(r'```python\n(?:(?!```).*\n)+```\n', '', README), re.M)
    source = {' '.join(line.split()) for name in CORE for line in (ROOT / 'tinygan' / f'{name}.py').read_text().splitlines()}
    assert len(shown) == 2 and {' '.join(line.split()) for block in shown for line in block.splitlines()} <= source


def test_the_training_loop_is_a_step_of_gan_py():
    code, _ = LOOP
    shown, real = (make_gan(RECIPES['dcgan']) for _ in range(2))
    x = np.random.default_rng(0).uniform(-1, 1, (4, 28, 28, 1)).astype('f')
    z = draw_z(0, 1, 4, 100)
    exec(code, {'G': shown.G, 'D': shown.D, 'optim_G': shown.optim_G, 'optim_D': shown.optim_D, 'x': x, 'z': z,
                'bce_with_logits': bce_with_logits})
    real.step(x, z)
    np.testing.assert_array_equal(shown.G.parameters, real.G.parameters)
    np.testing.assert_array_equal(shown.D.parameters, real.D.parameters)


def test_every_file_the_readme_names_is_there_and_every_module_is_named():
    modules = {path.name for path in (ROOT / 'tinygan').rglob('*.py')} - {'__init__.py', '__main__.py'}
    names = re.findall(r'`([\w/]+\.(?:py|cu|cuh))`', README)
    for name in names + re.findall(r'\]\(([\w/.]+)\)', README):
        assert (ROOT / name).exists() or list((ROOT / 'tinygan').rglob(name)), name
    assert modules <= {name.rpartition('/')[2] for name in names}


def test_the_table_of_recipes_has_all_of_them():
    table = README[README.index('## Recipes'):README.index('## Between the digits')]
    assert sorted(re.findall(r'^\| `(\w+)` \|', table, re.M)) == sorted(RECIPES)


def test_every_section_that_is_linked_is_there():
    headings = {re.sub(r'[^\w -]', '', heading).strip().lower().replace(' ', '-')
                for heading in re.findall(r'^#+ (.*)$', README, re.M)}
    links = re.findall(r'\]\(#([\w-]+)\)', README)
    assert len(links) > 3 and set(links) <= headings


def lines_of_code(path):
    """Lines that hold code: neither blank, nor a comment alone, nor of a docstring."""
    tree = ast.parse(path.read_text())
    docstrings = [node.body[0] for node in ast.walk(tree) if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
                  and ast.get_docstring(node)]
    prose = {number for node in docstrings for number in range(node.lineno, node.end_lineno + 1)}
    lines = enumerate(path.read_text().splitlines(), 1)
    return sum(bool(line.strip()) and not line.strip().startswith('#') and number not in prose for number, line in lines)


def test_the_core_is_as_long_as_the_readme_says():
    said, = re.findall(r'core is (\d+) lines of code', README)
    assert abs(sum(lines_of_code(ROOT / 'tinygan' / f'{name}.py') for name in CORE) - int(said)) <= 10


def test_nothing_is_left_to_be_filled_in():
    assert not re.findall(r'^ *[A-Z][A-Z_]{3,} *$', README, re.M)
