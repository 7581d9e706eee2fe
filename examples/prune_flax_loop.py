"""Winning tickets in a Flax training loop of your own; the lines that prune end in `# ticket`.

pip install .
python examples/prune_flax_loop.py
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState
from sklearn.datasets import load_digits

import lth_jax  # ticket


class Network(nn.Module):
    """A small convolutional network, as you may have one."""

    @nn.compact
    def __call__(self, x):
        """Logits [batch, 10] of images [batch, 8, 8, 1]."""
        x = nn.relu(nn.Conv(16, (3, 3))(x))
        x = nn.max_pool(x, (2, 2), (2, 2)).reshape(len(x), -1)
        x = nn.relu(nn.Dense(64)(x))
        return nn.Dense(10, name="output")(x)


def loss_of(apply, params, images, labels):
    """The mean cross-entropy in nats."""
    logits = apply({"params": params}, images)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


@jax.jit
def train_step(state, images, labels):
    """One update, as without a mask: the optimizer's state holds it."""
    grads = jax.grad(lambda params: loss_of(state.apply_fn, params, images, labels))(state.params)
    return state.apply_gradients(grads=grads)


def main(levels=10, steps=200, batch=50):
    """Trains, prunes and rewinds; gives (density, test accuracy) of each level."""
    images, labels = load_digits(return_X_y=True)
    images = jnp.asarray(images.reshape(-1, 8, 8, 1) / 16, jnp.float32)
    labels = jnp.asarray(labels)
    model = Network()
    optimizer = lth_jax.masked(optax.adam(2e-3))  # ticket
    initial = jax.jit(model.init)(jax.random.key(0), images[:1])["params"]
    accuracy = jax.jit(lambda p, x, y: (model.apply({"params": p}, x).argmax(-1) == y).mean())
    found = []
    mask = lth_jax.ones_mask(initial)  # ticket
    rates = lth_jax.prunable(initial, [("output", 0.5)])  # ticket
    for _ in range(levels):  # ticket
        params = lth_jax.apply_mask(initial, mask)  # ticket: rewind
        state = TrainState.create(apply_fn=model.apply, params=params, tx=optimizer)
        opt_state = lth_jax.set_mask(optimizer, state.opt_state, mask)  # ticket
        state = state.replace(opt_state=opt_state)  # ticket
        for step in range(steps):
            chosen = jax.random.randint(
                jax.random.fold_in(jax.random.key(1), step), (batch,), 0, 1500
            )
            state = train_step(state, images[chosen], labels[chosen])
        right = float(accuracy(state.params, images[1500:], labels[1500:]))
        found.append((lth_jax.density(mask, rates), right))
        print(f"{found[-1][0]:6.1%} of the weights: test accuracy {found[-1][1]:.1%}")
        scores = jax.tree.map(jnp.abs, state.params)  # ticket
        mask = lth_jax.prune(scores, mask, 0.3, rates=rates)  # ticket
    return found


if __name__ == "__main__":
    main()
