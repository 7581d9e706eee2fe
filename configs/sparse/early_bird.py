"""Early-Bird tickets (You et al. 2020): channels of VGG-11, drawn while the dense network trains.

The paper's protocol on CIFAR-10: SGD with momentum 0.9, batch 64, 160 epochs, the learning rate 0.1
divided by ten after a half and three quarters of them, weight decay 1e-4, crops and flips. Channels
are ranked by the scale of their batch norm, all together (Liu et al. 2017; without the penalty that
they put on scales), and 30, 50 or 70% of them are pruned. A ticket is drawn where the masks of five
epochs in a row differ from the one before by less than 0.1, and trains on from there to the end.
Beside it: the ticket of the full search, trained from the initialization again, and random
channels.

    python run.py --config=configs/sparse/early_bird.py          # a quarter of the width, 30 epochs
    python run.py --config=configs/sparse/early_bird.py:paper    # 160 epochs, 5 replicates
    python run.py --config=configs/sparse/early_bird.py:digits   # needs no network

Cost: 33 minutes on 2 CPU cores (Zen 3) for the default, beside other work: the largest cut of the
protocol that they bear in that time, at half of the channels, one replicate. Seconds on digits,
whose network of dense layers is ranked by L1 norms. At paper scale a GPU's.
Expected at paper scale, from the paper's VGG-16: tickets drawn within the first tenth or two of the
training, as accurate as those of the full search. Of 30 epochs (measured, `docs/results.md`) the
mask comes to stay when the learning rate first falls, after 15, and the ticket is drawn after 17.
"""

from lth_jax.configs.resnet20_cifar10 import protocol

from lth_jax import default_config

SCALES = ("laptop", "paper", "digits")


def get_config(scale: str = "laptop"):
    """Early birds beside tickets at `laptop` or `paper` scale, or on `digits`."""
    if scale not in SCALES:
        raise ValueError(f"'{scale}' is no scale; accepted: {', '.join(SCALES)}")
    config = _digits() if scale == "digits" else _vgg(160 if scale == "paper" else 30)
    config.pruning.granularity = "channel"
    config.pruning.schedule = "one_shot"
    config.pruning.layer_rates = ()
    config.pruning.densities = (0.7, 0.5, 0.3) if scale == "paper" else (0.5,)
    config.levels = len(config.pruning.densities)
    config.branches = ("early_bird", "random_mask")
    config.replicates = {"laptop": 1, "paper": 5, "digits": 3}[scale]
    if scale == "laptop":
        config.model.width = 0.25
        config.data.test_size = 2000
        config.branches = ("early_bird",)
    return config


def _vgg(epochs):
    config = protocol("high", warmup="0", rewind="0")
    config.model.name = "vgg11"
    config.train.batch_size = 64
    config.train.steps = f"{epochs}ep"
    config.train.drops = ((f"{epochs // 2}ep", 0.1), (f"{epochs * 3 // 4}ep", 0.1))
    config.eval.every = "1ep"
    config.pruning.rank = "batch_norm"
    config.pruning.scope = "global"
    return config


def _digits():
    config = default_config()
    config.model.hidden = (100, 50)
    config.train.steps = "20ep"
    config.eval.every = "1ep"
    return config
