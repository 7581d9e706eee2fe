"""Data, batch order and an MLP, written down again in NumPy: nothing here calls lth_jax.

Only random bits come from JAX, since nothing else draws them; which key they are drawn from is
written down again, too. Everything else is in float64.
"""

import zlib

import jax
import numpy as np
from sklearn.datasets import load_digits

# The digits lie in this order: of 1,797 images the last 297 are the test set.
SHUFFLE_SEED, TRAINING_IMAGES = 20190307, 1500


def permutation(size):
    return np.random.RandomState(SHUFFLE_SEED).permutation(size)


def digits(validation, train, test):
    """Three pairs of (images in [0, 1], labels): validation is taken first, then training."""
    images, labels = load_digits(return_X_y=True)
    # 1/16 is a power of two: not even the loop's float32 pixels are rounded.
    images, order = images / 16, permutation(len(labels))
    training, tests = order[:TRAINING_IMAGES], order[TRAINING_IMAGES:]
    training = training[permutation(len(training))]
    tests = tests[permutation(len(tests))]
    chosen = (
        training[:validation],
        training[validation : validation + train],
        tests[:test],
    )
    return tuple((images[indices], labels[indices]) for indices in chosen)


def batches(seed, replicate, examples, batch_size, start, stop):
    """The indices of the examples in the batches of updates `start` to `stop`, one by one.

    The key is that of (seed, "data", replicate), names by their CRC-32; its stream 0, folded with
    the number of an epoch, draws a permutation. What fills no batch is left out.
    """
    key = jax.random.key(seed)
    for number in (zlib.crc32(b"data"), replicate, 0):
        key = jax.random.fold_in(key, number)
    per_epoch = examples // batch_size
    for step in range(start, stop):
        epoch, place = divmod(step, per_epoch)
        order = np.array(jax.random.permutation(jax.random.fold_in(key, epoch), examples))
        yield order[place * batch_size : (place + 1) * batch_size]


# --- An MLP: parameters are a dict by name, such as "fc1/kernel" -------------------------------


def forward(params, images):
    """The logits, and what each layer takes in."""
    layers = sorted({name.partition("/")[0] for name in params})  # fc1, fc2, …, output
    x, taken = images, []
    for layer in layers:
        taken.append(x)
        x = x @ params[f"{layer}/kernel"] + params[f"{layer}/bias"]
        x = x if layer == "output" else np.maximum(x, 0)
    return x, dict(zip(layers, taken, strict=True))


def log_softmax(logits):
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def evaluated(params, images, labels):
    """The mean cross-entropy in nats, and the accuracy."""
    logits, _ = forward(params, images)
    loss = -log_softmax(logits)[np.arange(len(labels)), labels].mean()
    return loss, (logits.argmax(1) == labels).mean()


def loss_and_gradient(params, images, labels):
    logits, taken = forward(params, images)
    log_p = log_softmax(logits)
    rows = np.arange(len(labels))
    error = np.exp(log_p)
    error[rows, labels] -= 1
    error /= len(labels)
    gradient = {}
    for layer, x in reversed(taken.items()):
        gradient[f"{layer}/kernel"], gradient[f"{layer}/bias"] = x.T @ error, error.sum(0)
        error = (error @ params[f"{layer}/kernel"].T) * (x > 0)
    return -log_p[rows, labels].mean(), gradient


class Adam:
    """Kingma & Ba (2015), Algorithm 1, of the weights that a mask keeps."""

    def __init__(self, params):
        self.count = 0
        self.first = {name: np.zeros_like(leaf) for name, leaf in params.items()}
        self.second = {name: np.zeros_like(leaf) for name, leaf in params.items()}

    def step(self, params, gradient, mask, rate):
        self.count += 1
        new = {}
        for name, leaf in params.items():
            g = np.where(mask[name], gradient[name], 0)
            self.first[name] = 0.9 * self.first[name] + 0.1 * g
            self.second[name] = 0.999 * self.second[name] + 0.001 * g**2
            mean = self.first[name] / (1 - 0.9**self.count)
            square = self.second[name] / (1 - 0.999**self.count)
            new[name] = np.where(mask[name], leaf - rate * mean / (np.sqrt(square) + 1e-8), leaf)
        return new

    def masked(self, mask):
        """A copy whose moments of pruned weights are zero."""
        copy = Adam({})
        copy.count = self.count
        copy.first = {name: np.where(mask[name], m, 0) for name, m in self.first.items()}
        copy.second = {name: np.where(mask[name], m, 0) for name, m in self.second.items()}
        return copy
