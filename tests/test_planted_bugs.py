"""Do the tests catch a wrong line? Each bug below is planted in a copy of the project, and the named test must fail."""
import shutil
from pathlib import Path

import pytest
from cuda_on_host import COMPILER
from mpi import WHY_NOT
from warm import run_pytest

from tinygan.learn.mistakes import MISTAKES

ROOT = Path(__file__).resolve().parent.parent

ELSEWHERE = {   # outside the core: what is wrong: (file, the right line, the wrong one, the tests that must notice)
    'a flipped picture stands on its head':
        ('data/images', 'batch[flipped, :, ::-1]', 'batch[flipped, ::-1]', 'data/test_mnist.py -k flipped'),
    'labels stay where they are when images are shuffled':
        ('data/images', 'self.labels[np.where(chosen < 0, ~chosen, chosen)]', 'self.labels[step * size:(step + 1) * size]',
         'data/test_labels.py -k shuffled'),
    'a picture that was left out moves the labels of those behind it':
        ('data/own', 'np.delete(labels, left_out)', 'labels[:N]', 'data/test_labels.py -k left_out'),
    'a label stands before z instead of behind it':
        ('recipes/labels', '[z, y.astype(z.dtype)]', '[y.astype(z.dtype), z]', 'data/test_labels.py -k behind'),
    'at the next start nobody knows which pictures were left out':
        ('data/own', 'left_out_of(path, images) if int(lost) else []', '[]', 'data/test_labels.py -k left_out'),
    'another ground finds the pictures on the old one':
        ('data/own', '*shape, background)', '*shape)', 'data/test_own.py -k another_ground'),
    'a picture that was changed within its size and time passes for the old one':
        ('data/folder', ', status.st_ctime_ns', '', 'data/test_own.py -k changed_is_read'),
    'the gradient of the first lane is taken for that of all':
        ('engines/conversion', 'for of_one in gradients)', 'for of_one in 2 * [gradients[0]])',
         'engines/test_lanes.py -k one_computes'),
    'lanes add up where a mean is due':
        ('engines/lanes', 'flat /= self.count', 'pass', 'engines/test_lanes.py -k one_computes'),
    'every lane normalises by itself':
        ('engines/layers', 'var, = self.group.mean(squares / M)', 'var = squares / M',
         'engines/test_lanes.py -k one_computes'),
    'D rests by the loss of its own lane':
        ('engines/conversion', 'return group.mean(own)[0], dscore', 'return own, dscore', 'engines/test_lanes.py -k rests'),
    'the pieces of a vector forget how many steps Adam has made':
        ('engines/conversion', 'whole.t += 1', 'pass', 'engines/test_lanes.py -k one_computes'),
    'the gradient by which G learns is left out':
        ('engines/layers', '(self.dx_is_read or self.frozen)', 'self.dx_is_read', 'engines/test_lanes.py -k one_computes'),
    'every lane updates the running statistics':
        ('engines/layers', 'if self.group.keeps_statistics:', 'if True:', 'engines/test_lanes.py -k one_computes'),
    'a lane outlives the first':
        ('engines/lanes', 'pipe.close()                  # or', 'pass  # or', 'engines/test_lanes.py -k killed'),
    'ranks: an optimiser steps before all gradients are added up':
        ('engines/ranks', 'own, sizes = sum(of_all[1:], of_all[0]), cut', 'own, sizes = of_all[0], cut',
         'engines/test_ranks.py::test_ranks_of_several_machines_add_up_their_own_first[4-2]'),
    'ranks: the others begin with networks of their own':
        ('engines/ranks', 'finish(self.comm.Ibcast(vector))', 'pass',
         'engines/test_ranks.py::test_ranks_make_to_the_bit_what_as_many_lanes_make[2]'),
    'ranks: the first saves its own share alone':
        ('engines/ranks', 'vector in self.gan.vectors().values():', 'vector in list(self.gan.vectors().values())[:4]:',
         'engines/test_ranks.py -k loaded'),
    'patches overlap less than they should':
        ('engines/patches', '(image, S * row, S * pixel, row)', '(image, S * row, (S + 1) * pixel, row)',
         'engines/test_toomcook.py -k patches'),
    'channels are mistaken for pixels':
        ('engines/loops', 'np.tile(vector, math.prod(', 'np.repeat(vector, math.prod(',
         'engines/test_conversion.py -k computes_what'),
    'tiles overwrite each other where they overlap':
        ('engines/toomcook', 'place[rows, columns] += found', 'place[rows, columns] = found',
         'engines/test_toomcook.py -k those_of_conv'),
    'polynomials are evaluated at points too close together':
        ('engines/toomcook', 'np.pi * (np.arange(self.n)[:, None] + 0.5) / self.n', '0.5 + np.arange(self.n)[:, None] / self.n',
         'engines/test_toomcook.py -k digits'),
    'the weight gradient sees only some of the points':
        ('engines/toomcook', 'dw += self.B', 'dw = self.B', 'engines/test_toomcook.py -k pieces'),
    'in C, tiles overwrite each other where they overlap':
        ('engines/toomcook.c', 'if (adds) sum += load(to);', '', 'engines/test_loops.py -k interpolates'),
    'in C, the last rows are not in the sum':
        ('engines/loops.c', 'if (row % ROWS == ROWS - 1 || row == rows - 1)', 'if (row % ROWS == ROWS - 1)',
         'engines/test_loops.py -k what_numpy_does'),
    'a generator that learns is drawn from as it learns':
        ('run/generator', '    G.eval()\n', '', 'run/test_generator.py -k goes_on_learning'),
    'a judge that somebody has changed judges':
        ('judge/frozen', 'if sha256 not in (None, self.sha256)', 'if False', 'judge/test_frozen.py -k byte_for_byte'),
    'a picture replaces another before it is whole':
        ('run/pictures', 'with atomically(path) as file:\n        to_pillow', 'with open(path, "wb") as file:\n        to_pillow',
         'run/test_pictures.py -k cut_off'),
    'the covariances count for nothing':
        ('judge/measures', ' - 2 * trace_of_root', '', 'judge/test_measures.py -k closed_form'),
    'each real point has a ball of its own, and no neighbour':
        ('judge/measures', '[:, [k]]', '[:, [0]]', 'judge/test_measures.py -k definitions'),
    'a kernel reads a tile that others are still writing':
        ('engines/cuda/product.cuh', '        __syncthreads();                           // this step', '        // this step',
         'engines/test_cuda.py -k products and host-tf32 and DCGAN'),
    'a kernel gives the tensor cores the first half of a row twice':
        ('engines/cuda/product.cuh', 'lane % 8, k + chunk * CHUNK', 'lane % 8, k',
         'engines/test_cuda.py -k products and host-tf32 and DCGAN'),
    'a kernel gives a pixel the weights of its neighbour':
        ('engines/cuda/conv.cu', 'kh = rh + n / C / S + P', 'kh = n / C / S + P',
         'engines/test_cuda.py -k products and host-fp32 and odd'),
    'a kernel gives the tensor cores the first half of a column twice':
        ('engines/cuda/product.cuh', 'k + chunk * CHUNK + lane % 8', 'k + lane % 8',
         'engines/test_cuda.py -k products and host-bf16 and DCGAN'),
    'a kernel leaves it to the tensor cores to cut off bits':
        ('engines/cuda/device.cuh', 'x(to_tf32(x))', 'x(x)', 'engines/test_cuda.py -k tf32_keeps and host'),
    'a kernel loses the last slice of a sum':
        ('engines/cuda/product.cuh', 'z < slices; z++', 'z < slices - 1; z++',
         'engines/test_cuda.py -k products and host-fp32 and slices'),
    'a kernel loses the last slice of a gradient':
        ('engines/cuda/norm.cu', 'slice < slices)', 'slice < slices - 1)',
         'engines/test_cuda.py -k products and host-fp32 and slices'),
    'a kernel forgets the activation on the way back':
        ('engines/cuda/conv.cu', 'sum[k] * slope_at(below.y[k])', 'sum[k]', 'engines/test_cuda.py -k follows and host and DCGAN'),
    'a kernel takes the statistics of the fakes for those of the real images':
        ('engines/cuda/conv.cu', 'group * channels + (n + k) % channels', '(n + k) % channels',
         'engines/test_cuda.py -k follows and host and DCGAN'),
    'products go on with the weights from before the update':
        ('engines/cuda/pointwise.cu', 'w[i] = theta[i];', '', 'engines/test_cuda.py -k products_read and host-bf16'),
    'a kernel lets the running statistics see the fakes before the real images':
        ('engines/cuda/norm.cu', 'int group = groups - 1; group >= 0; group--', 'int group = 0; group < groups; group++',
         'engines/test_cuda.py -k computes_what and host and channels'),
    'products that run at the same time add up in the same memory':
        ('engines/cuda/product.py', 'shares, n = self.device.side_shares', 'shares, n = self.device.shares',
         'engines/test_cuda.py -k steps_are and host-lsgan]'),
    'Adam does not wait for the gradients of the weights':
        ('engines/cuda/network.py', '        if not frozen:\n            self.device.join()\n', '',
         'engines/test_cuda.py -k steps_are and host-lsgan]'),
    'a kernel flips a picture about the wrong column':
        ('engines/cuda/minibatch.cu', 'W - 1 - 2 *', 'W - 2 *', 'engines/test_cuda.py -k steps_are and host-lsgan]'),
    'a replayed step is always the same one':
        ('engines/cuda/pointwise.cu', '*step += 1;', '', 'engines/test_cuda.py -k steps_are and host-lsgan]'),
    'a kernel takes the penalty of all images as far from the real ones':
        ('engines/cuda/penalty.cu', 'make_uint4(i / numbers, ', 'make_uint4(0, ', 'engines/test_cuda.py -k penalty_is and host-a'),
    'D learns from the penalty alone':
        ('engines/cuda/network.py', 'N, adds=True)', 'N)', 'engines/test_cuda.py -k penalty_is and host-a'),
    'a penalty takes an activation to be as steep as it is where v comes':
        ('engines/cuda/network.py', 'BACKWARD, u, y=self.y', 'BACKWARD, u, y=u',
         'engines/test_cuda.py -k penalty_is and host-a'),
    'an image has the label of the next':
        ('engines/cuda/pointwise.cu', '(pixel / pixels % rows + 1) * width', '((pixel / pixels + 1) % rows + 1) * width',
         'engines/test_cuda.py -k penalty_is and host-labels'),
}
BUGS = {mistake.says: (mistake.file, mistake.right, mistake.wrong, mistake.tests)
        for mistake in MISTAKES.values() if mistake.tests} | ELSEWHERE


@pytest.mark.parametrize('bug', BUGS)
def test_a_planted_bug_is_caught(bug, tmp_path):
    file, right, wrong, tests = BUGS[bug]
    if file.endswith('.cu') and COMPILER is None:
        pytest.skip('no C++ compiler to run the kernels on the CPU')
    if file.endswith('.c') and shutil.which('cc') is None:
        pytest.skip('no C compiler')
    if 'test_ranks' in tests and WHY_NOT:
        pytest.skip(WHY_NOT)
    for folder in 'tinygan', 'tests':
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns('__pycache__'))
    source = tmp_path / 'tinygan' / (file if '.' in file else f'{file}.py')
    text = source.read_text()
    assert right in text, 'the line to spoil has changed'
    source.write_text(text.replace(right, wrong))
    code, printed = run_pytest(tmp_path, ['-x', '-q', *tests.split(maxsplit=2)])
    assert code == pytest.ExitCode.TESTS_FAILED and ' failed' in printed, printed[-2000:]
