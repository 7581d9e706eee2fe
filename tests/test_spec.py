"""The spec: what is accepted, what is said of the rest, and what the identity covers."""

import dataclasses
import json
import re
from fractions import Fraction

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from ml_collections import ConfigDict

from lth_jax.commands.configs import load_config
from lth_jax.errors import SpecError
from lth_jax.spec import (
    BranchSpec,
    Spec,
    branch_identity,
    default_config,
    differences,
    duration_steps,
    flatten,
    from_config,
    identity,
    science,
    source_spec,
    to_dict,
)

FIELDS = flatten(to_dict(Spec()))
# What may grow or move between two starts of one experiment, and nothing else.
OPERATIONAL = {
    "branches", "levels", "replicates", "data.data_dir", "data.manual_dir", "data.cache_dir",
    "checkpoint.every_seconds", "execution.group_size", "execution.workers",
    "execution.compilation_cache", "train.kernel",
}  # fmt: skip


# What a field asks for beside it.
BESIDE = {
    "pretrain": {"source": {"data": {"name": "mnist"}}},
    "pruning.densities": {"levels": 1},
    "train.nesterov": {"train": {"nesterov": True, "optimizer": "momentum"}},
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
        "data.classes": (3, 1), "data.labels": "original", "data.part": "1/2",
        "pruning.schedule": "one_shot", "pruning.densities": (0.5, 0.1), "pruning.at": "rewind",
        "rewind.kind": "finetune", "train.schedule": "cosine", "train.warmup": "7ep",
        "train.kernel": "sparse",
        "train.drops": (("7ep", 0.1),),
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


# --- Identity -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "golden"),
    [
        ("configs/lenet_digits.py", "1199bda6"),
        ("configs/lenet_mnist.py", "6f40004b"),
        ("configs/lenet_mnist.py:paper", "b75f5cb6"),
    ],
)
def test_golden_identities_of_the_configs(name, golden):
    """A run directory is found by it: a change here makes every existing run another one."""
    assert identity(from_config(load_config(name, (), ()))) == golden


def test_golden_identity_of_the_defaults():
    """Only what differs from a default is hashed: nothing, here."""
    assert science(Spec()) == {}
    assert identity(Spec()) == "44136fa3"


def test_golden_identities_of_branches():
    assert branch_identity(BranchSpec(kind="reinit")) == "284c71df"
    assert branch_identity(BranchSpec(kind="random_mask")) == "8c221e8a"


@pytest.mark.parametrize("field", FIELDS)
def test_the_identity_covers_the_science_and_nothing_else(field):
    changed = from_config(config_of(field, another(field)))
    assert flatten(to_dict(changed))[field] != FIELDS[field], "the value is no other"
    assert (identity(changed) == identity(Spec())) is (field in OPERATIONAL)


def test_the_identity_is_blind_to_branches_and_their_options():
    options = {name: {"kind": "reinit", "draws": 3, "levels": (1, 5)} for name in ("reinit", "x")}
    changed = from_config({"branches": ("reinit", "x"), "branch": options})
    assert identity(changed) == identity(Spec())


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(BranchSpec)])
def test_a_branchs_identity_covers_all_but_what_may_grow(field):
    values = {
        "kind": "other", "draws": 2, "levels": (1,), "sigma": 3.0, "steps": "7ep", "batch_size": 7,
        "optimizer": "sgd", "learning_rate": 0.5, "weight_decay": 0.0, "momentum": 0.0,
        "new_head": True,
    }  # fmt: skip
    base = BranchSpec(kind="reinit")
    changed = dataclasses.replace(base, **{field: values[field]})
    assert (branch_identity(changed) == branch_identity(base)) is (field in ("draws", "levels"))


def test_the_identity_is_blind_to_source_and_reference():
    """Its trunk's numbers depend on neither."""
    changed = from_config({
        "source": {"data": {"name": "mnist"}},
        "reference": {"title": "them", "ticket": {"early_stop_step": ((1.0, 3.0),)}},
    })  # fmt: skip
    assert (changed.source, len(changed.reference)) == ({"data.name": "mnist"}, 2)
    assert identity(changed) == identity(Spec())


def test_pre_training_makes_the_source_part_of_the_identity():
    one, other = (
        from_config({"pretrain": True, "source": {"data": {"name": name}}})
        for name in ("mnist", "fashion_mnist")
    )
    assert len({identity(one), identity(other), identity(Spec())}) == 3
    assert science(one) == {"pretrain": True, "source.data.name": "mnist"}


@pytest.mark.parametrize("kind", ["transfer", "transfer_reinit"])
def test_a_transfers_identity_includes_its_source(kind):
    branch = BranchSpec(kind=kind)
    assert branch_identity(branch, "aaaaaaaa") != branch_identity(branch, "bbbbbbbb")
    control = BranchSpec(kind="reinit")
    assert branch_identity(control, "aaaaaaaa") == branch_identity(control) == "284c71df"


