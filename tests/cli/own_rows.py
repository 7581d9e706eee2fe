"""One config with one row of every kind, a field of its own, and an observer."""

CONFIG = """
import flax.linen as nn
import jax, jax.numpy as jnp
import numpy as np
import optax
import lth_jax


class Net(nn.Module):
    classes: int
    depth: int = 1

    @nn.compact
    def __call__(self, x, train=False):
        x = x.reshape(len(x), -1)
        for layer in range(self.depth):
            x = nn.relu(nn.Dense(6, name=f"fc{layer}")(x))
        return nn.Dense(self.classes, name="output")(x)


def stripes(contrast=3.0):
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 90)
    images = random.normal(size=(90, 6, 6)).astype(np.float32)
    images[np.arange(90), labels] += contrast
    return (images[:60], labels[:60]), (images[60:], labels[60:])


def power(scoring, exponent=2):
    return jax.tree.map(lambda w: jnp.abs(w) ** exponent, scoring.final)


def clipped_lion(learning_rate, b1=0.9):
    return optax.chain(optax.clip_by_global_norm(1.0), optax.lion(learning_rate, b1=b1))


def halved(learning_rate, steps, times=2):
    return optax.exponential_decay(learning_rate, max(1, steps // times), 0.5)


def shrunk(at, factor=0.5):
    state = at.ticket.state
    params = jax.tree.map(lambda w: factor * w, state.params)
    return at.ticket._replace(state=state._replace(params=params))


class Log(lth_jax.Observer):
    def __init__(self, spec):
        self.spec, self.lines = spec, []

    def level_finished(self, level, rows, seconds):
        if level == 2:
            raise OSError("the network is down")
        self.lines += [f"{row.branch} {row.level}" for row in rows]

    def close(self):
        with open("log.txt", "a") as file:
            print(self.spec.custom, self.lines, file=file)


MODELS = {"net": Net}
DATASETS = {"stripes": stripes}
CRITERIA = {"power": power}
OPTIMIZERS = {"clipped_lion": clipped_lion}
SCHEDULES = {"halved": halved}
BRANCHES = {"shrunk": shrunk}
OBSERVERS = {"log": Log}


def get_config():
    config = lth_jax.default_config()
    config.model.name = "net"
    config.data.name = "stripes"
    config.data.validation_size = 10
    config.train.steps = "6"
    config.train.batch_size = 10
    config.train.optimizer = "clipped_lion"
    config.train.schedule = "halved"
    config.train.warmup = "2"
    config.train.kernel = "xla"
    config.eval.every = "3"
    config.rewind.step = "2"
    config.levels = 1
    config.replicates = 1
    config.branches = ("shrunk",)
    config.pruning.criterion = "power"
    config.custom.depth = 2
    return config
"""
