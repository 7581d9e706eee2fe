"""What a spec is made of."""

import dataclasses

import pytest
from ml_collections import ConfigDict

from lth_jax.config import (
    BranchSpec,
    Spec,
    declared,
    default_config,
    duration_steps,
    flatten,
    from_config,
    settled,
    source_spec,
    to_dict,
)
from lth_jax.errors import SpecError

from .spec_fields import FIELDS, another, config_of, nested, spec_with


def test_the_default_config_is_the_default_spec():
    config = default_config()
    assert isinstance(config, ConfigDict)
    assert from_config(config) == Spec()
    assert from_config({}) == Spec()


def test_a_spec_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Spec().seed = 1  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("group", [Spec, BranchSpec])
def test_every_field_says_what_it_means_and_accepts_its_default(group):
    for name, declaration in declared(group).items():
        assert declaration.means.endswith("."), name
        assert declaration.accepted, name
        assert declaration.kind, name
        default = declaration.default
        assert ("None" in declaration.kind) is (default is None), name
        if default is not None:
            assert declaration.check(default), name
            assert not (declaration.unset and declaration.unset(default)), name


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
        ({"levels": -1}, "config.source.levels=-1: accepted: 0 to 1,000"),
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


def test_a_source_of_another_criterion_has_its_own_choices_whoever_asks():
    """A record says in words what a criterion did by itself; that is nothing to another one."""
    spec = from_config({
        "pruning": {"criterion": "snip"},
        "branches": ("transfer",),
        "source": {"pruning": {"criterion": "grasp"}},
    })  # fmt: skip
    recorded = from_config(to_dict(settled(spec)))
    assert recorded.pruning.mode == "eval"
    assert source_spec(recorded) == source_spec(spec)
    assert source_spec(recorded).pruning.mode is None
