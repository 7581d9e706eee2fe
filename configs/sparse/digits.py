"""Scikit-learn's digits, trained sparse: a mask that stays, masks that move, gradual pruning.

It needs no network. The trunk is no search for tickets: its mask is drawn at random at the
beginning, with Erdős–Rényi-kernel counts in each layer, and stays. So it is the static baseline,
each level a density, and branches at the same counts start from the same weights.

    python run.py --config=configs/sparse/digits.py

Cost: about a minute on 2 CPU cores.
Expected: `rigl` and `gmp` above the ticket of random masks at 5% of the weights.
"""

from lth_jax import default_config


def get_config():
    """Random static masks at 20, 10 and 5% of the weights, and what moves from there."""
    config = default_config()
    config.model.hidden = (100, 50)
    config.train.steps = "1000"
    config.pruning.criterion = "random"
    config.pruning.at = "rewind"
    config.pruning.scope = "erdos_renyi"
    config.pruning.schedule = "one_shot"
    config.pruning.densities = (0.2, 0.1, 0.05)
    config.levels = 3
    config.branches = ("set", "rigl", "gmp")
    for name in config.branches:
        config.branch[name] = {"every": "50"}
    return config
