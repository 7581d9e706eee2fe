"""Frankle & Carbin (2019), Figure 4a: early-stop iteration and accuracy of LeNet's tickets.

The figures of the run show the paper's own points beside ours (read off its figures, ±0.1 points
and ±300 iterations).

Initialization: `glorot_normal` (the paper's text) at laptop scale, `glorot_truncated` (its code) at
paper scale.

    python run.py --config=configs/paper/figure4.py            # laptop: 40% a level, 2,500 steps
    python run.py --config=configs/paper/figure4.py:paper      # 20% a level, 50,000 steps

Cost: about 4 minutes on 2 CPU cores; at paper scale two and a half hours of a Zen 3 (605 networks;
with `--config.branch.reinit.draws=1` 90 minutes), and half an hour more with Figure 1's ten random
networks, `--config.branch.random_mask.draws=2` (measured, `docs/results.md`).
Expected: accuracy at early stop rises above the dense network's down to 13.5% of the weights and
falls below it at about 2.9%; reinitialized masks fall below it from 21% on. At laptop scale
training stops before overfitting sets in, so early stops come later, relative to the end.
"""

from lth_jax.configs.lenet_mnist import protocol, published


def get_config(scale: str = "laptop"):
    """Tickets with `reinit` and `random_mask`, at `laptop` or `paper` scale."""
    config = at_scale(scale)
    published(config)
    return config


def at_scale(scale: str):
    """The protocol with fewer and larger levels at laptop scale, without what was published."""
    config = protocol(scale)
    if scale == "laptop":
        config.levels = 9
        config.replicates = 3
        config.train.steps = "2500"
        config.pruning.fraction = 0.4
    return config
