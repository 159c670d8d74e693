"""What the README shows is what the code does."""
import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pytest

from tinygan.gan import GAN, draw_z
from tinygan.losses import bce_with_logits
from tinygan.recipes import RECIPES

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / 'README.md').read_text()
BLOCKS = re.findall(r'```python\n((?:.*\n)*?)```\n+((?:    .*\n)*)', README)


def test_the_finite_difference_prints_what_the_readme_says():
    code, shown = BLOCKS[1]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    assert printed.getvalue().split() == shown.split()
    by_hand, by_moving = re.findall(r'-?\d+\.\d+', shown)
    assert float(by_hand) == pytest.approx(float(by_moving)) != 0


def test_the_training_loop_is_a_step_of_gan_py():
    code, _ = BLOCKS[0]
    shown, real = (GAN.from_recipe(RECIPES['dcgan']) for _ in range(2))
    x = np.random.default_rng(0).uniform(-1, 1, (4, 28, 28, 1)).astype('f')
    z = draw_z(0, 1, 4, 100)
    exec(code, {'G': shown.G, 'D': shown.D, 'optim_G': shown.optim_G, 'optim_D': shown.optim_D, 'x': x, 'z': z,
                'bce_with_logits': bce_with_logits})
    real.step(x, z)
    np.testing.assert_array_equal(shown.G.parameters, real.G.parameters)
    np.testing.assert_array_equal(shown.D.parameters, real.D.parameters)


def test_every_file_the_readme_names_is_there():
    names = re.findall(r'`(?:tinygan/)?([\w/]+\.py)`', README) + re.findall(r'\]\(([\w/.]+)\)', README)
    assert len(names) > 10
    for name in names:
        assert (ROOT / name).exists() or (ROOT / 'tinygan' / name).exists(), name
    for module in (ROOT / 'tinygan').glob('[a-z]*.py'):
        assert module.name in README, f'{module.name} is not in the reading order'


def test_nothing_is_left_to_be_filled_in():
    assert not re.findall(r'^ *[A-Z]{4,} *$', README, re.M)
