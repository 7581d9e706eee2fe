"""Winning tickets in a loop over a plain pytree, rewound to step 20 with the optimizer's state.

The lines that prune end in `# ticket`.

    pip install .
    python examples/prune_plain_loop.py
"""

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

import lth_jax  # ticket

REWIND_STEP = 20


def network(params, x):
    """Logits [batch, 10] of images [batch, 64]: a list of (weight, bias) pairs."""
    for weight, bias in params[:-1]:
        x = jax.nn.relu(x @ weight + bias)
    return x @ params[-1][0] + params[-1][1]


def main(levels=10, steps=200, batch=50, widths=(64, 100, 50, 10)):
    """Trains, prunes and rewinds; gives (density, test accuracy) of each level."""
    images, labels = load_digits(return_X_y=True)
    images, labels = jnp.asarray(images / 16, jnp.float32), jnp.asarray(labels)
    keys = jax.random.split(jax.random.key(0), len(widths))
    init = jax.nn.initializers.glorot_normal()
    shapes = zip(keys, widths[:-1], widths[1:], strict=False)
    params = [(init(key, (rows, columns)), jnp.zeros(columns)) for key, rows, columns in shapes]
    optimizer = optax.sgd(0.1, momentum=0.9)

    @jax.jit
    def train_step(params, opt_state, mask, step):
        chosen = jax.random.randint(jax.random.fold_in(jax.random.key(1), step), (batch,), 0, 1500)
        x, y = images[chosen], labels[chosen]

        def loss(params):
            logits = network(params, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        grads = jax.grad(loss)(params)
        return lth_jax.masked_step(optimizer, grads, opt_state, params, mask)  # ticket

    found, start = [], 0
    opt_state = optimizer.init(params)
    point = params, opt_state  # ticket
    mask = lth_jax.ones_mask(params)  # ticket
    for level in range(levels):  # ticket
        if level:  # ticket
            params = lth_jax.apply_mask(point[0], mask)  # ticket: rewind
            opt_state = lth_jax.mask_optimizer_state(optimizer, point[1], mask)  # ticket
            start = REWIND_STEP  # ticket
        for step in range(start, steps):
            if not level and step == REWIND_STEP:  # ticket
                point = params, opt_state  # ticket
            params, opt_state = train_step(params, opt_state, mask, step)
        right = network(params, images[1500:]).argmax(-1) == labels[1500:]
        found.append((lth_jax.density(mask), float(right.mean())))
        print(f"{found[-1][0]:6.1%} of the weights: test accuracy {found[-1][1]:.1%}")
        mask = lth_jax.prune(jax.tree.map(jnp.abs, params), mask, 0.3)  # ticket
    return found


if __name__ == "__main__":
    main()
