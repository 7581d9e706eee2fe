"""A ticket found on MNIST, trained on Fashion-MNIST.

Morcos et al. (2019) ask it of convolutional networks; here LeNet-300-100. The experiment is
Fashion-MNIST's: its trunk is the target's own ticket, level 0 its dense network, `transfer` the
source's ticket of the same level.

    python run.py --config=configs/transfer/mnist_to_fashion_mnist.py
    python run.py --config=configs/transfer/mnist_to_fashion_mnist.py:paper

Cost: about 3 minutes on 2 CPU cores.
Expected: the source's ticket falls behind the target's own, the more the sparser: its mask has cut
off pixels that are always black in MNIST and matter in Fashion-MNIST.
"""

from lth_jax.configs.lenet_mnist import protocol as lenet_mnist


def get_config(scale: str = "laptop"):
    """Source: MNIST; target: Fashion-MNIST; at `laptop` or `paper` scale."""
    config = lenet_mnist(scale)
    config.data.name = "fashion_mnist"
    config.source.update({"data": {"name": "mnist"}})
    config.branches = ("transfer", "transfer_reinit", "reinit", "random_mask")
    config.branch.reinit = {"draws": 1}
    if scale == "laptop":
        config.replicates = 2
        config.levels = 6
        config.train.steps = "2000"
        config.pruning.fraction = 0.4
    return config
