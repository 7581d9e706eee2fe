"""Frankle & Carbin (2019), Figure 4 (one-shot panels) and the LeNet part of Figure 5.

One-shot: every level prunes the trained dense network at once to the level's density, instead of
the level before it. `:iterative` is the same densities pruned level by level.

Initialization: `glorot_normal` (the paper's text) at laptop scale, `glorot_truncated` (its code) at
paper scale.

    python run.py --config=configs/paper/figure5.py               # one-shot, laptop
    python run.py --config=configs/paper/figure5.py:iterative     # iterative, laptop
    python run.py --config=configs/paper/figure5.py:paper         # one-shot, 50,000 steps

Cost: about 3 minutes on 2 CPU cores; at paper scale half an hour of a Zen 3 for the tickets alone
(`--config.branches=()`), reckoned two hours with `reinit`.
Expected: one-shot tickets too learn faster (67.5–17.6% of the weights) and end higher (95.0–5.17%)
than the dense network, and fall off earlier than iterative ones. Measured at paper scale: sooner
down to 21% and higher down to 8.7%, in the mean of five replicates (`docs/results.md`).
"""

from lth_jax.configs.lenet_mnist import published
from lth_jax.configs.paper.figure4 import at_scale

# The points of Figure 4a are those of iterative pruning. Of one-shot pruning the text gives ranges.
CLAIMS = (
    {"says": "one-shot tickets learn faster than the dense network", "kind": "sooner",
     "relation": "over", "at": (0.675, 0.176), "value": 0.0, "where": "§2"},
    {"says": "one-shot tickets are more accurate than the dense network", "kind": "gain",
     "relation": "over", "at": (0.95, 0.0517), "value": 0.0, "where": "§2"},
)  # fmt: skip


def get_config(scale: str = "laptop"):
    """One-shot at `laptop` or `paper` scale, or `iterative` at laptop scale."""
    config = at_scale("laptop" if scale == "iterative" else scale)
    config.branches = ("reinit",)
    if scale == "iterative":
        published(config)
        return config
    config.pruning.schedule = "one_shot"
    config.reference.update({
        "title": "Frankle & Carbin 2019", "source": "its text", "steps": 50_000, "claims": CLAIMS,
    })  # fmt: skip
    return config
