"""LeNet-300-100 on MNIST, trained sparse in six ways, beside the ticket of the same counts.

At 10, 5 and 2% of the weights, with the same initial weights and batches: the ticket (`iterative`
pruning in the trunk, as in `lenet_mnist`), a random mask that stays (`static`), masks that move
(`set`, Mocanu et al. 2018; `rigl`, Evci et al. 2020, α 0.3, ΔT 100, up to three quarters of the
training), and networks that are pruned as they train (`gmp`, Zhu & Gupta 2017; `ac_dc`, Peste et
al. 2021; `topkast`, Jayakumar et al. 2020). Masks have Erdős–Rényi-kernel counts in each layer;
`:ticket` gives each layer as many weights as the ticket has.

    python run.py --config=configs/sparse/lenet_mnist.py           # 5,000 steps, 5 replicates
    python run.py --config=configs/sparse/lenet_mnist.py:ticket    # the ticket's counts by layer

Cost: not measured yet; about 115 runs of 5,000 steps.
Expected, from the papers on other networks: `rigl` above `set` above `static`; networks that begin
dense are level with the ticket.
"""

from lth_jax.configs.lenet_mnist import protocol

DISTRIBUTIONS = ("ticket", "uniform", "erdos_renyi", "erdos_renyi_kernel")
METHODS = ("static", "set", "rigl", "gmp", "ac_dc", "topkast")


def get_config(distribution: str = "erdos_renyi_kernel"):
    """Layers' counts by a distribution of `branch.NAME.distribution`."""
    if distribution not in DISTRIBUTIONS:
        raise ValueError(
            f"'{distribution}' is no distribution; accepted: {', '.join(DISTRIBUTIONS)}"
        )
    config = protocol("laptop")
    config.pruning.densities = (0.1, 0.05, 0.02)
    config.pruning.layer_rates = ()
    config.levels = 3
    config.branches = METHODS
    for name in METHODS:
        config.branch[name] = {"distribution": distribution}
    return config
