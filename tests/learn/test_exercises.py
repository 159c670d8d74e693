"""Every exercise: the real source passes, a blank does not, and each mistake of the catalogue is told by its name."""
import ast
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
from commands import one_line, tinygan

from tinygan.errors import UserError
from tinygan.learn import grading, source
from tinygan.learn.exercises import EXERCISES
from tinygan.learn.mistakes import MISTAKES

ROOT = Path(__file__).resolve().parent.parent.parent
HARMLESS = {                        # what cannot show in an exercise, and why
    'bias-unused': 'it is in a forward that is given, and y is not asked for',
    'promoted': 'an exercise is in float64 anyway',
    'amnesia': 'no run is resumed',
}


def solve(name, wrong=None):
    """NAME.py with its blanks filled in as the core has them, or with a mistake."""
    exercise = EXERCISES[name]
    Path(f'{name}.py').write_text(f'{exercise.imports()}\n\n\n{exercise.text(wrong)}')


PAIRS = [(name, mistake) for name, exercise in EXERCISES.items() for mistake in exercise.mistakes()
         if mistake not in HARMLESS and f'{mistake}, {name}' not in HARMLESS]


def test_there_are_at_least_twelve_and_each_has_three_hints_and_mistakes_to_make():
    assert len(EXERCISES) >= 12
    assert all(len(exercise.hints) == 3 and exercise.mistakes() for exercise in EXERCISES.values())
    assert len(PAIRS) > 50


@pytest.mark.parametrize('name', EXERCISES)
def test_the_real_source_passes(here, capsys, name):
    solve(name)
    assert tinygan('exercise', name, '--check') == 0
    out = capsys.readouterr().out
    assert 'all of it is right' in out and 'WRONG' not in out and out.count(' ok, ') >= 1


@pytest.mark.parametrize('name', EXERCISES)
def test_what_is_written_is_the_real_source_with_a_blank(here, capsys, name):
    assert tinygan('exercise', name) == 0
    exercise, text = EXERCISES[name], Path(f'{name}.py').read_text()
    was, now = source.nodes(exercise.text()), source.nodes(text)
    assert set(was) == set(now)
    for blank in set(was) - set(exercise.names):  # the methods, and no more of them than are cut
        same = ast.unparse(was[blank]) == ast.unparse(now[blank])
        assert same == (blank not in exercise.blanks)
    for blank in exercise.blanks:                 # nothing is left but the docstring, what reads the cache, and the blank
        *kept, last = now[blank].body
        assert ast.unparse(last).startswith('raise NotImplementedError')
        assert all(isinstance(part, ast.Expr) or re.search(r'(= \(?|if )self.cache', ast.unparse(part)) for part in kept)
    assert tinygan('exercise', name, '--check') == 1
    assert 'is still blank' in capsys.readouterr().out


@pytest.mark.parametrize('name, mistake', PAIRS, ids=map(', '.join, PAIRS))
def test_a_mistake_is_recognised(here, capsys, name, mistake):
    solve(name, MISTAKES[mistake])
    assert tinygan('exercise', name, '--check') == 1
    said = re.findall(r'It looks as if (.*)\.\nWhat is right, and why: (.*)\.', capsys.readouterr().out)
    assert said == [(MISTAKES[mistake].says, MISTAKES[mistake].derived)]


def test_the_readme_shows_what_is_printed(here, capsys):
    solve('linear', MISTAKES['linear-untransposed'])
    tinygan('exercise', 'linear', '--check')
    assert textwrap.indent(capsys.readouterr().out, '    ', lambda line: line != '\n') in (ROOT / 'README.md').read_text()


def test_two_mistakes_are_both_recognised(here, capsys):
    text = EXERCISES['linear'].text()
    for mistake in 'bias-mean', 'linear-untransposed':
        text = MISTAKES[mistake].planted(text)
    Path('linear.py').write_text(EXERCISES['linear'].imports() + '\n' + text)
    assert tinygan('exercise', 'linear', '--check') == 1
    out = capsys.readouterr().out
    assert all(MISTAKES[mistake].says in out for mistake in ('bias-mean', 'linear-untransposed'))
    assert '5 more are right' in out


