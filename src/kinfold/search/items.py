"""What an index knows of its items: their ids, labels and metadata."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from _kinfold_found import objects

Where = Mapping[str, Any]
LABEL = "label"  # the name under which `where` finds the label


class Items:
    """Columns of the items, in the order in which they were added.

    Attributes:
        ids: object [n], integers or strings, all different.
        labels: object [n], integers, strings or None.
        metadata: object [n], dictionaries or None.
    """

    def __init__(self) -> None:
        self.ids = self.labels = self.metadata = np.empty(0, object)
        self.row_of: dict[Any, int] = {}
        self.next_id = 0

    def __len__(self) -> int:
        return len(self.ids)

    def new(self, count: int, ids: Any, labels: Any, metadata: Any) -> Items:
        """Check what is to be added; return it as items of their own."""
        made = Items()
        made.ids = self._new_ids(count, ids)
        made.labels = _column(count, labels, "labels", (int, str, type(None)), "integers, strings")
        kinds = {type(one) for one in (*self.labels, *made.labels)} - {type(None)}
        if len(kinds) > 1:
            raise TypeError(
                "The labels of an index must be all integers or all strings. Received both."
            )
        made.metadata = _metadata(count, metadata)
        made.row_of = {one: k for k, one in enumerate(made.ids.tolist())}
        if len(made.row_of) < count:
            twice = next(one for k, one in enumerate(made.ids) if made.row_of[one] != k)
            raise ValueError(f"`ids` must all be different. Received {twice!r} twice.")
        return made

    def extend(self, other: Items) -> None:
        """Add items behind those that are there; their ids must be new."""
        begin = len(self)
        self.ids = np.concatenate([self.ids, other.ids])
        self.labels = np.concatenate([self.labels, other.labels])
        self.metadata = np.concatenate([self.metadata, other.metadata])
        self.row_of.update({one: begin + k for k, one in enumerate(other.ids.tolist())})
        numbers = [one for one in other.ids.tolist() if isinstance(one, int)]
        self.next_id = max([self.next_id, *(one + 1 for one in numbers)])

    def keep(self, rows: np.ndarray) -> None:
        """Drop all but these rows."""
        self.ids, self.labels = self.ids[rows], self.labels[rows]
        self.metadata = self.metadata[rows]
        self.row_of = {one: k for k, one in enumerate(self.ids.tolist())}

    def rows(self, ids: Iterable[Any]) -> list[int]:
        """The rows of these ids; ValueError where one is not there."""
        wanted = [_plain(one) for one in ids]
        missing = [one for one in wanted if one not in self.row_of]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise ValueError(f"There is no id {missing[0]!r}{more} in this index.")
        return [self.row_of[one] for one in wanted]

    def matching(self, where: Where) -> np.ndarray:
        """bool [n], the items that have one of the values asked for in every field."""
        if not isinstance(where, Mapping):
            raise TypeError(
                "`where` must be a dictionary from a field to a value, or to a list of values, "
                f"such as {{'label': 'shoe'}}. Received: where={where!r}."
            )
        found = np.ones(len(self), bool)
        for field, value in where.items():
            several = isinstance(value, list | tuple | set | frozenset | np.ndarray)
            values = [_plain(one) for one in value] if several else [_plain(value)]
            column = self.labels if field == LABEL else self._field(field)
            found &= np.fromiter((one in values for one in column), bool, len(column))
        return found

    def _field(self, name: str) -> list[Any]:
        if len(self) and not any(one and name in one for one in self.metadata):
            raise ValueError(
                f"No item has the field {name!r}. `where` looks at 'label' and at the fields of "
                "the metadata."
            )
        return [one.get(name) if one else None for one in self.metadata]

    def _new_ids(self, count: int, ids: Any) -> np.ndarray:
        text = len(self) and isinstance(self.ids[0], str)
        if ids is None:
            if text:
                raise ValueError("The ids of this index are strings, so pass `ids` to `add`.")
            return objects(range(self.next_id, self.next_id + count), count)
        found = _column(count, ids, "ids", (int, str), "all integers or all strings")
        kinds = {type(one) for one in found.tolist()}
        if len(kinds) > 1 or (len(self) and count and type(self.ids[0]) not in kinds):
            raise TypeError(
                "The ids of an index must be all integers or all strings. Received "
                f"{_example(found, kinds)}{', and its ids are strings' if text else ''}."
            )
        return found


def _example(found: np.ndarray, kinds: set[type]) -> str:
    each = [next(one for one in found if type(one) is kind) for kind in kinds]
    return " and ".join(repr(one) for one in each)


def _plain(value: Any) -> Any:
    """A NumPy scalar as what Python has for it."""
    return value.item() if isinstance(value, np.generic) else value


def _column(count: int, given: Any, name: str, kinds: tuple[type, ...], words: str) -> np.ndarray:
    """object [n] of a column that was given, or of None."""
    if given is None:
        return objects([None] * count, count)
    values = given.tolist() if hasattr(given, "tolist") else list(given)
    values = [_plain(one) for one in values]
    if len(values) != count:
        raise ValueError(
            f"`{name}` must have one entry for each embedding. Received {len(values)} {name} and "
            f"{count} embeddings."
        )
    wrong = [
        one
        for one in values
        if not isinstance(one, kinds)
        or isinstance(one, bool)
        or (isinstance(one, int) and not -(2**63) <= one < 2**63)
    ]
    if wrong:
        raise TypeError(f"`{name}` must be {words}. Received {wrong[0]!r}.")
    return objects(values, count)


def _metadata(count: int, given: Any) -> np.ndarray:
    """object [n] of dictionaries, from one for each item or from columns."""
    if isinstance(given, Mapping):
        columns = {name: _listed(values) for name, values in given.items()}
        lengths = {name: len(values) for name, values in columns.items() if len(values) != count}
        if lengths:
            name, length = next(iter(lengths.items()))
            raise ValueError(
                f"The metadata {name!r} must have one value for each embedding. Received {length} "
                f"values and {count} embeddings."
            )
        given = [
            dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
        ] or None
    found = _column(count, given, "metadata", (dict, type(None)), "dictionaries, or columns")
    for one in found:
        if one and not all(isinstance(name, str) for name in one):
            raise TypeError(f"The fields of metadata must be named by strings. Received {one!r}.")
        try:
            json.dumps(one, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"Metadata must be what JSON can hold: strings, numbers, lists. Received {one!r}: "
                f"{error}."
            ) from None
    return found


def _listed(values: Sequence[Any]) -> list[Any]:
    return [_plain(one) for one in (values.tolist() if hasattr(values, "tolist") else values)]
