"""Own fields: read, overridden, part of the identity, and handed to the rows that take them."""

import functools
import json

import flax.linen as nn
import optax
import pytest

from lth_jax.config import (
    BranchSpec,
    Spec,
    branch_identity,
    default_config,
    from_config,
    from_record,
    identity,
    source_spec,
    to_dict,
)
from lth_jax.config.files import override
from lth_jax.config.own_fields import parameters, taken, with_fields
from lth_jax.errors import SpecError

FIELDS = {"depth": 4, "rate": 0.5, "mode": "deep", "wide": True, "sizes": (3, 4)}


def with_custom(**fields):
    config = default_config()
    for name, value in fields.items():
        config.custom[name] = value
    return config


def test_an_own_field_is_what_it_was_set_to_and_is_kept_as_such():
    spec = from_config(with_custom(**FIELDS))
    assert spec.custom == FIELDS
    kept = from_record(json.loads(json.dumps(to_dict(spec))))
    assert kept == spec
    assert identity(kept) == identity(spec)


def test_own_fields_are_part_of_the_identity_and_none_is_neutral():
    found = {identity(from_config(with_custom(**{n: v}))) for n, v in FIELDS.items()}
    assert len({*found, identity(Spec())}) == len(FIELDS) + 1
    assert identity(from_config(with_custom())) == identity(Spec())
    assert identity(from_config(with_custom(depth=5))) not in found


def test_those_of_a_branch_are_part_of_the_branch_alone():
    config = default_config()
    config.branch.reinit = {"custom": {"depth": 4}}
    spec = from_config(config)
    assert identity(spec) == identity(Spec())
    assert branch_identity(spec.branch_spec("reinit")) != branch_identity(BranchSpec(kind="reinit"))
    assert spec.under("reinit").custom == {"depth": 4}
    assert spec.under("random_mask").custom == {}


def test_a_source_has_the_same_unless_it_says_otherwise():
    config = with_custom(depth=4, rate=0.5)
    config.source = {"custom": {"depth": 2}}
    assert source_spec(from_config(config)).custom == {"depth": 2, "rate": 0.5}


@pytest.mark.parametrize(
    ("text", "value"),
    [("depth=5", 5), ("rate=1", 1.0), ("wide=False", False), ("sizes=(1,)", (1,))],
)
def test_the_command_line_overrides_them(text, value):
    name = text.partition("=")[0]
    config = override(with_custom(**FIELDS), [f"custom.{text}"])
    assert from_config(config).custom == {**FIELDS, name: value}


@pytest.mark.parametrize(("text", "said"), [("depth=five", "an integer"), ("wide=3", "True or")])
def test_a_value_of_another_type_is_refused(text, said):
    with pytest.raises(SpecError, match=rf"config\.custom\..*: accepted: {said}"):
        override(with_custom(**FIELDS), [f"custom.{text}"])


def test_one_that_only_a_row_has_can_be_set_too_and_has_its_type():
    own = {"beta": 0.9}
    config = override(default_config(), ["custom.beta=1", "branch.mine.custom.beta=0.5"], own=own)
    spec = from_config(config)
    assert spec.custom == {"beta": 1.0}
    assert spec.branch["mine"].custom == {"beta": 0.5}
    source = override(with_custom(beta=0.9), ["source.custom.beta=0.1"], own=own)
    assert source_spec(from_config(source)).custom == {"beta": 0.1}
    source = from_config(override(default_config(), ["source.custom.beta=0.1"], own=own))
    assert (source.custom, source_spec(source).custom) == ({}, {"beta": 0.1})
    with pytest.raises(SpecError, match="no such field; did you mean 'beta'"):
        override(default_config(), ["custom.bata=1"], own=own)


class Net(nn.Module):
    classes: int
    width: float = 1.0
    depth: int = 3


def loss(first, scale=2.0, *others, momentum=0.9, mode="plain", **rest):
    return first, scale, others, momentum, mode, rest


@pytest.mark.parametrize(
    ("row", "given", "expected"),
    [
        (Net, 1, {"depth": 3}),
        (loss, 1, {"scale": 2.0, "mode": "plain"}),
        (functools.partial(loss, mode="deep"), 1, {"scale": 2.0, "mode": "deep"}),
        (lambda: None, 0, {}),
        (dict, 0, {}),
    ],
)
def test_what_a_row_takes_are_its_parameters_but_for_those_it_always_gets(row, given, expected):
    assert parameters(row, given) == expected


def test_optax_s_own_are_rows_as_they_are():
    assert {"b1", "b2"} <= parameters(optax.lion).keys()
    assert not {"learning_rate", "weight_decay"} & parameters(optax.lion).keys()


def test_a_row_gets_what_it_takes_and_nothing_else():
    assert taken(Net, FIELDS, 1) == {"depth": 4}
    assert with_fields(Net, FIELDS, 1)(10).depth == 4
    assert with_fields(loss, {"other": 1}, 1) is loss
