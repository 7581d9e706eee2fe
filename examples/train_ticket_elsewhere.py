"""A ticket of an MLP, found by `lth-jax run`, trained on something else: is the digit even?

    pip install .
    lth-jax run --workdir=runs/digits
    python examples/train_ticket_elsewhere.py runs/digits --level=8

RUN may as well be a file of `lth-jax export --format=safetensors`. The ticket's hidden
layers are taken, with its mask; the output layer is new. Beside it, the same mask with fresh
weights.
"""

import argparse

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

import lth_jax


def network(params, x):
    """Logits of images [batch, 64] by layers fc1, fc2, … and output: no Flax needed."""
    for index in range(1, len(params)):
        layer = params[f"fc{index}"]
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    return x @ params["output"]["kernel"] + params["output"]["bias"]


def train(params, mask, images, labels, steps=200, batch=50):
    """The accuracy on the last 297 images after masked training on the others."""
    optimizer = optax.adam(1e-3)

    @jax.jit
    def train_step(params, opt_state, step):
        chosen = jax.random.randint(jax.random.fold_in(jax.random.key(1), step), (batch,), 0, 1500)
        x, y = images[chosen], labels[chosen]

        def loss(params):
            logits = network(params, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        return lth_jax.masked_step(optimizer, jax.grad(loss)(params), opt_state, params, mask)

    opt_state = optimizer.init(params)
    for step in range(steps):
        params, opt_state = train_step(params, opt_state, step)
    return float((network(params, images[1500:]).argmax(-1) == labels[1500:]).mean())


def main(run, level=None, steps=200):
    """Gives the accuracies of the ticket and of fresh weights under its mask."""
    ticket = lth_jax.load_ticket(run, level)
    init = jax.nn.initializers.glorot_normal()
    width = ticket.state.params["output"]["kernel"].shape[0]
    head = {"kernel": init(jax.random.key(2), (width, 2)), "bias": jnp.zeros(2)}
    params = {**ticket.state.params, "output": head}
    mask = {**ticket.mask, "output": lth_jax.ones_mask(head)}
    keys = dict(zip(params, jax.random.split(jax.random.key(3), len(params)), strict=True))
    fresh = {
        name: {**layer, "kernel": init(keys[name], layer["kernel"].shape)}
        for name, layer in params.items()
    }

    images, labels = load_digits(return_X_y=True)
    images, even = jnp.asarray(images / 16, jnp.float32), jnp.asarray(labels % 2 == 0, jnp.int32)
    found = {
        name: train(lth_jax.apply_mask(weights, mask), mask, images, even, steps)
        for name, weights in {"ticket": params, "reinit": fresh}.items()
    }
    share = lth_jax.density(ticket.mask)
    print(f"even or odd, with {share:.1%} of the weights: {found}")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="a run directory, or an exported ticket")
    parser.add_argument("--level", type=int, help="which ticket of a run")
    options = parser.parse_args()
    main(options.run, options.level)
