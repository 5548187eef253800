"""What the API takes and answers."""

from __future__ import annotations

import math
from typing import Annotated, Any
from urllib.parse import quote

import numpy as np
from pydantic import BaseModel, Field

from _kinfold_found import Neighbours
from _kinfold_threshold import Threshold
from kinfold_serving.snapshot import Snapshot

API = "/api/v1"
MOST_NEIGHBOURS = 100
MOST_VECTORS = 1024

K = Annotated[int, Field(ge=1, le=MOST_NEIGHBOURS, description="Number of neighbours.")]


class Item(BaseModel):
    """An item of the index."""

    id: str = Field(description="Its id in the index.")
    label: str | None = Field(description="Its class; null where it has none.")
    image: str | None = Field(description="Path of its picture; null if there is none.")


class Neighbour(Item):
    """An item that a search has found."""

    distance: float = Field(description="Distance from the query.")
    near: bool | None = Field(description="Whether it is within the threshold; null without one.")
    metadata: dict[str, Any] = Field(description="What else the index knows of it, but no paths.")


class Result(BaseModel):
    """What was found for one image or vector."""

    name: str | None = Field(description="The name of the file that was sent.")
    label: str | None = Field(description="The class of the nearest item; null if it is too far.")
    known: bool | None = Field(
        description="Whether the nearest item is near enough; null if the run is not calibrated."
    )
    neighbours: list[Neighbour]


class Results(BaseModel):
    """What a search has found."""

    index: int = Field(description="Number of the index that was searched; a reload raises it.")
    threshold: float | None = Field(description="The distance that decided.")
    results: list[Result] = Field(description="One for each image or vector, in their order.")


class Vectors(BaseModel):
    """Vectors to search for."""

    embeddings: list[list[float]] | None = Field(
        None, max_length=MOST_VECTORS, description="Embeddings of the run's model."
    )
    inputs: list[list[float]] | None = Field(
        None, max_length=MOST_VECTORS, description="What a model of vectors takes."
    )
    k: K = 5


class Class(BaseModel):
    """A class of the index."""

    label: str | None
    items: int = Field(description="Number of its items.")
    example: Item


class Classes(BaseModel):
    """Some of the classes."""

    total: int = Field(description="Number of classes that match.")
    classes: list[Class]


class Members(BaseModel):
    """Some of the items of a class."""

    label: str | None
    total: int = Field(description="Number of items of the class.")
    items: list[Item]


class Curve(BaseModel):
    """What a threshold would accept at rising distances."""

    per: str = Field(description="What the rates are shares of: 'unknown query' or 'pair'.")
    current: float = Field(description="The threshold that decides.")
    interval: tuple[float, float] | None = Field(
        description="95% interval of its false accept rate on classes never seen."
    )
    distance: list[float]
    far: list[float] = Field(description="Share of what should be refused that is accepted.")
    frr: list[float] | None = Field(
        description="Share of what should be accepted that is refused; null if nothing tells it."
    )
    classes: int = Field(description="Number of classes that it was calibrated by.")
    examples: int = Field(description="Number of examples of these.")
    similarity: bool = Field(description="Whether larger is closer.")


class Thresholds(BaseModel):
    """The thresholds of the run."""

    query: Curve | None = Field(description="Per unknown query: what a search decides by.")
    pair: Curve | None = Field(description="Per pair of two things.")
    why: str = Field(description="Why a threshold is missing.")


class Map(BaseModel):
    """Items of the index in the plane."""

    index: int
    method: str = Field(description="'pca', or 'tsne'.")
    total: int = Field(description="Number of items in the index, of which these are drawn.")
    x: list[float]
    y: list[float]
    items: list[Item]


class Status(BaseModel):
    """The state of the server."""

    status: str = "ok"
    index: int = Field(description="Number of the index; a reload raises it.")
    items: int = Field(description="Number of items in the index.")


class About(BaseModel):
    """What the page needs to know of the run."""

    name: str
    takes_images: bool
    items: int
    classes: int
    dimension: int
    largest: int = Field(description="Bytes that an image may have.")


class Problem(BaseModel):
    """What was wrong."""

    detail: str


def item_of(snapshot: Snapshot, row: int) -> Item:
    """An item by its row."""
    name = str(snapshot.ids[row])
    shown = snapshot.file_of(row) is not None
    return Item(id=name, label=snapshot.labels[row], image=_picture(name) if shown else None)


def results_of(
    snapshot: Snapshot, found: Neighbours, names: list[str | None], leave_out: Any = None
) -> Results:
    """What was found, in the words of the API.

    Args:
        snapshot: that was searched.
        found: what was found in it.
        names: of what was searched for.
        leave_out: the id of an item that is no neighbour of itself.
    """
    threshold = snapshot.query
    results = []
    for name, ids, distances, labels, metadata in zip(names, *found, strict=True):
        near = np.zeros(len(ids), bool) if threshold is None else threshold.accepts(distances)
        neighbours = [
            Neighbour(
                id=str(one),
                label=None if label is None else str(label),
                image=_picture(str(one)) if more and "file" in more else None,
                distance=float(distance),
                near=None if threshold is None else bool(accepted),
                metadata={k: v for k, v in (more or {}).items() if k not in ("file", "data")},
            )
            for one, distance, label, more, accepted in zip(
                ids, distances, labels, metadata, near, strict=True
            )
            if one is not None and one != leave_out
        ]
        known = None if threshold is None else bool(neighbours and neighbours[0].near)
        label = neighbours[0].label if known and neighbours else None
        results.append(Result(name=name, label=label, known=known, neighbours=neighbours))
    return Results(
        index=snapshot.number,
        threshold=None if threshold is None else threshold.distance,
        results=results,
    )


def thresholds_of(snapshot: Snapshot) -> Thresholds:
    """The curves of a run."""
    return Thresholds(query=_curve(snapshot.query), pair=_curve(snapshot.pair), why=snapshot.why)


def _curve(found: Threshold | None) -> Curve | None:
    if found is None:
        return None
    recall = found.curve.recall.astype(float)
    told = bool(np.isfinite(recall).all()) and len(recall) > 0
    interval = found.interval
    if interval is not None and not all(map(math.isfinite, interval)):
        interval = None
    return Curve(
        per=found.per,
        current=found.distance,
        interval=interval,
        distance=found.curve.distance.astype(float).tolist(),
        far=found.curve.far.astype(float).tolist(),
        frr=(1 - recall).tolist() if told else None,
        classes=found.classes,
        examples=found.examples,
        similarity=found.similarity,
    )


def _picture(item: str) -> str:
    return f"{API}/items/image?id={quote(item, safe='')}"
