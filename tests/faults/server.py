"""Forks processes that run experiments, each as if a person had started it, for `processes`."""

from __future__ import annotations

import json
import logging
import os
import select
import sys
import warnings
from pathlib import Path
from typing import Any, NoReturn


def main() -> None:
    """Answers a request a line, until nobody asks any more."""
    warnings.simplefilter("ignore")
    import tensorboardX  # noqa: F401
    from orbax.checkpoint import v1  # noqa: F401

    from lth_jax.api import running  # noqa: F401
    from lth_jax.cli import run
    from lth_jax.lottery import branches  # noqa: F401
    from lth_jax.report import figures, page, terminal  # noqa: F401

    figures.FIGURES.clear()
    children: dict[int, Path] = {}
    while True:
        ready, _, _ = select.select([sys.stdin], [], [], 0.01)
        _collect(children)
        if not ready:
            continue
        line = sys.stdin.readline()
        if not line:
            return
        request = json.loads(line)
        pid = os.fork() if request else 0
        if request and not pid:
            _be(request, run.main)
        if request:
            children[pid] = Path(f"{request['out']}.status")
        print(json.dumps({"pid": pid}), flush=True)


def _collect(children: dict[int, Path]) -> None:
    """Notes the exit status of children that ended, as a shell would say it."""
    for pid in list(children):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            file = children.pop(pid)
            part = file.with_suffix(".part")
            part.write_text(str(code if code >= 0 else 128 - code))
            part.rename(file)


def _be(request: dict[str, Any], command: Any) -> NoReturn:
    """Becomes a process that runs an experiment."""
    status = 1
    try:
        os.setsid()
        for number, name in ((0, os.devnull), (1, request["out"]), (2, request["err"])):
            file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(file, number)
            os.close(file)
        for name, value in request.get("environment", {}).items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        if request.get("arm"):
            from .disk import KILL, Disk

            call, n = request["arm"]
            Disk().arm(Path(request["folder"]), call, KILL, n)
        logging.getLogger("lth_jax").handlers = []
        from lth_jax.system import signals, streams

        streams.open_standard()
        signals.end_in_one_line()
        status = command(request["arguments"])
    except BaseException:
        import traceback

        os.write(2, traceback.format_exc().encode())
    finally:
        sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
