"""LeNet-300-100 on scikit-learn's digits: a winning ticket in under a minute, with no network.

The protocol of Frankle & Carbin (2019), Figure 4 and Appendix G, on 1,797 real 8×8 images that
come inside scikit-learn: 1,200 to train on, 300 to choose by, 297 to report.

    python run.py

Cost: under a minute on 2 CPU cores. Expected: the ticket learns sooner than the dense network down
to about 20% of the weights and is as accurate down to about 10%; `reinit` and `random_mask` fall
behind from about 20% on. With 297 test images, one is a third of a point, so that the margin is a
whole one here; `lenet_mnist` has the images for the literature's 0.2 points.

The learning rate is three times the paper's: so the smallest validation loss comes well before the
last step, and an early stop says how fast a network learns.
"""

from lth_jax import default_config


def get_config():
    """5 replicates, 14 levels of 20% (output layer 10%), 500 steps each, two controls."""
    config = default_config()
    config.levels = 14
    config.replicates = 5
    config.branches = ("reinit", "random_mask")

    config.model.name = "mlp"
    config.model.hidden = (300, 100)

    config.data.name = "digits"
    config.data.validation_size = 300

    config.train.steps = "500"
    config.train.batch_size = 60
    config.train.optimizer = "adam"
    config.train.learning_rate = 4e-3
    config.eval.every = "25"
    config.analysis.margin = 1.0

    config.pruning.criterion = "magnitude"
    config.pruning.scope = "layerwise"
    config.pruning.fraction = 0.2
    config.pruning.layer_rates = (("output", 0.5),)
    return config
