"""Experiments whose tickets come from elsewhere, as arguments."""

from lth_jax.store.tables import TRUNK

from ..tiny import arguments, host, results

SMALL = {"levels": 1, "replicates": 1, "branches": "transfer,transfer_reinit"}
HALVES = arguments(**SMALL, data__part="2/2")
SOURCE = ["--config.source.data.part=1/2"]
CLASSES = arguments(**SMALL, data__train_size=0, data__classes=(5, 6, 7, 8, 9))


def assert_same_ticket(found, wanted):
    for one, other in ((found.mask, wanted.mask), (found.state.params, wanted.state.params)):
        one, other = host(one), host(other)
        assert one.keys() == other.keys()
        for name in one:
            assert one[name].tobytes() == other[name].tobytes(), name
    assert found.step == wanted.step


def trunk_rows(path):
    return [row for row in results(path) if row["branch"] == TRUNK]
