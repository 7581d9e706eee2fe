"""The store keeps a run directory: atomic writes, checked checkpoints, one writer at a time."""

from lth_jax.store.rundir import RunDirectory, checkpoint_name, drawn_name, level_name
from lth_jax.store.tables import CurvePoint

__all__ = ["CurvePoint", "RunDirectory", "checkpoint_name", "drawn_name", "level_name"]
