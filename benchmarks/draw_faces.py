"""Draws a folder of faces, as an example of data of your own: python benchmarks/draw_faces.py FOLDER [-n 1000] [--seed 0]

Each is a JPEG of 96x96 pixels: a head before a wall, its hair, eyes and mouth. No two are the same.
"""
import argparse
import colorsys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from tqdm import tqdm

SIZE, FINE = 96, 4                                # of a picture, and how many times as large it is drawn
SKIN = (0.07, 0.35, 0.95), (0.07, 0.45, 0.80), (0.06, 0.55, 0.60), (0.05, 0.60, 0.42)           # hue, saturation, value
HAIR = (0.10, 0.60, 0.25), (0.08, 0.70, 0.12), (0.12, 0.65, 0.80), (0.04, 0.80, 0.50), (0.0, 0.0, 0.75)


def colour(rng, hsv, spread=0.03):
    shaken = np.clip(np.array(hsv) + spread * rng.standard_normal(3) * (0.3, 1, 1), 0, 1)
    return tuple(int(255 * channel) for channel in colorsys.hsv_to_rgb(*shaken))


def draw_face(rng):
    """A Pillow image of one face. Lengths are in units of its size, from its middle."""
    image = Image.new('RGB', (SIZE * FINE,) * 2, colour(rng, (rng.random(), 0.35, 0.75), 0.1))
    draw = ImageDraw.Draw(image)

    def at(x, y):
        return round((0.5 + x) * SIZE * FINE), round((0.5 + y) * SIZE * FINE)

    def ellipse(x, y, width, height, fill):
        draw.ellipse([at(x - width, y - height), at(x + width, y + height)], fill)

    x, y = 0.03 * rng.standard_normal(2)
    width, height = 0.24 + 0.02 * rng.standard_normal(), 0.31 + 0.02 * rng.standard_normal()
    skin, hair = colour(rng, SKIN[rng.integers(len(SKIN))]), colour(rng, HAIR[rng.integers(len(HAIR))])
    ellipse(x, y + 0.62, 0.40, 0.28, colour(rng, (rng.random(), 0.6, 0.6), 0.1))                  # shoulders
    if rng.random() < 0.5:                        # long hair
        ellipse(x, y + 0.05, width + 0.07, height + 0.06, hair)
    draw.rectangle([at(x - 0.08, y + 0.2), at(x + 0.08, y + 0.42)], tuple(int(0.85 * channel) for channel in skin))
    ellipse(x, y, width, height, skin)
    fringe = rng.integers(12, 18)                 # degrees
    draw.chord([at(x - width - 0.03, y - height - 0.05), at(x + width + 0.03, y + height)], 180 + fringe, 360 - fringe, hair)

    look, apart, eye = 0.015 * rng.standard_normal(), 0.10 + 0.01 * rng.standard_normal(), y - 0.01
    iris = colour(rng, (rng.choice([0.08, 0.33, 0.58]), 0.6, 0.4))
    for side in (-apart, apart):
        ellipse(x + side, eye, 0.045, 0.03, (245, 245, 245))
        ellipse(x + side + look, eye, 0.022, 0.026, iris)
        ellipse(x + side + look, eye, 0.010, 0.012, (10, 10, 10))
        draw.line([at(x + side - 0.05, eye - 0.06), at(x + side + 0.05, eye - 0.06)], hair, int(0.02 * SIZE * FINE))
    draw.line([at(x, eye + 0.03), at(x - 0.02, y + 0.10), at(x + 0.01, y + 0.105)], tuple(int(0.8 * channel) for channel in skin),
              int(0.012 * SIZE * FINE))
    smile = 0.03 + 0.05 * rng.random()
    draw.arc([at(x - 0.09, y + 0.16 - smile), at(x + 0.09, y + 0.16 + smile)], 20, 160, colour(rng, (0.98, 0.6, 0.6)),
             int(0.03 * SIZE * FINE))
    turned = image.rotate(6 * rng.standard_normal(), Image.Resampling.BICUBIC, fillcolor=image.getpixel((0, 0)))
    return turned.filter(ImageFilter.GaussianBlur(FINE / 2)).resize((SIZE, SIZE), Image.Resampling.LANCZOS)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.partition(':')[0])
    parser.add_argument('folder', type=Path)
    parser.add_argument('-n', type=int, default=1000)
    parser.add_argument('--seed', type=int, default=0)
    options = parser.parse_args()
    if options.folder.exists():
        parser.error(f'{options.folder} is there already')
    options.folder.mkdir(parents=True)
    rng = np.random.default_rng(options.seed)
    for i in tqdm(range(options.n), disable=None):
        draw_face(rng).save(options.folder / f'{i:05}.jpg', quality=95)
