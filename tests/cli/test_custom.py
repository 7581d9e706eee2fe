"""A user's own networks, datasets and criteria, from a config in a folder of theirs."""

import re

import pytest

from lth_jax import data, models
from lth_jax.config import from_config
from lth_jax.config.files import override, read_config
from lth_jax.errors import SpecError
from lth_jax.lottery.checks import check
from lth_jax.lottery.custom import register
from lth_jax.store.tables import RESULTS

from ..registries import kept_registries

MINE = """
import flax.linen as nn
import jax, jax.numpy as jnp
import numpy as np
from flax import nnx
import lth_jax


class Linen(nn.Module):
    classes: int
    width: int = 5

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Dense(int(self.width))(x.reshape(len(x), -1)))
        x = nn.BatchNorm(use_running_average=not train)(x)
        return nn.Dense(self.classes)(x)


class Nnx(nnx.Module):
    def __init__(self, classes, rngs):
        self.conv = nnx.Conv(1, 3, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.blocks = nnx.List([nnx.Linear(3, 3, rngs=rngs)])
        self.head = nnx.Linear(3, classes, rngs=rngs)

    def __call__(self, x):
        x = self.dropout(nnx.relu(self.norm(self.conv(x))).mean((1, 2)))
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def pair(classes):
    def init(key, x):
        return {"params": {"w": 0.1 * jax.random.normal(key, (x[0].size, classes))}}

    def apply(variables, x, train, rngs):
        return x.reshape(len(x), -1) @ variables["params"]["w"], {}

    return init, apply


def stripes():
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 90)
    images = random.normal(size=(90, 6, 6)).astype(np.float32)
    images[np.arange(90), labels] += 3
    return (images[:60], labels[:60]), (images[60:], labels[60:])


MODELS = {
    "linen": Linen,
    "nnx": lambda classes: lth_jax.from_nnx(lambda rngs: Nnx(classes, rngs)),
    "pair": pair,
    "no_model": lambda classes: 3,
    "no_logits": lambda classes: Linen(classes + 1),
    "raises": lambda classes: 1 / 0,
}
DATASETS = {"stripes": stripes}
CRITERIA = {"negative": lambda scoring: jax.tree.map(lambda leaf: -leaf, scoring.final)}


def get_config():
    config = lth_jax.default_config()
    config.model.name = "linen"
    config.data.name = "stripes"
    config.data.validation_size = 10
    config.train.steps = "4"
    config.train.batch_size = 10
    config.eval.every = "2"
    config.levels = 1
    config.replicates = 1
    config.branches = ()
    config.pruning.criterion = "negative"
    return config
"""

MINE_NAMES = ("linen", "nnx", "pair", "no_model", "no_logits", "raises")


@pytest.fixture(autouse=True)
def registries():
    """As they were, after each test: the rows of a config stay for the life of a process."""
    with kept_registries():
        yield


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", ["linen", "nnx", "pair"])
def test_a_network_of_one_s_own_is_trained_pruned_and_rewound(main, mine, tmp_path, name):
    workdir = tmp_path / name
    status, _, err = main(f"--config={mine}", f"--config.model.name={name}", f"--workdir={workdir}")
    assert status == 0, err
    dense, ticket = RESULTS.from_csv((workdir / "results.csv").read_text())
    assert 0.8 <= ticket.density <= 0.85  # a fifth of each layer, rounded down
    assert dense.prunable == dense.kept
    assert 0 <= ticket.final_test_accuracy <= 1


def test_options_reach_it_only_where_a_config_sets_them(mine):
    register(read_config(str(mine)))
    row = models.MODELS["linen"]
    assert row.options() == {"width": 5}


@pytest.mark.parametrize(
    ("name", "said"),
    [("no_model", "gave int"), ("no_logits", r"\(1, 4\); accepted: \(1, 3\)"), ("raises", "Zero")],
)
def test_what_is_no_network_is_named(main, mine, tmp_path, name, said):
    status, _, err = main(
        f"--config={mine}", f"--config.model.name={name}", f"--workdir={tmp_path / 'run'}"
    )
    assert status == 2
    *_, line = err.splitlines()  # after those that say what it does
    assert f"config.model.name='{name}'" in line
    assert re.search(said, line)


def test_an_unknown_name_is_answered_with_one_s_own_too(mine):
    file = read_config(str(mine))
    register(file)
    spec = from_config(override(file.config, ["model.name=line"]))
    with pytest.raises(SpecError, match="did you mean 'linen'"):
        check(spec)


@pytest.mark.slow
def test_a_run_with_a_network_of_one_s_own_is_exported_and_predicts(main, mine, tmp_path, capsys):
    from lth_jax import cli as commands

    workdir = tmp_path / "run"
    assert main(f"--config={mine}", f"--workdir={workdir}")[0] == 0
    for name in MINE_NAMES:  # as in a process that has not seen the config
        models.MODELS.pop(name)
    data.DATASETS.pop("stripes")
    run = [str(workdir), "--level=1", "--trust"]
    assert commands.main(["predict", *run, "--index=0", f"--out={tmp_path / 'p.png'}"]) == 0
    assert (tmp_path / "p.png").stat().st_size > 1000
    out = tmp_path / "ticket.npz"
    assert commands.main(["export", *run, "--format=npz", f"--out={out}"]) == 0
    assert out.exists()
    assert "error" not in capsys.readouterr().err
