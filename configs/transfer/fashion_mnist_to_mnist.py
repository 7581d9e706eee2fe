"""A ticket found on Fashion-MNIST, trained on MNIST: `mnist_to_fashion_mnist` the other way.

    python run.py --config=configs/transfer/fashion_mnist_to_mnist.py
    python run.py --config=configs/transfer/fashion_mnist_to_mnist.py:paper

Cost: about 3 minutes on 2 CPU cores.
Expected: closer to the target's own ticket than the other way round: Fashion-MNIST uses every pixel
that MNIST does.
"""

from configs.transfer.mnist_to_fashion_mnist import get_config as mnist_to_fashion_mnist


def get_config(scale: str = "laptop"):
    """Source: Fashion-MNIST; target: MNIST; at `laptop` or `paper` scale."""
    config = mnist_to_fashion_mnist(scale)
    config.data.name = "mnist"
    config.source.data.name = "fashion_mnist"
    return config
