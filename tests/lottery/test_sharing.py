"""A level's runs that several processes train, each a share: the bits that they have in one."""

import signal
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lth_jax.errors import Interrupted, RunError
from lth_jax.lottery import runs as running
from lth_jax.lottery.sharing import Ended, Lost, split
from lth_jax.store import RunDirectory
from lth_jax.store.progress import SHARE
from lth_jax.store.tables import RunId

from ..tiny import Recorder, StopAt, StopAtPause, assert_same_run, finished_run, tiny_spec, train
from .shared_runs import Shared

# The dense run leaves a state behind on its way; masks of one branch move.
LATE = tiny_spec(
    levels=1, replicates=3, rewind__step="7", branches=("random_mask", "rigl"),
    branch={"rigl": {"every": "3", "end": 0.75}},
)  # fmt: skip


@pytest.mark.slow
def test_shares_of_two_processes_have_the_bits_of_one(tmp_path):
    seen = Recorder()
    shared = Shared(tmp_path, LATE)
    shared.run(observer=seen)
    assert shared.ends is None
    assert_same_run(tmp_path, finished_run(LATE))
    # What is told is told of all runs, whoever trains them; nothing is left of shares.
    assert [(runs, steps) for _, _, runs, steps, _ in seen.of("level_started")] == [
        (3, 36), (9, 45)
    ]  # fmt: skip
    for level, steps in ((0, 36), (1, 45)):
        assert sum(n for at, n, *_ in seen.of("advanced") if at == level) == steps
    assert list((tmp_path / "checkpoints").glob(f"{SHARE}*")) == []


@pytest.mark.slow
@pytest.mark.parametrize("level", [0, 1])
def test_a_signal_that_one_gets_stops_all_and_any_number_of_them_goes_on(
    tmp_path, level, single_steps
):
    shared = Shared(tmp_path, LATE)
    with pytest.raises(Interrupted) as stop:
        shared.run(came_there=_InLevel(shared, level, signal.SIGTERM))
    assert stop.value.signum == signal.SIGTERM
    assert isinstance(shared.ends, Interrupted)
    assert list((tmp_path / "checkpoints").glob(f"{SHARE}1/progress_*"))
    # Alone, and stopped again.
    with pytest.raises(Interrupted):
        train(tmp_path, LATE, StopAt(level=level, updates=20))
    Shared(tmp_path, LATE).run()
    assert_same_run(tmp_path, finished_run(LATE))


class _InLevel:
    """A signal that comes to the follower while it trains a level, after some updates.

    It is asked for twice a chunk, and while it waits, which does not count.
    """

    def __init__(self, shared, level, signum):
        self.shared, self.level, self.signum, self.asked = shared, level, signum, 0

    def __call__(self):
        self.asked += self.shared.training == self.level
        return self.signum if self.asked > 6 else 0


@pytest.mark.slow
def test_what_one_process_began_two_go_on_with(tmp_path, single_steps):
    with pytest.raises(Interrupted):
        train(tmp_path, LATE, StopAt(level=1, updates=30))
    seen = Recorder()
    Shared(tmp_path, LATE).run(observer=seen)
    (started,) = seen.of("level_started")
    told = sum(steps for _, steps, *_ in seen.of("advanced"))
    assert started[-2] == 45
    assert 0 < started[-1] < 45
    assert started[-1] + told == 45
    assert_same_run(tmp_path, finished_run(LATE))


@pytest.mark.slow
def test_a_share_that_is_saved_stays_where_another_process_has_taken_over_its_runs(
    tmp_path, single_steps
):
    with pytest.raises(Interrupted):
        train(tmp_path, LATE, StopAt(level=1, updates=30))
    (before,) = (tmp_path / "checkpoints").glob("progress_*")
    shared = Shared(tmp_path, LATE)
    with pytest.raises(Interrupted):
        shared.run(came=StopAtPause(2))
    assert before.exists()
    train(tmp_path, LATE)
    assert_same_run(tmp_path, finished_run(LATE))


@pytest.mark.slow
def test_a_process_that_fails_or_is_gone_ends_all_with_its_name_and_the_rest_is_saved(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(running, "CHUNK_SECONDS", 0.0)
    shared = Shared(tmp_path, LATE)
    end = shared.follower.channel._sockets[0].shutdown

    def gone():
        end(2)  # as its system does when it is killed
        return 0

    with pytest.raises(RunError, match=r"^process 1 on \S+ is gone; what the other processes did"):
        shared.run(came_there=gone)
    assert isinstance(shared.ends, Lost)
    assert str(shared.ends).startswith("process 0 on 127.0.0.1 is gone; ")
    Shared(tmp_path, LATE).run()
    assert_same_run(tmp_path, finished_run(LATE))


def test_a_share_that_is_lost_while_the_first_process_waits_for_it_is_not_taken_for_done(tmp_path):
    shared = Shared(tmp_path, LATE)
    end = shared.follower.channel._sockets[0].shutdown

    def gone():
        # The first process saves at the end of its share alone.
        until = time.monotonic() + 60
        while shared.training == 0 and time.monotonic() < until:
            if list(tmp_path.glob(f"checkpoints/{SHARE}0/progress_*")):
                time.sleep(0.2)
                end(2)
                break
            time.sleep(0.01)
        return 0

    with pytest.raises(RunError, match="is gone"):
        shared.run(came_there=gone)
    assert RunDirectory.read(tmp_path).rows == {}


def test_a_failure_is_told_by_the_first_process(tmp_path):
    shared = Shared(tmp_path, LATE)
    shared.follower.channel.send(0, {"failed": "the disk is full"})
    with pytest.raises(RunError, match=r"^process 1 on \S+: the disk is full; what the other"):
        shared.run()
    assert isinstance(shared.ends, Ended | Interrupted)


def test_all_must_have_the_same_data(tmp_path):
    shared = Shared(tmp_path, LATE, data=("abc", "abd"))
    with pytest.raises(RunError, match=r"has other data \(digest abd, abc here\)$"):
        shared.run()


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), unique=True),
    st.lists(st.integers(1, 8), min_size=1, max_size=5),
)
def test_runs_are_shared_out_whole_and_by_weight(places, weights):
    runs = [RunId("reinit", 1, replicate, draw) for replicate, draw in places]
    shares = split(runs, weights)
    assert len(shares) == len(weights)
    assert sorted(run for share in shares for run in share) == sorted(runs)
    for share, weight in zip(shares, weights, strict=True):
        fair = len(runs) * weight / sum(weights)
        assert fair - 1 < len(share) < fair + 1
    assert shares[0] or not runs
    # A replicate is pruned in as few processes as there can be.
    order = [run.replicate for share in shares for run in share]
    assert order == sorted(order)
