"""ResNet-20 on CIFAR-10 (Frankle & Carbin 2019, §4 and Figure 8, who call it ResNet-18).

The paper's protocol: SGD with momentum 0.9, batch 128, 30,000 steps, the learning rate divided by
ten at steps 20,000 and 25,000, weight decay 1e-4, crops and flips; a level prunes 20% of all
convolutions together, never a shortcut or the output layer. Its three learning rates, and one that
it does not have:

    low       0.01 (the default): tickets are found
    high      0.1: none are
    warmup    0.03, reached in 20,000 steps: tickets are found
    rewind    0.1, survivors going on from step 500 (Frankle et al. 2019, "Stabilizing the Lottery
              Ticket Hypothesis", who rewind to a step within the first 7% of training)

    python run.py --config=configs/resnet20_cifar10.py                # low, laptop
    python run.py --config=configs/resnet20_cifar10.py:high           # another learning rate
    python run.py --config=configs/resnet20_cifar10.py:warmup,paper   # 30,000 steps, 5 replicates

Cost: 30 minutes at laptop scale (1,000 steps, 2 levels) on 2 CPU cores.
Expected at laptop scale (measured, `docs/results.md`): test accuracy 63.1% dense, 66.7% and 68.2%
for the tickets of 80% and 64%, 62.5% for `reinit` at 64%. At paper scale (the paper's Figure 8):
with `high` 90.5% dense and no ticket; with `low` 89.5% for tickets of 42–22%; with `warmup` 90.5%
at 27%, and tickets down to 11.8%.
"""

from lth_jax import default_config

RATES = {"low": 0.01, "high": 0.1, "warmup": 0.03, "rewind": 0.1}
SCALES = ("laptop", "paper")
WARMUP_STEPS, REWIND_STEP = "20000", "500"


def get_config(variant: str = "low,laptop"):
    """Tickets with `reinit`: a learning rate, a scale, or both (`high,paper`)."""
    rate, scale = rate_and_scale(variant)
    config = protocol(rate, warmup=WARMUP_STEPS, rewind=REWIND_STEP)
    config.model.name = "resnet20"
    config.train.batch_size = 128
    config.train.steps = "30000"
    config.train.drops = (("20000", 0.1), ("25000", 0.1))
    config.pruning.layer_rates = (("*_shortcut", 0), ("output", 0))
    if scale == "laptop":
        config.train.steps = "1000"
        config.levels = 2
        config.replicates = 1
        config.branch.reinit = {"levels": (2,)}
    return config


def protocol(rate: str, *, warmup: str, rewind: str):
    """What the paper's residual and VGG networks have in common."""
    config = default_config()
    config.branches = ("reinit",)
    config.levels = 20
    config.replicates = 5

    config.data.name = "cifar10"
    config.data.validation_size = 5000
    config.data.standardize = True
    config.data.crop = 4
    config.data.flip = True

    config.train.optimizer = "momentum"
    config.train.momentum = 0.9
    config.train.weight_decay = 1e-4
    config.train.learning_rate = RATES[rate]
    config.eval.every = "100"

    config.pruning.scope = "global"
    config.pruning.fraction = 0.2
    config.pruning.layer_rates = (("output", 0),)
    if rate == "warmup":
        config.train.warmup = warmup
    if rate == "rewind":
        config.rewind.step = rewind
    return config


def rate_and_scale(variant: str) -> tuple[str, str]:
    """(a key of `RATES`, one of `SCALES`) of `RATE`, `SCALE` or `RATE,SCALE`."""
    rate, scale = "low", "laptop"
    for part in variant.split(","):
        if part in RATES:
            rate = part
        elif part in SCALES:
            scale = part
        else:
            accepted = ", ".join((*RATES, *SCALES))
            raise ValueError(f"'{part}' is no variant; accepted: {accepted}, and pairs of them")
    return rate, scale
