"""The registries as they were: the rows of a config stay in them for the life of a process."""

import contextlib

from lth_jax import data, models
from lth_jax.lottery.branches import BRANCHES
from lth_jax.pruning.criteria import CRITERIA
from lth_jax.pruning.learning import LEARNED_MASKS
from lth_jax.pruning.moving import MASK_RULES
from lth_jax.training.optimizers import OPTIMIZERS, SCHEDULES
from lth_jax.training.tasks import TASKS


@contextlib.contextmanager
def kept_registries():
    """Takes away, at its end, what was added within."""
    registries = (
        models.MODELS, data.DATASETS, CRITERIA, OPTIMIZERS, SCHEDULES, BRANCHES, TASKS, MASK_RULES,
        LEARNED_MASKS,
    )  # fmt: skip
    kept = [(rows, dict(rows)) for rows in registries]
    try:
        yield
    finally:
        for rows, before in kept:
            rows.clear()
            rows.update(before)
