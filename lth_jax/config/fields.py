"""The fields of an experiment, with their neutral defaults."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

DURATION = re.compile(r"([0-9]+)(ep)?")
DURATIONS = ("train.steps", "train.warmup", "eval.every", "rewind.step")
KERNELS = ("auto", "xla", "sparse")
SHAPES = ("constant", "cosine")
SCOPES = ("layerwise", "global", "erdos_renyi")
SCHEDULES = ("iterative", "one_shot")
# Branch kinds that start from the source's tickets.
TRANSFERS = ("transfer", "transfer_reinit")
LABELS = ("remapped", "original")
PART = re.compile(r"([1-9]\d*)/([1-9]\d*)")
REWINDS = ("weights", "learning_rate", "finetune")


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """The network, the initialization of its kernels, and options that some networks take.

    `hidden`: layer sizes of `mlp`. `width`: factor of a network's layers. `dropout`: its rate;
    negative is the network's own. `stem`: of residual and dense networks, for `small` images or as
    for `imagenet`. `dtype`: what is computed in, `float32` or `bfloat16`; parameters are float32.
    """

    name: str = "mlp"
    hidden: tuple[int, ...] = (300, 100)
    init: str = "glorot_normal"
    width: float = 1.0
    dropout: float = -1.0
    stem: str = "small"
    dtype: str = "float32"


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """The dataset, its splits, and where it lies (the directories are not part of the science).

    `classes`: those to keep (empty: all), their `labels` `remapped` to count from 0 or `original`.
    `part`: such as `1/2`, a share of the training set, class by class. `side` and `channels`: of
    the images, scaled and repeated to them; 0 leaves them. `standardize`: to mean 0 and deviation 1
    in each channel of the training set. `crop` and `flip`: in training, an image is moved by up to
    `crop` pixels and mirrored half of the time.
    """

    name: str = "digits"
    validation_size: int = 200
    train_size: int = 0
    test_size: int = 0
    classes: tuple[int, ...] = ()
    labels: str = "remapped"
    part: str = ""
    side: int = 0
    channels: int = 0
    standardize: bool = False
    crop: int = 0
    flip: bool = False
    data_dir: str = ""
    manual_dir: str = ""
    cache_dir: str = ""


@dataclasses.dataclass(frozen=True)
class TrainSpec:
    """How one network is trained. `steps` and `warmup` are durations: `5000`, `40ep`.

    `nesterov`: for the optimizer `momentum`. `schedule`: of the learning rate, `constant` or
    `cosine` (to 0 at the last step), after a linear `warmup`. `drops`: (duration, factor) pairs, by
    which a constant rate is multiplied from there on. `kernel`: what computes on CPU: `xla`
    alone; `auto`, native kernels where they pay; `sparse`, these for every layer with a mask too.
    """

    steps: str = "1000"
    batch_size: int = 60
    optimizer: str = "adam"
    learning_rate: float = 1.2e-3
    weight_decay: float = 0.0
    momentum: float = 0.9
    nesterov: bool = False
    schedule: str = "constant"
    warmup: str = "0"
    drops: tuple[tuple[str, float], ...] = ()
    label_smoothing: float = 0.0
    kernel: str = "auto"


@dataclasses.dataclass(frozen=True)
class EvalSpec:
    """When a network is evaluated (a duration), and in which batches."""

    every: str = "100"
    batch_size: int = 1000


@dataclasses.dataclass(frozen=True)
class PruningSpec:
    """What a level prunes.

    `layer_rates`: (path pattern, multiple of `fraction`) pairs. `densities`: those of levels 1, 2,
    … instead of equal fractions. `schedule`: `iterative` prunes the level before, `one_shot` level
    0. `at`: score the `trained` network or the one at the `rewind` point; empty is the
    criterion's own, as `rounds` 0 is. `examples`: how many probe gradients.
    """

    criterion: str = "magnitude"
    scope: str = "layerwise"
    fraction: float = 0.2
    layer_rates: tuple[tuple[str, float], ...] = ()
    schedule: str = "iterative"
    densities: tuple[float, ...] = ()
    at: str = ""
    rounds: int = 0
    examples: int = 1000
    alpha: float = 1.0
    temperature: float = 200.0


@dataclasses.dataclass(frozen=True)
class RewindSpec:
    """Where survivors go on from: the state at `step` (a duration).

    `kind`: `weights` restores all of that state; `learning_rate` keeps the trained weights and
    restores the rest; `finetune` restores nothing and goes on from the end (Renda et al. 2020).
    """

    step: str = "0"
    kind: str = "weights"


@dataclasses.dataclass(frozen=True)
class CheckpointSpec:
    """How often a running level is saved, at most, in seconds."""

    every_seconds: float = 20.0


@dataclasses.dataclass(frozen=True)
class ExecutionSpec:
    """How runs are executed.

    `group_size`: runs trained at once in one `vmap`; 0 chooses 1 on CPU (bit for bit repeatable),
    all runs of a level elsewhere. `workers`: groups trained side by side; 0 chooses one for each
    core on CPU, 1 elsewhere. `compilation_cache`: keep compiled programs in `data.cache_dir`.
    """

    group_size: int = 0
    workers: int = 0
    compilation_cache: bool = False


@dataclasses.dataclass(frozen=True)
class BranchSpec:
    """One branch. An empty `kind` means the branch's name; empty `levels` means all from 1 on.

    `sigma`: for `noise`, in standard deviations of the layer's initialization. `new_head`: for
    transfers, an output layer of its own, with a full mask. The other fields
    override those of `train` for this branch; empty, 0 or negative ones leave them as they are.
    """

    kind: str = ""
    draws: int = 1
    levels: tuple[int, ...] = ()
    sigma: float = 0.5
    steps: str = ""
    batch_size: int = 0
    optimizer: str = ""
    learning_rate: float = 0.0
    weight_decay: float = -1.0
    momentum: float = -1.0
    new_head: bool = False

    def train_spec(self, train: TrainSpec) -> TrainSpec:
        """`train` with this branch's overrides."""
        given = {
            "steps": self.steps,
            "batch_size": self.batch_size,
            "optimizer": self.optimizer,
            "learning_rate": self.learning_rate,
        }
        overrides = {name: value for name, value in given.items() if value}
        for name in ("weight_decay", "momentum"):
            if getattr(self, name) >= 0:
                overrides[name] = getattr(self, name)
        return dataclasses.replace(train, **overrides)


