"""The mistakes that people make when they write these gradients, each as one change to the core's source.

This is the only list of them: an exercise recognises them, `tinygan bug` shows what they do to a training run, and the tests
plant those that name tests, which must notice. `right` stands in a file of the core, and `wrong` takes its place.
"""
from typing import NamedTuple

PRODUCT = 'conv.py, at its top'
CONV = 'README, "Convolution is one product, and so are its gradients"'
NORM = 'README, "One backward in full: BatchNorm"'
BIAS = 'layers.py, in the comment of Weighted.add_bias_gradient'
RELU = 'layers.py, in the comment of LeakyReLU.backward'
TANH = 'layers.py, in the comment of Tanh.backward'
TRANSPOSED = 'layers.py, in the comment of ConvTranspose2d.backward'
BATCHNORM = 'layers.py, in the docstring of BatchNorm2d'
SOFTMAX = 'losses.py, in the docstring of softmax_cross_entropy'
COL2IM = 'conv.py, in the docstring of col2im'
RMSPROP = 'optim.py, in the docstring of RMSprop'
LOOP = 'README, "The training loop"'
LAYER = 'network.py, in the docstring of Layer'
RULE = 'penalties.py, in the docstring of wgan_gp'
SLOPE = 'penalties.py, at its top'
ADAM = 'optim.py, in the docstring of Adam'


class Mistake(NamedTuple):
    says: str
    file: str
    right: str
    wrong: str
    derived: str                    # where a reader finds what is right, and why
    tests: str = None               # that must notice it, as arguments of pytest
    seen: str = None                # what gives it away when it is trained: `tinygan bug` has those that say

    def planted(self, text):
        """The source of its file with the mistake in it."""
        if self.right not in text:
            raise ValueError(f'{self.file}.py no longer has the line to spoil: {self.right}')
        return text.replace(self.right, self.wrong)