def test_the_identity_survives_json():
    spec = spec_with(train__steps="3ep", model__hidden=(5, 4), pruning__layer_rates=(("a", 0.5),))
    assert from_config(json.loads(json.dumps(to_dict(spec)))) == spec


def test_different_ways_to_write_a_value_are_one_experiment():
    one = from_config({"train": {"steps": 500, "learning_rate": 1}, "model": {"hidden": [3]}})
    other = from_config(
        {"train": {"steps": "500", "learning_rate": 1.0}, "model": {"hidden": (3,)}}
    )
    assert one == other
    assert identity(one) == identity(other)


def test_differences_name_the_field_and_both_values():
    here = science(spec_with(train__batch_size=7, pruning__scope="global", seed=3))
    there = science(spec_with(train__batch_size=9, seed=3))
    assert differences(there, here) == [
        'pruning.scope: "layerwise" there, "global" here',
        "train.batch_size: 9 there, 7 here",
    ]
    assert differences(json.loads(json.dumps(here)), here) == []


# --- What is accepted -----------------------------------------------------------------------


def test_the_default_config_is_the_default_spec():
    config = default_config()
    assert isinstance(config, ConfigDict)
    assert from_config(config) == Spec()
    assert from_config({}) == Spec()


def test_a_spec_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Spec().seed = 1  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_takes_another_value(field):
    value = another(field)
    assert flatten(to_dict(from_config(config_of(field, value))))[field] == value


@pytest.mark.parametrize(
    ("duration", "steps"), [("0", 0), ("5000", 5000), ("40ep", 4000), ("0ep", 0), ("007", 7)]
)
def test_durations_are_steps_or_epochs(duration, steps):
    assert duration_steps(duration, 100) == steps


@pytest.mark.parametrize("field", ["train.steps", "eval.every", "rewind.step"])
def test_a_duration_may_be_written_as_an_integer(field):
    assert flatten(to_dict(from_config(nested(field, 250))))[field] == "250"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("reinit,random_mask", ("reinit", "random_mask")),
        (("reinit,random_mask",), ("reinit", "random_mask")),
        (("reinit, random_mask",), ("reinit", "random_mask")),
        (["reinit", "random_mask"], ("reinit", "random_mask")),
        (("reinit", "x,y"), ("reinit", "x", "y")),
        ("reinit", ("reinit",)),
        ((), ()),
        ("", ()),
        (("",), ()),
        (" reinit ,", ("reinit",)),
    ],
    ids=repr,
)
def test_branches_are_split_at_commas(written, meant):
    assert from_config({"branches": written}).branches == meant


def test_strings_lose_the_blanks_around_them():
    spec = spec_with(model__name=" mlp ", train__steps=" 10ep ")
    assert (spec.model.name, spec.train.steps) == ("mlp", "10ep")


def test_layer_rates_are_pairs_of_pattern_and_number():
    spec = spec_with(pruning__layer_rates=[["output", 0.5], ["fc*", 1]])
    assert spec.pruning.layer_rates == (("output", 0.5), ("fc*", 1.0))
    assert all(isinstance(rate, float) for _, rate in spec.pruning.layer_rates)


def test_a_branch_overrides_only_what_it_names():
    train = Spec().train
    assert BranchSpec().train_spec(train) == train
    options = {
        "steps": "7", "batch_size": 3, "optimizer": "sgd", "learning_rate": 0.5,
        "weight_decay": 0.0, "momentum": 0.0,
    }  # fmt: skip
    for name, value in options.items():
        found = BranchSpec(**{name: value}).train_spec(dataclasses.replace(train, weight_decay=1.0))
        wanted = dataclasses.replace(train, **{"weight_decay": 1.0, name: value})
        assert found == wanted


