"""LeNet-5 on MNIST, by the protocol of LeNet-300-100 (Frankle & Carbin 2019, Figure 2).

The student report this project started from trains it with Adam 1.2e-3 and batches of 60, pruning
every layer alike. Here convolutions lose 10% a level, as the paper's Conv-2 does, and the output
layer 10%. `--config.model.name=lenet5_wide` is the variant of 64 filters of the report's
repository.

    python run.py --config=configs/lenet5_mnist.py          # 2,000 steps a level, 2 replicates
    python run.py --config=configs/lenet5_mnist.py:paper    # 50,000 steps a level, 5 replicates

Cost: 14 minutes at laptop scale on 2 CPU cores, by the run's own estimate under way.
Expected: dense about 99% at paper scale (LeCun et al. 1998: 99.05% without distortions).
"""

from lth_jax.configs.lenet_mnist import protocol as lenet_mnist


def get_config(scale: str = "laptop"):
    """Tickets with `reinit` and `random_mask`, at `laptop` or `paper` scale."""
    config = lenet_mnist(scale)
    config.model.name = "lenet5"
    config.pruning.layer_rates = (("conv*", 0.5), ("output", 0.5))
    if scale == "laptop":
        config.train.steps = "2000"
        config.replicates = 2
        config.levels = 10
    return config
