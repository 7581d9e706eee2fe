"""Frankle et al. (2020), Linear Mode Connectivity and the Lottery Ticket Hypothesis, on LeNet.

Two copies of the dense network are trained from its state at steps 0, 100, 500 and 2,000 in other
data orders, and two copies of every ticket; what lies on the straight line between them is measured
at 30 places. The paper: LeNet is stable at initialization, its barrier stays below two points, and
its tickets are as long as they match (Figures 3 and 5; Adam 1.2e-3, batch 60, 24,000 steps).

    python run.py --config=configs/paper/connectivity.py          # 5,000 steps, three replicates
    python run.py --config=configs/paper/connectivity.py:paper    # 24,000 steps, three replicates

Cost on 2 CPU cores: about 8 minutes at laptop scale.
Expected: barriers below two points at initialization and later, for the dense network and down to
a few percent of the weights.
"""

from lth_jax.configs.lenet_mnist import protocol


def get_config(scale: str = "laptop"):
    """Siblings of the dense network and of each ticket, at `laptop` or `paper` scale."""
    config = protocol(scale)
    config.replicates = 3
    config.levels = 16
    config.branches = ("sibling",)
    config.branch.sibling = {"draws": 2, "at": ("0", "100", "500", "2000")}
    config.paths.pairs = ("siblings", "levels", "ticket_dense")
    if scale == "laptop":
        config.levels = 9
        config.pruning.fraction = 0.4
    else:
        config.train.steps = "24000"
    return config
