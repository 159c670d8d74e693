"""Convolution is one matrix product over patches. Its two gradients are the same product, turned around.

Read the three functions `forward`, `input_grad` and `weight_grad` side by side: with `cols` the matrix whose
rows are the patches of x,

    forward       y    = cols @ w
    weight_grad   dw   = cols.T @ dy
    input_grad    dx   = patches added back in place, from  dcols = dy @ w.T

and the transposed convolution needs no code of its own: its forward *is* `input_grad`, its input gradient
*is* `forward` (Dumoulin & Visin 2016, "A guide to convolution arithmetic for deep learning", chapter 4).

Shapes: images x (N, H, W, C), y (N, OH, OW, F); weight w (K, K, C, F); OH = (H + 2P - K) // S + 1.
cols is about (K / S)^2 times as large as x and short-lived, so its memory is used again and again: see scratch.
"""
from .arrays import array_module, scratch


def forward(x, w, stride, padding):
    """y[n, i, j, f] = sum over kh, kw, c of x[n, S*i + kh - P, S*j + kw - P, c] * w[kh, kw, c, f].

    Pixels outside the image are zero. It is the cross-correlation that every framework calls convolution.
    """
    N, H, W, C = x.shape
    K, _, _, F = w.shape
    OH, OW = output_size(H, K, stride, padding), output_size(W, K, stride, padding)
    cols = im2col(x, K, stride, padding)
    return (cols @ w.reshape(-1, F)).reshape(N, OH, OW, F)


def input_grad(dy, w, size, stride, padding):
    """dLoss/dx of `forward` for images of the given size (H, W): every pixel of x gathers w * dy from each
    patch it was part of. As a function of dy it is the transposed convolution."""
    N, OH, OW, F = dy.shape
    K, _, C, _ = w.shape
    dy, w, xp = dy.reshape(-1, F), w.reshape(-1, F), array_module(dy)
    product = xp.matmul if F > 1 else xp.multiply           # the same for one filter, but BLAS is slow at it
    if (*size, padding) == (K, K, 0):
        return product(dy, w.T).reshape(N, K, K, C)         # the only patch is the image
    dcols = scratch('cols', (N, OH, OW, K, K, C), dy)
    product(dy, w.T, out=dcols.reshape(-1, K * K * C))
    return col2im(dcols, size, stride, padding)


def weight_grad(x, dy, kernel_size, stride, padding):
    """dLoss/dw of `forward`: patches times the gradient that arrived where each was used, summed over all."""
    K, C, F = kernel_size, x.shape[3], dy.shape[3]
    cols = im2col(x, K, stride, padding)
    return (cols.T @ dy.reshape(-1, F)).reshape(K, K, C, F)


def im2col(x, K, S, P):
    """The patches of x (N, H, W, C) as the rows of a matrix (N*OH*OW, K*K*C).

    A patch is a part of the padded image and has the image's own strides: to the next patch it is S pixels, to the
    next number of a patch as far as in the image. So all patches are a view, and laying them out is one strided copy.
    The matrix is overwritten by the next call in this thread.
    """
    N, H, W, C = x.shape
    if (H, W, P) == (K, K, 0):
        return x.reshape(N, -1)                   # the only patch is the image
    OH, OW = output_size(H, K, S, P), output_size(W, K, S, P)
    if P:
        padded = scratch('padded', (N, H + 2 * P, W + 2 * P, C), x)
        padded.fill(0)
        padded[:, P:P + H, P:P + W] = x
        x = padded
    image, row, pixel, number = x.strides
    patches = array_module(x).lib.stride_tricks.as_strided(
        x, (N, OH, OW, K, K, C), (image, S * row, S * pixel, row, pixel, number))
    cols = scratch('cols', patches.shape, x)
    cols[...] = patches
    return cols.reshape(-1, K * K * C)


def col2im(cols, size, S, P):
    """The adjoint of im2col: add patches (N, OH, OW, K, K, C) back to the pixels they were read from.

    For a fixed kh, the columns kw to kw + S - 1 of neighbouring patches tile a row of the image without overlap. So one
    addition handles them all, in runs of S*C neighbouring numbers. With one channel such runs are too short to pay,
    and each kw is added by itself.
    """
    N, OH, OW, K, _, C = cols.shape
    H, W = size
    width = S if C > 1 else 1
    runs = -(-(W + 2 * P) // S)                                             # of S pixels in a padded row
    dx = scratch('padded', (N, H + 2 * P, runs, S * C), cols)
    dx.fill(0)
    cols = cols.reshape(N, OH, OW, K, K * C)
    for kh in range(K):
        for kw in range(0, K, width):
            run, first = cols[:, :, :, kh, kw * C:(kw + width) * C], kw % S * C
            dx[:, kh:kh + S * OH:S, kw // S:kw // S + OW, first:first + run.shape[-1]] += run
    return dx.reshape(N, H + 2 * P, runs * S, C)[:, P:P + H, P:P + W].copy()


def output_size(size, K, S, P):
    """How many patches fit along one side: the last S - 1 or fewer pixels may belong to none."""
    if size + 2 * P < K:
        raise ValueError(f'a {K}x{K} kernel does not fit into {size} pixels with padding {P}')
    return (size + 2 * P - K) // S + 1
