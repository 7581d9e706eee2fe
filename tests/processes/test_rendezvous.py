"""How processes find one another."""

import subprocess
import sys

import pytest

from lth_jax.errors import RunError, SpecError
from lth_jax.processes import rendezvous
from lth_jax.processes.rendezvous import Place, join, parse


def test_a_place_is_said_or_found():
    assert parse("auto") == Place("", -1, -1)
    assert parse("10.0.0.1:1234,0/2") == Place("10.0.0.1:1234", 0, 2)
    assert parse("[fe80::1]:80,3/16") == Place("[fe80::1]:80", 3, 16)


@pytest.mark.slow
def test_where_nothing_started_several_processes_that_is_said(monkeypatch):
    for name in ("SLURM_JOB_ID", "OMPI_MCA_orte_hnp_uri", "OMPI_COMM_WORLD_RANK"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SpecError) as refused:
        join("auto")
    assert str(refused.value) == (
        "--hosts=auto: coordinator_address should be defined.; accepted: HOST:PORT,INDEX/COUNT, "
        "or auto where srun, mpirun, GKE or Cloud TPU start the processes"
    )


@pytest.mark.slow
def test_processes_that_do_not_come_are_waited_for_so_long_and_no_longer(monkeypatch):
    monkeypatch.setattr(rendezvous, "FIND_SECONDS", 1)
    with pytest.raises(RunError) as lost:
        join("127.0.0.1:9,1/2")
    assert str(lost.value) == (
        "--hosts=127.0.0.1:9,1/2: the processes did not find one another within 1 seconds "
        "(DEADLINE_EXCEEDED: Deadline Exceeded); accepted: as many as were said, each started once"
    )


AS_SLURM = """
from lth_jax.processes.rendezvous import join
channel = join("auto")
channel.send_all({"from": channel.index})
print(channel.index, channel.count, channel.receive(60).message)
import jax
print(jax.process_index(), jax.process_count(), jax.config._read("jax_cuda_visible_devices"))
"""


@pytest.mark.slow
def test_a_batch_system_says_which_process_is_which_and_devices_that_are_its_own(
    monkeypatch, tmp_path
):
    slurm = {
        "SLURM_JOB_ID": "77", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_NODES": "1",
    }  # fmt: skip
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    started = []
    for index in ("0", "1"):
        monkeypatch.setenv("SLURM_PROCID", index)
        monkeypatch.setenv("SLURM_LOCALID", index)
        started.append(
            subprocess.Popen([sys.executable, "-c", AS_SLURM], stdout=subprocess.PIPE, text=True)
        )
    said = [process.communicate(timeout=120)[0].splitlines() for process in started]
    # JAX takes each for the only one, so that Orbax waits for nobody.
    assert said == [
        ["0 2 {'from': 1}", "0 1 0"],
        ["1 2 {'from': 0}", "0 1 1"],
    ]
