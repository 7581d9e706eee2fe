"""A small GPT on the characters of Python's own standard library: tickets of a language model.

The text is the source of the modules that lie in this Python's library, so that nothing is loaded;
another version of Python has another text, and its runs are other experiments. The network sees 64
characters and gives for each what it expects next; what is reported are bits per character. No
paper has this experiment: it shows that tickets are no matter of classes and images.

    python run.py --config=configs/char_gpt.py

Only the blocks' kernels are pruned: the embeddings are no kernels, and the output layer is left
whole, since it is as large as a block's layer and reads what all of them wrote.

Cost: under five minutes on 2 CPU cores; with `--config.levels=5`, seven. Expected (measured;
less is better): a network is between the models that know one character before (3.4 bits) and two
(2.7 bits), and is still learning when training ends, so that its early stop is its last step. The
ticket matches the dense network's 2.86 bits (within 0.02) at 60 and 36% of the blocks' weights
(2.81), is undecided at 21.6% (2.85), and below it at 13 and 7.8%; `reinit` (2.94 to 3.07) and
`random_mask` (2.92 to 3.10) are below it at every level.
"""

import re
import sysconfig
from pathlib import Path

import numpy as np

from lth_jax import default_config

CONTEXT = 64
CHARACTERS = 1_000_000
TEST = 0.1
# Printable ASCII and the end of a line; anything else is one more character.
KNOWN = "\n" + "".join(map(chr, range(32, 127)))


def library():
    """Returns windows of CONTEXT characters, and for each character the next one."""
    folder = Path(sysconfig.get_path("stdlib"))
    # Modules that everybody has, in an order of their own: not by how a disk lists them.
    files = sorted(f for f in folder.glob("*.py") if re.fullmatch(r"[a-z][a-z0-9_]*\.py", f.name))
    text = ""
    for file in files:
        text += file.read_text("utf-8", errors="replace")
    number = {character: index for index, character in enumerate(KNOWN)}
    tokens = np.array([number.get(c, len(KNOWN)) for c in text[: CHARACTERS + 1]], np.int32)
    count = (len(tokens) - 1) // CONTEXT
    inputs = tokens[: count * CONTEXT].reshape(count, CONTEXT)
    targets = tokens[1 : count * CONTEXT + 1].reshape(count, CONTEXT)
    # The test is the end of the text: modules of which no character was trained on.
    train = round(count * (1 - TEST))
    return {
        "train_inputs": inputs[:train],
        "train_targets": targets[:train],
        "test_inputs": inputs[train:],
        "test_targets": targets[train:],
        "num_classes": len(KNOWN) + 1,
    }


DATASETS = {"python_library": library}


def get_config():
    """3 replicates, 3 levels of 40% of the blocks' kernels, 800 steps each, two controls."""
    config = default_config()
    config.task = "next_token"
    config.levels = 3
    config.replicates = 3
    config.branches = ("reinit", "random_mask")

    config.model.name = "gpt"
    config.model.layers = 2
    config.model.features = 32
    config.model.heads = 4

    config.data.name = "python_library"
    config.data.validation_size = 1000

    config.train.steps = "800"
    config.train.batch_size = 16
    config.train.optimizer = "adam"
    config.train.learning_rate = 5e-3
    config.train.warmup = "50"
    config.eval.every = "200"
    config.eval.batch_size = 500

    config.pruning.criterion = "magnitude"
    config.pruning.scope = "global"
    config.pruning.fraction = 0.4
    config.pruning.layer_rates = (("output", 0),)
    return config