@pytest.mark.parametrize('body, words', [
    ('pass', 'dx .* WRONG: it is not there: was it returned?'),
    ('return dy[0]', r'has the shape \(6,\), and should have \(4, 6\)'),
    ('return -dy * (1 - self.cache ** 2)', 'has the wrong sign'),
    ('return dy * (1 - self.cache ** 2) / 4', 'is 0.25 times what it should be'),
    ('return 0 * dy', 'is zero'),
    ('return dy / 0', 'is not a number everywhere'),
    ('return "dx"', 'is no array of real numbers'),
    ('dy *= 1 - self.cache ** 2; return dy', 'dy, which must stay as it was .* WRONG'),
    ('return dy * (1 - self.cache ** 3)', r'is -?\d.* at \[\d, \d\], and should be -?\d'),
    ('return dy @ dy', r'tanh.py, line \d+: ValueError: matmul'),
    ('raise SystemExit', r'tanh.py, line \d+: SystemExit'),
    ('return dy * (1 - self.cache ** 2) + 0j', 'is no array of real numbers'),
    ('return dz', r"tanh.py, line \d+: NameError: name 'dz' is not defined"),
    ('return (', r'tanh.py, line \d+: SyntaxError'),
])
def test_what_is_wrong_is_said_in_words(here, capsys, body, words):
    tinygan('exercise', 'tanh')
    text = Path('tanh.py').read_text()
    Path('tanh.py').write_text(re.sub(r'raise NotImplementedError\(.*\)', body, text))
    assert tinygan('exercise', 'tanh', '--check') == 1
    assert re.search(words, capsys.readouterr().out)


@pytest.mark.parametrize('name, line', [('conv_dw', 'dy *= 2'), ('linear', 'self.cache *= 3'), ('linear', 'dy *= 2')])
def test_what_an_exercise_is_given_it_cannot_spoil(here, capsys, name, line):
    solve(name)
    text = Path(f'{name}.py').read_text()
    first = '    K, C, F =' if name == 'conv_dw' else '        x = self.cache'
    Path(f'{name}.py').write_text(text.replace(first, f'{first[:len(first) - len(first.lstrip())]}{line}\n{first}'))
    assert tinygan('exercise', name, '--check') == 1
    assert 'WRONG' in capsys.readouterr().out


WRONG = [                           # what is right only for some: (exercise, the right line, the wrong one)
    ('linear', 'dx after one more while frozen', 'return dy @ self.w.T', 'return dy @ self.w.T * (not self.frozen)'),
    ('linear', 'new array', 'self.dw += x.T @ dy', 'self.dw = self.dw + x.T @ dy'),
    ('batchnorm', 'new array', 'self.dgamma += dgamma', 'self.dgamma = dgamma'),
    ('linear', 'line', 'dy.sum(channels(dy))', 'dy.sum(0)'),
    ('col2im', 'has the shape', 'P:P + H, P:P + W]', 'P:-P, P:-P]'),
    ('conv_dw', '', 'im2col(x, K, stride, padding)', 'im2col(x, K, stride, 1)'),
    ('softmax', 'dlogits', '- y) / len(y)', '- y) / logits.shape[1]'),
    ('softmax', 'thousands', 'logits.max(axis=1, keepdims=True)', 'logits.max()'),
    ('bce', 'thousands', 'target * softplus(-score)', '-target * np.log(1 / (1 + np.exp(-score)))'),
    ('leaky_relu', '', 'self.slope * x', '0.2 * x'),
    ('conv_transpose', '', 'self.padding, self.output_padding)', 'self.padding, 0)'),
    ('adam', 't  ', 'self.t += 1', 'self.s = getattr(self, "s", 0) + 1'),
    ('adam', 'v, in the array', 'v[...] =', 'self.v = v ='),
    ('gan_step', 'above D_rests_at', 'if self.D_rests_at is None or loss_D > self.D_rests_at:', 'if self.D_rests_at is None:'),
    ('gan_step', 'above D_rests_at', 'or loss_D >', 'or loss_real >'),
    ('gan_step', 'D_x', "'D_x': loss.output(score).mean()", "'D_x': score.mean() / 2"),
    ('gan_step', 'penalty', 'x if epsilon is None else between(x, fake, epsilon)', 'x'),
    ('gan_step', 'penalty', 'between(x, fake, epsilon)', 'between(fake, x, epsilon)'),
    ('gan_step', 'penalty', "metrics['penalty'] = ", ''),
    ('gan_step', 'the penalty at the real images', "metrics['penalty'] = ", "metrics['penalty'] = 2 * "),
    ('tangent', 'frozen', 'if not self.frozen:\n            self.dw += v.T', 'if True:\n            self.dw += v.T'),
    ('penalty', 'should be zero', ' + 1e-12)', ')'),
    ('penalty', 'frozen now', 'layer.frozen = frozen[layer]', 'D.unfreeze()'),
    ('penalty', 'the penalty  ', 'return self.weight * loss', 'return loss'),
    ('gan_step', 'learns by', 'loss.generator(score)', 'loss.real(score)'),
    ('gan_step', 'G after a whole step', 'optim_G.step()', 'optim_G.step()\n        G.parameters *= 1.01'),
    ('gan_step', 'line', "return {'loss_G'", "{'loss_G'"),
    ('gan_step', 'broke off', 'finally:\n            D.unfreeze()', 'except ValueError:\n            0\n        D.unfreeze()'),
]


