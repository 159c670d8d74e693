"""An X-ray as a page of HTML: arrays become small pictures and histograms, functions their listings, and all of it JSON."""
import base64
import inspect
import io
import json
import os
from functools import partial
from pathlib import Path

import numpy as np

from .. import conv, losses
from ..arrays import array_module
from ..data.ours import MADE_BY
from ..errors import UserError

TEMPLATE = Path(__file__).with_name('xray.html')
MARK = f'<meta name="generator" content="{MADE_BY}">'
CHANNELS, ENTRIES = 16, 256                        # that are shown, at most: of images, of a vector
BARS = 41                                          # of a histogram
LEVELS, GAP = 7, 15                                # shades on either side of zero; what is between tiles, in the palette
BLUE, GRAY, ORANGE = (38, 112, 214), (128, 128, 128), (226, 106, 10)


def check_ours(path):
    """UserError if there is something at path that is no page of tinygan's: it would be lost."""
    if os.path.isfile(path):
        with open(path, 'rb') as file:
            if MARK.encode() in file.read(1000):
                return
    if os.path.lexists(path):
        raise UserError(f'{path} is there already, and tinygan did not make it: choose another name')


def render(figures):
    """The page, as bytes."""
    colours = [f'rgb({r} {g} {b} / {a / 255:.2f})' for r, g, b, a in PALETTE[:GAP]]
    text = json.dumps(figures | {'colours': colours}, allow_nan=False, separators=(',', ':')).replace('<', '\\u003c')
    return TEMPLATE.read_text('utf-8').replace('{{figures}}', text).encode()


def short(number):
    """Four digits are more than anyone reads."""
    return float(f'{number:.4g}')


# ---- arrays

def described(shown, whole):
    """Pictures of a few images' part of an array, and its distribution over the whole minibatch."""
    mean, std, low, high = (float(number) for number in (whole.mean(), whole.std(), whole.min(), whole.max()))
    if not np.isfinite(std):
        raise UserError('a number in this step is not finite: nothing can be drawn of it')
    scale = float(np.quantile(abs(shown), 0.99)) or float(abs(shown).max())
    left, right = max(low, mean - 4 * std), min(high, mean + 4 * std)              # what lies further out is in the outer bars
    bars = ((np.clip(whole, left, right) - left) * (BARS / ((right - left) or 1))).astype(int)
    counts = np.bincount(np.minimum(bars, BARS - 1).ravel(), minlength=BARS)
    return {'shape': list(whole.shape[1:]), 'scale': short(scale), 'sheets': [sheet(array, scale) for array in shown],
            'mean': short(mean), 'std': short(std), 'low': short(low), 'high': short(high),
            'histogram': {'counts': counts.tolist(), 'left': short(left), 'right': short(right)}}


def sheet(array, scale):
    """The channels of one image (H, W, C), or the entries of a vector, side by side: a PNG of 16 colours. Zero is nearly
    transparent, so that it is neutral in the light and in the dark."""
    if array.size == array.shape[-1]:             # a vector
        tiles, across, gap = array.reshape(-1, 1, 1)[:ENTRIES], 16, 0
    else:
        tiles, across, gap = array.transpose(2, 0, 1)[:CHANNELS], 4, 1
    (N, H, W), down = tiles.shape, -(-len(tiles) // across)
    indices = np.rint(np.clip(tiles / (scale or 1), -1, 1) * LEVELS) + LEVELS
    pixels = np.full((down * (H + gap) - gap, min(across, N) * (W + gap) - gap), GAP, np.uint8)
    for i, tile in enumerate(indices):
        y, x = i // across * (H + gap), i % across * (W + gap)
        pixels[y:y + H, x:x + W] = tile
    return png(pixels, PALETTE)


def shades():
    """RGB and opacity of the 16 entries of the palette: 7 below zero, zero, 7 above, and what is between tiles."""
    opacity = [round(255 * (i / LEVELS) ** 0.8) for i in range(1, LEVELS + 1)]
    return [*(BLUE + (a,) for a in reversed(opacity)), GRAY + (24,), *(ORANGE + (a,) for a in opacity), (0, 0, 0, 0)]


PALETTE = shades()


def picture(image):
    """An image (H, W, C), uint8, as it is."""
    return png(image[..., 0] if image.shape[-1] == 1 else image)


def png(pixels, palette=None):
    """A data URI."""
    from PIL import Image
    image, options = Image.fromarray(pixels), {}
    if palette:
        image.putpalette([value for colour in palette for value in colour[:3]])       # gray becomes indexed
        options = {'bits': 4, 'transparency': bytes(opacity for *_, opacity in palette)}
    file = io.BytesIO()
    image.save(file, format='PNG', optimize=True, **options)
    return 'data:image/png;base64,' + base64.b64encode(file.getvalue()).decode()


# ---- sources

def of_class(layer):
    """What a layer's class says of itself: the first paragraph of its docstring, its forward, its backward, their helpers."""
    return {'equation': first_paragraph(layer), 'forward': listing(layer.forward), 'backward': listing(layer.backward),
            'helpers': helpers([layer.forward, layer.backward], layer)}


def of_rule(rule):
    """The same of a loss, which may be a partial."""
    function, settings = (rule.func, rule.keywords) if isinstance(rule, partial) else (rule, {})
    call = ', '.join(['score', *(f'{name}={value}' for name, value in settings.items())])
    return {'line': f'{function.__name__}({call})', 'equation': first_paragraph(function), 'source': listing(function),
            'helpers': helpers([function])}


def first_paragraph(thing):
    return ' '.join((inspect.getdoc(thing) or '').partition('\n\n')[0].split())


def listing(function):
    """{'name', 'source'} of a function, as it stands in its file."""
    name = f'{function.__module__.rpartition(".")[2]}.py: {function.__qualname__}'
    return {'name': name, 'source': inspect.cleandoc('\n' + inspect.getsource(function))}


def helpers(functions, owner=None):
    """Listings of what the functions call, and what that calls: methods of their class, functions of conv.py and losses.py."""
    found = list(functions)
    for function in found:                        # which grows on the way
        names, module = function.__code__.co_names, inspect.getmodule(function)
        places = [vars(losses)] + [vars(conv)] * (module is conv or 'conv' in names)
        for called in [getattr(owner, name, None) for name in names] + [place.get(name) for place in places for name in names]:
            if inspect.isfunction(called) and called not in found and called is not array_module:
                found.append(called)
    return [listing(function) for function in found[len(functions):]]
