"""Images as a dataset, in shuffled minibatches, and as the networks see them.

They stay uint8 (N, H, W, C) until a minibatch is made: a quarter of the memory, and of the way to the GPU.
"""
import hashlib

import numpy as np

from ..arrays import random_stream
from ..errors import UserError


class ImageSet:
    """Images uint8 (N, H, W, C), shuffled for each epoch and, if asked for, flipped left to right at random. An incomplete last
    minibatch is dropped. The digest tells images of your own from others; warning says what may be wrong with them. labels, if
    they are known, are integers (N,), and class_names what they stand for."""

    def __init__(self, images, seed=0, name='mnist', flip=False, digest=None, warning=None, labels=None, class_names=()):
        self.images, self.seed, self.name, self.flip, self.digest, self.warning = images, seed, name, flip, digest, warning
        self.labels, self.class_names = labels, tuple(class_names)
        self.shape = images.shape[1:]
        self.shuffled = None, None                # the last epoch asked for, and its order of the images

    def __len__(self):
        return len(self.images)

    @property
    def labels_digest(self):
        """What tells the labels of images of your own from others."""
        return self.digest and hashlib.sha256(self.labels.astype('<i8').tobytes()).hexdigest()

    def steps_per_epoch(self, size):
        """How many minibatches of that size an epoch has."""
        if size > len(self):
            raise UserError(f'a minibatch of {size} is more than the {len(self)} images there are: choose a smaller '
                            '--batch-size')
        return len(self) // size

    def batch(self, step, size):
        """Minibatch number `step`, uint8 (size, H, W, C): a pure function of (seed, step, size)."""
        chosen = self.chosen(step, size)
        flipped = chosen < 0
        batch = self.images[np.where(flipped, ~chosen, chosen)]
        if self.flip:
            batch[flipped] = batch[flipped, :, ::-1]
        return batch

    def batch_labels(self, step, size):
        """The labels of the images of `batch`, (size,)."""
        chosen = self.chosen(step, size)
        return self.labels[np.where(chosen < 0, ~chosen, chosen)]

    def chosen(self, step, size):
        epoch, i = divmod(step, self.steps_per_epoch(size))
        return self.order(epoch)[i * size:(i + 1) * size]

    def order(self, epoch):
        """The indices of the images, shuffled for that epoch. ~i, which is negative, stands for image i, flipped."""
        if epoch != self.shuffled[0]:
            order = random_stream(self.seed, 'shuffle', epoch).permutation(len(self))
            if self.flip:
                order = np.where(random_stream(self.seed, 'flip', epoch).integers(2, size=len(self)), ~order, order)
            self.shuffled = epoch, order
        return self.shuffled[1]


def fit(images, shape):
    """uint8 images (N, h, w, c) resized to shape (H, W, C), bilinearly, by two products; gray becomes C equal channels."""
    H, W, C = shape
    if images.shape[1:3] != (H, W):
        rows, columns = _bilinear(images.shape[1], H), _bilinear(images.shape[2], W)
        planes = rows @ images.transpose(0, 3, 1, 2).astype(np.float32) @ columns.T
        images = np.rint(planes).astype(np.uint8).transpose(0, 2, 3, 1)
    return images if images.shape[3] == C else images.repeat(C, axis=3)


def _bilinear(old, new):
    """The matrix (new, old) that turns old pixels into new ones: each is a mean of its two neighbours, the nearer one
    counting more."""
    centre = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    return np.maximum(0, 1 - abs(centre[:, None] - np.arange(old))).astype(np.float32)


def normalise(images, xp, black=-1):
    """uint8 images as the networks see them, float32 from black to 1, on the device of xp."""
    return xp.asarray(images).astype(np.float32) * ((1 - black) / 255) + black


def to_uint8(x, black=-1):
    """The inverse of normalise, for NumPy arrays. Values beyond black or white are clipped."""
    return np.rint(np.clip((x - black) * (255 / (1 - black)), 0, 255)).astype(np.uint8)
