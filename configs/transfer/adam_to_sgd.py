"""A ticket found with Adam, trained with SGD and momentum, against SGD's own ticket.

Morcos et al. (2019), §4.4, transfer tickets between optimizers.

    python run.py --config=configs/transfer/adam_to_sgd.py
    python run.py --config=configs/transfer/adam_to_sgd.py:paper

Cost: about 3 minutes on 2 CPU cores.
Expected: tickets transfer between optimizers almost without loss.
"""

from lth_jax.configs.transfer.mnist_to_fashion_mnist import get_config as mnist_to_fashion_mnist


def get_config(scale: str = "laptop"):
    """Source: Adam 1.2e-3; target: momentum 0.9 at 0.05; at `laptop` or `paper` scale."""
    config = mnist_to_fashion_mnist(scale)
    config.data.name = "mnist"
    config.train.optimizer = "momentum"
    config.train.learning_rate = 0.05
    del config.source.data
    config.source.update({"train": {"optimizer": "adam", "learning_rate": 1.2e-3}})
    return config
