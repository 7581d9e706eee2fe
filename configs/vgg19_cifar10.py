"""VGG-19 on CIFAR-10 (Frankle & Carbin 2019, §4 and Figure 7).

The paper's protocol: SGD with momentum 0.9, batch 64, 112,000 steps, the learning rate divided by
ten at epochs 80 and 120, weight decay 1e-4, crops and flips; a level prunes 20% of all convolutions
together, never the output layer. Its learning rates, and one that it does not have:

    low       0.01 (the default): tickets are found
    high      0.1: none are
    warmup    0.1, reached in 10,000 steps: tickets are found
    rewind    0.1, survivors going on from step 100 (Frankle et al. 2019, "Stabilizing the Lottery
              Ticket Hypothesis")

    python run.py --config=configs/vgg19_cifar10.py                # low, laptop
    python run.py --config=configs/vgg19_cifar10.py:warmup,paper   # 5 replicates, 20 levels

At full width a step takes seconds on 2 CPU cores, so the laptop's network has an eighth of the
channels, and the test split 2,000 images.
Cost: about 16 minutes at laptop scale on 2 CPU cores, reckoned from VGG-16's.
Expected at paper scale (the paper's Figure 7): with `high` no ticket; with `low` within a point of
the dense network down to 3.5%; with `warmup` tickets down to 1.5%.
"""

from lth_jax.configs.resnet20_cifar10 import RATES, protocol, rate_and_scale

WARMUP_STEPS, REWIND_STEP = "10000", "100"


def get_config(variant: str = "low,laptop", name: str = "vgg19"):
    """Tickets with `reinit`: a learning rate, a scale, or both (`high,paper`)."""
    rate, scale = rate_and_scale(variant)
    config = protocol(rate, warmup=WARMUP_STEPS, rewind=REWIND_STEP)
    config.model.name = name
    config.train.batch_size = 64
    config.train.steps = "112000"
    config.train.drops = (("80ep", 0.1), ("120ep", 0.1))
    if rate == "warmup":
        config.train.learning_rate = RATES["high"]
    if scale == "laptop":
        config.model.width = 0.125
        config.data.test_size = 2000
        config.train.steps = "2000"
        config.levels = 3
        config.replicates = 1
    return config
