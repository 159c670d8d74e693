"""tinygan: a deep convolutional GAN written by hand, on NumPy arrays or, unchanged, on CuPy arrays."""
from .gan import GAN, draw_z, generate
from .gradcheck import check_layer
from .layers import (BatchNorm2d, Conv2d, ConvTranspose2d, Flatten, GlobalAvgPool2d, Layer, LeakyReLU, Linear, ReLU,
                     Reshape, Sigmoid, Tanh)
from .losses import LOSSES, bce_with_logits
from .network import Sequential
from .optim import SGD, Adam, Momentum, RMSprop
from .recipes import RECIPES, Recipe, make_gan
from .run.generator import load

__version__ = '0.1.0'
__all__ = ['GAN', 'check_layer', 'draw_z', 'generate', 'load', 'make_gan', 'Layer', 'Sequential', 'BatchNorm2d', 'Conv2d',
           'ConvTranspose2d', 'Flatten', 'GlobalAvgPool2d', 'LeakyReLU', 'Linear', 'ReLU', 'Reshape', 'Sigmoid', 'Tanh',
           'LOSSES', 'bce_with_logits', 'RECIPES', 'Recipe', 'SGD', 'Adam', 'Momentum', 'RMSprop']
