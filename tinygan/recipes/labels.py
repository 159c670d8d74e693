"""Conditional GANs: both networks are told which class an image should show (Mirza & Osindero 2014, "Conditional generative
adversarial nets", section 3.2). A label is one of CLASSES integers; as a vector y it has a 1 in its place and 0s elsewhere.

G finds y at the end of its z, D as further channels of the image, each of one value throughout. Neither network has a loss
for it. D sees real images only with their own y, and so learns to call fake whatever does not go with its y.
"""
from ..arrays import array_module
from ..gan import GAN
from ..network import Layer


def with_labels(z, labels, classes):
    """z (N, z_dim) and behind it y: (N, z_dim + classes). With 0 classes, it is z alone."""
    xp = array_module(z)
    y = labels[:, None] == xp.arange(classes)
    return xp.concatenate([z, y.astype(z.dtype)], axis=1)


class ConditionalGAN(GAN):
    """A GAN whose D begins with LabelPlanes. The label of image n, real or fake, stands at the end of row n of z."""

    def step(self, x, z, *others):
        planes = self.D.layers[0]
        planes.labels = z[:, -planes.classes:]
        return super().step(x, z, *others)


class LabelPlanes(Layer):
    """y = x and behind it a plane for each class: (N, H, W, C) -> (N, H, W, C + classes). The plane of an image's class is 1, the
    others are 0. `labels` are set before a forward, as rows (N, classes), and stay until others are; without any, as in a copy, an
    image is of no class. Raises ValueError when there are labels of another number of images."""
    labels = None

    def __init__(self, classes):
        self.classes = classes

    def forward(self, x):
        self.cache = x.shape[-1]
        labels = self.no_labels(x) if self.labels is None else self.labels
        if len(labels) != len(x):
            raise ValueError(f'{self} has labels for {len(labels)} images, not for {len(x)}')
        return self.joined(x, labels)

    def backward(self, dy):
        # forward was a copy of x beside what does not depend on x
        C = self.cache
        return dy[..., :C]

    def tangent(self, v):
        # and so only that copy moves
        return self.joined(v, self.no_labels(v))

    def __deepcopy__(self, memo):                 # whose images will be others
        return LabelPlanes(self.classes).set_flags(training=self.training, frozen=self.frozen)

    def joined(self, x, labels):
        N, H, W, _ = x.shape
        xp = array_module(x)
        return xp.concatenate([x, xp.broadcast_to(labels[:, None, None, :], (N, H, W, self.classes))], axis=3)

    def no_labels(self, x):
        return array_module(x).zeros((len(x), self.classes), x.dtype)
