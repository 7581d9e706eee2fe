"""LeNet-300-100 on scikit-learn's digits: a winning ticket in under a minute, with no network.

The protocol of Frankle & Carbin (2019), Figure 4 and Appendix G, on 1,797 real 8×8 images that
come inside scikit-learn: 1,300 to train on, 200 to choose by, 297 to report.

    python run.py

Cost: under a minute on 2 CPU cores. Expected: the ticket stays at the dense network's accuracy
down to about 5% of the weights; `reinit` and `random_mask` fall behind from about 20% on.
"""

from lth_jax import default_config


def get_config():
    """3 replicates, 13 levels of 20% (output layer 10%), 500 steps each, two controls."""
    config = default_config()
    config.levels = 16
    config.replicates = 3
    config.branches = ("reinit", "random_mask")

    config.model.name = "mlp"
    config.model.hidden = (300, 100)

    config.data.name = "digits"
    config.data.validation_size = 200

    config.train.steps = "500"
    config.train.batch_size = 60
    config.train.optimizer = "adam"
    config.train.learning_rate = 1.2e-3
    config.eval.every = "50"

    config.pruning.criterion = "magnitude"
    config.pruning.scope = "layerwise"
    config.pruning.fraction = 0.2
    config.pruning.layer_rates = (("output", 0.5),)
    return config