@dataclasses.dataclass(frozen=True)
class Spec:
    """One experiment: a trunk of `levels` prunings and its branches, over `replicates`.

    `source`, for transfers: what differs in the experiment that tickets come from, dotted
    (`data.name`), or its finished run directory (`run`). `pretrain`: start from the source's
    trained dense network instead of a random initialization.
    `reference`: published points to draw beside ours: a `title`, and `<branch>.<column>` tuples of
    (density, value).
    """

    seed: int = 0
    pretrain: bool = False
    replicates: int = 3
    levels: int = 12
    branches: tuple[str, ...] = ("reinit", "random_mask")
    model: ModelSpec = ModelSpec()
    data: DataSpec = DataSpec()
    train: TrainSpec = TrainSpec()
    eval: EvalSpec = EvalSpec()
    pruning: PruningSpec = PruningSpec()
    rewind: RewindSpec = RewindSpec()
    checkpoint: CheckpointSpec = CheckpointSpec()
    execution: ExecutionSpec = ExecutionSpec()
    branch: Mapping[str, BranchSpec] = dataclasses.field(default_factory=dict)
    source: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    reference: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def branch_spec(self, name: str) -> BranchSpec:
        """The options of branch `name`, its kind filled in."""
        options = self.branch.get(name, BranchSpec())
        return dataclasses.replace(options, kind=options.kind or name)


def duration_steps(duration: str, steps_per_epoch: int) -> int:
    """A duration in steps: `5000` is 5000, `40ep` is 40 × `steps_per_epoch`."""
    match = DURATION.fullmatch(duration)
    assert match, f"unvalidated duration {duration!r}"
    return int(match[1]) * (steps_per_epoch if match[2] else 1)


def default_config() -> Any:  # a ConfigDict, whose type knows no nested fields
    """The neutral experiment as a `ConfigDict`, for config files to change.

    Durations are strings and sequences tuples, so that the command line can override them.
    """
    from ml_collections import ConfigDict

    return ConfigDict(to_dict(Spec()), convert_dict=True)


def to_dict(spec: Any) -> dict[str, Any]:
    """A spec as nested plain dicts; tuples stay tuples."""
    return dataclasses.asdict(spec)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one dict with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if hasattr(value, "keys"):  # a `ConfigDict` is no `Mapping`
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat
