"""What a spec refuses, in one line each."""

import re
from fractions import Fraction

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from lth_jax.config import from_config, identity, to_dict
from lth_jax.config.reference import CLAIMS, POINTS
from lth_jax.errors import SpecError, shown

from .spec_fields import FIELDS, nested

NAN, INF = float("nan"), float("inf")
# field, value, what the message says is accepted
REFUSED = [
    ("seed", -1, "0 to 4,294,967,295"),
    ("seed", 2**32, "0 to 4,294,967,295"),
    ("seed", 1.0, "an integer"),
    ("seed", True, "an integer"),
    ("seed", "3", "an integer"),
    ("seed", None, "an integer"),
    ("replicates", 0, "1 to 1,000"),
    ("replicates", 1001, "1 to 1,000"),
    ("levels", -1, "0 to 1,000"),
    ("levels", 1001, "0 to 1,000"),
    ("branches", 3, "a tuple"),
    ("branches", (3,), "a string"),
    ("branches", ("a", "a"), "each name once"),
    ("branches", ("ticket",), "any names but 'ticket'"),
    ("branches", ("a/b",), "names of at most 80 letters"),
    ("branches", ("..",), "names of at most 80 letters"),
    ("branches", {"a": 1}, "a tuple"),
    ("model", "mlp", "a group of fields"),
    ("model.name", 3, "a string"),
    ("model.hidden", (0,), "at most 100 widths of 1 to 1,000,000"),
    ("model.hidden", (3.5,), "an integer"),
    ("model.hidden", 300, "a tuple"),
    ("model.hidden", "300", "an integer"),
    ("data.name", (), "a string"),
    ("data.validation_size", 0, "1 to 1,000,000,000"),
    ("data.train_size", -1, "0 (all) to 1,000,000,000"),
    ("data.test_size", -1, "0 (all) to 1,000,000,000"),
    ("data.data_dir", None, "a string"),
    ("data.manual_dir", 1, "a string"),
    ("data.cache_dir", False, "a string"),
    ("train.steps", "0", "at least one step"),
    ("train.steps", "00ep", "at least one step"),
    ("train.steps", "ten", "steps or epochs"),
    ("train.steps", "", "steps or epochs"),
    ("train.steps", "-5", "steps or epochs"),
    ("train.steps", "1.5ep", "steps or epochs"),
    ("train.steps", "4 ep", "steps or epochs"),
    ("train.steps", "٣", "steps or epochs"),
    ("train.steps", "٠", "steps or epochs"),
    ("train.steps", 10.0, "a string"),
    ("train.steps", True, "a string"),
    ("train.batch_size", 0, "1 to 1,000,000,000"),
    ("train.optimizer", None, "a string"),
    ("train.learning_rate", 0.0, "1e-30 to 1e30"),
    ("train.learning_rate", -1, "1e-30 to 1e30"),
    ("train.learning_rate", NAN, "1e-30 to 1e30"),
    ("train.learning_rate", INF, "1e-30 to 1e30"),
    ("train.learning_rate", "fast", "a number"),
    ("train.learning_rate", 10**400, "a number"),
    ("train.weight_decay", -0.1, "0 to 1e30"),
    ("train.weight_decay", NAN, "0 to 1e30"),
    ("train.momentum", 1.0, "0 to below 1"),
    ("train.momentum", -0.1, "0 to below 1"),
    ("train.momentum", NAN, "0 to below 1"),
    ("eval.every", "0", "at least one step"),
    ("eval.every", "x", "steps or epochs"),
    ("eval.batch_size", 0, "1 to 1,000,000,000"),
    ("rewind.step", "-1", "steps or epochs"),
    ("pruning.criterion", 1, "a string"),
    ("pruning.scope", "local", "layerwise or global"),
    ("pruning.fraction", 0.0, "above 0 and below 1"),
    ("pruning.fraction", 1.0, "above 0 and below 1"),
    ("pruning.fraction", NAN, "above 0 and below 1"),
    ("pruning.layer_rates", "output", "(pattern, multiple) pairs"),
    ("pruning.layer_rates", (("output",),), "(pattern, multiple) pairs"),
    ("pruning.layer_rates", ((1, 0.5),), "(pattern, multiple) pairs"),
    ("pruning.layer_rates", (("output", "half"),), "a number"),
    ("pruning.layer_rates", (("output", 5.0),), "stay below 1"),
    ("pruning.layer_rates", (("output", -0.5),), "stay below 1"),
    ("pruning.layer_rates", (("output", NAN),), "stay below 1"),
    ("checkpoint.every_seconds", -1.0, "0 to 1e09"),
    ("checkpoint.every_seconds", INF, "0 to 1e09"),
    ("execution.group_size", -1, "0 (automatic) to 100,000"),
    ("execution.compilation_cache", 1, "True or False"),
    ("analysis.margin", 0.0, "a number above 0"),
    ("analysis.margin", NAN, "a number above 0"),
    ("analysis.confidence", 1.0, "0.5 to below 1"),
    ("analysis.confidence", NAN, "0.5 to below 1"),
    ("report.bars", "std", "interval or range"),
    ("report.methods", 2, "True or False"),
    ("branch", 3, "a group of fields"),
    ("branch.reinit", 3, "a group of fields"),
    ("branch.reinit.draws", 0, "1 to 1,000"),
    ("branch.reinit.draws", "x", "an integer"),
    ("branch.reinit.levels", (0,), "levels from 1"),
    ("branch.reinit.levels", 4, "a tuple"),
    ("branch.reinit.levels", (2, 13), "levels of the trunk, which has 1 to 12"),
    ("branch.reinit.kind", 4, "a string"),
    ("pretrain", 1, "True or False"),
    ("model.init", 1, "a string"),
    ("model.width", 0.0, "0.001 to 1000"),
    ("train.warmup", "x", "steps or epochs"),
    ("train.nesterov", 1, "True or False"),
    ("train.schedule", 3, "a string"),
    ("train.drops", 100, "(duration, factor) pairs"),
    ("train.drops", (("100", 0.1, 2),), "(duration, factor) pairs"),
    ("train.drops", (("1e3", 0.1),), "(duration, factor) pairs such as"),
    ("train.drops", (("100", 0.0),), "(duration, factor) pairs such as"),
    ("train.label_smoothing", 1.0, "0 to below 1"),
    ("train.kernel", "native", "auto or xla or sparse"),
    ("data.standardize", 1, "True or False"),
    ("data.crop", -1, "0 (none) to 4,096"),
    ("data.flip", 1, "True or False"),
    ("data.resized_crop", 1, "True or False"),
    ("data.placement", "host", "auto or device or stream"),
    ("model.dropout", 1.0, "0 to below 1, or None for the network's own"),
    ("model.dropout", NAN, "0 to below 1"),
    ("model.dropout", "x", "a number or None"),
    ("model.stem", 1, "a string"),
    ("model.dtype", 1, "a string"),
    ("data.classes", 3, "a tuple"),
    ("data.classes", ("3",), "an integer"),
    ("data.labels", "old", "remapped or original"),
    ("data.pixels", "shuffled", "original or permuted"),
    ("data.part", "0/2", "a part such as 1/2"),
    ("data.part", "3/2", "a part such as 1/2"),
    ("data.part", "half", "a part such as 1/2"),
    ("data.part", "1/2/3", "a part such as 1/2"),
    ("data.side", -1, "0 (as they are) to 4,096"),
    ("data.channels", -1, "0 (as they are) to 4,096"),
    ("pruning.schedule", "once", "iterative or one_shot"),
    ("pruning.densities", (1.0,), "falling densities"),
    ("pruning.densities", (0.5, 0.5), "falling densities"),
    ("pruning.densities", (0.5, 0.0), "falling densities"),
    ("pruning.densities", (0.2, 0.5), "falling densities"),
    ("pruning.densities", (NAN,), "falling densities"),
    ("pruning.densities", 0.5, "a tuple"),
    ("pruning.at", "end", "trained or rewind, or None"),
    ("pruning.mode", "evaluation", "train or eval, or None for the criterion's own"),
    ("pruning.probe", "", "random or balanced, or None for the criterion's own"),
    ("pruning.invert", 2, "True or False"),
    ("pruning.hessian", "some", "all or kernels, or None for the criterion's own"),
    ("pruning.rounds", -1, "1 to 1,000, or None for the criterion's own"),
    ("pruning.examples", 0, "1 to 1,000,000,000"),
    ("pruning.alpha", 0.0, "1e-30 to 1e30"),
    ("pruning.alpha", NAN, "1e-30 to 1e30"),
    ("pruning.alpha", INF, "1e-30 to 1e30"),
    ("pruning.temperature", -1.0, "1e-30 to 1e30"),
    ("pruning.temperature", INF, "1e-30 to 1e30"),
    ("rewind.kind", "none", "weights or learning_rate or finetune"),
    ("execution.group_as", "scan", "auto or vmap or sequence or unrolled"),
    ("execution.workers", -1, "0 (automatic) to 1,024"),
    ("execution.mesh", "", "auto, runs:N, or runs:N,data:M"),
    ("execution.mesh", "runs:0", "auto, runs:N, or runs:N,data:M"),
    ("execution.mesh", "runs:10000", "auto, runs:N, or runs:N,data:M"),
    ("execution.mesh", "data:2", "auto, runs:N, or runs:N,data:M"),
    ("execution.mesh", "runs:2,data:0", "auto, runs:N, or runs:N,data:M"),
    ("execution.mesh", 4, "a string"),
    ("execution.precision", "exact", "highest or high or default"),
    ("train.cycles", 0, "1 to 1,000"),
    ("task", 1, "a string"),
    ("metric", 1, "a string"),
    ("model.layers", 0, "1 to 1,000"),
    ("model.features", 0, "1 to 1,000,000"),
    ("model.heads", 0, "1 to 10,000"),
    ("paths.pairs", ("twins",), "siblings, levels"),
    ("paths.points", 1, "2 to 10,000"),
    ("paths.statistics", "anew", "recomputed"),
    ("paths.align", "units", "none or weights"),
    ("paths.examples", -1, "0 (all)"),
    ("pruning.granularity", "4:2", "N:M such as 2:4"),
    ("pruning.granularity", "block:1x1", "block:4x4"),
    ("pruning.rank", "l3", "sum or l1 or l2"),
    ("pruning.rank", "l2", "with pruning.granularity=channel"),
    ("curvature.steps", ("7", "7"), "each once"),
    ("curvature.examples", 0, "1 to"),
    ("curvature.iterations", 0, "1 to 1,000"),
    ("branch.flip_signs.share", 1.5, "0 to 1"),
    ("branch.prune.ablation", "half", "shuffle or reinit or invert"),
    ("branch.reinit.ablation", "shuffle", "none save in a branch of the kind prune"),
    ("branch.prune.scope", "all", "layerwise or global"),
    ("branch.prune.scored", "final", "trained or rewind"),
    ("branch.cyclic.cycles", 0, "1 to 1,000"),
    ("branch.noise.sigma", -1.0, "0 to 1e30"),
    ("branch.noise.sigma", INF, "0 to 1e30"),
    ("branch.retrain.steps", "x", "steps or epochs"),
    ("branch.retrain.batch_size", -1, "1 to 1,000,000,000, or None for that of train"),
    ("branch.retrain.learning_rate", -1.0, "1e-30 to 1e30, or None for that of train"),
    ("branch.retrain.learning_rate", INF, "1e-30 to 1e30, or None"),
    ("branch.retrain.weight_decay", NAN, "0 to 1e30, or None"),
    ("branch.retrain.momentum", 1.0, "below 1"),
    ("branch.retrain.optimizer", 3, "a string"),
    ("branch.transfer.new_head", 1, "True or False"),
    ("source", 3, "a group of fields"),
    ("reference", 3, "a group of fields"),
    ("reference.ticket.final_test_accuracy", 0.9, POINTS),
    ("reference.ticket.final_test_accuracy", (0.5, 0.9), POINTS),
    ("reference.ticket.final_test_accuracy", ((0.5, 0.9, 1.0, 1.0),), POINTS),
    ("reference.ticket.final_test_accuracy", (("a", 0.9),), POINTS),
    ("reference.title", 3, "a string"),
    ("reference.source", 3, "a string"),
    ("reference.steps", "5ep", "a number of steps"),
    ("reference.claims", ({"kind": "gain"},), CLAIMS),
    ("reference.claims", ({"says": "x", "kind": "luck", "at": 0.5, "value": 1},), CLAIMS),
    ("reference.claims", ({"says": "x", "kind": "gain", "at": (0.5, 0.7), "value": 1},), CLAIMS),
    ("reference.claims", ({"says": "x", "kind": "gain", "at": 0.5, "value": "1"},), CLAIMS),
    # Nonsense that no machine can compute, or that no float32 holds.
    ("model.hidden", (99999999999999999999,), "at most 100 widths"),
    ("model.hidden", (8,) * 101, "at most 100 widths"),
    ("model.hidden", {1: 2}, "a tuple"),
    ("data.side", 100_000, "0 (as they are) to 4,096"),
    ("data.channels", 2**31, "0 (as they are) to 4,096"),
    ("branch.reinit.draws", 999_999_999, "1 to 1,000"),
    ("train.steps", 999999999999999999999, "at least one step"),
    ("train.steps", "9" * 5000, "at least one step"),
    ("train.steps", str(2**31), "at least one step"),
    ("rewind.step", f"{2**31}ep", "steps or epochs"),
    ("train.learning_rate", 1e-320, "1e-30 to 1e30"),
    ("train.weight_decay", 1e308, "0 to 1e30"),
    ("train.drops", (("10", 1e400),), "factors from 1e-30 to 1e30"),
    ("data.part", "1/" + "9" * 5000, "a part such as 1/2"),
    ("seed", 10**5000, "0 to 4,294,967,295"),
    ("branches", ("a" * 81,), "names of at most 80 letters"),
    ("data.data_dir", "a\0b", "characters that can be printed"),
    ("data.name", "\udcff", "characters that can be printed"),
    ("reference.ticket.final_test_accuracy", ((0.5, 10**400),), POINTS),
    ("reference.title", "a\0b", "a string"),
    ("source.run", 3, "a run directory"),
    ("custom.depth", None, "a number, a string, True, False, or a tuple of these"),
    ("custom.depth", (3, (4,)), "a number"),
    ("custom.depth", float("inf"), "a number"),
    ("custom.depth", 2**70, "a number"),
    ("custom.depth.of", 3, "none of a group"),
    ("custom.de pth", 3, "a name"),
    ("custom.parent", 3, "not name or parent"),
    ("custom.learning_rate", 0.1, "another name; config.train.learning_rate is"),
    ("branch.reinit.custom.width", 3, "another name; config.model.width is"),
]


