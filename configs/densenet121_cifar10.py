"""DenseNet-121 on CIFAR-10 (Huang et al. 2017), by the protocol of `resnet18_cifar10.py`.

One of the networks of the student report this project started from.

    python run.py --config=configs/densenet121_cifar10.py                # low, laptop
    python run.py --config=configs/densenet121_cifar10.py:rewind,paper   # 5 replicates, 20 levels

At full width a step takes seconds on 2 CPU cores, so the laptop's network has an eighth of the
channels, trains for 500 steps, and is tested on 2,000 images.
Cost: 15–25 minutes at laptop scale on 2 CPU cores, by the run's own estimate under way; two of them
pass in compilation before the first step.
Expected at paper scale: dense about 95% with `high`.
"""

from lth_jax.configs.resnet18_cifar10 import get_config as resnet18


def get_config(variant: str = "low,laptop"):
    """Tickets with `reinit`: a learning rate, a scale, or both (`high,paper`)."""
    config = resnet18(variant, name="densenet121")
    if config.replicates == 1:  # laptop
        config.train.steps = "500"
        config.levels = 2
    return config
