"""The examples run, and prune in few lines."""

import runpy
from pathlib import Path

import pytest

from lth_jax.cli import export

from ..tiny import tiny_spec, train

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def plain_promotion():
    """As a user has JAX, not as these tests do."""
    import jax

    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.parametrize("name", ["prune_flax_loop", "prune_nnx_loop", "prune_plain_loop"])
def test_a_loop_of_ones_own_is_pruned_in_fewer_than_20_lines(name):
    """`tests/test_installed.py` runs it."""
    source = (EXAMPLES / f"{name}.py").read_text()
    marked = [line for line in source.splitlines() if "# ticket" in line]
    unmarked = [line for line in source.splitlines() if "lth_jax." in line and line not in marked]
    assert len(marked) < 20
    assert all("density" in line for line in unmarked)


def test_a_ticket_is_trained_on_something_else(tmp_path):
    spec = tiny_spec(model__hidden=(20, 10), levels=1, replicates=1, branches=())
    path = train(tmp_path / "run", spec).path
    main = runpy.run_path(str(EXAMPLES / "train_ticket_elsewhere.py"))["main"]
    found = main(path, level=1, steps=40)
    assert found.keys() == {"ticket", "reinit"}
    assert found["ticket"] > 0.6  # chance is 0.5
    export.main([str(path), "--level=1", "--format=npz", f"--out={tmp_path / 'file'}"])
    assert main(tmp_path / "file", steps=40) == found


def test_a_cell_of_the_seed_s_grid_is_trained_pruned_and_rewound(tmp_path, capsys, without_figures):
    main = runpy.run_path(str(EXAMPLES / "seed_grid.py"))["main"]
    cells = ["--datasets=digits", "--models=mlp,vgg16", f"--out={tmp_path}"]
    # An 8×8 image is no image for VGG: a cell that fails is named, and the others are run.
    assert main([*cells, "--config.data.test_size=0"]) == 1
    good, bad = capsys.readouterr().out.splitlines()[-2:]
    assert "80.2% kept" in good
    assert "vgg16" in bad
    assert "FAILED" in bad
