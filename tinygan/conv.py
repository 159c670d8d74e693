"""Convolution is one matrix product over patches, and so are its two gradients.

A product y = x @ w is y[r, f] = sum over k of x[r, k] w[k, f]. By the chain rule, the gradient of an entry of x or w is
a sum over the entries of y that it contributes to: the gradient there, times the factor it was multiplied by.

    dx[r, k] = sum over f of dy[r, f] w[k, f]        so  dx = dy @ w.T
    dw[k, f] = sum over r of x[r, k] dy[r, f]        so  dw = x.T @ dy

In a convolution the rows of x are the patches of an image: the matrix `cols`. Hence three functions:

    forward       y  = cols @ w
    weight_grad   dw = cols.T @ dy
    input_grad    dx = every patch of  dcols = dy @ w.T  added back to where it was read

The transposed convolution needs no code of its own: its forward *is* `input_grad`, its input gradient
*is* `forward` (Dumoulin & Visin 2016, "A guide to convolution arithmetic for deep learning", chapter 4).

Shapes: images x (N, H, W, C), y (N, OH, OW, F); weight w (K, K, C, F); OH = (H + 2P - K) // S + 1.
"""
from .arrays import array_module


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
    """dLoss/dx of `forward` for images of the given size (H, W): each patch's gradient, dy @ w.T, is added to the
    pixels that the patch was read from. As a function of dy it is the transposed convolution."""
    N, OH, OW, F = dy.shape
    K, _, C, _ = w.shape
    dcols = dy.reshape(-1, F) @ w.reshape(-1, F).T
    return col2im(dcols.reshape(N, OH, OW, K, K, C), size, stride, padding)


def weight_grad(x, dy, kernel_size, stride, padding):
    """dLoss/dw of `forward`: patches times the gradient that arrived where each was used, summed over all."""
    K, C, F = kernel_size, x.shape[3], dy.shape[3]
    cols = im2col(x, K, stride, padding)
    return (cols.T @ dy.reshape(-1, F)).reshape(K, K, C, F)


def im2col(x, K, S, P):
    """The patches of x (N, H, W, C) as the rows of a matrix (N*OH*OW, K*K*C).

        patches[n, i, j, kh, kw, c] = padded[n, S*i + kh, S*j + kw, c]

    A step of any index on the left is a step of fixed length through the image: i goes on by S rows, kh by one row, and
    so on. So all patches are a view of the image, with six strides instead of four; laying them out in rows copies.
    """
    N, H, W, C = x.shape
    padded = array_module(x).zeros((N, H + 2 * P, W + 2 * P, C), x.dtype)
    padded[:, P:P + H, P:P + W] = x
    image, row, pixel, channel = padded.strides
    patches = array_module(x).lib.stride_tricks.as_strided(
        padded, (N, output_size(H, K, S, P), output_size(W, K, S, P), K, K, C),
        (image, S * row, S * pixel, row, pixel, channel))
    return patches.reshape(-1, K * K * C)


def col2im(cols, size, S, P):
    """The transpose of im2col: its rows, as patches (N, OH, OW, K, K, C), are added back to where they were read from.

        image 4x4        its patches 2x2, with stride 1       how often each pixel was read

        a b c d          a b  b c  c d    e f  f g            1 2 2 1
        e f g h          e f  f g  g h    i j  j k  ...       2 4 4 2
        i j k l                                               2 4 4 2
        m n o p                                               1 2 2 1

    im2col is linear: each entry of cols is one entry of the padded image. So as a matrix, im2col has a single 1 in each
    row. Its transpose brings each entry back to where it came from and adds up what meets there: here four entries for f,
    one for a. At last the padding is cut off.
    """
    N, OH, OW, K, _, C = cols.shape
    H, W = size
    padded = array_module(cols).zeros((N, H + 2 * P, W + 2 * P, C), cols.dtype)
    for kh in range(K):
        for kw in range(K):
            padded[:, kh:kh + S * OH:S, kw:kw + S * OW:S] += cols[:, :, :, kh, kw]
    return padded[:, P:P + H, P:P + W]


def output_size(size, K, S, P):
    """How many patches fit along one side: the last S - 1 or fewer pixels may belong to none."""
    if size + 2 * P < K:
        raise ValueError(f'a {K}x{K} kernel does not fit into {size} pixels with padding {P}')
    return (size + 2 * P - K) // S + 1


def transposed_size(size, K, S, P, output_padding):
    """The other way round: the smallest side of an image that gives `size` patches, plus output_padding."""
    found = (size - 1) * S - 2 * P + K + output_padding
    if found < 1:
        raise ValueError(f'a transposed {K}x{K} kernel makes {found} pixels of {size} with padding {P}')
    return found
