"""LeNet-300-100 on MNIST, trained sparse in six ways, beside the ticket of the same counts.

At 10, 5 and 2% of the weights, with the same initial weights and batches, and as many weights in
each layer: the ticket, found in five rounds of training and pruning; a random mask that stays
(`static`); masks that move (`set`, Mocanu et al. 2018; `rigl`, Evci et al. 2020, α 0.3, ΔT 100, up
to three quarters of the training); and networks that are pruned as they train (`gmp`, Zhu & Gupta
2017; `ac_dc`, Peste et al. 2021; `topkast`, Jayakumar et al. 2020). Layers have Erdős–Rényi counts;
`:uniform` gives each the same share, and `:global` ranks the ticket's weights all together and
gives all methods the counts that come of it.

    python run.py --config=configs/sparse/lenet_mnist.py           # 5,000 steps, 5 replicates
    python run.py --config=configs/sparse/lenet_mnist.py:global

Cost: five minutes on 2 CPU cores (Zen 3), 120 networks of 5,000 steps.
Expected, from the papers on other networks: `rigl` above `set` above `static`; networks that begin
dense are level with the ticket.
"""

from lth_jax.configs.lenet_mnist import protocol

SCOPES = ("erdos_renyi", "uniform", "global")
METHODS = ("static", "set", "rigl", "gmp", "ac_dc", "topkast")


def get_config(scope: str = "erdos_renyi"):
    """Layers' counts by a scope of `pruning.scope`."""
    if scope not in SCOPES:
        raise ValueError(f"'{scope}' is no scope; accepted: {', '.join(SCOPES)}")
    config = protocol("laptop")
    config.pruning.scope = scope
    config.pruning.densities = (0.5, 0.22, 0.1, 0.05, 0.02)
    config.pruning.layer_rates = ()
    config.levels = 5
    config.branches = METHODS
    for name in METHODS:
        config.branch[name] = {"levels": (3, 4, 5)}
    return config
