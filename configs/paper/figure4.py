"""Frankle & Carbin (2019), Figure 4a: early-stop iteration and accuracy of LeNet's tickets.

The figures of the run show the paper's own points beside ours (read off its figures, ±0.1 points
and ±300 iterations).

    python run.py --config=configs/paper/figure4.py            # laptop: 40% a level, 2,500 steps
    python run.py --config=configs/paper/figure4.py:paper      # 20% a level, 50,000 steps

Cost: about 4 minutes on 2 CPU cores; at paper scale about a day and a half.
Expected: accuracy at early stop rises above the dense network's down to 13.5% of the weights and
falls below it at about 2.9%; reinitialized masks fall below it from 21% on. At laptop scale
training stops before overfitting sets in, so early stops come later, relative to the end.
"""

from configs.lenet_mnist import get_config as lenet_mnist

TICKET_ACCURACY = (
    (1.0, 0.979), (0.41, 0.982), (0.169, 0.984), (0.070, 0.982), (0.029, 0.979), (0.012, 0.969),
    (0.005, 0.939),
)  # fmt: skip
TICKET_STEP = ((1.0, 4600), (0.169, 3400), (0.070, 4500), (0.029, 6700), (0.012, 14400))


def get_config(scale: str = "laptop"):
    """Tickets with `reinit` and `random_mask`, at `laptop` or `paper` scale."""
    config = lenet_mnist(scale)
    points: dict[str, tuple] = {"early_stop_test_accuracy": TICKET_ACCURACY}
    if scale == "paper":  # steps compare only where training is as long
        points["early_stop_step"] = TICKET_STEP
    config.reference.update({"title": "Frankle & Carbin 2019", "ticket": points})
    if scale == "laptop":
        config.levels = 9
        config.replicates = 3
        config.train.steps = "2500"
        config.pruning.fraction = 0.4
    return config
