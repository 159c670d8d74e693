"""The GPU's fast path: kernels written by hand, and a training step of them captured in a CUDA graph."""
from .device import NotCovered
from .step import CapturedGAN
