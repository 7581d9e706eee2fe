"""ResNet-18 on CIFAR-10, with the stem for small images (He et al. 2016).

Not the "ResNet-18" of Frankle & Carbin (2019), which is `resnet20_cifar10.py`; by their protocol
with the lengths that papers on late rewinding use for networks of this size: SGD with momentum 0.9,
batch 128, 160 epochs, the learning rate divided by ten at epochs 80 and 120, weight decay 1e-4,
crops and flips, 20% of all convolutions pruned together. Learning rates as there: `low`, `high`,
`warmup`, `rewind`.

    python run.py --config=configs/resnet18_cifar10.py                # low, laptop
    python run.py --config=configs/resnet18_cifar10.py:rewind,paper   # 5 replicates, 20 levels

At full width a step takes seconds on 2 CPU cores, so the laptop's network has an eighth of the
channels, and the test split 2,000 images.
Cost: 17 minutes at laptop scale on 2 CPU cores, by the run's own estimate under way.
Expected at paper scale: dense about 94–95% with `high`.
"""

from lth_jax.configs.vgg19_cifar10 import get_config as vgg19


def get_config(variant: str = "low,laptop", name: str = "resnet18"):
    """Tickets with `reinit`: a learning rate, a scale, or both (`high,paper`)."""
    config = vgg19(variant, name=name)
    if config.train.steps == "112000":
        config.train.batch_size = 128
        config.train.steps = "160ep"
    return config
