"""How the numbers are called and written that are no task's metric: steps."""

from __future__ import annotations

from lth_jax.training.metrics import Metric

STEP = Metric("early-stop step", higher_is_better=False, decimals=0)
