"""Frankle & Carbin (2019), Figure 1, LeNet: winning tickets against random sparse networks.

Iterative tickets (solid) and networks of the same density in each layer whose weights are at random
places (dashed): early-stop iteration and test accuracy there. As in the paper, at its scale five
trials of tickets and ten of random networks, two for each ticket.

Initialization: `glorot_normal` (the paper's text) at laptop scale, `glorot_truncated` (its code) at
paper scale.

    python run.py --config=configs/paper/figure1.py            # laptop
    python run.py --config=configs/paper/figure1.py:paper      # 50,000 steps, 5 replicates

Cost: about 3 minutes on 2 CPU cores; at paper scale an hour and a half. `figure4:paper` with
`--config.branch.random_mask.draws=2` holds the same networks.
Expected: random sparse networks learn slower and end lower from the first levels on: at 16.9 / 7.0
/ 2.9% of the weights the paper has 97.55 / 96.9 / 95.5 for them, 98.4 / 98.2 / 97.9 for tickets.
"""

from lth_jax.configs.lenet_mnist import published
from lth_jax.configs.paper.figure4 import at_scale


def get_config(scale: str = "laptop"):
    """Tickets and `random_mask`, at `laptop` or `paper` scale."""
    config = at_scale(scale)
    config.branches = ("random_mask",)
    published(config)
    if scale == "paper":
        config.branch = {"random_mask": {"draws": 2}}
    return config
