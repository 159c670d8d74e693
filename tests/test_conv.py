"""The three products against loops that spell out the definition, and against each other."""
import numpy as np
import pytest

from tinygan import conv

#          N, H, W, C, F, K, S, P: odd sizes, strides that do not divide, one image, kernels as large as the image
SETTINGS = [(2, 5, 4, 2, 3, 3, 1, 0), (1, 6, 7, 3, 2, 4, 2, 1), (3, 7, 5, 1, 2, 3, 2, 1), (2, 8, 7, 2, 1, 2, 3, 0),
            (2, 4, 4, 3, 2, 4, 1, 0), (1, 5, 6, 2, 2, 1, 1, 0), (2, 6, 5, 2, 3, 5, 3, 2), (2, 3, 4, 1, 1, 5, 2, 4),
            (1, 9, 8, 2, 2, 3, 5, 1)]


def loops(x, w, S, P):
    """The definition, one multiplication after the other."""
    N, H, W, C = x.shape
    K, _, _, F = w.shape
    y = np.zeros((N, (H + 2 * P - K) // S + 1, (W + 2 * P - K) // S + 1, F))
    for n, i, j, f in np.ndindex(y.shape):
        for kh, kw, c in np.ndindex(K, K, C):
            r, s = S * i + kh - P, S * j + kw - P
            if 0 <= r < H and 0 <= s < W:
                y[n, i, j, f] += x[n, r, s, c] * w[kh, kw, c, f]
    return y


def scatter_loops(dy, w, size, S, P):
    """The transposed convolution, as its definition: every pixel of dy paints w onto the image."""
    N, OH, OW, F = dy.shape
    K, _, C, _ = w.shape
    dx = np.zeros((N, *size, C))
    for n, i, j, f in np.ndindex(dy.shape):
        for kh, kw, c in np.ndindex(K, K, C):
            r, s = S * i + kh - P, S * j + kw - P
            if 0 <= r < size[0] and 0 <= s < size[1]:
                dx[n, r, s, c] += dy[n, i, j, f] * w[kh, kw, c, f]
    return dx


def arrays_of(rng, setting):
    N, H, W, C, F, K, S, P = setting
    x, w = rng.standard_normal((N, H, W, C)), rng.standard_normal((K, K, C, F))
    return x, w, rng.standard_normal(conv.forward(x, w, S, P).shape), S, P


@pytest.mark.parametrize('setting', SETTINGS)
def test_forward_is_the_definition(rng, setting):
    x, w, _, S, P = arrays_of(rng, setting)
    np.testing.assert_allclose(conv.forward(x, w, S, P), loops(x, w, S, P), rtol=0, atol=1e-12)


@pytest.mark.parametrize('setting', SETTINGS)
def test_input_grad_is_the_transposed_convolution(rng, setting):
    x, w, dy, S, P = arrays_of(rng, setting)
    size = x.shape[1:3]
    np.testing.assert_allclose(conv.input_grad(dy, w, size, S, P), scatter_loops(dy, w, size, S, P), rtol=0, atol=1e-12)


@pytest.mark.parametrize('setting', SETTINGS)
def test_all_three_are_one_trilinear_form(rng, setting):
    """<conv(x, w), dy> = <x, input_grad(dy, w)> = <w, weight_grad(x, dy)>: each is the adjoint of the others."""
    x, w, dy, S, P = arrays_of(rng, setting)
    form = (conv.forward(x, w, S, P) * dy).sum()
    assert (x * conv.input_grad(dy, w, x.shape[1:3], S, P)).sum() == pytest.approx(form, rel=1e-12)
    assert (w * conv.weight_grad(x, dy, len(w), S, P)).sum() == pytest.approx(form, rel=1e-12)


@pytest.mark.parametrize('setting', SETTINGS)
def test_col2im_is_the_adjoint_of_im2col(rng, setting):
    N, H, W, C, _, K, S, P = setting
    x = rng.standard_normal((N, H, W, C))
    cols = conv.im2col(x, K, S, P)
    v = rng.standard_normal(cols.shape)
    OH, OW = conv.output_size(H, K, S, P), conv.output_size(W, K, S, P)
    back = conv.col2im(v.reshape(N, OH, OW, K, K, C), (H, W), S, P)
    assert (cols * v).sum() == pytest.approx((x * back).sum(), rel=1e-12)


def test_no_argument_is_changed(rng):
    x, w, dy, S, P = arrays_of(rng, SETTINGS[1])
    before = x.copy(), w.copy(), dy.copy()
    conv.forward(x, w, S, P), conv.input_grad(dy, w, x.shape[1:3], S, P), conv.weight_grad(x, dy, len(w), S, P)
    for a, b in zip(before, (x, w, dy)):
        np.testing.assert_array_equal(a, b)


def test_float32_stays_float32(rng):
    x, w, dy, S, P = arrays_of(rng, SETTINGS[1])
    x, w, dy = x.astype('f'), w.astype('f'), dy.astype('f')
    for result in conv.forward(x, w, S, P), conv.input_grad(dy, w, x.shape[1:3], S, P), conv.weight_grad(x, dy, 4, S, P):
        assert result.dtype == np.float32


def test_a_kernel_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match='a 5x5 kernel does not fit into 3 pixels with padding 0'):
        conv.forward(np.zeros((1, 3, 8, 1)), np.zeros((5, 5, 1, 1)), 1, 0)
    assert conv.output_size(3, 5, 1, 1) == 1                 # with padding it just fits