@pytest.mark.parametrize(
    ("field", "value", "accepted"), REFUSED, ids=[f"{f}={shown(v, 20)}" for f, v, _ in REFUSED]
)
def test_a_wrong_value_is_refused_in_one_line(field, value, accepted):
    with pytest.raises(SpecError) as caught:
        from_config(nested(field, value))
    message = str(caught.value)
    assert message.startswith(f"config.{field}")
    assert "accepted: " in message
    assert accepted in message.split("accepted: ", 1)[1]
    assert "\n" not in message
    assert len(message) < 200
    one = value[0] if isinstance(value, tuple) and len(value) == 1 else value
    if one == one and field != "pruning.layer_rates":  # NaN is shown, but equals nothing
        assert any(shown(text).strip("'…") in message for text in (one, value))


def test_an_experiment_of_too_many_runs_is_refused():
    """Before anything counts them one by one."""
    config = {"replicates": 1000, "levels": 1000, "branch": {"reinit": {"draws": 1000}}}
    with pytest.raises(SpecError, match=r"^config\.replicates=1000: .* at most 100,000 runs, not"):
        from_config(config)
    assert from_config({"replicates": 100, "levels": 300}).replicates == 100


def test_every_field_that_is_checked_has_a_refusal():
    """A new field needs its row."""
    refused = {field for field, _, _ in REFUSED}
    assert refused >= set(FIELDS)


