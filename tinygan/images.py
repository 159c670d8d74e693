"""Pictures of what a generator makes: grids, strips, an animation, and the curves of a training run."""
import numpy as np


def grid(images, columns=8, gap=2):
    """Images (N, H, W, C), uint8, side by side in rows: one image, with a gray gap of so many pixels."""
    N, H, W, C = images.shape
    columns = min(columns, N)
    rows = -(-N // columns)
    sheet = np.full((rows * (H + gap) + gap, columns * (W + gap) + gap, C), 64, np.uint8)
    for i, image in enumerate(images):
        y, x = (i // columns) * (H + gap) + gap, (i % columns) * (W + gap) + gap
        sheet[y:y + H, x:x + W] = image
    return sheet


def to_pillow(image, scale=1):
    from PIL import Image
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def save_png(path, image, scale=2):
    """An image (H, W, C), uint8, each pixel scale pixels wide. C is 1 or 3."""
    to_pillow(image, scale).save(path)


def save_gif(path, frame_paths, milliseconds=400):
    """An animation of picture files in the given order; the last stays for two seconds."""
    from PIL import Image
    frames = [Image.open(frame).convert('P') for frame in frame_paths]
    durations = [milliseconds] * (len(frames) - 1) + [2000]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0)


def spherical(z0, z1, steps):
    """Points from z0 to z1, (steps, z_dim), along the great circle (Shoemake 1985, "slerp").

    Gaussian noise in many dimensions lies near a sphere; the straight line would leave it.
    """
    cosine = np.clip(z0 @ z1 / (np.linalg.norm(z0) * np.linalg.norm(z1)), -1, 1)
    angle = max(np.arccos(cosine), 1e-6)
    t = np.linspace(0, 1, steps)[:, None]
    return ((np.sin((1 - t) * angle) * z0 + np.sin(t * angle) * z1) / np.sin(angle)).astype(z0.dtype)


def plot_curves(path, columns):
    """Losses and D's mean outputs over the steps, from the columns of metrics.csv, each step and smoothed."""
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot
    figure, axes = pyplot.subplots(2, 1, figsize=(9, 6), sharex=True, layout='constrained')
    step = columns['step']
    for axis, title, labels in ((axes[0], 'loss', {'loss_D': 'D', 'loss_G': 'G'}),
                                (axes[1], 'mean output of D', {'D_x': 'D(x)', 'D_G_z1': 'D(G(z)) before its update',
                                                               'D_G_z2': 'D(G(z)) after'})):
        for name, label in labels.items():
            line, = axis.plot(step, columns[name], linewidth=0.5, alpha=0.3)
            width = max(1, len(step) // 50)
            smooth = np.convolve(columns[name], np.ones(width) / width, mode='valid')
            axis.plot(step[width - 1:], smooth, color=line.get_color(), label=label)
        axis.set_ylabel(title)
        axis.legend(frameon=False)
        axis.spines[['top', 'right']].set_visible(False)
    axes[1].set_xlabel('step')
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
