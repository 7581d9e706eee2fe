"""Another value for every field of a spec."""

from lth_jax.config import Spec, default_config, flatten, from_config, to_dict

FIELDS = flatten(to_dict(Spec()))
# What may grow or move between two starts of one experiment, and nothing else.
OPERATIONAL = {
    "branches", "levels", "replicates", "data.data_dir", "data.manual_dir", "data.cache_dir",
    "data.placement", "checkpoint.every_seconds", "execution.group_size", "execution.group_as",
    "execution.workers",
    "execution.compilation_cache", "train.kernel", "analysis.margin", "analysis.confidence",
    "report.bars", "report.methods", "execution.mesh",
    "paths.pairs", "paths.points", "paths.statistics", "paths.examples", "paths.align",
    "curvature.steps", "curvature.examples", "curvature.iterations",
}  # fmt: skip


# What a field asks for beside it.
BESIDE = {
    "pretrain": {"source": {"data": {"name": "mnist"}}},
    "pruning.densities": {"levels": 1},
    "pruning.rank": {"pruning": {"granularity": "channel", "rank": "l2"}},
}


def nested(field, value):
    """`{"a": {"b": value}}` for `a.b`."""
    for part in reversed(field.split(".")):
        value = {part: value}
    return value


def config_of(field, value):
    """A config with that field, and what it asks for."""
    return nested(field, value) | BESIDE.get(field, {})


def spec_with(**changes):
    """A validated spec; `train__steps` is `train.steps`."""
    config = default_config()
    for name, value in changes.items():
        group, _, field = name.rpartition("__")
        setattr(config[group] if group else config, field, value)
    return from_config(config)


def another(field):
    """Some accepted value of `field` that is not its default."""
    special = {
        "pruning.scope": "global", "pruning.layer_rates": (("output", 0.5),),
        "train.steps": "7ep", "eval.every": "7ep", "rewind.step": "7ep",
        "data.classes": (3, 1), "data.labels": "original", "data.pixels": "permuted",
        "data.part": "1/2",
        "pruning.schedule": "one_shot", "pruning.densities": (0.5, 0.1), "pruning.at": "rewind",
        "rewind.kind": "finetune", "train.schedule": "cosine", "train.warmup": "7ep",
        "train.kernel": "sparse", "analysis.confidence": 0.9, "report.bars": "range",
        "execution.group_as": "sequence", "execution.mesh": "runs:4,data:2",
        "execution.precision": "default", "data.placement": "stream",
        "paths.pairs": ("levels",), "paths.statistics": "recomputed", "paths.align": "weights",
        "curvature.steps": ("7ep",), "pruning.granularity": "block:4x2",
        "train.drops": (("7ep", 0.1),), "model.dropout": 0.25, "pruning.rounds": 2,
        "analysis.margin": 0.5, "model.layers": 3, "model.features": 8, "model.heads": 2,
        "pruning.mode": "eval", "pruning.probe": "balanced", "pruning.hessian": "kernels",
        "pruning.rank": "l2",
    }  # fmt: skip
    if field in special:
        return special[field]
    default = FIELDS[field]
    others = {
        bool: lambda: not default,
        int: lambda: default + 1,
        float: lambda: default * 0.5 or 0.25,
        str: lambda: "other",
        tuple: lambda: tuple(reversed(default)),
    }
    return others[type(default)]()
