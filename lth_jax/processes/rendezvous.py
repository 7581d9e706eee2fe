"""How the processes of one experiment find one another: by `jax.distributed.initialize`.

It knows Slurm, Open MPI, GKE and Cloud TPU, and gives each process its share of a machine's GPUs.
It runs in a process of its own, which ends once the channel's address is known: where a process of
JAX's own service is lost, that aborts all others, who could neither save nor say a word; and Orbax
takes processes that JAX knows together for writers of one checkpoint. Nothing is computed by
several processes together here, so that neither is needed afterwards.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

from lth_jax.errors import RunError, SpecError, first_line
from lth_jax.processes.channel import Channel, accept, connect, listener
from lth_jax.system.signals import undone_if_ended

AUTO = "auto"
FIND_SECONDS = 300  # a batch system does not start all processes at once
CONNECT_SECONDS = 60.0
PLATFORMS = ("cuda", "rocm")  # of which JAX says by an option which devices a process sees
_OWN = "lth_jax"  # where the address lies in the service's store


@dataclasses.dataclass(frozen=True)
class Place:
    """Which of the processes this one is, and where the first one is.

    Attributes:
      coordinator: `HOST:PORT`, where JAX's service of the first process is; '' to be found.
      index, count: of this process, and how many there are; -1 to be found.
    """

    coordinator: str = ""
    index: int = -1
    count: int = -1


def parse(text: str) -> Place:
    """Returns what `--hosts` says: `auto`, or `HOST:PORT,INDEX/COUNT`.

    Raises:
      SpecError: it is neither.
    """
    if text == AUTO:
        return Place()
    found = re.fullmatch(r"(\S+:(\d{1,5})),(\d{1,6})/(\d{1,6})", text)
    if found:
        place = Place(found[1], int(found[3]), int(found[4]))
        if place.index < place.count and 0 < int(found[2]) < 65_536:
            return place
    raise SpecError(
        f"--hosts={text}: accepted: {AUTO}, or HOST:PORT,INDEX/COUNT, such as "
        "10.0.0.1:1234,0/2 for the first process of two, on 10.0.0.1"
    )


def join(text: str) -> Channel:
    """Returns this process's channel to the others, once all of them are there.

    It has to be called before JAX computes anything, since it says which devices this process sees.

    Args:
      text: as `parse` takes it.

    Raises:
      SpecError: it is of another form, or nothing here says which processes there are.
      RunError: the others did not come.
    """
    place = parse(text)
    token = secrets.token_hex(16)
    with listener() as listening:
        asked = {
            **dataclasses.asdict(place),
            "address": f"{listening.getsockname()[1]} {token}",
            "seconds": FIND_SECONDS,
        }
        found = _found(text, asked)
        _see_own_devices(found["visible"])
        index, count = found["index"], found["count"]
        if index == 0:
            return accept(listening, count, token, CONNECT_SECONDS)
    port, token = found["address"].split()
    host = found["coordinator"].rpartition(":")[0].strip("[]")
    return connect((host, int(port)), index, count, token, CONNECT_SECONDS)


def _found(text: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Returns what the process says that asks JAX: this module, run as a program."""
    command = [sys.executable, "-m", __name__]
    # The package may lie where only the script that was started finds it.
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process, undone_if_ended(process.kill):
        out, err = process.communicate(json.dumps(asked))
    if process.returncode:
        # JAX's service aborts with pages of a stack; the state's name is what tells something.
        states = re.findall(r"\b(?:[A-Z]{4,}_)*[A-Z]{4,}: [^\n]*", err)
        last = (err.strip().splitlines() or ["no word"])[-1]
        why = first_line(RuntimeError(states[0] if states else last), most=200)
        raise RunError(
            f"--hosts={text}: the processes did not find one another within {FIND_SECONDS} "
            f"seconds ({why}); accepted: as many as were said, each started once"
        )
    found = json.loads(out)
    if "error" in found:
        raise SpecError(
            f"--hosts={text}: {found['error']}; accepted: HOST:PORT,INDEX/COUNT, or {AUTO} where "
            "srun, mpirun, GKE or Cloud TPU start the processes"
        )
    return found


def _see_own_devices(visible: str) -> None:
    """Lets JAX see the devices here that are this process's, where several share a machine."""
    import jax

    if visible != "all":
        for name in PLATFORMS:
            jax.config.update(f"jax_{name}_visible_devices", visible)


def _ask(asked: dict[str, Any]) -> dict[str, Any]:
    """Asks JAX which of the processes this one is, and the first one for its address."""
    import jax
    from jax._src import distributed  # as Orbax does: nothing public names the client

    given: dict[str, Any] = {
        "coordinator_address": asked["coordinator"] or None,
        "process_id": asked["index"] if asked["index"] >= 0 else None,
        "num_processes": asked["count"] if asked["count"] > 0 else None,
    }
    try:
        jax.distributed.initialize(**given, initialization_timeout=asked["seconds"])
    except (ValueError, TypeError, RuntimeError) as error:
        if "DEADLINE" in str(error) or "UNAVAILABLE" in str(error):
            raise
        return {"error": first_line(error)}
    state = distributed.global_state
    assert state.client is not None, "it was initialized"
    if state.process_id == 0:
        state.client.key_value_set(_OWN, asked["address"])
    address = state.client.blocking_key_value_get(_OWN, 1000 * asked["seconds"])
    found = {
        "index": state.process_id,
        "count": state.num_processes,
        "coordinator": state.coordinator_address,
        "visible": jax.config._read("jax_cuda_visible_devices"),  # of all platforms the same
        "address": address,
    }
    jax.distributed.shutdown()  # once all have come this far
    return found


if __name__ == "__main__":
    print(json.dumps(_ask(json.loads(sys.stdin.read()))))
