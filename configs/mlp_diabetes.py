"""A small MLP on scikit-learn's diabetes data: tickets of a regression, in two minutes.

442 patients, ten measurements each, and how far their disease had got a year later, from 25 to 346
(Efron et al. 2004, "Least Angle Regression"). The data come inside scikit-learn. No paper has this
experiment: it shows that tickets are no matter of classes and images.

    python run.py --config=configs/mlp_diabetes.py

The metric is the absolute error in the target's own unit, of which less is better, and the margin
is 2 of these. Inputs are standardized by the examples that are no test; targets are as they are.

Cost: about two minutes on 2 CPU cores. Expected: the dense network's error, 46, is a little above
that of a linear regression on the same split, 45.1, for the task is nearly linear; sparser tickets
come down to it. The ticket stays within the margin to about 5% of the weights and errs by 47 at 1%,
where `reinit` has 50 and `random_mask`, which cuts most paths through the network, 126.
"""

import numpy as np

from lth_jax import default_config

TEST = 111  # a quarter


def diabetes():
    """Returns features, standardized by the examples that are no test, and targets as they are."""
    from sklearn.datasets import load_diabetes

    features, targets = map(np.asarray, load_diabetes(return_X_y=True, scaled=False))
    order = np.random.RandomState(0).permutation(len(targets))
    train, test = order[TEST:], order[:TEST]
    features = (features - features[train].mean(0)) / features[train].std(0)
    return {
        "train_inputs": features[train],
        "train_targets": targets[train],
        "test_inputs": features[test],
        "test_targets": targets[test],
    }


DATASETS = {"diabetes": diabetes}


def get_config():
    """5 replicates, 20 levels of 20% of all kernels together, 1,000 steps each, two controls."""
    config = default_config()
    config.task = "regression"
    config.levels = 20
    config.replicates = 5
    config.branches = ("reinit", "random_mask")

    config.model.name = "mlp"
    config.model.hidden = (64, 32)

    config.data.name = "diabetes"
    config.data.validation_size = 66

    config.train.steps = "1000"
    config.train.batch_size = 32
    config.train.optimizer = "adam"
    config.train.learning_rate = 1e-2
    config.eval.every = "20"
    config.analysis.margin = 2.0

    config.pruning.criterion = "magnitude"
    config.pruning.scope = "global"
    config.pruning.fraction = 0.2
    return config
