"""Pictures of what a generator makes: grids, strips, an animation, and the curves of a training run."""
import os
import warnings

import numpy as np

from ..data.ours import MADE_BY
from ..errors import UserError
from .files import atomically

WIDEST = 600                                      # frame of an animation, in pixels
GAP, SCALE = 2, 2                                 # pixels between images, pixels for each of theirs
LARGEST = 2 ** 26                                 # picture, in pixels: 18,000 digits
CURVES = {                                        # panels of curves.png: what they show, if metrics.csv has it
    'loss': {'loss_D': 'D', 'loss_G': 'G', 'penalty': "D's penalty",
             'reconstruction': 'reconstruction', 'divergence': 'divergence'},
    'mean output of D': {'D_x': 'D(x)', 'D_G_z1': 'D(G(z)) before\nits update', 'D_G_z2': 'D(G(z)) after'},
}


def check_size(n, columns, shape, mend):
    """UserError, with what to do, if a grid of n images (H, W, C) would be larger than any program likes to open."""
    H, W, _ = shape
    height, width = (SCALE * (count * (side + GAP) + GAP) for count, side in ((-(-n // columns), H), (columns, W)))
    if height * width > LARGEST:
        raise UserError(f'a picture of {n:,} images would have {width:,} x {height:,} pixels: {mend}')


def grid(images, columns=8, gap=GAP):
    """Images (N, H, W, C), uint8, side by side in rows: one image, with gray gaps of `gap` pixels."""
    N, H, W, C = images.shape
    columns = min(columns, N)
    rows = -(-N // columns)
    sheet = np.full((rows * (H + gap) + gap, columns * (W + gap) + gap, C), 64, np.uint8)
    for i, image in enumerate(images):
        y, x = (i // columns) * (H + gap) + gap, (i % columns) * (W + gap) + gap
        sheet[y:y + H, x:x + W] = image
    return sheet


def to_pillow(image, scale=1):
    """A Pillow image of an image (H, W, C), uint8, each pixel scale pixels wide. C is 1 or 3."""
    from PIL import Image
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def save_png(path, image, scale=SCALE):
    """Write an image (H, W, C), uint8, each pixel scale pixels wide."""
    from PIL.PngImagePlugin import PngInfo
    about = PngInfo()
    about.add_text('Software', MADE_BY)
    with atomically(path) as file:
        to_pillow(image, scale).save(file, format='PNG', pnginfo=about)


def save_gif(path, frames, milliseconds=400):
    """An animation of Pillow images, or of the files of some, which are opened one by one; the last stays for two seconds."""
    durations = [milliseconds] * (len(frames) - 1) + [2000]
    first, others = as_frame(frames[0]), (as_frame(picture) for picture in frames[1:])
    with atomically(path) as file:
        first.save(file, format='GIF', save_all=True, append_images=others, duration=durations, loop=0, comment=MADE_BY)


def as_frame(picture):
    """A Pillow image, or that in a file, as small as a frame must be. The colours of a frame are chosen from fewer of its pixels, so
    that an animation takes less than a third of the time."""
    from PIL import Image
    with picture if isinstance(picture, Image.Image) else Image.open(picture) as image:
        frame = image.reduce(-(-image.width // WIDEST))
    if frame.mode != 'RGB':
        return frame
    palette = frame.reduce(-(-frame.width // 150)).quantize(256)
    return frame.quantize(palette=palette, dither=Image.Dither.NONE)


def check_ours(path):
    """UserError if there is a file at path, should one be named, that is no picture of tinygan's: it would be lost."""
    if path is None or not os.path.isfile(path):
        return
    from ..data.decode import is_ours, open_picture
    try:
        with warnings.catch_warnings(action='ignore'), open_picture(path, path) as picture:
            ours = is_ours(picture)
    except Exception:                             # no picture at all
        ours = False
    if not ours:
        raise UserError(f'{path} is there already, and tinygan did not make it: choose another name')


def linear(z0, z1, steps):
    """Points from z0 to z1, (steps, z_dim), along the straight line."""
    t = np.linspace(0, 1, steps, dtype=z0.dtype)[:, None]
    return (1 - t) * z0 + t * z1


def spherical(z0, z1, steps):
    """Points from z0 to z1, (steps, z_dim), along the great circle (Shoemake 1985, "slerp").

    Gaussian noise in many dimensions lies near a sphere; the straight line would leave it.
    """
    cosine = np.clip(z0 @ z1 / (np.linalg.norm(z0) * np.linalg.norm(z1)), -1, 1)
    angle = max(np.arccos(cosine), 1e-6)
    t = np.linspace(0, 1, steps)[:, None]
    return ((np.sin((1 - t) * angle) * z0 + np.sin(t * angle) * z1) / np.sin(angle)).astype(z0.dtype)


def plot_curves(path, metrics):
    """Losses, D's mean outputs and, if any was measured, Frechet distances over the steps; metrics is a dictionary of the
    columns of metrics.csv."""
    Figure = matplotlib_figure()
    measured = ~np.isnan(metrics['frechet'])
    curves = {label: lines for label, lines in CURVES.items() if metrics.keys() & lines}
    panels = len(curves) + measured.any()
    figure = Figure(figsize=(9, 3 * panels), layout='constrained')
    axes = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
    for axis, (label, lines) in zip(axes, curves.items()):
        draw_curves(axis, metrics, {name: lines[name] for name in lines if name in metrics})
        axis.set_ylabel(label)
    for axis in axes[len(curves):]:
        axis.semilogy(metrics['step'][measured], metrics['frechet'][measured], '.-', subs=[2, 3, 5, 7])
        axis.yaxis.set(label_text='Frechet distance (log scale)', major_formatter='{x:g}', minor_formatter='{x:g}')
    for axis in figure.axes:
        axis.spines[['top', 'right']].set_visible(False)
    figure.axes[-1].set_xlabel('step (thin lines: every step; thick: moving average over a fiftieth of them)')
    with atomically(path) as file:
        figure.savefig(file, dpi=120, format='png', metadata={'Software': MADE_BY})


def matplotlib_figure():
    """Matplotlib's Figure, which needs no backend: the one that a notebook names may not be installed here."""
    backend = os.environ.pop('MPLBACKEND', None)
    try:
        from matplotlib.figure import Figure
        return Figure
    finally:
        if backend is not None:
            os.environ['MPLBACKEND'] = backend


def draw_curves(axis, metrics, labels):
    """Every step as a thin line, and over it the mean of a fiftieth of them. A step may lack a value (nan), and so may all."""
    for name, label in labels.items():
        there = ~np.isnan(metrics[name])
        if not there.any():
            continue
        step, value = metrics['step'][there], metrics[name][there]
        width = max(1, len(step) // 50)
        line, = axis.plot(step, value, linewidth=0.5, alpha=0.3)
        smooth = np.convolve(value, np.ones(width) / width, mode='valid')
        axis.plot(step[width - 1:], smooth, color=line.get_color(), label=label)
    axis.legend(frameon=False, loc='center left', bbox_to_anchor=(1, 0.5))
