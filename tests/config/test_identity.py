"""Identities: golden, and of the science alone."""

import dataclasses
import hashlib
import json

import pytest

from lth_jax.config import (
    BranchSpec,
    Spec,
    branch_identity,
    differences,
    flatten,
    from_config,
    from_record,
    identity,
    is_default,
    meant_before,
    science,
    settled,
    to_dict,
)
from lth_jax.config.files import load_config

from .spec_fields import FIELDS, OPERATIONAL, another, config_of, spec_with


@pytest.mark.parametrize(
    ("name", "golden"),
    [
        ("configs/lenet_digits.py", "0b035ec8"),
        ("configs/lenet_mnist.py", "6f40004b"),
        ("configs/lenet_mnist.py:paper", "b59482a1"),
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
        "new_head": True, "share": 0.1, "criterion": "snip", "scope": "global", "scored": "rewind",
        "at": ("7",), "ablation": "shuffle", "keep": True, "cycles": 2, "custom": {"strength": 2},
        "rule": "rigl", "distribution": "uniform", "every": "7", "begin": 0.1, "end": 0.5,
        "fraction": 0.1, "align": "none", "weights": "signed_constant", "of": "rigl",
            "distance": 0.3, "window": 2,
    }  # fmt: skip
    base = BranchSpec(kind="reinit")
    changed = dataclasses.replace(base, **{field: values[field]})
    assert (branch_identity(changed) == branch_identity(base)) is (
        field in ("draws", "levels", "keep")
    )


OLD = {"mode": "train", "probe": "random", "hessian": "all"}


@pytest.mark.parametrize("criterion", ["snip", "grasp", "magnitude", "synflow"])
def test_what_every_criterion_did_before_it_had_a_choice_keeps_its_identity(criterion):
    """It goes on in its directory when it is asked for, and only then."""
    before = hashlib.sha256(f'{{"pruning.criterion":"{criterion}"}}'.encode()).hexdigest()[:8]
    before = "44136fa3" if criterion == "magnitude" else before
    asked = from_config({"pruning": {"criterion": criterion, **OLD}})
    own = from_config({"pruning": {"criterion": criterion}})
    assert identity(asked) == before
    assert (identity(own) == before) is (criterion in ("magnitude", "synflow"))
    assert identity(settled(own)) == identity(own)


def test_a_record_from_before_a_criterion_had_a_choice_is_of_what_it_did():
    recorded = {"pruning": {"criterion": "snip", "alpha": 2.0}}
    assert from_record(recorded).pruning.mode == "train"
    assert from_record(recorded).pruning.probe is None
    here = from_config(recorded)
    assert from_record(json.loads(json.dumps(to_dict(settled(here))))) == settled(here)
    assert settled(here).pruning.mode == "eval"
    old, new = science(from_record(recorded)), science(here)
    assert differences(old, new) == ['pruning.mode: "train" there, "eval" here']
    assert meant_before(old, new) == ["--config.pruning.mode=train"]
    assert meant_before(old, new | {"seed": 3}) == []
    assert from_record({"pruning": {"criterion": "movement"}}).pruning.mode is None


def test_a_spec_written_before_none_could_be_given_is_the_same_experiment():
    """An older `spec.json` holds a number or '' where None stands now."""
    train = {
        "steps": "", "batch_size": 0, "optimizer": "", "learning_rate": 0.0, "weight_decay": -1.0,
        "momentum": -1.0,
    }  # fmt: skip
    recorded = {
        "model": {"dropout": -1.0},
        "pruning": {"at": "", "rounds": 0},
        "branch": {"reinit": {"kind": "", "draws": 3, "sigma": 0.5, "levels": []} | train},
    }
    spec = from_config(recorded)
    assert spec == from_config({"branch": {"reinit": {"draws": 3}}})
    assert identity(spec) == identity(Spec())
    assert branch_identity(spec.branch_spec("reinit")) == "284c71df"
    changed = [name for name, value in flatten(recorded).items() if not is_default(name, value)]
    assert changed == ["branch.reinit.draws"]


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
