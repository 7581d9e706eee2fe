"""Ten methods in one table: Conv-2 on CIFAR-10 at 20 and 5% of the weights, or to 2%.

The methods are those of `compare/methods_mnist`. All layers are pruned at one rate, so that the
densities are those of every layer.

    python run.py --config=configs/compare/methods_conv2.py           # 1,000 steps, 3 replicates
    python run.py --config=configs/compare/methods_conv2.py:paper     # 20,000 steps, 5 replicates

Laptop scale is what two cores bear: methods are compared at 20 and 5%, and after 1,000 steps
controls have not converged. `paper` compares them at 20, 10, 5 and 2%.

Cost on 2 CPU cores: about an hour and a half at laptop scale by the speeds that were measured of
Conv-2 (15 networks of the ticket, 54 of branches).
Expected at paper scale: fine-tuning, learning-rate rewinding and the ticket first, one-shot pruning
behind them as weights go, then what prunes before training, and random masks last.
"""

from lth_jax.configs.compare.methods_mnist import COMPARED, with_methods
from lth_jax.configs.conv2_cifar10 import protocol

DENSITIES = (0.45, 0.2, 0.1, 0.05, 0.02)
# scale -> (densities of the levels, those that are compared, steps, replicates)
SCALES = {
    "laptop": (DENSITIES[:-1], (0.2, 0.05), 1000, 3),
    "paper": (DENSITIES, COMPARED, 20_000, 5),
}


def get_config(scale: str = "laptop"):
    """The comparison at `laptop` or `paper` scale."""
    if scale not in SCALES:
        raise ValueError(f"'{scale}' is no scale; accepted: {', '.join(SCALES)}")
    densities, compared, steps, replicates = SCALES[scale]
    config = protocol(scale, steps=20_000, learning_rate=2e-4, dropout_learning_rate=3e-4)
    config.model.name = "conv2"
    config.pruning.layer_rates = ()
    config.replicates = replicates
    return with_methods(config, densities, compared, steps=steps)
