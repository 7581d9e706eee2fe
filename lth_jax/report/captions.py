"""What the figures of a report show, in words: their headings and captions."""

from __future__ import annotations

_POINTS = "Points are means over replicates and draws, bars go from the minimum to the maximum"
_RUNS = " Runs differ in colour, branches in dashes."

HEADINGS = {
    "accuracy": "Accuracy",
    "early_stop": "Early stop",
    "paired_difference": "Ticket against control, paired",
    "curves": "Training curves",
    "layer_density": "Layers",
    "first_layer_mask": "The first layer's mask",
    "initial_weights": "Which initial weights survive",
    "mask_overlap": "Do replicates find the same mask?",
    "mask_overlap_levels": "Masks of levels",
}

CAPTIONS = {
    "accuracy": (
        "Test accuracy at early stop (left), the evaluation of the smallest validation loss, and "
        f"at the end of training (right), against the weights left. {_POINTS}; hollow points lack "
        "replicates."
    ),
    "early_stop": (
        f"The step of the smallest validation loss: how fast a network learns. {_POINTS}."
    ),
    "paired_difference": (
        "Test accuracy of the ticket minus that of each control, replicate by replicate, since "
        "both see the same batches: mean over replicates ± standard error."
    ),
    "curves": (
        "Validation accuracy while training, mean over runs with their range shaded, a line for "
        "each share of weights left. The dense network (100%) is in every panel."
    ),
    "layer_density": (
        "How much of each layer is left. A layer above the dashed line is pruned less than the "
        "network as a whole."
    ),
    "first_layer_mask": (
        "How many connections each input pixel keeps at some levels, mean over replicates. Each "
        "panel has a scale of its own; white pixels are cut off from the network."
    ),
    "first_layer_kernels": "The masks of the first kernels at some levels, of replicate 0.",
    "initial_weights": (
        "Distribution of the initial weights of what survives (lines) against all of the layer "
        "(grey), replicates pooled, as in Frankle & Carbin (2019), Appendix F.1."
    ),
    "mask_overlap": (
        "Jaccard index (weights that both masks keep over those that either keeps) of two "
        "replicates' masks, mean and range over pairs, and that of random masks with the same "
        "counts in each layer; on the right, how many times chance that is. Hidden units of two "
        "replicates have no common order: only pixels and classes can agree."
    ),
    "mask_overlap_levels": (
        "Jaccard index of the masks of two levels: of one replicate, whose masks are nested where "
        "each is pruned from the one before; of two replicates; and of random masks."
    ),
}

COMPARISONS = {
    "accuracy": CAPTIONS["accuracy"] + _RUNS,
    "early_stop": CAPTIONS["early_stop"] + _RUNS,
    "paired_difference": CAPTIONS["paired_difference"] + _RUNS,
    "curves": "Validation accuracy of the tickets while training, a panel for each run.",
}


def published(title: str) -> str:
    """What to add where published points are drawn."""
    return f" {title} in grey."


def some_layers(shown: int, layers: int) -> str:
    """What to add where not every layer has a panel."""
    return "" if shown == layers else f" {shown} of {layers} layers are shown."
