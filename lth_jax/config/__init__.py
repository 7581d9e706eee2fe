"""The experiment's spec: what a config file and the command line say, checked and frozen.

Everything below this package takes plain arguments; `ConfigDict` ends here. Whether a *name* exists
(a model, a dataset, a criterion, ...) is checked by `lottery`, which knows the registries. Nothing
that is imported here imports JAX, so that `list` and `inspect` start at once.
"""

from lth_jax.config.fields import Declaration, declared, duration_steps, flatten
from lth_jax.config.identity import (
    branch_identity,
    branch_science,
    differences,
    identity,
    science,
)
from lth_jax.config.spec import (
    TRANSFERS,
    BranchSpec,
    CheckpointSpec,
    DataSpec,
    EvalSpec,
    ExecutionSpec,
    ModelSpec,
    PruningSpec,
    RewindSpec,
    Spec,
    TrainSpec,
    default_config,
    from_config,
    is_default,
    source_spec,
    to_dict,
)

__all__ = [
    "TRANSFERS",
    "BranchSpec",
    "CheckpointSpec",
    "DataSpec",
    "Declaration",
    "EvalSpec",
    "ExecutionSpec",
    "ModelSpec",
    "PruningSpec",
    "RewindSpec",
    "Spec",
    "TrainSpec",
    "branch_identity",
    "branch_science",
    "declared",
    "default_config",
    "differences",
    "duration_steps",
    "flatten",
    "from_config",
    "identity",
    "is_default",
    "science",
    "source_spec",
    "to_dict",
]