def test_the_source_is_the_experiment_with_what_differs():
    spec = from_config({
        "branches": ("transfer",), "levels": 4, "train": {"steps": "70", "optimizer": "sgd"},
        "branch": {"transfer": {"new_head": True}},
        "source": {"data": {"classes": (1, 2)}, "train": {"optimizer": "adam"}},
    })  # fmt: skip
    source = source_spec(spec)
    assert source.branches == ()
    assert (source.branch, source.source, source.pretrain) == ({}, {}, False)
    assert source.data == dataclasses.replace(spec.data, classes=(1, 2))
    assert source.train == dataclasses.replace(spec.train, optimizer="adam")
    same = ("levels", "replicates", "seed", "model", "eval", "pruning", "rewind")
    for field in same:
        assert getattr(source, field) == getattr(spec, field)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"data": {"nme": "x"}}, "config.source.data.nme: no such field; did you mean 'name'?"),
        ({"dta": {"name": "x"}}, "config.source.dta.name: no such field; did you mean 'data'?"),
        ({"levels": -1}, "config.source.levels=-1: accepted: 0 to 1000"),
        ({"train": {"steps": "0"}}, "config.source.train.steps='0': accepted: at least one step"),
    ],
    ids=str,
)
def test_a_wrong_field_of_the_source_is_named(source, message):
    with pytest.raises(SpecError) as caught:
        from_config({"source": source})
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("config", "user"),
    [
        ({"branches": ("transfer",)}, "transfer"),
        ({"branches": ("mine",), "branch": {"mine": {"kind": "transfer_reinit"}}}, "mine"),
        ({"pretrain": True}, "pretrain"),
    ],
    ids=str,
)
def test_a_transfer_without_a_source_is_refused(config, user):
    with pytest.raises(SpecError) as caught:
        from_config(config)
    assert str(caught.value).startswith("config.source={}: accepted: what differs in the source")
    assert str(caught.value).endswith(f"for {user}")


def test_a_branch_is_of_the_kind_that_it_is_named_for_unless_it_says_so():
    spec = from_config({"branches": ("again",), "branch": {"again": {"kind": "reinit"}}})
    assert spec.branch_spec("again").kind == "reinit"
    assert spec.branch_spec("random_mask") == BranchSpec(kind="random_mask")


# --- What is refused ------------------------------------------------------------------------

