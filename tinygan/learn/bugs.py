"""The gallery of planted bugs: what one wrong line does to a training run; and the hunt for a line that nobody names."""
import tempfile
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import numpy as np

from .. import gan
from ..arrays import random_stream
from ..data.images import normalise, to_uint8
from ..data.ours import MADE_BY
from ..engines.threads import one_thread
from ..errors import UserError
from ..gradcheck import TOLERANCE
from ..run.files import atomically
from ..run.pictures import draw_curves, grid, matplotlib_figure
from . import source
from .exercises import EXERCISES
from .grading import STOPS, Broken, Row, grade, row_of, stopped
from .mistakes import MISTAKES

GALLERY = {name: mistake for name, mistake in MISTAKES.items() if mistake.seen}
N, WIDTH, Z_DIM, STEPS, SHOWN = 32, 16, 16, 500, 40              # a GAN that draws digits within a quarter of a minute


def core_with(mistake=None):
    """The core as a package of its own, with the mistake in it."""
    with tempfile.TemporaryDirectory() as folder:
        source.copy_core(Path(folder, 'core'), mistake)
        return source.load_core(Path(folder, 'core'))


def train(core, images, steps, seed=0, tell=lambda: None):
    """(metrics, a column each; the last samples, uint8) of a small GAN of that core, which sees the same as every other."""
    rng = random_stream(seed, 'weights')
    G, D = core.models.dcgan_generator(Z_DIM, WIDTH, rng=rng), core.models.dcgan_discriminator(WIDTH, rng=rng)
    game = core.gan.GAN(G, D, core.losses.LOSSES['bce'](), core.optim.Adam(G, lr=4e-3), core.optim.Adam(D, lr=8e-4))
    rows = []
    with np.errstate(all='ignore'):               # a bug may lead anywhere
        for step in range(1, steps + 1):
            x = normalise(images.batch(step - 1, N), np)
            rows.append(game.step(x, core.gan.draw_z(seed, step, N, Z_DIM)))
            tell()
        z = random_stream(seed, 'preview').standard_normal((SHOWN, Z_DIM), np.float32)
        samples = to_uint8(np.nan_to_num(core.gan.generate(G, z)))
    return {name: np.array([row[name] for row in rows], float) for name in rows[0]} | {'step': np.arange(1, steps + 1)}, samples


def compare(name, images, steps, out):
    """Train with the mistake of that name and without, at the same time; draw both. Returns a text about it."""
    from tqdm import tqdm
    mistake = MISTAKES[name]
    cores = core_with(), core_with(mistake)
    bar, stop = tqdm(total=2 * steps, desc='right and wrong', leave=False, disable=None), Event()

    def tell():
        bar.update()
        if stop.is_set():                         # by Ctrl-C, which only the main thread hears
            raise KeyboardInterrupt
    with bar, ThreadPoolExecutor(2) as pool, one_thread():
        try:
            right, wrong = pool.map(lambda core: train(core, images, steps, tell=tell), cores)
        except BaseException:
            stop.set()
            raise
    found = ', '.join(dict.fromkeys(row.what.partition(':')[0] for row in check(cores[1]) if row.words))
    text = f'Drawn digits, {STEPS} steps: {mistake.seen} Noticed by the checks of {found}.'
    draw(out, mistake, right, wrong, text)
    return text


def draw(path, mistake, right, wrong, text):
    """One picture of two trainings, with the line that differs: samples, losses, D's outputs; and a text about them."""
    figure = matplotlib_figure()(figsize=(10, 9), layout='constrained')
    head, body = figure.subfigures(2, 1, height_ratios=[1.9, 7])
    head.text(0.02, 0.95, textwrap.fill(mistake.says, 90), va='top', fontsize=13)
    head.text(0.02, 0.32, textwrap.fill(text, 125), va='top', fontsize=9.5)
    panels = body.subplots(3, 2, gridspec_kw={'height_ratios': [5, 2, 2]}, sharey='row')
    for x, column, name, lines, (metrics, samples) in zip((0.02, 0.5), panels.T, ('right', 'wrong'), (mistake.right, mistake.wrong),
                                                          (right, wrong)):
        code = textwrap.dedent(lines.strip('\n')) or '(nothing)'
        head.text(x, 0.67, f'{name}, {mistake.file}.py:\n{code}', va='top', family='monospace', fontsize=8.5, linespacing=1.3)
        column[0].imshow(grid(samples)[..., 0], cmap='gray', vmin=0, vmax=255)
        column[0].set_title(name)
        column[0].axis('off')
        draw_curves(column[1], metrics, {'loss_D': 'loss D', 'loss_G': 'loss G'})
        draw_curves(column[2], metrics, {'D_x': 'D(x)', 'D_G_z1': 'D(G(z))'})
        column[2].set_xlabel('step')
    panels[1, 0].set_ylim(0, 6)
    panels[2, 0].set_ylim(0, 1)
    with atomically(path) as file:
        figure.savefig(file, dpi=90, format='png', metadata={'Software': MADE_BY})


def hide(folder, seed):
    """A copy of the core in a new folder, with one mistake of the gallery in it that depends on the seed."""
    names = list(GALLERY)
    source.copy_core(folder, GALLERY[names[random_stream(seed, 'bug').integers(len(names))]])


def load_copy(folder):
    """A copy of the core that somebody may have changed. Raises Broken when it does not even load."""
    check_is_copy(folder)
    try:
        return source.load_core(folder)
    except STOPS as error:
        raise Broken(stopped(error, Path(folder).resolve())) from None


def check_is_copy(folder):
    """UserError where a file of the core is missing."""
    if missing := [file for file in source.CORE if not Path(folder, f'{file}.py').is_file()]:
        raise UserError(f'{folder} is no copy of the core: it has no {missing[0]}.py')


def check(core):
    """Row by row: what is right in a core and what is not. What the exercises ask for, then its own gradient checks. Raises Broken
    where it stops."""
    folder = core.__path__[0]
    for exercise in EXERCISES.values():
        rows, _ = grade(exercise, getattr(core, exercise.file), folder)
        yield from (row._replace(what=f'{exercise.names[-1]}: {row.what}') for row in rows)
    try:
        with np.errstate(all='ignore'):
            yield from [*check_drawing(core), *check_gradients(core)]
    except STOPS as error:
        raise Broken(stopped(error, folder)) from None


def check_drawing(core):
    """Noise is another in every step, and a sample does not depend on its neighbours."""
    z = gan.draw_z(0, 2, 4, 3)
    yield row_of('draw_z: the noise of step 2', core.gan.draw_z(0, 2, 4, 3), z)
    G = core.models.dcgan_generator(3, 2, rng=np.random.default_rng(0))
    yield row_of('generate: two of four images', core.gan.generate(G, z)[:2], core.gan.generate(G, z[:2]))


def check_gradients(core):
    for what, gradient, error in core.gradcheck.all_checks():
        yield Row(f'{what}: {gradient}', error, '' if error < TOLERANCE else 'is not the gradient of the forward')
