"""Conv-4 on CIFAR-10 (Frankle & Carbin 2019, §3 and Figure 5).

As `conv2_cifar10.py`, with Adam 3e-4 and 25,000 steps.

Initialization `glorot_normal`, the paper's text; at its scale pixels are not standardized
(`conv2_cifar10.py` says why).

    python run.py --config=configs/conv4_cifar10.py
    python run.py --config=configs/conv4_cifar10.py:paper
    python run.py --config=configs/conv4_cifar10.py:dropout

Cost: about 45 minutes at laptop scale on 2 CPU cores, reckoned from Conv-2's by the time of a step.
Expected at paper scale (the paper's Figure 5): test accuracy at early stop 73.8% dense, 76.8% for
tickets of 7% of the weights.
"""

from lth_jax.configs.conv2_cifar10 import protocol, published

ACCURACY = (0.738, 0.759, 0.765, 0.767, 0.768, 0.763, 0.754, 0.730)
STEP = (2700, 2100, 1300, 800, 950, 1400, 3000, 6600)


def get_config(scale: str = "laptop"):
    """Tickets with `reinit` at `laptop` or `paper` scale, or with `dropout`."""
    config = protocol(scale, steps=25_000, learning_rate=3e-4, dropout_learning_rate=2e-4)
    config.model.name = "conv4"
    published(config, scale, ACCURACY, STEP, faster=(0.092, 3.5), gain=(0.111, 0.035), dropout=0.03)
    if scale == "laptop":
        config.train.steps = "1000"
        config.levels = 4
    return config
