"""Ten methods in one table: LeNet-300-100 on MNIST at 20, 10, 5 and 2% of the weights.

Every method keeps as many weights as the ticket, sees the same batches in the same order, and
trains for as many steps: the ticket (iterative magnitude pruning, Frankle & Carbin 2019), its mask
with fresh weights (`reinit`) or at random (`random_mask`), the trained weights under the rewound
learning rate (`learning_rate`) or the last one (`finetune`, Renda et al. 2020), the dense network
pruned once (`one_shot`), and what prunes before training: magnitudes at initialization, SNIP (Lee
et al. 2019), GraSP (Wang et al. 2020) and SynFlow (Tanaka et al. 2020), which rank all layers
together, as their authors do. 30,000 steps, so that the slowest controls converge.

    python run.py --config=configs/compare/methods_mnist.py

Cost: 74 minutes on one core of a Zen 3, with another run on the second one (55 networks of the
ticket, 180 of branches; five replicates).
Expected (measured, `docs/results.md`): fine-tuning, learning-rate rewinding and the ticket first,
not told apart; one-shot pruning behind them as weights go, then what prunes before training, and
random masks last, as in Frankle et al. (2021).
"""

from lth_jax.configs.lenet_mnist import protocol

# At every second of these levels methods are compared; the ones between are the ticket's own way.
DENSITIES = (0.67, 0.45, 0.3, 0.2, 0.14, 0.1, 0.07, 0.05, 0.032, 0.02)
COMPARED = (0.2, 0.1, 0.05, 0.02)


def get_config():
    """The comparison at full length."""
    return with_methods(protocol("laptop"), DENSITIES, COMPARED, steps=30_000)


def with_methods(config, densities, compared, steps):
    """Makes an experiment a comparison of all methods.

    Args:
      config: the experiment.
      densities: those of the levels, falling.
      compared: those of them at which there are branches.
      steps: how long every network trains.
    """
    config.train.steps = str(steps)
    config.pruning.densities = densities
    config.levels = len(densities)
    config.report.methods = True
    before_training = {
        "magnitude_init": {"criterion": "magnitude", "scored": "rewind"},
        "snip": {"criterion": "snip"},
        "grasp": {"criterion": "grasp"},
        "synflow": {"criterion": "synflow"},
    }
    own = ("learning_rate", "finetune", "one_shot", "reinit", "random_mask")
    config.branches = (*own, *before_training)
    levels = tuple(densities.index(density) + 1 for density in compared)
    for name in own:
        config.branch[name] = {"levels": levels}
    for name, options in before_training.items():
        config.branch[name] = {"kind": "prune", "scope": "global", "levels": levels, **options}
    return config
