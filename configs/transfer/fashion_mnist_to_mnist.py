"""A ticket found on Fashion-MNIST, trained on MNIST: `mnist_to_fashion_mnist` the other way.

    python run.py --config=configs/transfer/fashion_mnist_to_mnist.py
    python run.py --config=configs/transfer/fashion_mnist_to_mnist.py:paper

Cost: about 3 minutes on 2 CPU cores.
Expected: behind MNIST's own ticket by 1.6 points at 22% of the weights, by 4.7 at 5%; half a point
to one above its own mask with fresh weights.
"""

from lth_jax.configs.transfer.mnist_to_fashion_mnist import get_config as mnist_to_fashion_mnist


def get_config(scale: str = "laptop"):
    """Source: Fashion-MNIST; target: MNIST; at `laptop` or `paper` scale."""
    config = mnist_to_fashion_mnist(scale)
    config.data.name = "mnist"
    config.source.data.name = "fashion_mnist"
    return config
