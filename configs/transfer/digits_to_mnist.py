"""A ticket found on scikit-learn's 1,797 small digits, scaled to 28×28, trained on MNIST.

The same domain, a fortieth of the data: how little is enough to find a mask?

    python run.py --config=configs/transfer/digits_to_mnist.py
    python run.py --config=configs/transfer/digits_to_mnist.py:paper

Cost: about 3 minutes on 2 CPU cores.
Expected: the small set's ticket half a point above `transfer_reinit`, far below MNIST's own ticket,
and no better than MNIST's mask with fresh weights.
"""

from lth_jax.configs.transfer.mnist_to_fashion_mnist import get_config as mnist_to_fashion_mnist


def get_config(scale: str = "laptop"):
    """Source: digits at 28×28; target: MNIST; at `laptop` or `paper` scale."""
    config = mnist_to_fashion_mnist(scale)
    config.data.name = "mnist"
    config.source.data.update({"name": "digits", "side": 28, "validation_size": 200})
    return config
