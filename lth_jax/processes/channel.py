"""Short messages between the first process and each of the others, and the news that one is gone.

A message is an object of JSON in a line of its own: nothing that is received could be run. When a
process ends, however that is, its system closes the connection, and the other end knows at once;
of a machine that went away without a word, TCP's own questions tell within a minute.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import queue
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from lth_jax.errors import RunError

Message = dict[str, Any]
# Of a connection on which nothing comes: asked after so many seconds, so often, this far apart.
KEEPALIVE = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 4}
UNANSWERED_MILLISECONDS = 60_000  # how long what was sent may go without an answer of the system
MOST_HELLO = 1_000  # bytes of the first line, of which nobody knows yet who sends it
HELLO_SECONDS = 10.0


class Received(NamedTuple):
    """What came from another process: a message, or None when that is gone."""

    sender: int
    message: Message | None


class Channel:
    """The connections of one process to others.

    Args:
      index: of this process, counted from 0; the first has a connection to each other one, and
        those have one to the first.
      count: how many processes there are.
      sockets: the connections, by the index of the process at the other end.
      names: of these processes, for people.
    """

    def __init__(
        self,
        index: int,
        count: int,
        sockets: Mapping[int, socket.socket],
        names: Mapping[int, str],
    ):
        self.index, self.count = index, count
        self.names = dict(names)
        self._sockets = dict(sockets)
        self._inbox: queue.SimpleQueue[Received] = queue.SimpleQueue()
        for peer, connection in self._sockets.items():
            _keep_alive(connection)
            threading.Thread(
                target=self._read, args=(peer, connection), name=f"process {peer}", daemon=True
            ).start()

    @property
    def others(self) -> list[int]:
        """The processes that this one is connected to."""
        return sorted(self._sockets)

    def send(self, receiver: int, message: Message) -> None:
        """Sends a message; to one that is gone it is lost, which `receive` tells."""
        line = json.dumps(message).encode() + b"\n"
        with contextlib.suppress(OSError):
            self._sockets[receiver].sendall(line)

    def send_all(self, message: Message) -> None:
        """Sends a message to every process that this one is connected to."""
        for other in self.others:
            self.send(other, message)

    def receive(self, seconds: float = 0.0) -> Received | None:
        """Returns what came next, in the order of each sender; None if nothing does in time."""
        with contextlib.suppress(queue.Empty):
            return self._inbox.get(timeout=seconds) if seconds > 0 else self._inbox.get_nowait()
        return None

    def close(self) -> None:
        """Ends the connections; what was sent before still arrives."""
        for connection in self._sockets.values():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)

    def _read(self, peer: int, connection: socket.socket) -> None:
        # Whatever a broken connection raises or leaves half said: that process is gone.
        with connection, contextlib.suppress(OSError, ValueError):
            for line in connection.makefile("rb"):
                self._inbox.put(Received(peer, json.loads(line)))
        self._inbox.put(Received(peer, None))


def _keep_alive(connection: socket.socket) -> None:
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    options = {**KEEPALIVE, "TCP_USER_TIMEOUT": UNANSWERED_MILLISECONDS}
    for name, value in options.items():
        if hasattr(socket, name):  # not on every system
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def listener() -> socket.socket:
    """Returns a socket that others can connect to, at a free port, by IPv6 too where that is."""
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):
            return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", 0))


def accept(listening: socket.socket, count: int, token: str, seconds: float) -> Channel:
    """Returns the channel of the first process, to which all others have connected.

    Args:
      listening: where they do.
      count: how many processes there are, this one included.
      token: the word by which they are known.
      seconds: how long to wait for them.

    Raises:
      RunError: not all came; it says how many.
    """
    sockets: dict[int, socket.socket] = {}
    names: dict[int, str] = {}
    for connection in _connections(listening, seconds):
        hello = _hello(connection)
        index = hello.get("index")
        known = hmac.compare_digest(str(hello.get("token")).encode(), token.encode())
        if not (known and isinstance(index, int) and 0 < index < count and index not in sockets):
            connection.close()  # a stranger, as they are at every open port
            continue
        sockets[index] = connection
        names[index] = f"process {index} on {hello.get('host')}"
        if len(sockets) == count - 1:
            return Channel(0, count, sockets, names)
    for connection in sockets.values():
        connection.close()
    missing = sorted(set(range(1, count)) - set(sockets))
    raise RunError(f"process {missing[0]} of {count} did not connect within {seconds:.0f} seconds")


def _connections(listening: socket.socket, seconds: float) -> Iterator[socket.socket]:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        listening.settimeout(left)
        with contextlib.suppress(TimeoutError):
            yield listening.accept()[0]


def _hello(connection: socket.socket) -> Message:
    """Returns the first line of a connection; an empty message where that is none of ours."""
    connection.settimeout(HELLO_SECONDS)
    line = b""
    with contextlib.suppress(OSError, ValueError):
        # Byte by byte: what follows the line is the channel's.
        while len(line) < MOST_HELLO and (byte := connection.recv(1)) not in (b"", b"\n"):
            line += byte
        found = json.loads(line)
        return found if isinstance(found, dict) else {}
    return {}


def connect(
    address: tuple[str, int], index: int, count: int, token: str, seconds: float
) -> Channel:
    """Returns the channel of another process, connected to the first.

    Raises:
      RunError: it cannot be reached.
    """
    host, port = address
    try:
        connection = socket.create_connection(address, timeout=seconds)
        hello = {"index": index, "token": token, "host": socket.gethostname()}
        connection.sendall(json.dumps(hello).encode() + b"\n")
    except OSError as error:
        raise RunError(f"process 0 cannot be reached at {host}:{port}: {error}") from error
    return Channel(index, count, {0: connection}, {0: f"process 0 on {host}"})