@pytest.mark.parametrize(
    ("field", "nearest"),
    [
        ("sed", "did you mean 'seed'?"),
        ("train.step", "did you mean 'steps'?"),
        ("pruning.layer_rate", "did you mean 'layer_rates'?"),
        ("branch.reinit.draw", "did you mean 'draws'?"),
        ("zzz", "accepted: analysis, branch, branches"),
        ("train.zzz", "accepted: batch_size"),
    ],
)
def test_an_unknown_field_names_its_neighbour(field, nearest):
    with pytest.raises(SpecError) as caught:
        from_config(nested(field, 1))
    message = str(caught.value)
    assert message.startswith(f"config.{field}: no such field; ")
    assert nearest in message
    assert "accepted: " in message
    assert "\n" not in message


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(0, 5),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["10", "3ep", "0", "global", "reinit,random_mask", "ticket", Fraction(1, 2)]),
)
VALUES = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=3),
    st.lists(st.tuples(st.text(max_size=4), SCALARS), max_size=2).map(tuple),
    st.dictionaries(st.text(max_size=4), SCALARS, max_size=2),
)
NAMES = st.sampled_from(
    [
        *FIELDS,
        "branch.reinit.draws",
        "branch.x.levels",
        "branch.y",
        "branch.x.steps",
        "train",
        "a\nb",
        "source.run",
        "source.data.name",
        "source.levels",
        "source",
        "reference.title",
        "reference.ticket.early_stop_step",
        "reference.claims",
        "reference.steps",
    ]
)


@settings(max_examples=300)
@given(st.lists(st.tuples(NAMES, VALUES), min_size=1, max_size=3))
def test_any_config_is_a_spec_or_one_clear_line(changes):
    config = {}
    for name, value in changes:
        *groups, last = name.split(".")
        node = config
        for group in groups:
            node = node.setdefault(group, {})
            if not isinstance(node, dict):
                return
        node[last] = value
    try:
        spec = from_config(config)
    except SpecError as error:
        message = str(error)
    else:
        assert from_config(to_dict(spec)) == spec
        assert re.fullmatch("[0-9a-f]{8}", identity(spec))
        return
    assert message.startswith("config.")
    assert len(message.splitlines()) == 1
    assert len(message) < 200
    assert "accepted" in message
