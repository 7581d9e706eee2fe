"""What tests of the grid read from the runs they train."""

from lth_jax.store import checkpoints

from ..tiny import results

ONE = {"levels": 1, "replicates": 1, "branches": ()}
KERNELS = {"fc1/kernel": (64, 8), "output/kernel": (8, 10)}


def level(path, number, replicate=0):
    folder = path / "checkpoints" / f"replicate_{replicate}" / f"level_{number:02d}"
    return checkpoints.load(folder)[0]


def mask_of(path, number):
    arrays = level(path, number)
    return {name: arrays[f"mask/{name}"] for name in KERNELS}


def rows_of(path, branch):
    """Rows of one branch without its name."""
    return [
        {k: v for k, v in row.items() if k != "branch"}
        for row in results(path)
        if row["branch"] == branch
    ]