MISTAKES = {
    # Linear, and what all layers with a weight share
    'linear-untransposed': Mistake('w is not transposed on the way back', 'layers', 'return dy @ self.w.T', 'return dy @ self.w',
        PRODUCT),
    'linear-swapped': Mistake('the factors of dw change places, which transposes it', 'layers', 'self.dw += x.T @ dy',
        'self.dw += dy.T @ x', PRODUCT),
    'replaced': Mistake('gradients replace each other instead of adding up: = where += is due', 'layers', 'self.dw += x.T @ dy',
        'self.dw[...] = x.T @ dy', LAYER, 'test_layers.py -k adds_to_the_gradients'),
    'bias-unused': Mistake('a bias is forgotten', 'layers', 'y += self.b', 'pass', BIAS, 'test_layers.py -k agree_with_pytorch'),
    'bias-zero': Mistake('a bias gets no gradient', 'layers', 'self.db += dy.sum(channels(dy))',
        'self.db += 0 * dy.sum(channels(dy))', BIAS, 'test_layers.py -k gradient_of_forward',
        seen='Nothing in the picture: b stays at zero, and the other layers do without it. Only finite differences see that db is '
             'missing.'),
    'bias-axes': Mistake('db is summed over the wrong axes', 'layers', 'self.db += dy.sum(channels(dy))',
        'self.db += dy.sum(tuple(range(1, dy.ndim)))', BIAS),
    'bias-mean': Mistake('db is a mean where a sum is due', 'layers', 'self.db += dy.sum(channels(dy))',
        'self.db += dy.mean(channels(dy))', BIAS),
    'thawed': Mistake('a frozen layer learns', 'layers', 'if not self.frozen:', 'if True:', LAYER, 'test_layers.py -k frozen'),
    'tangent-bias': Mistake('b gets a gradient from a tangent, though it does not move with x', 'layers',
        'self.dw += v.T @ self.dy', 'self.dw += v.T @ self.dy\n            self.add_bias_gradient(self.dy)', SLOPE,
        'test_penalties.py -k gradient_of_a_tangent'),
    'tangent-affine': Mistake('b is added to how y moves, though it does not move with x', 'layers', 'return v @ self.w',
        'return self.add_bias(v @ self.w)', SLOPE),
    'tangent-of-x': Mistake('the tangent adds to dw what backward has added already: v stands where x stood', 'layers',
        'self.dw += v.T @ self.dy', 'self.dw += self.cache.T @ self.dy', SLOPE),
    'tangent-swapped': Mistake("the factors of a tangent's dw change places, which transposes it", 'layers',
        'self.dw += v.T @ self.dy', 'self.dw += self.dy.T @ v', SLOPE),
    'tangent-of-v': Mistake('v decides between the slopes of a LeakyReLU, where x has done so', 'layers', 'return self.backward(v)',
        'return self.forward(v)', SLOPE, 'test_penalties.py -k how_y_moves'),

    # activations
    'relu-open': Mistake('all of the gradient passes, whatever x was', 'layers', 'self.cache = x > 0', 'self.cache = x > -9', RELU,
        'test_layers.py -k gradient_of_forward',
        seen='The digits remain torn strokes, and D is far ahead: loss D 0.3 at step 30 and still 0.6 at the end, where the right '
             'one is at 1.3. G learns, but from a gradient that is often wrong.'),
    'relu-opposite': Mistake('the gradient passes where x was negative, and not where it was positive', 'layers',
        'self.cache = x > 0', 'self.cache = x <= 0', RELU),
    'relu-of-dy': Mistake('the sign of dy decides, where that of x is due', 'layers', 'positive = self.cache', 'positive = dy > 0',
        RELU,
        seen="D has won at step 100, with a loss of 0.01, and G's images are white. What passes back must depend on x, and not on "
             'dy.'),
    'relu-alone': Mistake('the slope is returned alone, not times dy', 'layers',
        'return dy * array_module(dy).maximum(positive, dy.dtype.type(self.slope))',
        'return array_module(dy).maximum(positive, dy.dtype.type(self.slope))', RELU),
    'slope-lost': Mistake('no gradient passes where x was negative, as if there were no slope', 'layers',
        'positive, dy.dtype.type(self.slope))', 'positive, dy.dtype.type(0))', RELU),
    'promoted': Mistake('a network mixes float64 in', 'layers', 'dy.dtype.type(self.slope)', 'np.float64(self.slope)', LAYER,
        'test_layers.py -k float32'),
    'tanh-linear': Mistake('tanh is differentiated as if it were linear', 'layers', 'return dy * (1 - y * y)', 'return dy', TANH,
        'test_layers.py -k gradient_of_forward',
        seen="Digits appear, and then break up into pure black and white: from step 200 on D's loss is below 0.05. Where tanh is "
             'flat, no gradient is due; here one pushes the pixels ever further out.'),
    'tanh-twice': Mistake('tanh is applied to y, which is a tanh already', 'layers', 'return dy * (1 - y * y)',
        'return dy * (1 - np.tanh(y) ** 2)', TANH),
    'tanh-unsquared': Mistake('y is not squared', 'layers', 'return dy * (1 - y * y)', 'return dy * (1 - y)', TANH),
    'tanh-alone': Mistake('the slope of tanh is returned alone, not times dy', 'layers', 'return dy * (1 - y * y)',
        'return 1 - y * y', TANH),

    # losses
    'bce-sum': Mistake('the gradient belongs to a sum over the scores, but the loss is a mean', 'losses',
        '(sigmoid(score) - target) / score.size', '(sigmoid(score) - target)', LOOP, 'test_losses.py -k gradient',
        seen='Nothing: dscore is 32 times too large, and Adam divides by the size of the gradient. With SGD it would be another '
             'learning rate.'),
    'bce-rows': Mistake('it is divided by the rows alone, but the loss is a mean over all scores', 'losses',
        '(sigmoid(score) - target) / score.size', '(sigmoid(score) - target) / len(score)', LOOP),
    'bce-by-p': Mistake('the loss is differentiated by p, where ds is asked for: dp/ds = p (1 - p) is missing', 'losses',
        '(sigmoid(score) - target) / score.size', '((1 - target) / (1 - sigmoid(score)) - target / sigmoid(score)) / score.size',
        LOOP),
    'bce-uphill': Mistake('the sign is the wrong way round: the loss would grow', 'losses',
        '(sigmoid(score) - target) / score.size', '(target - sigmoid(score)) / score.size', LOOP,
        seen='Both losses grow from the first steps on, without end: at step 30 they are at 26 and 30, at step 200 at 240. Every z '
             'makes the same image.'),
    'bce-no-sigmoid': Mistake('the score is taken for p, without the sigmoid', 'losses', '(sigmoid(score) - target) / score.size',
        '(score - target) / score.size', LOOP),
    'bce-overflow': Mistake('cross-entropy overflows at large scores', 'losses', 'array_module(s).logaddexp(0, s)',
        'array_module(s).log(1 + array_module(s).exp(s))', 'losses.py, in the docstring of softplus', 'test_losses.py'),
    'softmax-no-y': Mistake('the 1 of the label is not subtracted', 'losses', '(xp.exp(log_p) - y) / len(y)',
        'xp.exp(log_p) / len(y)', SOFTMAX),
    'softmax-classes': Mistake('it is divided by the classes too, but the loss is a mean over the images alone', 'losses',
        '(xp.exp(log_p) - y) / len(y)', '(xp.exp(log_p) - y) / y.size', SOFTMAX),
    'softmax-columns': Mistake('p[:, labels] takes whole columns, and not one entry of each row', 'losses',
        '(xp.exp(log_p) - y) / len(y)', '(xp.exp(log_p) - y.max(axis=0)) / len(y)', SOFTMAX),
    'softmax-sum': Mistake('the gradient belongs to a sum over the images, but the loss is a mean', 'losses',
        '(xp.exp(log_p) - y) / len(y)', '(xp.exp(log_p) - y)', SOFTMAX),
    'softmax-axis': Mistake('the softmax runs over the images, where it should run over the classes', 'losses', 'axis=1, keepdims',
        'axis=0, keepdims', SOFTMAX),

    # convolution
    'dw-scrambled': Mistake('dw is computed transposed, dy.T @ cols, and a reshape cannot undo that', 'conv',
        '(cols.T @ dy.reshape(-1, F)).reshape(K, K, C, F)', '(dy.reshape(-1, F).T @ cols).reshape(K, K, C, F)', CONV,
        seen="No digits: G weaves patterns, and D's loss sinks below 0.1. Each weight learns by the gradient of another, which is "
             'better than none.'),
    'dw-flipped': Mistake('dw is turned by 180 degrees, as if the kernel had been flipped', 'conv',
        '(cols.T @ dy.reshape(-1, F)).reshape(K, K, C, F)', '(cols.T @ dy.reshape(-1, F)).reshape(K, K, C, F)[::-1, ::-1]', CONV),
    'dw-mean': Mistake('dw is a mean over the images: the 1/N is in dy already, from the loss', 'conv',
        '(cols.T @ dy.reshape(-1, F)).reshape(K, K, C, F)', '(cols.T @ dy.reshape(-1, F)).reshape(K, K, C, F) / len(x)', LOOP),
    'dx-reshaped': Mistake('w is reshaped where it should be transposed', 'conv', 'w.reshape(-1, F).T', 'w.reshape(F, -1)', CONV,
        seen="D has won at step 30, with a loss of 0.01. D's layers work out the right dw of a wrong dy, but for the last; and in "
             'G even the forward is another.'),
    'dx-flipped': Mistake('the kernel is turned by 180 degrees: adding patches back where they were read does that by itself',
        'conv', 'w.reshape(-1, F).T', 'w[::-1, ::-1].reshape(-1, F).T', CONV),
    'col2im-reversed': Mistake('a patch is added back the other way round', 'conv', 'kw:kw + S * OW:S] +=',
        'K - 1 - kw:K - 1 - kw + S * OW:S] +=', COL2IM, 'test_conv.py -k adjoint'),
    'col2im-overwrites': Mistake('patches overwrite each other where they overlap, and should add up', 'conv',
        '+= cols[:, :, :, kh, kw]', '= cols[:, :, :, kh, kw]', COL2IM, 'test_conv.py -k transposed',
        seen='D has won at step 30, with a loss of 0.04: each transposed convolution of G leaves a part of its patches out, so '
             'that G itself, not only its gradient, is another.'),
    'padding-kept': Mistake('the padding is cut from one side only', 'conv', 'return padded[:, P:P + H, P:P + W]',
        'return padded[:, :H, :W]', COL2IM, 'test_conv.py -k transposed',
        seen="D has won at step 30, with a loss of 0.01: G's images are shifted against what its gradient belongs to, and come out "
             'as stripes.'),
    'kernel-turned': Mistake('the rows and columns of the kernel are swapped', 'conv', 'S * pixel, row, pixel',
        'S * pixel, pixel, row', 'conv.py, in the docstring of im2col', 'test_conv.py -k definition',
        seen='D has won at step 100, with a loss of 0.01. The forward reads patches with rows and columns swapped, and the '
             'backward puts them back unswapped.'),
    'transposed-replaced': Mistake('gradients replace each other instead of adding up: = where += is due', 'layers',
        'self.dw += conv.weight_grad(dy, x,', 'self.dw[...] = conv.weight_grad(dy, x,', LAYER),
    'roles-swapped': Mistake("x and dy have each other's part in dw", 'layers', 'conv.weight_grad(dy, x,',
        'conv.weight_grad(x, dy,', TRANSPOSED),
    'up-and-up': Mistake('the way back is a transposed convolution as well, where a convolution is due', 'layers',
        'return conv.forward(dy, self.w, self.stride, self.padding)',
        'return conv.input_grad(dy, self.w, x.shape[1:3], self.stride, self.padding)', TRANSPOSED),

    # BatchNorm
    'norm-replaced': Mistake('gradients replace each other instead of adding up: = where += is due', 'layers',
        'self.dgamma += dgamma\n            self.dbeta += dbeta', 'self.dgamma[...] = dgamma\n            self.dbeta[...] = dbeta',
        LAYER),
    'norm-mean': Mistake('BatchNorm forgets that its mean moves', 'layers', '(dy - dbeta / M - xhat', '(dy - xhat', NORM,
        'test_layers.py -k gradient_of_forward',
        seen='Hardly anything: the digits are nearly as good. On the way D is ahead (loss D 0.4 at step 100, where the right one '
             'has 1.4), and it calms down. A wrong gradient often trains; only finite differences see it.'),
    'norm-variance': Mistake('BatchNorm forgets that its variance moves', 'layers', ' - xhat * (dgamma / M))', ')', NORM,
        'test_layers.py -k gradient_of_forward',
        seen='Little: the digits are thinner and shaded less, and D is a little ahead in the first hundred steps. A wrong gradient '
             'often trains; only finite differences see it.'),
    'norm-fixed': Mistake('BatchNorm takes its mean and its variance for constants', 'layers',
        '(dy - dbeta / M - xhat * (dgamma / M))', 'dy', NORM),
    'norm-mean-twice': Mistake('the batch mean is taken twice: dbeta is divided by M, and then once more', 'layers',
        '(dy - dbeta / M - xhat', '(dy - dbeta / M / M - xhat', NORM),
    'norm-sum': Mistake('xhat is multiplied by the sum of dy * xhat, where its mean is due', 'layers', ' - xhat * (dgamma / M))',
        ' - xhat * dgamma)', NORM,
        seen='G has collapsed: every z makes the same checkerboard. The losses swing, but that all images are alike they do not '
             'say: look at the samples.'),
    'norm-images': Mistake('M counts the images, where it should count the values of a channel, N * H * W', 'layers',
        'M = dy.size // self.num_features ', 'M = len(dy) ', NORM,
        seen='D wins slowly: its loss is 0.13 at step 100 and below 0.01 at the end. G makes a few patterns, and no digit.'),
    'norm-gamma': Mistake('gamma is missing from dx', 'layers', 'return self.gamma * rstd * (', 'return rstd * (', NORM),
    'norm-rstd': Mistake('rstd is missing from dx', 'layers', 'return self.gamma * rstd * (', 'return self.gamma * (', NORM),
    'norm-biased': Mistake('the running variance is biased', 'layers', 'var * (M / (M - 1))', 'var', BATCHNORM,
        'test_layers.py -k batchnorm_agrees'),
    'norm-minibatch': Mistake('evaluation normalises with the minibatch', 'layers', 'if self.training:', 'if True:', BATCHNORM,
        'test_layers.py -k evaluation_changes_nothing',
        seen='The losses are the same to the last bit, and the samples nearly so: each is normalised with its 39 neighbours. Ask '
             'for a single one, and it comes out otherwise than among others.'),

    # gradient penalties
    'penalty-unscaled': Mistake('|g| has the gradient g / |g|, and the 1 / |g| is forgotten', 'penalties', '* g / size / len(g)',
        '* g / len(g)', RULE, 'test_penalties.py -k dg_is'),
    'penalty-halved': Mistake('the 2 of a square is forgotten', 'penalties', '2 * (size - 1) * g', '(size - 1) * g', RULE),
    'penalty-mean-twice': Mistake('the mean over the images is taken twice', 'penalties', '* g / size / len(g)',
        '* g / size / len(g) / len(g)', RULE),
    'penalty-batch': Mistake('|g| is that of the whole minibatch, where each image has a slope of its own', 'penalties',
        '(g * g).sum(axis=tuple(range(1, g.ndim)), keepdims=True)', '(g * g).sum()', RULE),
    'penalty-learns': Mistake("finding g adds to D's gradients: D is not frozen meanwhile", 'penalties', 'D.freeze() ', 'pass ',
        SLOPE, 'test_penalties.py -k every_parameter'),
    'penalty-frozen': Mistake('D is still frozen when v goes through it, and learns nothing', 'penalties',
        'layer.frozen = frozen[layer]', 'pass', SLOPE),
    'penalty-weight': Mistake('the weight counts in the value, and not in the gradient', 'penalties',
        'D.tangent(self.weight * dg)', 'D.tangent(dg)', SLOPE),
    'penalty-along-g': Mistake("g goes through D, where the penalty's gradient by g is due", 'penalties',
        'D.tangent(self.weight * dg)', 'D.tangent(self.weight * g)', SLOPE),
    'penalty-mean-score': Mistake('g is the slope of the mean score, N times too small: each image has a score of its own',
        'penalties', 'ones_like(D(x))', 'ones_like(D(x)) / len(x)', SLOPE),

    # networks
    'broadcast': Mistake('a network hands a broadcast gradient on', 'network', 'if dy.shape != self.cache:', 'if False:',
        'network.py, in the docstring of Sequential', 'test_layers.py -k another_shape'),

    # Adam
    'adam-m': Mistake('m is not corrected, though it starts at zero', 'optim', 'm / (1 - self.beta1 ** self.t)', 'm', ADAM,
        'test_optim.py',
        seen='Nothing: m starts at zero, but with beta1 = 0.5 it has caught up after a few steps.'),
    'adam-v': Mistake('v is not corrected, though it starts at zero', 'optim', 'v / (1 - self.beta2 ** self.t)', 'v', ADAM),
    'adam-t': Mistake('Adam never counts its steps', 'optim', 'self.t += 1\n        theta, g, m, v =',
        'self.t = 1\n        theta, g, m, v =', ADAM, 'test_optim.py -k pytorch',
        seen='Digits come, but pale and with gaps. With t = 1 for ever, v_hat is a thousand times v, so that the steps shrink, to '
             'a tenth of what they should be by the end.'),
    'adam-in-place': Mistake('m itself is corrected, and remembers that in the next step', 'optim', 'm_hat = m / (1 - self.beta1',
        'm_hat = m\n        m /= (1 - self.beta1', ADAM),
    'adam-times': Mistake('beta1 is multiplied by t, where it should be taken to the power of t', 'optim',
        'm / (1 - self.beta1 ** self.t)', 'm / (1 - self.beta1 * self.t)', ADAM),
    'adam-eps': Mistake('eps is added inside the root', 'optim', 'sqrt(v_hat) + self.eps', 'sqrt(v_hat + self.eps)', RMSPROP,
        'test_optim.py -k pytorch'),
    'adam-no-root': Mistake('v_hat has no root', 'optim', '(array_module(g).sqrt(v_hat) + self.eps)', '(v_hat + self.eps)',
        RMSPROP),
    'adam-unsquared': Mistake('v remembers g, where its square is due', 'optim', '(1 - self.beta2) * g * g', '(1 - self.beta2) * g',
        ADAM,
        seen='All is nan within a few steps: v becomes negative, and it has no root.'),
    'adam-heavy': Mistake('m has no 1 - beta1 in front of g', 'optim', '(1 - self.beta1) * g\n', 'g\n', ADAM),
    'adam-uphill': Mistake('theta goes uphill', 'optim', 'theta -= self.lr * m_hat', 'theta += self.lr * m_hat',
        'optim.py, in the docstring of SGD'),
    'adam-elsewhere': Mistake('theta = theta - ... makes a new array, and the network keeps the old one', 'optim',
        'theta -= self.lr * m_hat', 'theta = theta - self.lr * m_hat', 'network.py, in the docstring of Sequential',
        seen='Nothing moves: the losses are level from the first step to the last, and the images remain noise.'),

    # the step
    'undetached': Mistake('the fakes are not detached: while D learns, its gradient goes on into G', 'gan',
        'loss_fake, dscore = loss.fake(fake_score)\n        D.backward(dscore)',
        'loss_fake, dscore = loss.fake(fake_score)\n        self.G.backward(D.backward(dscore))', LOOP,
        'test_gan.py -k no_gradient',
        seen='Nothing, to the last bit: G.zero_grad() throws away what had gone into G. It only costs a backward through G in '
             'every step.'),
    'unfrozen': Mistake('D is not frozen while G learns', 'gan', '        D.freeze()\n', '', LOOP, 'test_gan.py -k none',
        seen="Nothing, to the last bit: D.zero_grad() throws away what D has gathered. It only costs D's weight gradients once "
             'more in every step.'),
    'never-thawed': Mistake('D stays frozen once G has learnt', 'gan', 'D.unfreeze()', 'pass', LOOP,
        seen='D learns in the first step and never again: its loss rises to 9, D(G(z)) is at 1.00, and G has nothing left to learn '
             'from.'),
    'stale-d': Mistake("the gradients of D's last step are kept", 'gan', '        D.zero_grad()\n', '', LOOP,
        'test_gan.py -k fresh',
        seen="D's loss rises to 9 and stays high. Gradients of all steps so far add up, and the old ones outvote the new."),
    'stale-g': Mistake("the gradients of G's last step are kept", 'gan', '        G.zero_grad()\n', '', LOOP,
        'test_gan.py -k fresh',
        seen='D has won at step 100, with a loss of 0.02: G goes on where the gradients of long ago point.'),
    'real-only': Mistake('D learns from the real images alone', 'gan',
        'loss_fake, dscore = loss.fake(fake_score)\n        D.backward(dscore)', 'loss_fake, dscore = loss.fake(fake_score)', LOOP,
        seen='D calls everything real: its loss on the fakes rises to 12, D(x) and D(G(z)) are both at 1.00, and loss G is zero. G '
             'stays at noise.'),
    'late-backward': Mistake(
        'D sees the fakes before it has gone back for the real images: a layer remembers its latest forward only', 'gan',
        '        D.backward(dscore)\n        fake_score = D(fake)\n', '        fake_score = D(fake)\n        D.backward(dscore)\n',
        LAYER,
        seen="Loss D rises above 5, far worse than a coin's 1.39: the gradient of the real images was worked out with what the "
             'layers remember of the fakes.'),
    'gullible': Mistake('D is told to call the fakes real', 'gan', 'loss.fake(fake_score)', 'loss.real(fake_score)', LOOP,
        seen='Both losses are at zero: D is told that everything is real, and says so. G has nothing to learn.'),
    'honest-g': Mistake('G learns to have its fakes called fake', 'gan', 'loss.generator(score)', 'loss.fake(score)', LOOP,
        seen='Both losses are at zero, D(x) at 1.00 and D(G(z)) at 0.00: G helps D. That both are happy shows that they do not '
             'play against each other.'),
    'old-d': Mistake('G learns through the D of before its update', 'gan', 'metrics = self.update_D(x, fake, epsilon)',
        'return self.update_G(fake) | self.update_D(x, fake, epsilon)', LOOP, 'test_gan.py -k updated_d',
        seen='Hardly anything: the digits are as good. It is another order of the same updates, and many programs have it so. But '
             'it is not Algorithm 1.'),
    'batch-samples': Mistake('samples are normalised by their neighbours', 'gan', '    G.eval()\n', '', BATCHNORM,
        'test_gan.py -k generating'),
    'amnesia': Mistake('a checkpoint forgets how far Adam was', 'gan', "int(state['G.t'])", '0', ADAM,
        'test_gan.py -k bit_for_bit'),
    'same-z': Mistake('the noise is the same in every step', 'gan', "random_stream(seed, 'noise', step)",
        "random_stream(seed, 'noise')", 'arrays.py, in the docstring of random_stream', 'test_gan.py -k noise',
        seen='The losses are nearer to the balance than the right ones, but the samples are smudges: G has only ever met the same '
             '32 z, and is asked for 40 others.'),
}
