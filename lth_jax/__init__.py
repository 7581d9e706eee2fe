"""Winning tickets in JAX: masks, exact pruning and rewinding for any parameter pytree.

Names are loaded when they are first used, so that `import lth_jax` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from lth_jax._version import __version__

if TYPE_CHECKING:
    from lth_jax.config import default_config
    from lth_jax.export.compact import load_compact
    from lth_jax.export.tickets import load_ticket, load_trained
    from lth_jax.lottery.branches import StartPoint
    from lth_jax.models.base import Model, from_linen
    from lth_jax.models.nnx import from_nnx
    from lth_jax.pruning.masks import (
        apply_mask,
        density,
        mask_optimizer_state,
        masked_step,
        ones_mask,
        prunable,
    )
    from lth_jax.pruning.selection import prune

_HOMES = {
    "Model": "lth_jax.models.base",
    "StartPoint": "lth_jax.lottery.branches",
    "apply_mask": "lth_jax.pruning.masks",
    "default_config": "lth_jax.config",
    "density": "lth_jax.pruning.masks",
    "from_linen": "lth_jax.models.base",
    "from_nnx": "lth_jax.models.nnx",
    "load_compact": "lth_jax.export.compact",
    "load_ticket": "lth_jax.export.tickets",
    "load_trained": "lth_jax.export.tickets",
    "mask_optimizer_state": "lth_jax.pruning.masks",
    "masked_step": "lth_jax.pruning.masks",
    "ones_mask": "lth_jax.pruning.masks",
    "prunable": "lth_jax.pruning.masks",
    "prune": "lth_jax.pruning.selection",
}

__all__ = ["__version__", *_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'lth_jax' has no attribute '{name}'")
