"""Winning tickets in an NNX training loop of your own; the lines that prune end in `# ticket`.

pip install .
python examples/prune_nnx_loop.py
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from sklearn.datasets import load_digits

import lth_jax  # ticket


class Network(nnx.Module):
    """A small convolutional network, as you may have one."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 16, (3, 3), rngs=rngs)
        self.hidden = nnx.Linear(256, 64, rngs=rngs)
        self.output = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x):
        """Logits [batch, 10] of images [batch, 8, 8, 1]."""
        x = nnx.max_pool(nnx.relu(self.conv(x)), (2, 2), (2, 2)).reshape(len(x), -1)
        return self.output(nnx.relu(self.hidden(x)))


def loss_of(network, images, labels):
    """The mean cross-entropy in nats."""
    logits = network(images)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


@nnx.jit
def train_step(network, optimizer, images, labels):
    """One update, as without a mask: the optimizer's state holds it."""
    optimizer.update(network, nnx.grad(loss_of)(network, images, labels))


@nnx.jit
def accuracy(network, images, labels):
    """The share of images whose class the network gives."""
    return (network(images).argmax(-1) == labels).mean()


def main(levels=10, steps=200, batch=50):
    """Trains, prunes and rewinds; gives (density, test accuracy) of each level."""
    images, labels = load_digits(return_X_y=True)
    images = jnp.asarray(images.reshape(-1, 8, 8, 1) / 16, jnp.float32)
    labels = jnp.asarray(labels)
    network = Network(nnx.Rngs(0))
    adam = lth_jax.masked(optax.adam(2e-3))  # ticket
    initial = jax.tree.map(jnp.copy, nnx.state(network, nnx.Param))  # ticket
    mask = lth_jax.ones_mask(initial)  # ticket
    rates = lth_jax.prunable(initial, [("output", 0.5)])  # ticket
    found = []
    for _ in range(levels):  # ticket
        nnx.update(network, lth_jax.apply_mask(initial, mask))  # ticket: rewind
        optimizer = nnx.Optimizer(network, adam, wrt=nnx.Param)
        optimizer.opt_state = lth_jax.set_mask(adam, optimizer.opt_state, mask)  # ticket
        for step in range(steps):
            chosen = jax.random.randint(
                jax.random.fold_in(jax.random.key(1), step), (batch,), 0, 1500
            )
            train_step(network, optimizer, images[chosen], labels[chosen])
        right = float(accuracy(network, images[1500:], labels[1500:]))
        found.append((lth_jax.density(mask, rates), right))
        print(f"{found[-1][0]:6.1%} of the weights: test accuracy {found[-1][1]:.1%}")
        scores = jax.tree.map(jnp.abs, nnx.state(network, nnx.Param))  # ticket
        mask = lth_jax.prune(scores, mask, 0.3, rates=rates)  # ticket
    return found


if __name__ == "__main__":
    main()
