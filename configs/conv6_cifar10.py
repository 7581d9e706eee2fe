"""Conv-6 on CIFAR-10 (Frankle & Carbin 2019, §3 and Figure 5).

As `conv2_cifar10.py`, with Adam 3e-4, 30,000 steps and 15% of each convolution pruned a level. The
paper counts 1.7M weights for it, which its layers do not add up to: see `lth_jax/models/conv.py`.

Initialization `glorot_normal`, the paper's text; at its scale pixels are not standardized
(`conv2_cifar10.py` says why).

    python run.py --config=configs/conv6_cifar10.py
    python run.py --config=configs/conv6_cifar10.py:paper
    python run.py --config=configs/conv6_cifar10.py:dropout

Cost: about an hour at laptop scale on 2 CPU cores, reckoned from Conv-2's by the time of a step.
Expected at paper scale (the paper's Figure 5): test accuracy at early stop 77.2% dense, 80.1% for
tickets of 26–14% of the weights.
"""

from lth_jax.configs.conv2_cifar10 import protocol, published

ACCURACY = (0.772, 0.797, 0.801, 0.801, 0.797, 0.789, 0.772, 0.740)
STEP = (3300, 2500, 1200, 1300, 1800, 4000, 11_000)


def get_config(scale: str = "laptop"):
    """Tickets with `reinit` at `laptop` or `paper` scale, or with `dropout`."""
    config = protocol(scale, steps=30_000, learning_rate=3e-4, dropout_learning_rate=2e-4)
    config.model.name = "conv6"
    config.pruning.layer_rates = (("conv*", 0.75), ("output", 0.5))
    published(
        config, scale, ACCURACY, STEP, faster=(0.151, 2.5), gain=(0.264, 0.033), dropout=0.024
    )
    if scale == "laptop":
        config.train.steps = "1000"
        config.levels = 3
    return config
