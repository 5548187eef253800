"""What a pair loss compares: anchors, and references in parts."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from keras import ops

from kinfold.core import backends, pairs
from kinfold.core.checks import Tensor
from kinfold.core.numerics import at_least_float32

Row = Callable[..., tuple[Tensor, Tensor]]


class Part(NamedTuple):
    """References that belong together: the batch itself, references given, or a memory.

    Attributes:
        embeddings: floating [m, d].
        labels: integers [m] or floating [m, labels]; None where the anchors' say which pairs match.
        mask: boolean [m], those that count; None for all. In the first part, rows that do not count
            hold copies of one that does, unless the loss looks at masks alone.
        offset: where the first anchor's own row lies, which is no positive of it; None for nowhere.
        constant: whether they get no gradient, and may be written over later. Not the first part.
        extra: floating tensors [m, ...] that the loss takes of a reference beside its distance, as
            many in every part. These get a gradient even where the embeddings do not.
        rows: how they lie on the ranks that they come from; None where every rank holds all.
    """

    embeddings: Tensor
    labels: Tensor | None
    mask: Tensor | None = None
    offset: int | None = None
    constant: bool = False
    extra: tuple[Tensor, ...] = ()
    rows: Any = None


class Problem(NamedTuple):
    """Anchors, and the references that each is compared with.

    Attributes:
        x: embeddings of the anchors, floating [n, d].
        labels: of the anchors, integers [n] or floating [n, labels]; or which pairs are of one
            kind, boolean [n, m].
        parts: the references.
        mask: boolean [n], the anchors that have pairs at all; None for all.
        extra: floating tensors [n, ...] that the loss takes of an anchor beside its distances.
        rows: how the rows of all ranks lie, where the anchors are one rank's and the references
            are of all; see `kinfold.distributed`.
    """

    x: Tensor
    labels: Tensor
    parts: tuple[Part, ...]
    mask: Tensor | None = None
    extra: tuple[Tensor, ...] = ()
    rows: Any = None

    @property
    def positions(self) -> Tensor:
        """Where the anchors lie in the whole batch, integers [n]."""
        positions = ops.arange(ops.shape(self.labels)[0], dtype="int32")
        return positions + self.rows.first if self.rows else positions

    @property
    def of_class_ids(self) -> bool:
        return len(self.labels.shape) == 1

    def with_one_set(self) -> bool:
        """Whether there is one part, in which anchors lie, and nothing is left out or added."""
        part = self.parts[0]
        every = self.mask is None and part.mask is None
        return (
            len(self.parts) == 1 and part.offset == 0 and every and not (self.extra or part.extra)
        )

    def with_itself(self) -> bool:
        """Whether it is a batch of class ids, compared with itself and nothing more."""
        part = self.parts[0]
        same = part.embeddings is self.x and part.labels is self.labels and self.rows is None
        return same and self.of_class_ids and self.with_one_set()

    def joined(self) -> Part:
        """All references as one part, for a loss that is no function of a row of distances."""
        first = self.parts[0]
        if len(self.parts) == 1:
            return first
        like = first.embeddings
        rest = (ops.cast(part.embeddings, like.dtype) for part in self.parts[1:])
        masks = (
            ops.ones_like(p.labels, dtype="bool") if p.mask is None else p.mask for p in self.parts
        )
        return first._replace(
            embeddings=ops.concatenate([like, *rest]),
            labels=ops.concatenate([part.labels for part in self.parts]),
            mask=ops.concatenate(list(masks)),
        )


class _Layout(NamedTuple):
    """Which tensors of a problem there are, in the order in which a block is given them."""

    mask: bool
    extra: int
    parts: tuple["_PartLayout", ...]


class _PartLayout(NamedTuple):
    labels: bool
    mask: bool
    known: bool
    offset: int | None
    constant: bool
    extra: int


@dataclass(frozen=True)
class Block:
    """The loss of some anchors, as the engine of `streaming.blocks` runs it.

    Attributes:
        loss: a `PairLoss`, for its distance and `remove_diagonal`.
        row: gives losses [t] and what a mean counts [t], from distances, positives and negatives
            [t, m], the extras of the anchors and those of the references.
        layout: how the tensors of the problem come.
    """

    loss: Any
    row: Row
    layout: _Layout

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        given = map(at_least_float32, tensors)
        layout, parts = self.layout, self.layout.parts
        x, *extra = _next(given, 1 + layout.extra)
        embeddings = [None if part.constant else next(given) for part in parts]
        extras = [_next(given, part.extra) for part in parts]
        anchors = _next(given, 2 + layout.mask)
        columns: list[Any] = []
        for part, r in zip(parts, embeddings, strict=True):
            r = next(given) if r is None else r
            ref_y, mask, known = (_next(given, is_there) for is_there in part[:3])
            d = self.loss.distance.pairwise(x, r, *known)
            if mask and columns:  # the distance of one that counts changes no minimum of a row
                d = ops.where(ops.expand_dims(mask[0], 0), d, columns[0][0][:, :1])
            columns.append((d, *self._masks(part, anchors, ref_y, mask)))
        d, positive, negative = (_joined(one, 1) for one in zip(*columns, strict=True))
        of_references = (_joined(one, 0) for one in zip(*extras, strict=True))
        return self.row(d, positive, negative, *extra, *of_references)

    def _masks(
        self, part: _PartLayout, anchors: list[Tensor], ref_y: list[Tensor], mask: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        y, at, *allowed = anchors
        diagonal = part.offset is None or not self.loss.remove_diagonal
        rows = at + part.offset if part.offset else at
        of_pairs = y, *(ref_y or [None])
        if not allowed:
            return pairs.masks(*of_pairs, *mask, rows=rows, diagonal=diagonal)
        same, other = pairs.masks(*of_pairs, rows=rows, diagonal=diagonal)
        counts = ops.expand_dims(allowed[0], 1)
        if mask:
            counts = ops.logical_and(counts, ops.expand_dims(mask[0], 0))
        return ops.logical_and(same, counts), ops.logical_and(other, counts)


class Streamed(NamedTuple):
    """A problem as the engine of `streaming.blocks` takes it."""

    block: Block
    x: tuple[Tensor, ...]
    r: tuple[Tensor, ...]
    anchors: tuple[Tensor, ...]
    references: tuple[Tensor, ...]

    @classmethod
    def of(cls, loss: Any, problem: Problem, row: Row) -> "Streamed":
        anchors = _there(problem.labels, problem.positions, problem.mask)
        r: list[Tensor] = []
        extras: list[Tensor] = []
        references: list[Tensor] = []
        layouts = []
        for part in problem.parts:
            known = None
            if part.constant:
                references.append(part.embeddings)
                known = loss.distance.squares(at_least_float32(part.embeddings))
            else:
                r.append(part.embeddings)
            beside = part.labels, part.mask, known
            references += _there(*beside)
            extras += part.extra
            labels, mask, is_known = (tensor is not None for tensor in beside)
            rest = part.offset, part.constant, len(part.extra)
            layouts.append(_PartLayout(labels, mask, is_known, *rest))
        layout = _Layout(problem.mask is not None, len(problem.extra), tuple(layouts))
        x = problem.x, *problem.extra
        return cls(Block(loss, row, layout), x, (*r, *extras), anchors, tuple(references))


def snapshot(problem: Problem) -> Problem:
    """`problem` with copies, where the backend writes in place, of what may be written over.

    For a loss that computes more of its parts than the roads do, whose backward pass looks at them.
    """
    copied = backends.module("kinfold.streaming").snapshot

    def kept(part: Part) -> Part:
        if not part.constant:
            return part
        embeddings, labels = copied((part.embeddings, part.labels))
        return part._replace(embeddings=embeddings, labels=labels)

    return problem._replace(parts=tuple(map(kept, problem.parts)))


def _there(*tensors: Tensor | None) -> tuple[Tensor, ...]:
    return tuple(tensor for tensor in tensors if tensor is not None)


def _joined(parts: tuple[Tensor, ...], axis: int) -> Tensor:
    return parts[0] if len(parts) == 1 else ops.concatenate(list(parts), axis=axis)


def _next(given: Iterator[Tensor], count: int) -> list[Tensor]:
    return [next(given) for _ in range(count)]
