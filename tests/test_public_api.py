"""`import lth_jax`: every name is there, and costs nothing until it is used."""

import ast
import subprocess
import sys
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


@pytest.mark.parametrize("name", lth_jax.__all__)
def test_every_public_name_resolves_and_is_documented(name):
    value = getattr(lth_jax, name)
    if name != "__version__":
        assert value.__doc__
        assert value.__name__ == name


def test_checkers_and_interpreters_see_the_same_names():
    tree = ast.parse(Path(lth_jax.__file__).read_text())
    block = next(
        node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node)
    )
    seen = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == lth_jax._HOMES
    assert sorted([*seen, "__version__"]) == sorted(lth_jax.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'prun'"):
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
