"""What PyTorch (make_training_reference.py) and ours (engines/test_training.py) are both trained on."""
import numpy as np

from tinygan.data import ImageSet
from tinygan.data.minibatches import Minibatches

STEPS, N, Z_DIM = 10, 2, 2


def minibatches(recipe):
    """For a recipe: images of blocks of 4x4 pixels, as filters would average single ones away. An epoch has three steps."""
    H, W, C = recipe.shape
    blocks = np.random.default_rng(0).integers(0, 256, (7, H // 4, W // 4, C), np.uint8)
    return Minibatches(ImageSet(blocks.repeat(4, axis=1).repeat(4, axis=2)), recipe._replace(batch_size=N, z_dim=Z_DIM))
