"""Strong lottery tickets: the wider a network that is never trained, the better what it holds.

Edge-popup (Ramanujan et al. 2020, §4.4 and Figure 5) chooses half of the weights of LeNet, its
layers times a width, on MNIST; weights are signed constants. Beside it the dense network is
trained, which it nears as width grows.

    lth-jax sweep --config=configs/sparse/strong_tickets.py --out=widths     # 1/4, 1/2, 1 and 2
    python run.py --config=configs/sparse/strong_tickets.py:4                # one width

Cost: not measured yet; 24 runs of 5,000 steps.
Expected: accuracy grows with width, towards the trained dense network's.
"""

from lth_jax.configs.lenet_mnist import protocol

WIDTHS = ("0.25", "0.5", "1", "2")


def get_config(width: str = "1"):
    """LeNet-300-100 with layers `width` times as wide."""
    try:
        hidden = tuple(round(size * float(width)) for size in (300, 100))
    except (ValueError, OverflowError):
        hidden = (0,)
    if min(hidden) < 1:
        raise ValueError(f"'{width}' is no width; accepted: a number such as {', '.join(WIDTHS)}")
    config = protocol("laptop")
    config.model.hidden = hidden
    config.replicates = 3
    config.pruning.densities = (0.5,)
    config.pruning.layer_rates = ()
    config.levels = 1
    config.branches = ("edge_popup",)
    config.branch.edge_popup = {"weights": "signed_constant", "learning_rate": 0.01}
    return config


def get_configs():
    """One config for each width."""
    yield from map(get_config, WIDTHS)
