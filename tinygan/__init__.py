"""tinygan: a deep convolutional GAN written by hand, on NumPy arrays or, unchanged, on CuPy arrays."""
from .gan import GAN, draw_z, generate
from .layers import (BatchNorm2d, Conv2d, ConvTranspose2d, Flatten, GlobalAvgPool2d, Layer, LeakyReLU, Linear, ReLU,
                     Reshape, Sigmoid, Tanh)
from .recipes import RECIPES, Recipe
from .network import Sequential
from .optim import SGD, Adam, Momentum, RMSprop

__version__ = '0.1.0'
__all__ = ['GAN', 'draw_z', 'generate', 'BatchNorm2d', 'Conv2d', 'ConvTranspose2d', 'Flatten', 'GlobalAvgPool2d', 'Layer',
           'LeakyReLU', 'Linear', 'ReLU', 'Reshape', 'Sigmoid', 'Tanh', 'RECIPES', 'Recipe', 'Sequential', 'SGD', 'Adam',
           'Momentum', 'RMSprop']