@pytest.mark.parametrize('name, words, right, wrong', WRONG, ids=[f'{name}: {wrong[:40]}' for name, _, _, wrong in WRONG])
def test_what_is_right_only_for_some_does_not_pass(here, capsys, name, words, right, wrong):
    solve(name)
    text = Path(f'{name}.py').read_text()
    assert right in text
    Path(f'{name}.py').write_text(text.replace(right, wrong))
    assert tinygan('exercise', name, '--check') == 1
    out = capsys.readouterr().out
    assert words in out
    assert 'all of it is right' not in out


RIGHT = [
    ('tanh', 'return dy * (1 - y * y)', 'return np.einsum("ij,ij->ij", dy, 1 - y ** 2)'),
    ('linear', 'self.dw += x.T @ dy', 'self.dw[...] = self.dw + np.tensordot(x, dy, (0, 0))'),
    ('gan_step', "        D.zero_grad()\n", ''),
    ('adam', 'class Adam(SGD)', 'class Adam(__import__("tinygan").Adam)'),
]


@pytest.mark.parametrize('name, one, other', RIGHT, ids=[name for name, _, _ in RIGHT])
def test_what_is_right_in_another_way_passes(here, name, one, other):
    solve(name)
    text = Path(f'{name}.py').read_text()
    assert one in text
    text = text.replace(one, other)
    if name == 'gan_step':                        # as PyTorch's users may write it
        text = text.replace('            self.optim_D.step()\n', '            self.optim_D.step()\n        D.zero_grad()\n')
    Path(f'{name}.py').write_text(text)
    assert tinygan('exercise', name, '--check') == 0


def test_a_transposed_gradient_is_called_one():
    right = np.arange(4.).reshape(2, 2)
    assert grading.row_of('dw', right.T, right).words == 'is the transpose of what it should be'


@pytest.mark.parametrize('prefix', ['\ufeff', 'import sys\nprint(__file__)\n'])
def test_a_file_as_an_editor_or_a_learner_may_leave_it_is_read(here, prefix):
    solve('tanh')
    Path('tanh.py').write_text(prefix + Path('tanh.py').read_text(), 'utf-8')
    assert tinygan('exercise', 'tanh', '--check') == 0


def test_who_exits_has_not_passed(here, capsys):
    Path('tanh.py').write_text('quit()\n')
    assert tinygan('exercise', 'tanh', '--check') == 1
    assert 'tanh.py, line 1: SystemExit' in capsys.readouterr().out


def test_a_file_is_never_overwritten_and_bad_input_is_one_line(here, command):
    tinygan('exercise', 'tanh')
    before = Path('tanh.py').read_text()
    for arguments, part in ((('tanh',), 'tanh.py is there already'), (('relu', '--check'), 'there is no relu.py here'),
                            (('--hint',), 'which exercise?'), (('logistic',), "invalid choice: 'logistic'"),
                            (('tanh', '--hint', '4'), 'invalid choice: 4')):
        with pytest.raises(UserError, match=re.escape(part)):
            tinygan('exercise', *arguments)
    assert Path('tanh.py').read_text() == before
    Path('tanh.py').write_bytes(b'\xff\xfe')
    assert one_line(command('tinygan', 'exercise', 'tanh', '--check', check=2).stderr, 'not a text in UTF-8', program='tinygan')
    Path('tanh.py').write_text('x = 1\n')
    assert tinygan('exercise', 'tanh', '--check') == 1
    Path('relu.py').symlink_to('elsewhere.py')
    with pytest.raises(UserError, match='relu.py is there already'):
        tinygan('exercise', 'relu')


def test_hints_and_solutions_are_shown(here, capsys):
    for number in 1, 2, 3:
        tinygan('exercise', 'tanh', '--hint', number)
    tinygan('exercise', 'tanh', '--hint')
    out = capsys.readouterr().out
    assert all(re.sub(r'\s+', ' ', hint) in re.sub(r'\s+', ' ', out) for hint in EXERCISES['tanh'].hints)
    tinygan('exercise', 'tanh', '--solution')
    assert 'return dy * (1 - y * y)' in capsys.readouterr().out
    assert not list(here.iterdir())


def test_the_list_names_every_exercise(here, capsys):
    tinygan('exercise')
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:len(EXERCISES)]] == list(EXERCISES)


def test_where_a_mistake_is_derived_is_there():
    readme = (ROOT / 'README.md').read_text()
    for mistake in MISTAKES.values():
        section = re.fullmatch(r'README, "(.*)"', mistake.derived)
        file = re.match(r'(\w+)\.py, (?:at its top|in the (?:docstring|comment) of (\w+)(?:\.(\w+))?)', mistake.derived)
        assert section and f'\n## {section[1]}\n' in readme or file and (
            not file[2] or re.search(rf'(class|def) {file[2]}\b', source.text_of(file[1]))), mistake.derived
