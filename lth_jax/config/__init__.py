"""The experiment's spec: what a config file and the command line say, validated and frozen.

Everything below this package takes plain arguments; `ConfigDict` ends here. Whether a *name* exists
(a model, a dataset, a criterion, ...) is checked by `build`, which knows the registries.
"""

from lth_jax.config.fields import (
    SCOPES,
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
    duration_steps,
    flatten,
    to_dict,
)
from lth_jax.config.identity import (
    branch_identity,
    branch_science,
    differences,
    identity,
    science,
)
from lth_jax.config.validation import from_config, source_spec

__all__ = [
    "SCOPES",
    "TRANSFERS",
    "BranchSpec",
    "CheckpointSpec",
    "DataSpec",
    "EvalSpec",
    "ExecutionSpec",
    "ModelSpec",
    "PruningSpec",
    "RewindSpec",
    "Spec",
    "TrainSpec",
    "branch_identity",
    "branch_science",
    "default_config",
    "differences",
    "duration_steps",
    "flatten",
    "from_config",
    "identity",
    "science",
    "source_spec",
    "to_dict",
]
