"""The generator of a run, ready to call."""
from ..errors import UserError
from ..recipes import find_recipe
from .checkpoint import open_checkpoint


def load(run):
    """G of a run, or the average of it that samples are drawn from, in evaluation mode and on the CPU.

        G = tinygan.load('runs/dcgan')
        images = G(np.random.randn(16, 100).astype('f'))          # (16, 28, 28, 1), black at -1, white at 1

    run is a run's folder or a checkpoint file, such as its best.npz. Raises UserError where none can be read.
    """
    return load_with_config(run)[0]


def load_with_config(run):
    """The same, and what the run was asked for: its recipe, z_dim and other settings."""
    _, config, _, state = open_checkpoint(run)
    sampler = 'average' if 'average.parameters' in state else 'G'
    try:
        G = find_recipe(config['recipe']).generator(config['z_dim'])
        G.parameters[:], G.statistics[:] = state[f'{sampler}.parameters'], state[f'{sampler}.statistics']
    except (KeyError, ValueError):
        raise UserError(f'{run}: its generator is not the one of recipe {config.get("recipe")}') from None
    return G.eval(), config
