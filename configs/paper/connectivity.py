"""Frankle et al. (2020), Linear Mode Connectivity and the Lottery Ticket Hypothesis.

Two copies of the dense network are trained from its state at some steps in other data orders, and
two copies of every ticket; what lies on the straight line between them is measured at 30 places.
Networks are *stable* where the highest error on it is less than two points above its ends.

    python run.py --config=configs/paper/connectivity.py            # LeNet, 5,000 steps
    python run.py --config=configs/paper/connectivity.py:paper      # LeNet, 24,000 steps
    python run.py --config=configs/paper/connectivity.py:resnet20   # ResNet-20, 3,000 steps

LeNet's copies part at steps 0, 100, 500 and 2,000, in three replicates. The paper: it is stable at
initialization, and its tickets are as long as they match (Figures 3 and 5; Adam 1.2e-3, batch 60).
ResNet-20's part at 0, 100, 300 and 1,000 of 3,000 steps, one replicate, and its ticket of 16.8% of
the weights, from step 300, has two. The paper trains it for 63,000 steps, where the dense network
is stable from step 2,000 (3%) and tickets from 500: `resnet20` is what two cores bear.

Cost on 2 CPU cores: about 8 minutes for LeNet at laptop scale, 70 for its `paper` (of a Zen 3; 17
of them for the paths), two hours for ResNet-20.
Expected of LeNet (measured, `docs/results.md`): a barrier of half a point at initialization, less
later, and 0.1 points between copies of tickets, down to 2.9% of the weights.
"""

from lth_jax.configs.lenet_mnist import protocol
from lth_jax.configs.resnet20_cifar10 import get_config as residual

VARIANTS = ("laptop", "paper", "resnet20")


def get_config(variant: str = "laptop"):
    """Siblings of the dense network and of each ticket: LeNet at a scale, or `resnet20`."""
    if variant not in VARIANTS:
        raise ValueError(f"'{variant}' is no variant; accepted: {', '.join(VARIANTS)}")
    config = _resnet20() if variant == "resnet20" else _lenet(variant)
    config.branches = ("sibling",)
    config.paths.pairs = ("siblings", "levels", "ticket_dense")
    return config


def _lenet(scale: str):
    config = protocol(scale)
    config.replicates = 3
    config.levels = 16
    config.branch = {"sibling": {"draws": 2, "at": ("0", "100", "500", "2000")}}
    if scale == "laptop":
        config.levels = 9
        config.pruning.fraction = 0.4
    else:
        config.train.steps = "24000"
    return config


def _resnet20():
    """The paper's learning rate and its drops, at half and three quarters of the training."""
    config = residual("high,laptop")
    config.levels = 1
    config.pruning.densities = (0.168,)
    config.train.steps = "3000"
    config.train.drops = (("1500", 0.1), ("2250", 0.1))
    config.rewind.step = "300"
    config.branch = {"sibling": {"draws": 2, "at": ("0", "100", "300", "1000")}}
    config.paths.examples = 2000
    return config
