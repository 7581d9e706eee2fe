"""VGG-16 on CIFAR-10, by the protocol of VGG-19 (Frankle & Carbin 2019, §4).

The papers on late rewinding (Frankle et al. 2020, "Linear Mode Connectivity and the Lottery Ticket
Hypothesis") and the student report this project started from use this depth.

    python run.py --config=configs/vgg16_cifar10.py                # low, laptop
    python run.py --config=configs/vgg16_cifar10.py:rewind,paper   # 5 replicates, 20 levels

At full width a step takes seconds on 2 CPU cores, so the laptop's network has an eighth of the
channels, and the test split 2,000 images.
Cost: 13 minutes at laptop scale on 2 CPU cores, by the run's own estimate under way.
Expected at paper scale: dense about 93% with `high` and without tickets from initialization.
"""

from lth_jax.configs.vgg19_cifar10 import get_config as vgg19


def get_config(variant: str = "low,laptop"):
    """Tickets with `reinit`: a learning rate, a scale, or both (`high,paper`)."""
    return vgg19(variant, name="vgg16")
