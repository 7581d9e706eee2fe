"""How several processes end together: the first says why, and gives the exit status of all."""

import threading

import pytest

from lth_jax.api import hosts
from lth_jax.errors import DataError, Interrupted, RunError, StoreError
from lth_jax.lottery.sharing import Lost

from ..lottery.shared_runs import channels


@pytest.fixture
def ends(monkeypatch):
    """Lets two functions work as the first process and as another; gives what each ends with."""

    def ends(lead, follow):
        found, entered = {}, threading.Event()

        def run(channel, work):
            monkeypatch.setattr(hosts.rendezvous, "join", lambda _: channel)
            try:
                with hosts.joined("auto") as (leader, follower):
                    entered.set()
                    work(leader or follower)
            except BaseException as error:
                found[channel.index] = error

        first, second = channels()
        thread = threading.Thread(target=run, args=(first, lead))
        thread.start()
        entered.wait(10)  # both find their channel in one place
        run(second, follow)
        thread.join(10)
        return found.get(0), found.get(1)

    return ends


def raising(error):
    def work(_):
        raise error

    return work


def test_what_the_first_process_ends_with_ends_all(ends):
    def waits(follower):
        follower.next()

    for error, status in (
        (StoreError("in use"), 2), (RunError("diverged"), 1), (Interrupted(15, "level 1"), 143),
        (KeyError("a fault of ours"), 1),
    ):  # fmt: skip
        first, second = ends(raising(error), waits)
        assert first is error
        assert isinstance(second, SystemExit)
        assert second.code == status
    # The other has done its part, and waits for the end of the first.
    first, second = ends(lambda leader: None, lambda follower: None)
    assert first is None
    assert second.code == 0


def test_what_another_process_ends_with_is_told_to_the_first_alone(ends):
    def hears(said):
        def work(leader):
            said.append(leader.channel.receive(10).message)

        return work

    for error, status, message in (
        (DataError("no such data"), 2, {"failed": "no such data"}),
        (Interrupted(15, "level 1"), 143, {"stopped": 15}),
    ):
        said = []
        _, second = ends(hears(said), raising(error))
        assert said == [message]
        assert isinstance(second, SystemExit)
        assert second.code == status
    said, fault = [], KeyError("a fault of ours")
    _, second = ends(hears(said), raising(fault))
    assert second is fault  # with its traceback
    assert said == [{"failed": "KeyError: 'a fault of ours'"}]


def test_a_process_that_lost_the_first_says_so_itself(ends):
    def gone(leader):
        leader.channel._sockets[1].shutdown(2)

    _, second = ends(gone, lambda follower: follower.next())
    assert isinstance(second, Lost)
    assert str(second).startswith("process 0 on 127.0.0.1 is gone; ")
