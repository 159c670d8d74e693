import numpy as np
import pytest

from tinygan.data.digits import draw


@pytest.fixture(scope='session')
def digits():
    """((images, labels), (images, labels)), drawn: 1000 digits to train with and 300 to test."""
    rng = np.random.default_rng(7)
    return draw(rng, 1000), draw(rng, 300)
