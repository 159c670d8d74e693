"""tinygan: a deep convolutional GAN written by hand, on NumPy arrays or, unchanged, on CuPy arrays."""
__version__ = '0.1.0'
