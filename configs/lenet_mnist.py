"""LeNet-300-100 on MNIST (Frankle & Carbin 2019, Figures 1 and 4).

The paper's network, Gaussian Glorot initialization (at paper scale truncated, as the paper's code
draws it), Adam 1.2e-3, batch 60, 20% of every layer and 10% of the output layer pruned a level,
5,000 validation examples, evaluation every 100 steps.

    python run.py --config=configs/lenet_mnist.py          # 5,000 steps a level, 3 replicates
    python run.py --config=configs/lenet_mnist.py:paper    # 50,000 steps a level, 5 replicates

Cost on 2 CPU cores, with both controls: about 5 minutes at laptop scale, 10 without a C++ compiler;
at most 15 minutes a level at paper scale, less as weights go.
Expected: accuracy at early stop rises above the dense network's down to 13% of the weights, and is
back at its level at about 3.6%; `reinit` and `random_mask` fall below it from about 20% on.
"""

from lth_jax import default_config


def get_config(scale: str = "laptop"):
    """The protocol at `laptop` (the default) or `paper` scale."""
    if scale not in ("laptop", "paper"):
        raise ValueError(f"'{scale}' is no scale; accepted: laptop, paper")
    config = default_config()
    config.branches = ("reinit", "random_mask")

    config.model.name = "mlp"
    config.model.hidden = (300, 100)

    config.data.name = "mnist"
    config.data.validation_size = 5000

    config.train.batch_size = 60
    config.train.optimizer = "adam"
    config.train.learning_rate = 1.2e-3
    config.eval.every = "100"

    config.pruning.criterion = "magnitude"
    config.pruning.scope = "layerwise"
    config.pruning.fraction = 0.2
    config.pruning.layer_rates = (("output", 0.5),)

    if scale == "laptop":
        config.train.steps = "5000"
        config.replicates = 3
        config.levels = 16
    else:
        config.model.init = "glorot_truncated"
        config.train.steps = "50000"
        config.replicates = 5
        config.levels = 24
        config.branch.reinit = {"draws": 3}
    return config
