"""Frankle & Carbin (2019), Figure 3: how accuracy rises during training, by level.

The curves are in `metrics/` and in `figures/curves.png`: validation accuracy over training steps
for the dense network, for tickets at about 51, 21, 7, 3.6 and 1.9% of the weights, and for the same
masks reinitialized.

Initialization: at laptop scale `glorot_normal`, as the paper's text has it; at paper scale
`glorot_truncated`, as its code draws it. So in all LeNet presets here.

    python run.py --config=configs/paper/figure3.py
    python run.py --config=configs/paper/figure3.py:paper

Cost: about 3 minutes on 2 CPU cores.
Expected: down to 21% tickets learn ever faster and end higher; at 3.6% they are back at the dense
network's curve. Reinitialized, they only get slower. The paper, about step 15,000: 98.0 / 98.2 /
98.4 / 98.2 / 98.0 / 97.5 at 100 / 51.3 / 21.1 / 7.0 / 3.6 / 1.9%.
"""

from lth_jax.configs.lenet_mnist import published
from lth_jax.configs.paper.figure4 import at_scale


def get_config(scale: str = "laptop"):
    """Tickets and `reinit`, at `laptop` or `paper` scale."""
    config = at_scale(scale)
    config.branches = ("reinit",)
    published(config)
    return config
