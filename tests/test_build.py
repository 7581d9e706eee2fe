"""What a spec names is looked up before any data or compilation."""

import pytest

from lth_jax.build import check
from lth_jax.errors import DataError, SpecError
from lth_jax.spec import Spec, from_config

MINE = {"branches": ("mine",)}


def test_the_default_spec_names_what_exists():
    check(Spec())


@pytest.mark.parametrize(
    ("config", "field", "accepted"),
    [
        ({"model": {"name": "mpl"}}, "config.model.name='mpl'", "did you mean 'mlp'?"),
        ({"train": {"optimizer": "adm"}}, "config.train.optimizer='adm'", "'adam'?"),
        ({"pruning": {"criterion": "x"}}, "config.pruning.criterion='x'", "accepted: magnitude"),
        ({"branches": ("reint",)}, "config.branches='reint'", "'reinit'?"),
        (MINE, "config.branches='mine'", "accepted: random_mask, reinit"),
        (
            MINE | {"branch": {"mine": {"kind": "x"}}},
            "config.branch.mine.kind='x'",
            "accepted: random_mask",
        ),
        ({"branch": {"reint": {"draws": 2}}}, "config.branch.reint", "'reinit'?"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_an_unknown_name_is_refused_with_its_neighbour(config, field, accepted):
    with pytest.raises(SpecError) as caught:
        check(from_config(config))
    message = str(caught.value)
    assert message.startswith(field)
    assert accepted in message
    assert "\n" not in message


def test_a_branch_may_have_a_name_of_its_own():
    check(from_config(MINE | {"branch": {"mine": {"kind": "reinit"}}}))


def test_an_unknown_dataset_is_refused():
    with pytest.raises(DataError, match="digitz"):
        check(from_config({"data": {"name": "digitz"}}))
