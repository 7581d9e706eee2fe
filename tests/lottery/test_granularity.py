"""An experiment whose levels prune blocks, or keep N of each M."""

import numpy as np
import pytest

from lth_jax.errors import SpecError
from lth_jax.lottery.building import build
from lth_jax.lottery.checks import check
from lth_jax.store import RunDirectory

from ..tiny import finished_run, results, tiny_spec

BRANCHES = ("random_mask", "one_shot", "snip", "rigl")
OPTIONS = {name: {"keep": True} for name in BRANCHES} | {
    "snip": {"kind": "prune", "criterion": "snip", "keep": True}
}


def structured(granularity, **fields):
    own = {"branches": BRANCHES, "branch": OPTIONS, "replicates": 1, **fields}
    return tiny_spec(pruning__granularity=granularity, pruning__layer_rates=(), **own)


def masks(path, name):
    arrays = RunDirectory.read(path).load(0, name)
    return {
        n.removeprefix("mask/"): a
        for n, a in arrays.items()
        if n.startswith("mask/") and "kernel" in n
    }


@pytest.mark.slow
def test_each_level_prunes_one_more_of_each_m():
    path = finished_run(structured("2:4"))
    rows = {(row["branch"], row["level"]): row for row in results(path)}
    assert [float(rows["ticket", str(n)]["density"]) for n in range(3)] == [1, 0.75, 0.5]
    for level in (1, 2):
        names = [f"level_{level:02d}", *(f"{n}_level_{level:02d}_0" for n in BRANCHES)]
        for name in names:
            for mask in masks(path, name).values():
                kept = mask.reshape(-1, 4, mask.shape[-1]).sum(1)
                assert kept.sum() == mask.size * (4 - level) // 4
                assert np.all(kept == 4 - level) or name.startswith("rigl")


@pytest.mark.slow
def test_whole_blocks_are_pruned_and_what_does_not_divide_stays():
    """Of the output's 8 × 10 weights no blocks of 4 × 4 can be made."""
    spec = structured("block:4x4", levels=1)
    (note,) = [line for line in build(spec).notes if "divide" in line]
    assert note == "not pruned, since they do not divide evenly by block:4x4: output/kernel"
    path = finished_run(spec)
    ticket = masks(path, "level_01")
    assert ticket["output/kernel"].all()
    for name in ("level_01", "random_mask_level_01_0", "one_shot_level_01_0", "snip_level_01_0"):
        mask = masks(path, name)["fc1/kernel"]
        blocks = mask.reshape(16, 4, 2, 4)
        assert np.all(blocks.any((1, 3)) == blocks.all((1, 3)))
        # 70% of 512 weights, rounded up to blocks of 16.
        assert mask.sum() == 368 == ticket["fc1/kernel"].sum()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"levels": 3}, "2:4 is reached at level 2"),
        ({"pruning__scope": "global"}, "every layer keeps the same"),
        ({"pruning__densities": (0.5,), "levels": 1}, "every layer keeps the same"),
        ({"granularity": "block:7x7"}, "no kernel divides evenly"),
    ],
)
def test_what_does_not_go_together_is_refused(fields, said):
    with pytest.raises(SpecError, match=said):
        check(structured(**{"granularity": "2:4", **fields}))
