"""Two processes of one experiment as two threads of the tests' own, and the line between them."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

from lth_jax.lottery.observer import Observer
from lth_jax.lottery.runner import Runner
from lth_jax.lottery.sharing import Follower, Leader
from lth_jax.processes.channel import accept, connect, listener
from lth_jax.store import RunDirectory
from lth_jax.store.share import Share

from ..tiny import experiment


def channels(count=2):
    """The channels of all processes, the first one's first."""
    with listener() as listening, ThreadPoolExecutor() as pool:
        address = "127.0.0.1", listening.getsockname()[1]
        others = [
            pool.submit(connect, address, index, count, "word", 10) for index in range(1, count)
        ]
        first = accept(listening, count, "word", 10)
        return first, *(other.result() for other in others)


class Shared:
    """Runs a spec in a directory: the leader in this thread, a follower in another.

    Attributes:
      ends: what the follower ended with: an exception, or None.
      training: the level of which the follower trains its share; None while it waits.
    """

    def __init__(self, path, spec, data=("same", "same")):
        self.path, self.spec, self.data = path, spec, data
        self.ends = self.training = None
        first, other = channels()
        self.leader, self.follower = Leader(first), Follower(other)

    def run(self, came=lambda: 0, came_there=lambda: 0, observer=None):
        """Trains to the end, or to what the leader raises."""
        thread = threading.Thread(target=self._follow, args=(came_there,))
        store = RunDirectory.open(self.path, self.spec, "tiny", ["run.py"])
        try:
            self.leader.open(store, observer or Observer())
            thread.start()
            self.leader.built(1, self.data[0])
            Runner(
                experiment(self.spec), store, observer or Observer(), None, came, self.leader
            ).run()
            self.leader.close()
        except BaseException:
            self.leader.channel.send_all({"do": "end", "status": 1})
            raise
        finally:
            store.close()
            self.leader.channel.close()
            thread.join()
            self.follower.channel.close()
        return store

    def _follow(self, came):
        share = Share(self.path, 1)
        try:
            assert self.follower.next() == {"do": "build"}
            self.follower.built(1, self.data[1])
            runner = Runner(experiment(self.spec), share, Observer())

            def train_share(level, *task):
                self.training = level
                runner.train_share(level, *task)
                self.training = None

            self.follower.follow(train_share, share, came)
        except Exception as error:
            self.ends = error
            with contextlib.suppress(AttributeError):
                self.follower.channel.send(0, {"stopped": error.signum})
