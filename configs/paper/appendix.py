"""The appendix studies of Frankle & Carbin (2019) that ask something of LeNet on MNIST.

    python run.py --config=configs/paper/appendix.py:NAME

`NAME` is a study and its value (see `STUDIES`), laptop scale: one replicate, 1,500 steps a level;
with `:NAME,paper` 50,000 steps and 5 replicates.

- `rate=0.1 … 0.6` (Appendix G.5): pruning 10–20% a level beats 40% and more.
- `adam=…`, `sgd=…`, `momentum=…` (G.2–G.4): learning rates; tickets are found with all of them.
- `init=glorot_normal, glorot_truncated, glorot_uniform, he_normal` (G.6, other initializations):
  the first is the paper's text's and that of other studies at laptop scale, the second its code's
  and theirs at paper scale.
- `layers=25x9, 100x30, 300x100, 700x230` (G.7): larger networks hold smaller tickets, relatively.
- `reset=weights, finetune` (Appendix B): resetting to the initial weights against going on.
- `redraw` (F.3): kept weights shuffled, drawn from their own distribution, or constants.
- `noise` (F.7): 0.5σ of noise on the initial weights is harmless, 3σ still beats `reinit`.

Cost: 15–120 seconds each on 2 CPU cores.
"""

from lth_jax.configs.lenet_mnist import protocol

from lth_jax.errors import nearest

STUDIES = {
    "rate": ("0.1", "0.2", "0.4", "0.6"),
    "adam": ("2e-4", "1.2e-3", "5e-3"),
    "sgd": ("0.05", "0.2", "0.5"),
    "momentum": ("0.01", "0.05", "0.1"),
    "init": ("glorot_normal", "glorot_truncated", "glorot_uniform", "he_normal"),
    "layers": ("25x9", "100x30", "300x100", "700x230"),
    "reset": ("weights", "finetune"),
    "redraw": ("",),
    "noise": ("",),
}
NAMES = tuple(f"{s}={v}" if v else s for s, values in STUDIES.items() for v in values)


def get_config(name: str = "redraw"):
    """One study; see the file's docstring."""
    study, _, scale = name.partition(",")
    if study not in NAMES or scale not in ("", "paper"):
        raise ValueError(f"'{name}' is no study; {nearest(study, NAMES)}")
    config = protocol("paper" if scale else "laptop")
    config.branches = ()
    if not scale:
        config.replicates = 1
        config.levels = 6
        config.train.steps = "1500"
        config.pruning.fraction = 0.4
    kind, _, value = study.partition("=")
    if kind == "rate":
        config.pruning.fraction = float(value)
        # As many levels as lead to about 5% of the weights.
        config.levels = {"0.1": 28, "0.2": 13, "0.4": 6, "0.6": 3}[value]
    elif kind in ("adam", "sgd", "momentum"):
        config.train.optimizer = kind
        config.train.learning_rate = float(value)
    elif kind == "init":
        config.model.init = value
    elif kind == "layers":
        config.model.hidden = tuple(int(width) for width in value.split("x"))
    elif kind == "reset":
        config.rewind.kind = value
    elif kind == "redraw":
        redraws = ("reshuffle", "reinit_from_ticket", "signed_constant", "constant_random_sign")
        config.branches = (*redraws, "reinit")
    else:
        config.branches = ("noise_half", "noise_1", "noise_2", "noise_3", "reinit")
        for branch, sigma in zip(config.branches, (0.5, 1.0, 2.0, 3.0), strict=False):
            config.branch[branch] = {"kind": "noise", "sigma": sigma}
    return config
