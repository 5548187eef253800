"""Many searches at once, embedded and searched together in the one thread that uses the model."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from _kinfold_found import Neighbours
from kinfold_serving.served import LARGE, SMALL, Served
from kinfold_serving.snapshot import Snapshot

MOST_WAITING = 4096  # examples; more are refused until some are done


class BusyError(RuntimeError):
    """Too many searches wait."""


@dataclass(frozen=True)
class _Job:
    """A search that waits.

    Attributes:
        examples: what the model takes, [n, ...]; or embeddings.
        embedded: whether they are embeddings.
        k: how many neighbours.
        answer: hears what was found.
        loop: of the answer.
    """

    examples: np.ndarray
    embedded: bool
    k: int
    answer: asyncio.Future[tuple[Snapshot, Neighbours]]
    loop: asyncio.AbstractEventLoop


class Searcher:
    """Answers searches; what is searched in can be exchanged at any time.

    Args:
        served: whose model embeds.
        snapshot: what is searched in first.
    """

    def __init__(self, served: Served, snapshot: Snapshot) -> None:
        self.served, self.snapshot = served, snapshot
        self.waiting = 0  # examples
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._count = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="kinfold-search", daemon=True)
        self._thread.start()

    async def search(
        self, examples: np.ndarray, k: int, embedded: bool = False
    ) -> tuple[Snapshot, Neighbours]:
        """Find the nearest items of examples [n, ...] or of embeddings [n, d].

        Raises:
            BusyError: too many searches wait.
            ValueError: the examples are not what the model takes.
        """
        loop = asyncio.get_running_loop()
        job = _Job(examples, embedded, k, loop.create_future(), loop)
        with self._count:
            if self.waiting + len(examples) > MOST_WAITING:
                raise BusyError("Too many searches wait. Try again in a moment.")
            self.waiting += len(examples)
        self._jobs.put(job)
        return await job.answer

    def warm_up(self) -> None:
        """Embed once in each size, as a backend that compiles does so then."""
        dtype = np.uint8 if self.served.takes_images else np.float32
        for size in self.served.sizes:
            self.served.embed(np.zeros((size, *self.served.shape), dtype))

    def stop(self) -> None:
        """Answer what waits, and end the thread."""
        self._jobs.put(None)
        self._thread.join(timeout=30)

    def _work(self) -> None:
        kept: _Job | None = None  # that no longer fitted
        while True:
            first = kept or self._jobs.get()
            if first is None:
                return
            jobs, kept, ended = self._more(first)
            self._answer(jobs)
            with self._count:
                self.waiting -= sum(len(job.examples) for job in jobs)
            if ended:
                return

    def _more(self, first: _Job) -> tuple[list[_Job], _Job | None, bool]:
        """Take jobs that wait behind the first, up to a full batch; the one too many; the end."""
        jobs, rows = [first], len(first.examples)
        most = LARGE if self.waiting >= LARGE else SMALL
        while rows < most:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                return jobs, None, True
            if rows + len(job.examples) > most:
                return jobs, job, False
            jobs.append(job)
            rows += len(job.examples)
        return jobs, None, False

    def _answer(self, jobs: Sequence[_Job]) -> None:
        snapshot = self.snapshot  # one for all of them, whatever takes its place meanwhile
        try:
            found = self._search(jobs, snapshot)
        except Exception as error:
            if len(jobs) == 1:
                _tell(jobs[0], error)
            else:  # one of them may spoil it for all
                for job in jobs:
                    self._answer([job])
            return
        start = 0
        for job in jobs:
            stop = start + len(job.examples)
            _tell(job, (snapshot, Neighbours(*(part[start:stop, : job.k] for part in found))))
            start = stop

    def _search(self, jobs: Sequence[_Job], snapshot: Snapshot) -> Neighbours:
        raw = [job.examples for job in jobs if not job.embedded]
        rows = iter(self.served.embed(np.concatenate(raw)) if raw else [])
        vectors = [
            job.examples if job.embedded else np.stack([next(rows) for _ in job.examples])
            for job in jobs
        ]
        return snapshot.index.search(np.concatenate(vectors), max(job.k for job in jobs))


def _tell(job: _Job, what: tuple[Snapshot, Neighbours] | Exception) -> None:
    def tell() -> None:
        if job.answer.done():  # whoever asked has gone
            return
        if isinstance(what, Exception):
            job.answer.set_exception(what)
        else:
            job.answer.set_result(what)

    try:
        job.loop.call_soon_threadsafe(tell)
    except RuntimeError:  # the loop has ended
        return
