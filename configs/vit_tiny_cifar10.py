"""ViT-Tiny with patches of 4 on CIFAR-10: a transformer's tickets.

Sizes of Touvron et al. (2021), from scratch: AdamW 1e-3 with weight decay 0.05, batch 64, warmup
and a cosine, label smoothing 0.1, crops and flips; a level prunes 20% of all kernels together,
never the patches' or the output layer. No paper has this experiment: there are no numbers to
meet.

    python run.py --config=configs/vit_tiny_cifar10.py          # laptop: 300 steps, 2 levels
    python run.py --config=configs/vit_tiny_cifar10.py:paper    # 100 epochs, 3 replicates

Cost: a step takes 2–3 s on 2 CPU cores, so about an hour at laptop scale (reckoned, not run).
"""

from lth_jax import default_config


def get_config(scale: str = "laptop"):
    """Tickets with `reinit` at `laptop` or `paper` scale."""
    if scale not in ("laptop", "paper"):
        raise ValueError(f"'{scale}' is no scale; accepted: laptop, paper")
    config = default_config()
    config.branches = ("reinit",)
    config.model.name = "vit_tiny"

    config.data.name = "cifar10"
    config.data.validation_size = 5000
    config.data.standardize = True
    config.data.crop = 4
    config.data.flip = True

    config.train.optimizer = "adamw"
    config.train.learning_rate = 1e-3
    config.train.weight_decay = 0.05
    config.train.batch_size = 64
    config.train.schedule = "cosine"
    config.train.label_smoothing = 0.1
    config.eval.every = "1ep"

    config.pruning.scope = "global"
    config.pruning.fraction = 0.2
    config.pruning.layer_rates = (("patches", 0), ("output", 0))
    if scale == "laptop":
        config.train.steps = "300"
        config.train.warmup = "30"
        config.levels = 2
        config.replicates = 1
        config.branch.reinit = {"levels": (2,)}
    else:
        config.train.steps = "100ep"
        config.train.warmup = "5ep"
        config.levels = 15
        config.replicates = 3
    return config