NAN, INF = float("nan"), float("inf")
# field, value, what the message says is accepted
REFUSED = [
    ("seed", -1, "0 to 4294967295"),
    ("seed", 2**32, "0 to 4294967295"),
    ("seed", 1.0, "an integer"),
    ("seed", True, "an integer"),
    ("seed", "3", "an integer"),
    ("seed", None, "an integer"),
    ("replicates", 0, "1 to 1000"),
    ("replicates", 1001, "1 to 1000"),
    ("levels", -1, "0 to 1000"),
    ("levels", 1001, "0 to 1000"),
    ("branches", 3, "a tuple"),
    ("branches", (3,), "a string"),
    ("branches", ("a", "a"), "each name once"),
    ("branches", ("ticket",), "any names but 'ticket'"),
    ("branches", ("a/b",), "names of letters"),
    ("branches", ("..",), "names of letters"),
    ("branches", {"a": 1}, "a tuple"),
    ("model", "mlp", "a group of fields"),
    ("model.name", 3, "a string"),
    ("model.hidden", (0,), "widths of at least 1"),
    ("model.hidden", (3.5,), "an integer"),
    ("model.hidden", 300, "a tuple"),
    ("model.hidden", "300", "an integer"),
    ("data.name", (), "a string"),
    ("data.validation_size", 0, "at least 1"),
    ("data.train_size", -1, "0 (all) or more"),
    ("data.test_size", -1, "0 (all) or more"),
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
    ("train.batch_size", 0, "at least 1"),
    ("train.optimizer", None, "a string"),
    ("train.learning_rate", 0.0, "a number above 0"),
    ("train.learning_rate", -1, "a number above 0"),
    ("train.learning_rate", NAN, "a number above 0"),
    ("train.learning_rate", INF, "a number above 0"),
    ("train.learning_rate", "fast", "a number"),
    ("train.learning_rate", 10**400, "a number"),
    ("train.weight_decay", -0.1, "0 or more"),
    ("train.weight_decay", NAN, "0 or more"),
    ("train.momentum", 1.0, "0 to below 1"),
    ("train.momentum", -0.1, "0 to below 1"),
    ("train.momentum", NAN, "0 to below 1"),
    ("eval.every", "0", "at least one step"),
    ("eval.every", "x", "steps or epochs"),
    ("eval.batch_size", 0, "at least 1"),
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
    ("checkpoint.every_seconds", -1.0, "0 or more seconds"),
    ("checkpoint.every_seconds", INF, "0 or more seconds"),
    ("execution.group_size", -1, "0 (automatic) or more"),
    ("execution.compilation_cache", 1, "True or False"),
    ("branch", 3, "a group of fields"),
    ("branch.reinit", 3, "a group of fields"),
    ("branch.reinit.draws", 0, "at least 1"),
    ("branch.reinit.draws", "x", "an integer"),
    ("branch.reinit.levels", (0,), "levels from 1"),
    ("branch.reinit.levels", 4, "a tuple"),
    ("branch.reinit.levels", (2, 13), "levels of the trunk, which has 1 to 12"),
    ("branch.reinit.kind", 4, "a string"),
    ("pretrain", 1, "True or False"),
    ("model.init", 1, "a string"),
    ("model.width", 0.0, "a number above 0"),
    ("train.nesterov", True, "True with train.optimizer momentum alone"),
    ("train.schedule", "step", "constant or cosine"),
    ("train.warmup", "x", "steps or epochs"),
    ("train.drops", 100, "(duration, factor) pairs"),
    ("train.drops", (("100", 0.1, 2),), "(duration, factor) pairs"),
    ("train.drops", (("1e3", 0.1),), "(duration, factor) pairs with factors above 0"),
    ("train.drops", (("100", 0.0),), "(duration, factor) pairs with factors above 0"),
    ("train.label_smoothing", 1.0, "0 to below 1"),
    ("train.kernel", "native", "auto or xla or sparse"),
    ("data.standardize", 1, "True or False"),
    ("data.crop", -1, "0 (none) or pixels"),
    ("data.flip", 1, "True or False"),
    ("model.dropout", 1.0, "below 1; negative: the network's own"),
    ("model.stem", 1, "a string"),
    ("model.dtype", 1, "a string"),
    ("data.classes", 3, "a tuple"),
    ("data.classes", ("3",), "an integer"),
    ("data.labels", "old", "remapped or original"),
    ("data.part", "0/2", "a part such as 1/2"),
    ("data.part", "3/2", "a part such as 1/2"),
    ("data.part", "half", "a part such as 1/2"),
    ("data.part", "1/2/3", "a part such as 1/2"),
    ("data.side", -1, "0 (as they are) or pixels"),
    ("data.channels", -1, "0 (as they are) or a number"),
    ("pruning.schedule", "once", "iterative or one_shot"),
    ("pruning.densities", (1.0,), "falling densities"),
    ("pruning.densities", (0.5, 0.5), "falling densities"),
    ("pruning.densities", (0.5, 0.0), "falling densities"),
    ("pruning.densities", (0.2, 0.5), "falling densities"),
    ("pruning.densities", (NAN,), "falling densities"),
    ("pruning.densities", 0.5, "a tuple"),
    ("pruning.at", "end", "'', trained or rewind"),
    ("pruning.rounds", -1, "0 (the criterion's own) or more"),
    ("pruning.examples", 0, "at least 1"),
    ("pruning.alpha", 0.0, "a number above 0"),
    ("pruning.alpha", NAN, "a number above 0"),
    ("pruning.alpha", INF, "a number above 0"),
    ("pruning.temperature", -1.0, "a number above 0"),
    ("pruning.temperature", INF, "a number above 0"),
    ("rewind.kind", "none", "weights or learning_rate or finetune"),
    ("execution.workers", -1, "0 (automatic) or more"),
    ("branch.noise.sigma", -1.0, "0 or more"),
    ("branch.noise.sigma", INF, "0 or more"),
    ("branch.retrain.steps", "x", "steps or epochs"),
    ("branch.retrain.batch_size", -1, "0 (that of train) or more"),
    ("branch.retrain.learning_rate", -1.0, "0 (that of train) or more"),
    ("branch.retrain.learning_rate", INF, "0 (that of train) or more"),
    ("branch.retrain.weight_decay", NAN, "0 or more"),
    ("branch.retrain.momentum", 1.0, "below 1"),
    ("branch.retrain.optimizer", 3, "a string"),
    ("branch.transfer.new_head", 1, "True or False"),
    ("source", 3, "a group of fields"),
    ("reference", 3, "a group of fields"),
    ("reference.ticket.final_test_accuracy", 0.9, "(density, value) pairs"),
    ("reference.ticket.final_test_accuracy", (0.5, 0.9), "(density, value) pairs"),
    ("reference.ticket.final_test_accuracy", ((0.5, 0.9, 1.0),), "(density, value) pairs"),
    ("reference.ticket.final_test_accuracy", (("a", 0.9),), "(density, value) pairs"),
    ("reference.title", 3, "a string"),
]


@pytest.mark.parametrize(
    ("field", "value", "accepted"), REFUSED, ids=[f"{f}={str(v)[:20]}" for f, v, _ in REFUSED]
)
def test_a_wrong_value_is_refused_in_one_line(field, value, accepted):
    with pytest.raises(SpecError) as caught:
        from_config(nested(field, value))
    message = str(caught.value)
    assert message.startswith(f"config.{field}")
    assert "accepted: " in message
    assert accepted in message.split("accepted: ", 1)[1]
    assert "\n" not in message
    shown = value[0] if isinstance(value, tuple) and len(value) == 1 else value
    if shown == shown and field != "pruning.layer_rates":  # NaN is shown, but equals nothing
        assert repr(shown) in message or repr(str(shown)) in message


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
        ("zzz", "accepted: branch, branches"),
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
    assert "accepted" in message
