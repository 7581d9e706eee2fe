"""Renda et al. (2020), Comparing Rewinding and Fine-tuning in Neural Network Pruning, one-shot.

The dense network is trained, pruned once to each density by the magnitudes of all layers together,
and trained again as long: from its weights at an early step (`ticket`: weight rewinding), from the
trained weights under the schedule from that step on (`learning_rate`), or from the trained weights
at the last learning rate (`finetune`); beside them `reinit`. At paper scale their ResNet-56 on
CIFAR-10: Nesterov momentum 0.9, batch 128, weight decay 2e-4, 182 epochs, the learning rate 0.1
divided by ten after epochs 91 and 136.

    python run.py --config=configs/paper/rewinding.py           # LeNet on MNIST, 6,000 steps
    python run.py --config=configs/paper/rewinding.py:paper     # ResNet-56, 182 epochs

Cost: about 8 minutes at laptop scale on 2 CPU cores (60 networks); at paper scale 39 networks of
65,000 steps of ResNet-56 (a GPU).
Expected: both ways of rewinding above fine-tuning, learning-rate rewinding at least as good as
weight rewinding (their abstract and §4); 93.46 ± 0.21% for the dense ResNet-56 (their Table 1).
"""

from lth_jax.configs.lenet_mnist import protocol as lenet
from lth_jax.configs.resnet20_cifar10 import protocol as residual

DENSITIES = (0.512, 0.262, 0.134, 0.069)  # 0.8 to the power of 3, 6, 9 and 12
METHODS = ("learning_rate", "finetune", "reinit")
CLAIMS = (
    {"says": "weight rewinding is better than fine-tuning", "kind": "gain", "against": "finetune",
     "relation": "over", "at": (0.262, 0.069), "value": 0.0, "where": "abstract"},
    {"says": "learning-rate rewinding is better than fine-tuning", "kind": "gain",
     "branch": "learning_rate", "against": "finetune", "relation": "over", "at": (0.262, 0.069),
     "value": 0.0, "where": "abstract"},
    {"says": "learning-rate rewinding is no worse than weight rewinding", "kind": "gain",
     "branch": "learning_rate", "against": "ticket", "relation": "over", "at": (0.262, 0.069),
     "value": 0.0, "where": "§4"},
)  # fmt: skip


def get_config(scale: str = "laptop"):
    """The comparison at `laptop` or `paper` scale."""
    if scale not in ("laptop", "paper"):
        raise ValueError(f"'{scale}' is no scale; accepted: laptop, paper")
    config = _laptop() if scale == "laptop" else _paper()
    config.pruning.schedule = "one_shot"
    config.pruning.densities = DENSITIES
    config.levels = len(DENSITIES)
    config.branches = METHODS
    config.report.methods = True
    reference = {"title": "Renda et al. 2020", "source": "its text", "claims": CLAIMS}
    if scale == "paper":
        reference["ticket"] = {"final_test_accuracy": ((1.0, 0.9346, 0.0021),)}
    config.reference.update(reference)
    return config


def _laptop():
    """LeNet under a schedule of the same shape: it drops where training is half and 3/4 over."""
    config = lenet("laptop")
    config.replicates = 3
    config.train.steps = "6000"
    config.train.drops = (("3000", 0.1), ("4500", 0.1))
    config.rewind.step = "100"
    return config


def _paper():
    config = residual("high", warmup="0", rewind="0")
    config.model.name = "resnet56"
    config.replicates = 3
    config.train.steps = "182ep"
    config.train.batch_size = 128
    config.train.nesterov = True
    config.train.weight_decay = 2e-4
    config.train.drops = (("91ep", 0.1), ("136ep", 0.1))
    config.pruning.scope = "global"
    config.rewind.step = "10ep"
    return config
