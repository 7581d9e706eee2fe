"""What processes say to one another, and what is heard of those that are gone."""

import contextlib
import json
import socket
import threading

import pytest

from lth_jax.errors import RunError
from lth_jax.processes.channel import Received, accept, connect, listener

from ..lottery.shared_runs import channels


def test_messages_come_in_their_order_and_the_end_of_a_process_comes_last():
    first, second, third = channels(3)
    assert first.receive() is None
    for number in range(100):
        second.send(0, {"number": number, "text": "é\n" * number})
    second.close()
    heard = [first.receive(10) for _ in range(101)]
    assert [one.message["number"] for one in heard[:-1]] == list(range(100))
    assert heard[7] == Received(1, {"number": 7, "text": "é\n" * 7})
    assert heard[-1] == Received(1, None)
    first.send_all({"do": "end"})  # to one that is gone it is lost
    assert third.receive(10) == Received(0, {"do": "end"})
    assert first.names == {n: f"process {n} on {socket.gethostname()}" for n in (1, 2)}
    first.close(), third.close()


def test_what_is_no_message_of_ours_ends_that_connection_alone():
    first, second, third = channels(3)
    second._sockets[0].sendall(b"GET / HTTP/1.1\n")
    assert first.receive(10) == Received(1, None)
    third.send(0, {"a": 1})
    assert first.receive(10) == Received(2, {"a": 1})
    first.close(), second.close(), third.close()


def test_strangers_are_sent_away_and_who_does_not_come_is_named():
    hellos = [b"", b"x" * 5000, b"[]\n", b'{"index": 1, "token": "other"}\n']
    hellos += [b'{"index": %d, "token": "word"}\n' % index for index in (0, 3)]

    def strangers(address):
        for hello in hellos:
            with socket.create_connection(address, timeout=10) as stranger:
                stranger.sendall(hello)
                stranger.shutdown(socket.SHUT_WR)
                stranger.settimeout(10)
                with contextlib.suppress(ConnectionResetError):
                    assert stranger.recv(1) == b""
        known = {"index": 1, "token": "word", "host": "there"}
        with socket.create_connection(address, timeout=10) as one:
            one.sendall(json.dumps(known).encode() + b"\n")

    with listener() as listening:
        address = "127.0.0.1", listening.getsockname()[1]
        thread = threading.Thread(target=strangers, args=(address,))
        thread.start()
        with pytest.raises(RunError, match=r"^process 2 of 3 did not connect within 2 seconds$"):
            accept(listening, 3, "word", 2)
        thread.join()
    with pytest.raises(RunError, match=rf"process 0 cannot be reached at 127.0.0.1:{address[1]}: "):
        connect(address, 1, 2, "word", 2)
