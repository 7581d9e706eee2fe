"""The experiment's spec: what a config file and the command line say, checked and frozen.

Everything below this package takes plain arguments; `ConfigDict` ends here. Whether a *name* exists
(a model, a dataset, a criterion, ...) is checked by `lottery`, which knows the registries. Nothing
that is imported here imports JAX, so that `list` and `inspect` start at once.
"""

from lth_jax.config.conversion import (
    default_config,
    from_config,
    from_record,
    is_default,
    settled,
    source_spec,
    to_dict,
)
from lth_jax.config.fields import MOST_STEPS, Declaration, declared, duration_steps, flatten
from lth_jax.config.identity import (
    branch_identity,
    branch_science,
    differences,
    identity,
    meant_before,
    science,
)
from lth_jax.config.spec import (
    TRANSFERS,
    AnalysisSpec,
    BranchSpec,
    CheckpointSpec,
    CurvatureSpec,
    DataSpec,
    EvalSpec,
    ExecutionSpec,
    ModelSpec,
    PathsSpec,
    PruningSpec,
    RewindSpec,
    Spec,
    TrainSpec,
)

__all__ = [
    "MOST_STEPS",
    "TRANSFERS",
    "AnalysisSpec",
    "BranchSpec",
    "CheckpointSpec",
    "CurvatureSpec",
    "DataSpec",
    "Declaration",
    "EvalSpec",
    "ExecutionSpec",
    "ModelSpec",
    "PathsSpec",
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
    "from_record",
    "identity",
    "is_default",
    "meant_before",
    "science",
    "settled",
    "source_spec",
    "to_dict",
]
