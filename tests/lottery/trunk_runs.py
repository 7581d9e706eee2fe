"""Specs of trunks that are trained once for many tests, and their checkpoints."""

from lth_jax.store import checkpoints

from ..tiny import tiny_spec

SPEC = tiny_spec()
LATE = tiny_spec(rewind__step="7")
BIG = tiny_spec(levels=2, replicates=3, branch={"random_mask": {"draws": 2}})


def load(path, replicate, name):
    return checkpoints.load(path / "checkpoints" / f"replicate_{replicate}" / name)[0]


def part(arrays, prefix):
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}


def assert_bits(found, wanted):
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert found[name].dtype == wanted[name].dtype, name
        assert found[name].tobytes() == wanted[name].tobytes(), name
