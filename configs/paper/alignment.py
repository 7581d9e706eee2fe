"""Sparse training from another initialization: Adnan et al. (2025), with LeNet on MNIST.

A ticket's mask fits its own initialization. The mask of another replicate's ticket is put over this
one's weights: as it is (`unaligned`), or its units in this network's order, which is found between
the two trained dense networks by their weights (`by_weights`) or activations (`by_activations`;
Ainsworth et al. 2023). Beside them the ticket itself, `random_mask` and `reinit`. Survivors go back
to step 500. The paths between replicates, before and after their units are aligned by weights, are
measured as well.

    python run.py --config=configs/paper/alignment.py            # 5,000 steps, 4 replicates

Cost on 2 CPU cores: about 6 minutes.
Expected: aligned masks between the unaligned one and the ticket, the nearer to it the better the
alignment is (the paper: ResNet-20 on CIFAR-10, rewound to epoch 25); barriers between replicates
that fall when units are aligned.
"""

from lth_jax.configs.lenet_mnist import protocol


def get_config():
    """Masks of other replicates, aligned in three ways, at 30, 10 and 5% of the weights."""
    config = protocol("laptop")
    config.replicates = 4
    config.pruning.densities = (0.67, 0.45, 0.3, 0.2, 0.14, 0.1, 0.07, 0.05)
    config.pruning.layer_rates = ()
    config.levels = len(config.pruning.densities)
    config.rewind.step = "500"
    ways = {"by_weights": "weights", "by_activations": "activations", "unaligned": "none"}
    config.branches = (*ways, "random_mask", "reinit")
    for name in config.branches:
        config.branch[name] = {"levels": (3, 6, 8)}
    for name, align in ways.items():
        config.branch[name].update({"kind": "permuted_mask", "align": align})
    config.report.methods = True
    config.paths.pairs = ("replicates",)
    config.paths.align = "weights"
    config.paths.examples = 5000
    return config
