"""Nonsense for every field of a config, and for pairs of them, up to where data would be loaded."""

from __future__ import annotations

import math
import random
from typing import Any

from lth_jax.config import BranchSpec, Spec, declared, from_config
from lth_jax.config.files import override, read_config
from lth_jax.errors import UserError
from lth_jax.lottery.branches import BRANCHES
from lth_jax.lottery.checks import check
from lth_jax.models import MODELS
from lth_jax.pruning.criteria import CRITERIA
from lth_jax.training.optimizers import OPTIMIZERS

BRANCH_FIELDS = [
    f"branch.{name}.{field}"
    for name in ("reinit", "transfer", "mine")
    for field in declared(BranchSpec)
]
FIELDS = [*declared(Spec), *BRANCH_FIELDS, "source.run", "source.levels", "source.data.part", "x"]
# Heavy networks take seconds to be made, even as shapes alone.
MODEL_NAMES = ["mlp", "lenet5", "conv2", "resnet20", "vgg11"]
WORDS = [
    "", "0", "1", "12", "40ep", "0ep", "1/2", "3/2", "inf", "nan", "None", "a" * 5000, "a/b", "..",
    "\x00", "\udcff", "\n", "é", "$x$", "\x1b[31m", "9" * 5000, "9" * 30, f"{2**31}", f"{10**9}ep",
    "bfloat16", "imagenet", "small", "global", "erdos_renyi", "one_shot", "rewind", "finetune",
    "cosine", "sparse", "original", "mnist", "digits", "cifar10", *MODEL_NAMES, *BRANCHES,
    *CRITERIA, *OPTIMIZERS,
]  # fmt: skip
NUMBERS = [
    0, 1, 2, 3, 7, 10, 60, 100, 1000, 4096, 10**5, 10**6, 2**31, 2**63, 2**64, 10**20, 10**400,
    10**5000, -1, -5, -(2**63), 0.0, 0.1, 0.5, 0.9999, 1.0, 2.5, 1e-320, 1e-30, 1e30, 1e38, 1e308,
    math.inf, -math.inf, math.nan, -0.0, True, False,
]  # fmt: skip


KINDS = {**{n: one.kind for n, one in declared(Spec).items()}, **{
    f"branch.{b}.{n}": one.kind
    for b in ("reinit", "transfer", "mine")
    for n, one in declared(BranchSpec).items()
}}  # fmt: skip
INTEGERS = [one for one in NUMBERS if type(one) is int]
FLOATS = [one for one in NUMBERS if type(one) is float]


def of_kind(rng: random.Random, name: str) -> Any:
    """Returns nonsense of the type that a field takes."""
    kind = KINDS.get(name, "str")
    if kind.startswith("tuple"):
        if "Duration" in kind or "str, float" in kind:
            pairs = rng.choice([1, 2, 50])
            return tuple((rng.choice(WORDS), rng.choice(FLOATS)) for _ in range(pairs))
        pool = WORDS if "str" in kind else FLOATS if "float" in kind else INTEGERS
        return tuple(rng.choice(pool) for _ in range(rng.choice([0, 1, 2, 3, 200])))
    pools = {"int": INTEGERS, "float": FLOATS, "bool": [True, False], "str": WORDS}
    return rng.choice(next((pool for word, pool in pools.items() if word in kind), WORDS))


def value(rng: random.Random, depth: int = 0) -> Any:
    """Returns something that a config file could hold."""
    kind = rng.random()
    if kind < 0.45:
        return rng.choice(NUMBERS)
    if kind < 0.75 or depth > 1:
        return rng.choice(WORDS)
    if kind < 0.8:
        return rng.choice([None, b"x", 1j, object, lambda: None, {1, 2}, range(3)])
    inner = [value(rng, depth + 1) for _ in range(rng.choice([0, 1, 1, 2, 2, 3, 200]))]
    if kind < 0.93:
        return rng.choice([tuple, list])(inner)
    return {rng.choice([1, "run", "levels", "title", "data", *WORDS[:8]]): one for one in inner[:3]}


def inject(rng: random.Random) -> tuple[str, str | None]:
    """Sets one field or two to nonsense.

    Returns:
      What was set, and the line in which it was refused, or None where it was accepted.

    Raises:
      Exception: whatever is no clear refusal.
    """
    names = [rng.choice(FIELDS) for _ in range(rng.choice([1, 2, 2]))]
    changes = {n: of_kind(rng, n) if rng.random() < 0.7 else value(rng) for n in names}
    said = ", ".join(f"{name}={_shown(given)}" for name, given in changes.items())
    try:
        if rng.random() < 0.3:  # as the command line has it
            lines = [f"{name}={_text(given)}" for name, given in changes.items()]
            config = override(read_config("configs/lenet_digits.py").config, lines, list(BRANCHES))
        else:
            config = {}
            for name, given in changes.items():
                *groups, last = name.split(".")
                node = config
                for group in groups:
                    node = node.setdefault(group, {})
                    if not isinstance(node, dict):
                        return said, "two that cannot be set at once"
                node[last] = given
        spec = from_config(config)
        if spec.model.name not in MODELS or spec.model.name in MODEL_NAMES:
            check(spec)
    except UserError as error:
        return said, str(error)
    return said, None


def _shown(given: Any) -> str:
    try:
        return repr(given)[:80]
    except ValueError:  # an integer of too many digits
        return f"<{type(given).__name__}>"


def _text(given: Any) -> str:
    try:
        return str(given)
    except ValueError:
        return "9" * 5000
