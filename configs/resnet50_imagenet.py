"""ResNet-50 on ImageNet with late rewinding (Frankle et al. 2019, "Stabilizing the Lottery Ticket
Hypothesis", §4: from initialization no ticket is found there, from some epochs on there is one).

Survivors go back to epoch 5 of 90. SGD with momentum 0.9, weight decay 1e-4, the learning rate 0.1
for each 256 images of a batch (Goyal et al. 2017), reached in 5 epochs and divided by ten at epochs
30, 60 and 80; in training a random part of each image of 8% to 100% of its area, and flips; tested
on the middles of ILSVRC's 50,000 validation images. 10,000 training images are kept back for early
stop. A level prunes 20% of all convolutions together, never the output layer.

    python run.py --config=configs/resnet50_imagenet.py          # batch 256, for one large GPU
    python run.py --config=configs/resnet50_imagenet.py:1024     # the paper's batch
    python run.py --config=configs/resnet50_imagenet.py:small    # images of 64 pixels, 10 epochs

It needs Grain (`pip install grain`), and ImageNet: as TFDS prepares it (`imagenet2012`, 150 GB), or
its archives in `data.manual_dir`: `ILSVRC2012_img_train.tar` and `ILSVRC2012_img_val.tar`. Images
stay on disk, and are decoded as they are needed.

Cost: nobody has run it. A run takes 2.8e18 floating-point operations, so about a day on an H100 in
float32, a third of it with `--config.execution.precision=default`, as long as the machine's cores
decode 1,000 images a second (`benchmarks/loader.py` measures it). With its control at the last
level that is 30 runs.
Expected (the paper's abstract): tickets down to 20% of the weights match the dense network, whose
top-1 accuracy is about 76%.
"""

from lth_jax import default_config

VARIANTS = ("256", "1024", "small")


def get_config(variant: str = "256"):
    """Tickets with `reinit` at the last level, for batches of that many images; or `small`."""
    if variant not in VARIANTS:
        raise ValueError(f"'{variant}' is no variant; accepted: {', '.join(VARIANTS)}")
    batch_size = 256 if variant == "small" else int(variant)
    config = default_config()
    config.branches = ("reinit",)
    config.levels = 8
    config.replicates = 3

    config.model.name = "resnet50"
    config.model.stem = "imagenet"
    config.data.name = "imagenet2012"
    config.data.validation_size = 10_000
    config.data.standardize = True
    config.data.resized_crop = True
    config.data.flip = True

    config.train.optimizer = "momentum"
    config.train.momentum = 0.9
    config.train.weight_decay = 1e-4
    config.train.batch_size = batch_size
    config.train.learning_rate = 0.1 * batch_size / 256
    config.train.steps = "90ep"
    config.train.warmup = "5ep"
    config.train.drops = (("30ep", 0.1), ("60ep", 0.1), ("80ep", 0.1))
    config.rewind.step = "5ep"
    config.eval.every = "1ep"
    config.eval.batch_size = 250

    config.pruning.scope = "global"
    config.pruning.fraction = 0.2
    config.pruning.layer_rates = (("output", 0),)
    # Of a network this large one run fills a device, and a checkpoint is 300 MB.
    config.execution.group_size = 1
    config.checkpoint.every_seconds = 600.0
    if variant == "small":
        config.model.width = 0.25
        config.model.stem = "small"
        config.data.side = 64
        config.train.steps = "10ep"
        config.train.warmup = "1ep"
        config.train.drops = (("6ep", 0.1), ("9ep", 0.1))
        config.rewind.step = "1ep"
        config.levels = 4
        config.replicates = 1
    config.branch.reinit = {"levels": (config.levels,)}
    return config
