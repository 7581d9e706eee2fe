"""Ten methods in one table: LeNet-300-100 on Fashion-MNIST at 20, 10, 5 and 2% of the weights.

The same as `compare/methods_mnist`, on images that are harder to tell apart.

    python run.py --config=configs/compare/methods_fashion.py

Cost: an hour of a Zen 3 core, beside other work on the second one.
Expected (measured, `docs/results.md`): the ticket, learning-rate rewinding and fine-tuning first,
not told apart; behind them another order than on MNIST, with GraSP last at 2%.
"""

from lth_jax.configs.compare import methods_mnist


def get_config():
    """The comparison at full length."""
    config = methods_mnist.get_config()
    config.data.name = "fashion_mnist"
    return config
