"""Some seconds of the campaign, and whether it notices what it is there for."""

import random
import re
import subprocess
import sys

import pytest

from lth_jax.store import RunDirectory

from . import damage, fields, scenarios, strangers
from .campaign import KINDS, Campaign, table
from .judgement import Lost, Traceback, Wrong, check
from .scenarios import Answer


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    """A campaign of the one scenario, without a library between it and the disk."""
    made = Campaign(tmp_path_factory.mktemp("faults"), "test", None)
    with scenarios.in_process():
        made.prepare(["growing"])
        yield made


# How many of a kind are injected here, if not 3; of those that take milliseconds, many.
COUNTS = {
    "exchange": 2,
    "failing stream": 2,
    "field of a config": 60,
    "nonsense arguments": 60,
    "odd image": 30,
    "damaged cache": 30,
}


@pytest.mark.parametrize(
    "kind", [*damage.DAMAGES, *strangers.KINDS, "field of a config", "failing stream"]
)
def test_nothing_is_lost_or_wrong(campaign, kind):
    campaign.problems.clear()
    for number in range(COUNTS.get(kind, 3)):
        campaign.inject(kind, number)
    assert campaign.problems == []
    assert re.search(rf"\| {kind} \| (\d+) \| \1 \| 0 \| 0 \| 0 \|", table(campaign))


# What needs the library or a process, and takes long: CI injects all kinds for two minutes.
BY_COMMAND = ("kill at a call", "full or failing disk", "failing read", "kill of a process")


@pytest.mark.slow
def test_the_campaign_runs_by_its_command():
    assert set(BY_COMMAND) < set(KINDS)
    options = ["--each=1", "--scenarios=growing", f"--only={','.join(BY_COMMAND)}"]
    command = [sys.executable, "-m", "tests.faults", *options]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert process.returncode == 0, process.stdout + process.stderr
    for kind in BY_COMMAND:
        assert f"| {kind} | 1 |" in process.stdout


def test_what_differs_is_wrong_and_what_is_trained_again_was_lost(campaign):
    chosen = campaign.undamaged[0]
    rows = [dict(row) for row in chosen.facts["results"]]
    rows[0]["kept"] = "1"
    with pytest.raises(Wrong, match="results differs"):
        campaign.same({**chosen.facts, "results": rows}, chosen.stages["finished"])
    path = scenarios.copy(chosen.stages["stopped"], campaign.folder / "run")
    with pytest.raises(Lost, match="trained again"):
        campaign.goes_on(chosen, path, after=set(runs_of(chosen)))


def runs_of(chosen):
    """The runs of a scenario."""
    return RunDirectory.read(chosen.stages["finished"]).rows


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (Answer(None, "", "Traceback (most recent call last)", set()), Traceback),
        (Answer(0, "", "Traceback (most recent call last)", set()), Traceback),
        (Answer(1, "", "", set()), Wrong),
        (Answer(1, "", "error: one\nerror: two\n", set()), Wrong),
        (Answer(2, "", f"error: {'x' * 200}\n", set()), Wrong),
        (Answer(0, "", "warning: the report was not written: TypeError: x", set()), Traceback),
    ],
)
def test_an_answer_that_is_none_of_ours_is_noticed(answer, verdict):
    with pytest.raises(verdict):
        check(answer)


def test_a_fault_is_a_function_of_seed_kind_and_number():
    assert fields.inject(random.Random("a")) == fields.inject(random.Random("a"))
