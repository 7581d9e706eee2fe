"""Ten methods in one table: Conv-2 on CIFAR-10 at 20, 10, 5 and 2% of the weights.

The methods are those of `compare/methods_mnist`. All layers are pruned at one rate, so that the
densities are those of every layer.

    python run.py --config=configs/compare/methods_conv2.py           # 1,000 steps, 3 replicates
    python run.py --config=configs/compare/methods_conv2.py:paper     # 20,000 steps, 5 replicates

Cost on 2 CPU cores: about two hours at laptop scale by the speeds that were measured of Conv-2 (18
networks of the ticket, 108 of branches), where controls do not converge: two cores do not bear it.
Expected at paper scale: fine-tuning, learning-rate rewinding and the ticket first, one-shot pruning
behind them as weights go, then what prunes before training, and random masks last.
"""

from lth_jax.configs.compare.methods_mnist import COMPARED, with_methods
from lth_jax.configs.conv2_cifar10 import protocol

DENSITIES = (0.45, 0.2, 0.1, 0.05, 0.02)


def get_config(scale: str = "laptop"):
    """The comparison at `laptop` or `paper` scale."""
    if scale not in ("laptop", "paper"):
        raise ValueError(f"'{scale}' is no scale; accepted: laptop, paper")
    config = protocol(scale, steps=20_000, learning_rate=2e-4, dropout_learning_rate=3e-4)
    config.model.name = "conv2"
    config.pruning.layer_rates = ()
    config.replicates = 3 if scale == "laptop" else 5
    return with_methods(config, DENSITIES, COMPARED, steps=1000 if scale == "laptop" else 20_000)
