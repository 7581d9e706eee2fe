"""The report's first question: does a ticket found on one half of MNIST work on the other?

MNIST's training set is dealt out class by class into two halves. The experiment is the second
half's: its trunk is that half's own ticket, level 0 its dense network. `transfer` trains the first
half's ticket of the same level on it; `transfer_reinit` the first half's mask with fresh weights.

    python run.py --config=configs/seed/task1_mnist_halves.py
    python run.py --config=configs/seed/task1_mnist_halves.py:paper

Cost: about 6 minutes on 2 CPU cores.
Expected: the transferred ticket does as well as the half's own down to 3% of the weights (the
report: 96.1 against 95.7 at 6.4%); `transfer_reinit` falls behind as `reinit` does.
"""

from lth_jax.configs.seed.task0_lenet_mnist import get_config as task0


def get_config(scale: str = "laptop"):
    """Source: half 1; target: half 2; at `laptop` or `paper` scale."""
    config = task0(scale)
    config.branches = ("transfer", "transfer_reinit", "reinit", "random_mask")
    config.data.part = "2/2"
    config.source.update({"data": {"part": "1/2"}})
    if scale == "laptop":
        config.replicates = 2
        config.levels = 7
    return config
