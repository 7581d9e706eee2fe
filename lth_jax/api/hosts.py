"""An experiment that several processes run: who leads, who follows, and how they end together.

The first process alone says what there is to say. Each of the others tells it why it ends, and is
silent, unless the first is gone without a word.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from lth_jax.errors import Interrupted, UserError, first_line
from lth_jax.lottery.sharing import Ended, Follower, Leader, Lost
from lth_jax.processes import rendezvous
from lth_jax.processes.channel import Channel


@contextlib.contextmanager
def joined(hosts: str) -> Iterator[tuple[Leader | None, Follower | None]]:
    """Gives what leads the other processes, or what follows the first one.

    However the block within ends, all of them end, with the first one's exit status. A follower
    leaves the block by `SystemExit` where the first process says what happened.

    Args:
      hosts: where they are, as `rendezvous.parse` takes it.

    Raises:
      SpecError, RunError: they do not find one another; Lost: the first process is gone.
    """
    channel = rendezvous.join(hosts)
    try:
        if channel.index == 0:
            with _leading(channel):
                yield Leader(channel), None
        else:
            follower = Follower(channel)
            with _following(follower):
                yield None, follower
    finally:
        channel.close()


@contextlib.contextmanager
def _leading(channel: Channel) -> Iterator[None]:
    status = 1
    try:
        yield
        status = 0
    except UserError as error:
        status = error.exit_status
        raise
    except Interrupted as stop:
        status = 128 + stop.signum
        raise
    finally:
        channel.send_all({"do": "end", "status": status})


@contextlib.contextmanager
def _following(follower: Follower) -> Iterator[None]:
    def tell(what: str, value: object) -> None:
        follower.channel.send(0, {what: value})

    try:
        yield
        while True:  # until the first process has ended as well, and says how
            follower.next()
    except Ended as end:
        raise SystemExit(end.status) from None
    except Interrupted as stop:
        tell("stopped", stop.signum)
        raise SystemExit(128 + stop.signum) from None
    except Lost:
        raise
    except UserError as error:
        tell("failed", str(error))
        raise SystemExit(error.exit_status) from None
    except Exception as error:  # a fault of ours, whose traceback is of use
        tell("failed", f"{type(error).__name__}: {first_line(error)}")
        raise
