"""WRN-22-2 on CIFAR-10, trained sparse (Evci et al. 2020, §4.2 and Figure 4).

The paper's protocol: 250 epochs (97,656 steps) of batch 128, momentum 0.9, the learning rate 0.1
divided by five every 30,000 steps, weight decay 5e-4, crops and flips; Erdős–Rényi-kernel counts,
RigL with α 0.3 and ΔT 100 up to step 75,000. At 50, 20 and 10% of the weights: a random mask that
stays, RigL, and gradual pruning; the dense network beside them. The trunk is no search for tickets:
it is the mask that stays, each level a density.

    python run.py --config=configs/sparse/wrn22_cifar10.py           # 1,000 steps, one replicate
    python run.py --config=configs/sparse/wrn22_cifar10.py:paper     # 97,656 steps, 5 replicates

Cost: reckoned at an hour on 2 CPU cores for four networks of 1,000 steps, the largest cut of the
protocol that they bear, at 10% of the weights; at paper scale a GPU's.
Expected at paper scale, at 10 / 20 / 50% (which curve is which is partly inferred): 91.6 / 92.9 /
94.2% for masks that stay, 93.1 / 93.8 / 94.3% for RigL, 93.3 / 93.5 / 94.1% for pruning, 94.1%
dense. After 1,000 steps nothing of it shows but that they train.
"""

from lth_jax.configs.resnet20_cifar10 import protocol

STEPS, END = 97_656, 75_000
DROPS = (30_000, 60_000, 90_000)
PUBLISHED = {
    "ticket": {1.0: 0.941, 0.5: 0.942, 0.2: 0.929, 0.1: 0.916},
    "rigl": {0.5: 0.943, 0.2: 0.938, 0.1: 0.931},
    "gmp": {0.5: 0.941, 0.2: 0.935, 0.1: 0.933},
}
ERROR = 0.002  # read off; the paper's own bars are of this size


def get_config(scale: str = "laptop"):
    """The protocol at `laptop` or `paper` scale."""
    if scale not in ("laptop", "paper"):
        raise ValueError(f"'{scale}' is no scale; accepted: laptop, paper")
    config = protocol("high", warmup="0", rewind="0")
    config.model.name = "wrn22"
    config.model.width = 2.0
    config.model.init = "he_normal"
    config.train.batch_size = 128
    config.train.weight_decay = 5e-4
    steps = STEPS if scale == "paper" else 1000
    config.train.steps = str(steps)
    config.train.drops = tuple((str(at * steps // STEPS), 0.2) for at in DROPS)
    config.pruning.criterion = "random"
    config.pruning.at = "rewind"
    config.pruning.scope = "erdos_renyi"
    config.pruning.layer_rates = ()
    config.pruning.schedule = "one_shot"
    config.pruning.densities = (0.5, 0.2, 0.1) if scale == "paper" else (0.1,)
    config.levels = len(config.pruning.densities)
    config.branches = ("rigl", "gmp")
    config.branch.rigl = {"end": END / STEPS}
    if scale == "laptop":
        config.replicates = 1
        return config
    points = {
        name: {"final_test_accuracy": tuple((at, value, ERROR) for at, value in of.items())}
        for name, of in PUBLISHED.items()
    }
    config.reference.update({
        "title": "Evci et al. 2020", "source": "Figure 4, read off", "steps": STEPS, **points,
    })  # fmt: skip
    return config
