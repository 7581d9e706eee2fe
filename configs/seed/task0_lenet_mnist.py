"""The student report's walkthrough: LeNet-300-100 on MNIST, half of every layer pruned a level.

The report: Adam 1.2e-3 with L2 1e-4, batch 60, 50% of every layer (the output layer too) a level,
50 epochs a level, one run. Its table, in % of weights left: 97.0% at 100, 96.1% at 6.4, 78.5% at
1.7, 19.8% at 0.3 (best epoch, chosen on the test set). Here early stops are chosen on validation
data, and two controls are trained beside every ticket.

    python run.py --config=configs/seed/task0_lenet_mnist.py          # 3,000 steps a level
    python run.py --config=configs/seed/task0_lenet_mnist.py:paper    # the report's 50 epochs
    python -m lth_jax inspect runs/task0_lenet_mnist-…                # non-zeros, layer by layer

Cost: about 6 minutes on 2 CPU cores; the report's scale about 2 hours.
Expected: the ticket within a tenth of the dense network's 97.6% down to 6% of the weights, far
above both controls, and a collapse below 2%: halving leaves the output layer 16 weights of 1,000 at
1.6% and 8 at 0.8%, for ten classes. (The report's collapse is deeper: its freezing test froze every
negative weight too.)
"""

from lth_jax.configs.lenet_mnist import protocol as lenet_mnist


def get_config(scale: str = "laptop"):
    """10 levels of 50%, over all layers, at `laptop` or `paper` scale."""
    config = lenet_mnist(scale)
    config.levels = 9
    config.replicates = 3
    config.train.weight_decay = 1e-4
    config.train.steps = "3000" if scale == "laptop" else "50ep"
    config.pruning.fraction = 0.5
    config.pruning.layer_rates = ()
    config.branch.reinit = {"draws": 1}
    return config
