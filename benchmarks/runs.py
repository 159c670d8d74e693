"""Runs of train_mnist.py and how good their samples are: what claims.py, quality.py and ship.py share."""
import json
import sys
from pathlib import Path

import numpy as np

from provenance import RUN, provenance

sys.path.insert(0, str(Path(__file__).parent.parent))
import train_mnist  # noqa: E402
from tinygan import data  # noqa: E402
from tinygan.__main__ import open_generator, sample_noise  # noqa: E402
from tinygan.judge import report  # noqa: E402
from tinygan.judge.frozen import SHIPPED, shipped  # noqa: E402
from tinygan.recipes.labels import with_labels  # noqa: E402
from tinygan.run.generator import in_turn  # noqa: E402

SAMPLES = 10000


def judges():
    """The judges that ship, by name and the beginning of their hash."""
    return {str(shipped(name)): shipped(name) for name in SHIPPED}


def real_digits():
    """SAMPLES real training images."""
    return report.real_images(data.mnist.load_images('train'), SAMPLES)


def samples_of(folder, flags, seed, steps):
    """SAMPLES images of the run in the folder after so many steps; it is begun, or gone on with, as needed."""
    start = ['--resume', folder] if Path(folder).exists() else ['--out', folder, '--seed', seed, '--data', 'mnist', *flags]
    note_origin(folder)
    if code := train_mnist.main([*map(str, start), '--device', 'cpu', '--max-steps', str(steps)]):
        sys.exit(code)
    draw, _, config = open_generator(folder)
    z, classes = sample_noise(0, SAMPLES, config['z_dim']), len(config['class_names'])
    return draw(with_labels(z, in_turn(SAMPLES, classes), classes))


def note_origin(folder):
    """Keep, in a folder that has none yet, where what is trained there comes from: it may be judged much later."""
    path = Path(folder, 'provenance.json')
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_text(json.dumps(provenance((*RUN, 'benchmarks/runs.py', f'benchmarks/{Path(sys.argv[0]).name}'))), 'utf-8')


def commit_of(folders, trained):
    """At which commit the runs in these folders were trained, or at which ones. Their provenance goes to `trained`, by commit."""
    found = [json.loads(Path(folder, 'provenance.json').read_text('utf-8')) for folder in folders]
    trained |= {origin['commit']: origin for origin in found}
    return ', '.join(sorted({origin['commit'] for origin in found}))


def mean_and_std(distances):
    """Of one distance or more: {'each seed': distances, 'mean': ..., 'std': ...}, without a std if there is but one."""
    found = {'each seed': distances, 'mean': float(np.mean(distances))}
    return found | {'std': float(np.std(distances, ddof=1))} if len(distances) > 1 else found
