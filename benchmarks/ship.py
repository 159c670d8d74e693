"""Makes the trained generator that comes with the package: tinygan/run/trained.npz.

    python benchmarks/ship.py

trains recipe fast, seed 0, for its ten epochs in runs/trained, or goes on there, and keeps the average of G in half precision,
with the distance of its samples. The judges come first: tinygan/judge/frozen.py says how they are made.
"""
import json
import sys
from pathlib import Path

import numpy as np
from runs import SAMPLES, judges, samples_of

sys.path.insert(0, str(Path(__file__).parent.parent))
from tinygan.__main__ import sample_noise  # noqa: E402
from tinygan.engines import convert  # noqa: E402
from tinygan.recipes import find_recipe  # noqa: E402
from tinygan.run.checkpoint import VERSION, open_checkpoint  # noqa: E402
from tinygan.run.generator import TRAINED, draw  # noqa: E402

RUN, FLAGS, STEPS = Path('runs/trained'), ['--recipe', 'fast'], 9370


def main():
    samples_of(RUN, FLAGS, 0, STEPS)
    _, config, step, state = open_checkpoint(RUN)
    parameters, statistics = state['average.parameters'].astype(np.float16), state['average.statistics']
    kept = {'average.parameters': parameters, 'average.statistics': statistics}
    recipe = find_recipe(config['recipe'])
    G = recipe.generator(config['z_dim'])
    G.parameters[:], G.statistics[:] = parameters, statistics
    images = draw(convert(G), sample_noise(0, SAMPLES, config['z_dim']), recipe.black)
    about = {'version': VERSION, 'step': step, 'config': config, 'arrays': list(kept),
             'made by': f'python train_mnist.py {" ".join(FLAGS)} --seed 0',
             f'Frechet distance of {SAMPLES} samples': {name: judge.distance(images) for name, judge in judges().items()}}
    np.savez_compressed(TRAINED, about=np.array(json.dumps(about)), **kept)
    print(json.dumps(about, indent=1))


if __name__ == '__main__':
    main()
