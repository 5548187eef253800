"""The best items of each row so far, while scores arrive tile by tile."""

import numpy as np

# Runs of a tile's columns whose maxima are looked at first, at least.
_RUNS = 64


class TooManyTiesError(Exception):
    """More items are as good as the last that is wanted than a shortlist has room for."""


class Shortlists:
    """For each row the items with the k largest scores, and all that tie with the last of them.

    Args:
        rows: number of rows.
        k: number of items wanted for each.
        keep: float32 [rows]; a score of at least this is kept, however many are better.
        ties: False keeps k of each row and no more.
    """

    def __init__(self, rows: int, k: int, keep: np.ndarray, ties: bool = True) -> None:
        self.k = k
        self.ties = ties
        self.keep = keep
        self.threshold = np.full(rows, -np.inf, np.float32)  # below it nothing is wanted
        self.counts = np.zeros(rows, np.int64)
        room = max(4 * k, 32)
        self.scores = np.full((rows, room), -np.inf, np.float32)
        self.items = np.zeros((rows, room), np.int64)

    def offer(self, tile: np.ndarray, row: int, item: int) -> None:
        """Take what is wanted of scores [t, m] of the rows from `row` and the items from `item`."""
        threshold = self.threshold[row : row + len(tile)]
        if threshold.min(initial=0) == -np.inf:
            bound = _bound(tile, self.k, self.keep[row : row + len(tile)])
            np.maximum(threshold, bound, out=threshold)
        rows, items = np.divmod(_where(tile >= threshold[:, None]), tile.shape[1])
        self._add(row + rows, item + items, tile[rows, items])

    def offer_transposed(self, tile: np.ndarray, row: int, item: int) -> None:
        """As `offer` of the transposed tile: scores [m, t] of the items and the rows."""
        threshold = self.threshold[row : row + tile.shape[1]]
        if threshold.min(initial=0) == -np.inf:
            bound = _bound(tile.T, self.k, self.keep[row : row + tile.shape[1]])
            np.maximum(threshold, bound, out=threshold)
        items, rows = np.divmod(_where(tile >= threshold), tile.shape[1])
        order = np.argsort(rows, kind="stable")
        items, rows = items[order], rows[order]
        self._add(row + rows, item + items, tile[items, rows])

    def _add(self, rows: np.ndarray, items: np.ndarray, scores: np.ndarray) -> None:
        """Write scores of sorted `rows` behind those that are there."""
        room = self.scores.shape[1]
        while len(rows):
            new = np.flatnonzero(np.append(True, rows[1:] != rows[:-1]))
            counts = np.diff(np.append(new, len(rows)))
            place = self.counts[rows] + np.arange(len(rows)) - np.repeat(new, counts)
            fits = place < room
            here = rows[fits]
            self.scores[here, place[fits]] = scores[fits]
            self.items[here, place[fits]] = items[fits]
            different = rows[new]
            self.counts[different] = np.minimum(self.counts[different] + counts, room)
            full = different[self.counts[different] == room]
            if len(full):
                self.tighten(full)
            left = ~fits & (scores >= self.threshold[rows])
            rows, items, scores = rows[left], items[left], scores[left]

    def tighten(self, rows: np.ndarray | None = None) -> None:
        """Drop what is no more wanted of these rows, or of all; the best of each come first."""
        rows = np.arange(len(self.counts)) if rows is None else rows
        scores, items = self.scores[rows], self.items[rows]
        order = np.argsort(-scores, axis=1)
        scores = np.take_along_axis(scores, order, axis=1)
        last = np.minimum(scores[:, self.k - 1], self.keep[rows])
        wanted = (scores >= last[:, None]) & (scores > -np.inf)
        if not self.ties:
            wanted[:, self.k :] = False
        counts = np.count_nonzero(wanted, axis=1)
        if counts.max(initial=0) > scores.shape[1] // 2:
            raise TooManyTiesError
        self.scores[rows] = np.where(wanted, scores, -np.inf)
        self.items[rows] = np.take_along_axis(items, order, axis=1)
        self.counts[rows] = counts
        self.threshold[rows] = last


def _bound(tile: np.ndarray, k: int, keep: np.ndarray) -> np.ndarray:
    """What at least k scores of each row reach: the k-th of the maxima of runs of columns."""
    runs = max(_RUNS, 2 * k)
    length = tile.shape[1] // runs
    if length < 1:
        return np.full(len(tile), -np.inf, np.float32)
    maxima = tile[:, : length * runs].reshape(len(tile), length, runs).max(axis=1)
    return np.minimum(np.partition(maxima, runs - k, axis=1)[:, runs - k], keep)


def _where(wanted: np.ndarray) -> np.ndarray:
    """As `numpy.flatnonzero` of booleans of which few are True, eight at a time."""
    if wanted.size % 8:
        return np.flatnonzero(wanted)
    eights = wanted.reshape(-1, 8)
    some = np.flatnonzero(eights.view(np.uint64))
    which, place = np.nonzero(eights[some])
    return some[which] * 8 + place
