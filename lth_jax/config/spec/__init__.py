"""The spec of an experiment: every field with its default, its meaning, and what is accepted.

A field that is None leaves the choice to what its meaning names. Where a number counts things,
0 may mean "all" or "automatic", and says so.
"""

# ruff: noqa: RUF009 (`field` is a `dataclasses.field`, which ruff cannot see)

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

from lth_jax.config import own_fields, reference
from lth_jax.config.fields import OwnValue, Rule, between, each, field
from lth_jax.config.spec.accepted import NAMES
from lth_jax.config.spec.branch import TRANSFERS, BranchSpec
from lth_jax.config.spec.measures import AnalysisSpec, CurvatureSpec, PathsSpec, ReportSpec
from lth_jax.config.spec.problem import DataSpec, ModelSpec
from lth_jax.config.spec.pruning import PruningSpec, RewindSpec
from lth_jax.config.spec.training import CheckpointSpec, EvalSpec, ExecutionSpec, TrainSpec

MOST_RUNS = 100_000


@dataclasses.dataclass(frozen=True)
class Spec:
    """One experiment: a trunk of `levels` prunings and its branches, over `replicates`."""

    seed: int = field(
        0,
        "What all random numbers are derived from.",
        **between(0, 2**32 - 1),
    )
    pretrain: bool = field(
        False,
        "Whether training starts from the source's trained dense network instead of a random "
        "initialization.",
    )
    replicates: int = field(
        3,
        "How many times everything is repeated with other random numbers.",
        **between(1, 1000),
        identity=False,
    )
    levels: int = field(
        12,
        "How many times the network is pruned.",
        **between(0, 1000),
        identity=False,
    )
    branches: tuple[str, ...] = field(
        ("reinit", "random_mask"),
        "The controls and transfers that start from the levels' tickets.",
        accepted="names of at most 80 letters, digits, '_', '-', '+' and '.'",
        check=each(lambda name: re.fullmatch(r"[A-Za-z0-9][\w.+-]{0,79}", name) is not None),
        identity=False,
    )
    task: str = field(
        "classification",
        "What networks are trained for: a loss and metrics.",
        accepted=NAMES,
    )
    metric: str = field(
        "",
        "Which of the task's metrics networks are measured by; '' is the first.",
        accepted="the name of a metric of the task, or '' for its first",
    )
    model: ModelSpec = field(ModelSpec(), "The network.")
    data: DataSpec = field(DataSpec(), "The dataset, and what is done to it.")
    train: TrainSpec = field(TrainSpec(), "How one network is trained.")
    eval: EvalSpec = field(EvalSpec(), "When a network is evaluated.")
    pruning: PruningSpec = field(PruningSpec(), "What a level prunes.")
    rewind: RewindSpec = field(RewindSpec(), "Where the weights that survive go on from.")
    checkpoint: CheckpointSpec = field(
        CheckpointSpec(), "How often a running level is saved.", identity=False
    )
    execution: ExecutionSpec = field(ExecutionSpec(), "How runs are executed.")
    analysis: AnalysisSpec = field(AnalysisSpec(), "How results are judged.", identity=False)
    paths: PathsSpec = field(
        PathsSpec(), "Which paths between trained networks are measured.", identity=False
    )
    curvature: CurvatureSpec = field(
        CurvatureSpec(), "When the loss's curvature is measured.", identity=False
    )
    report: ReportSpec = field(ReportSpec(), "How results are shown.", identity=False)
    custom: Mapping[str, OwnValue] = field(
        {}, "Fields of your own, which your own rows take as parameters of these names."
    )
    branch: Mapping[str, BranchSpec] = field(
        {}, "Options of branches, by the branch's name.", identity=False
    )
    source: Mapping[str, Any] = field(
        {},
        "For transfers, what differs in the experiment that tickets come from, or `run`, its "
        "finished run directory.",
        identity=False,  # save with `pretrain`; see `identity.science`
    )
    reference: Mapping[str, Any] = field(
        {},
        "Published results to hold ours against: `title`, whose; `source`, where they stand; "
        "`steps` of their networks; for `<branch>.<column>`, points of density, value and perhaps "
        "its uncertainty; and `claims`.",
        identity=False,
    )

    def branch_spec(self, name: str) -> BranchSpec:
        """Returns the options of branch `name`, its kind filled in."""
        options = self.branch.get(name, BranchSpec())
        return dataclasses.replace(options, kind=options.kind or name)

    def under(self, name: str) -> Spec:
        """Returns this spec with the training options and the own fields of branch `name`."""
        branch = self.branch_spec(name)
        custom = {**self.custom, **branch.custom}
        return dataclasses.replace(self, train=branch.train_spec(self.train), custom=custom)

    def _levels_of(self, name: str) -> set[int]:
        """Returns the levels that a branch starts from."""
        return set(self.branch_spec(name).levels or range(1, self.levels + 1))

    def _levels_given(self, name: str) -> set[int]:
        """Returns the levels at which a branch has masks for others; none for no such branch."""
        there = name in self.branches and self.branch_spec(name).kind != "mask_of"
        return self._levels_of(name) if there else set()

    def rules(self) -> Iterator[Rule]:
        """Gives what must hold of several fields, and of what no field of a group declares."""
        names, densities = self.branches, self.pruning.densities
        yield len(set(names)) == len(names), "branches", names, "each name once"
        yield (
            "ticket" not in names,
            "branches",
            names,
            "any names but 'ticket', the trunk's own",
        )
        runs = self.replicates * (self.levels + 1)
        for name in names:
            branch = self.branch_spec(name)
            runs += self.replicates * branch.draws * len(branch.levels or range(self.levels))
        yield (
            runs <= MOST_RUNS,
            "replicates",
            self.replicates,
            f"replicates, levels, branches and draws that make at most {MOST_RUNS:,} runs, not "
            f"{runs:,}",
        )
        yield (
            not densities or self.levels <= len(densities),
            "levels",
            self.levels,
            f"0 to {len(densities)}, the number of pruning.densities",
        )
        users = [name for name in names if self.branch_spec(name).kind in TRANSFERS]
        users += ["pretrain"] if self.pretrain else []
        yield (
            not users or bool(self.source),
            "source",
            self.source,
            f"what differs in the source, such as source.data.name, for {', '.join(users)}",
        )
        kept = [name for name in names if self.branch_spec(name).is_kept]
        pairs = [name for name in names if self.branch_spec(name).kind == "sibling"]
        yield (
            "ticket_branch" not in self.paths.pairs or bool(kept),
            "paths.pairs",
            self.paths.pairs,
            "ticket_branch with a branch whose networks are kept: branch.NAME.keep=True",
        )
        yield (
            "siblings" not in self.paths.pairs
            or any(self.branch_spec(name).draws > 1 for name in pairs),
            "paths.pairs",
            self.paths.pairs,
            "siblings with branch.sibling.draws of 2 or more, and sibling among the branches",
        )
        donated = [name for name in names if self.branch_spec(name).takes_mask]
        yield (
            not donated or self.replicates > 1,
            "replicates",
            self.replicates,
            f"2 or more with {', '.join(donated)}, which takes the mask of another replicate",
        )
        for name in names:
            branch = self.branch_spec(name)
            yield (
                branch.kind != "mask_of" or self._levels_of(name) <= self._levels_given(branch.of),
                f"branch.{name}.of",
                branch.of,
                "another branch, no mask_of, that starts from all levels that this one starts from",
            )
        for name, options in self.branch.items():
            yield (
                options.align == "weights" or self.branch_spec(name).takes_mask,
                f"branch.{name}.align",
                options.align,
                "weights save in a branch of the kind permuted_mask",
            )
            yield (
                not options.of or self.branch_spec(name).kind == "mask_of",
                f"branch.{name}.of",
                options.of,
                "'' save in a branch of the kind mask_of",
            )
            yield (
                self.pruning.granularity != "channel" or options.scope in ("layerwise", "global"),
                f"branch.{name}.scope",
                options.scope,
                "layerwise or global with pruning.granularity=channel",
            )
            yield (
                options.ablation == "none" or self.branch_spec(name).kind == "prune",
                f"branch.{name}.ablation",
                options.ablation,
                "none save in a branch of the kind prune",
            )
            yield (
                0 not in options.levels or self.branch_spec(name).kind == "sibling",
                f"branch.{name}.levels",
                options.levels,
                "levels from 1 on; the dense network has siblings alone",
            )
            yield (
                name not in names or all(level <= self.levels for level in options.levels),
                f"branch.{name}.levels",
                options.levels,
                f"levels of the trunk, which has 1 to {self.levels} (config.levels)",
            )
        places = {"custom": self.custom}
        places |= {f"branch.{name}.custom": branch.custom for name, branch in self.branch.items()}
        for place, fields in places.items():
            for name, value in fields.items():
                accepted = own_fields.wrong(name, value)
                yield not accepted, f"{place}.{name}", value, accepted
        run = self.source.get("run", "")
        yield isinstance(run, str) and run.isprintable(), "source.run", run, "a run directory"
        for name, value in self.reference.items():
            accepted = reference.wrong(name, value)
            yield not accepted, f"reference.{name}", value, accepted
