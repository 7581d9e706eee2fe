"""`import lth_jax`: every name is there, and costs nothing until it is used."""

import ast
import inspect
import json
import re
import subprocess
import sys
from functools import cached_property
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

import lth_jax


def python(code):
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(lth_jax.__file__).parents[1],
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_loads_no_library():
    heavy = ("jax", "jaxlib", "numpy", "flax", "optax", "orbax", "ml_collections", "matplotlib")
    assert python(f"import sys, lth_jax; print([m for m in {heavy} if m in sys.modules])") == "[]"


def test_a_config_file_needs_no_jax():
    code = "import sys, lth_jax; lth_jax.default_config(); print('jax' in sys.modules)"
    assert python(code) == "False"


@pytest.mark.parametrize("name", sorted(set(lth_jax.__all__) - {"__version__"}))
def test_every_public_name_resolves_and_is_documented(name):
    value = getattr(lth_jax, name)
    assert value.__doc__
    assert value.__name__ == name
    if inspect.isclass(value):
        fields = getattr(value, "_fields", ())  # a named tuple's docstring tells of its own
        named = {
            member: getattr(value, member)
            for member in vars(value)
            if not member.startswith("_") and member not in fields
        }
        told = value.__doc__ + "".join(base.__doc__ or "" for base in value.__mro__)
        undocumented = [
            member
            for member, part in named.items()
            if (callable(part) or isinstance(part, property | cached_property))
            and not isinstance(part, value)  # a member of an enumeration is a value
            and not inspect.getdoc(part)
        ]
        assert not undocumented
        untold = [field for field in fields if not re.search(rf"\b{field}\b", told)]
        assert not untold


def test_checkers_and_interpreters_see_the_same_names():
    """Both read the stub; each line gives one name, which checkers take for public by its `as`."""
    tree = ast.parse(Path(lth_jax.__file__).with_suffix(".pyi").read_text())
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    names = [(alias.name, alias.asname) for node in imports for alias in node.names]
    assert all(name == other for name, other in names)
    assert sorted([*(name for name, _ in names), "__version__"]) == sorted(lth_jax.__all__)
    assert set(lth_jax.__all__) <= {*dir(lth_jax), "__version__"}


CONSUMER = """
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import lth_jax
import optax
from lth_jax import Criterion, Model, Results, Scoring, StartPoint


def summary(results: Results) -> Sequence[float]:
    rows = [row for row in results.rows if row.branch == "ticket" and not row.censored]
    curves = results.curves(level=0)
    last = [points[-1].val_accuracy for points in curves.values()]
    means = [one.early_stop_test_accuracy.mean for one in results.summaries]
    matching = [key for key, one in results.judgements.items() if one.verdict == "matches"]
    print(results.verdict, matching, results.spec.train.steps, results.path.name)
    print(results.figure("accuracy"), results.report())
    return [*(row.early_stop_test_accuracy for row in rows), *last, *means]


def scores(scoring: Scoring) -> dict[str, jax.Array]:
    return {name: jnp.abs(leaf) for name, leaf in scoring.final.items()}


def train(params: dict[str, jax.Array], grads: dict[str, jax.Array]) -> float:
    mask = lth_jax.ones_mask(params)
    mask = lth_jax.prune(params, mask, 0.2, rates=lth_jax.prunable(params))
    optimizer: optax.GradientTransformationExtraArgs = lth_jax.masked(optax.adam(1e-3))
    state = lth_jax.set_mask(optimizer, optimizer.init(params), mask)
    updates, state = optimizer.update(grads, state, params)
    params = lth_jax.apply_mask(optax.apply_updates(params, updates), mask)
    params, state = lth_jax.masked_step(optimizer, grads, state, params, mask)
    ticket: StartPoint = lth_jax.load_ticket("run", 3)
    print(ticket.step, ticket.state.params)
    return lth_jax.density(mask)


def model() -> Model:
    def init(key: jax.Array, x: jax.Array) -> dict[str, dict[str, jax.Array]]:
        return {"params": {"w": jax.random.normal(key, (x.size, 10))}}

    def apply(
        variables: object, x: jax.Array, train: bool, rngs: dict[str, jax.Array]
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        return x, {}

    return Model(init, apply)


CRITERIA = {"mine": Criterion(scores, at_rewind=True)}
try:
    config = lth_jax.get_config("lenet_digits")
    config.train.steps = "100"
    results = lth_jax.run(config, workdir="run", progress=True)
    wrong: int = results.path  # an error, which shows that types are seen
except lth_jax.UserError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_strict_checker_understands_every_use(tmp_path):
    pytest.importorskip("pyright")
    (tmp_path / "consumer.py").write_text(CONSUMER)
    settings = {
        "typeCheckingMode": "strict",
        "extraPaths": [str(Path(lth_jax.__file__).parents[1])],
        "pythonVersion": "3.11",
        "reportMissingTypeStubs": False,
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "-p", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    errors = [line for line in done.stdout.splitlines() if " error: " in line]
    assert len(errors) == 1, done.stdout
    assert '"Path" is not assignable to' in errors[0]


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="attribute prun"):
        _ = lth_jax.prun


def test_ones_own_loop_prunes_with_the_public_names():
    params = {"w": jnp.arange(1.0, 9.0).reshape(2, 4), "b": jnp.ones(4)}
    optimizer = optax.adam(0.1)
    mask = lth_jax.ones_mask(params)
    for _ in range(2):
        mask = lth_jax.prune(jax.tree.map(jnp.abs, params), mask, 0.5)
    ticket = lth_jax.apply_mask(params, mask)
    state = lth_jax.mask_optimizer_state(optimizer, optimizer.init(ticket), mask)
    trained, state = lth_jax.masked_step(optimizer, params, state, ticket, mask)
    assert lth_jax.density(mask) == lth_jax.density(mask, lth_jax.prunable(params)) == 0.25
    assert ticket["w"].tolist() == [[0, 0, 0, 0], [0, 0, 7, 8]]
    assert [bool(x) for x in trained["w"].ravel() == ticket["w"].ravel()] == [True] * 6 + [
        False
    ] * 2
