"""Frankle & Carbin (2019), Figure 4 (one-shot panels) and the LeNet part of Figure 5.

One-shot: every level prunes the trained dense network at once to the level's density, instead of
the level before it. `:iterative` is the same densities pruned level by level.

    python run.py --config=configs/paper/figure5.py               # one-shot, laptop
    python run.py --config=configs/paper/figure5.py:iterative     # iterative, laptop
    python run.py --config=configs/paper/figure5.py:paper         # one-shot, 50,000 steps

Cost: about 3 minutes on 2 CPU cores.
Expected: one-shot tickets too learn faster (67.5–17.6% of the weights) and end higher (95.0–5.17%)
than the dense network, and fall off earlier than iterative ones.
"""

from configs.paper.figure4 import get_config as figure4


def get_config(scale: str = "laptop"):
    """One-shot at `laptop` or `paper` scale, or `iterative` at laptop scale."""
    config = figure4("laptop" if scale == "iterative" else scale)
    config.branches = ("reinit",)
    if scale != "iterative":
        config.pruning.schedule = "one_shot"
    return config
