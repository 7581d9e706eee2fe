"""Frankle & Carbin (2019), Figure 1, LeNet: winning tickets against random sparse networks.

Iterative tickets (solid) and networks of the same density in each layer whose weights are at random
places (dashed): early-stop iteration and test accuracy there. The paper: 5 trials of tickets, 10 of
random networks.

    python run.py --config=configs/paper/figure1.py            # laptop
    python run.py --config=configs/paper/figure1.py:paper      # 50,000 steps, 10 replicates

Cost: about 3 minutes on 2 CPU cores; at paper scale about a day.
Expected: random sparse networks learn slower and end lower from the first levels on: at 16.9 / 7.0
/ 2.9% of the weights the paper has 97.55 / 96.9 / 95.5 for them, 98.4 / 98.2 / 97.9 for tickets.
"""

from configs.paper.figure4 import get_config as figure4

RANDOM = ((0.169, 0.9755), (0.070, 0.969), (0.029, 0.955))


def get_config(scale: str = "laptop"):
    """Tickets and `random_mask`, at `laptop` or `paper` scale."""
    config = figure4(scale)
    config.branches = ("random_mask",)
    config.reference.update({"random_mask": {"early_stop_test_accuracy": RANDOM}})
    if scale == "paper":
        config.replicates = 10
    return config
