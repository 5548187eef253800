"""The routes of the API."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, File, HTTPException, Query, Response, UploadFile
from starlette.responses import PlainTextResponse

from _kinfold_text import shown
from kinfold_serving import answers, metrics
from kinfold_serving.answers import API, K, Problem
from kinfold_serving.decoding import Read
from kinfold_serving.mapping import METHODS
from kinfold_serving.service import Service

LARGEST = 20 << 20  # bytes of an image
MOST_IMAGES = 32  # in a request
LARGEST_REQUEST = 64 << 20
_SIDE = 256  # pixels of a picture

Id = Annotated[str, Query(description="The id of an item, as a search gives it.", max_length=4096)]
Offset = Annotated[int, Query(ge=0, description="How many to leave out.")]
Limit = Annotated[int, Query(ge=1, le=500, description="How many to give at most.")]
Images = Annotated[
    list[UploadFile],
    File(description=f"1 to {MOST_IMAGES} images: JPEG, PNG, WEBP, GIF, BMP or TIFF."),
]


def _problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: {"model": Problem} for code in codes}


def router(service: Service) -> APIRouter:
    """The routes, for this service."""
    api = APIRouter(prefix=API)
    served = service.served

    @api.post(
        "/search",
        response_model=answers.Results,
        responses=_problems(400, 408, 413, 415, 422, 503),
        tags=["search"],
        summary="Search for images",
    )
    async def search(images: Images, k: Annotated[K, Query()] = 5) -> Response:
        """Find the nearest items of each image, and the class of each.

        A file that is no image refuses the whole request: `detail` names it.
        """
        if not served.takes_images:
            raise HTTPException(400, "The model takes vectors: POST them to search/vectors.")
        if len(images) > MOST_IMAGES:
            raise HTTPException(413, f"A request may have {MOST_IMAGES} images at most.")
        names = [_name(one) for one in images]
        for name, one in zip(names, images, strict=True):
            if (one.size or 0) > LARGEST:
                service.metrics.refused[413] += 1
                raise HTTPException(413, f"{name} is larger than {LARGEST >> 20} MiB.")
        reads = [(name, _reader(one)) for name, one in zip(names, images, strict=True)]
        snapshot, found = await service.images(reads, k)
        return _json(answers.results_of(snapshot, found, list(names)))

    @api.post(
        "/search/vectors",
        response_model=answers.Results,
        responses=_problems(400, 408, 413, 422, 503),
        tags=["search"],
        summary="Search for vectors",
    )
    async def search_vectors(vectors: answers.Vectors) -> Response:
        """Find the nearest items of embeddings, or of what a model of vectors takes."""
        if (vectors.embeddings is None) == (vectors.inputs is None):
            raise HTTPException(422, "Send either embeddings or inputs.")
        if vectors.inputs is not None and served.takes_images:
            raise HTTPException(400, "The model takes images: POST them to search.")
        if vectors.inputs is not None and len(served.shape) > 1:
            raise HTTPException(400, "The model takes arrays: POST embeddings of them.")
        embedded = vectors.embeddings is not None
        rows = _matrix(vectors.embeddings if embedded else vectors.inputs)
        wanted = service.snapshot.index.dimension if embedded else served.shape[0]
        if rows.shape[1] != wanted:
            raise HTTPException(
                422, f"Vectors must have {wanted} numbers. Received {rows.shape[1]}."
            )
        snapshot, found = await service.searcher.search(rows, vectors.k, embedded)
        return _json(answers.results_of(snapshot, found, [None] * len(rows)))

    @api.get(
        "/items/neighbours",
        response_model=answers.Results,
        responses=_problems(404, 422, 503),
        tags=["items"],
        summary="Search for an item",
    )
    async def neighbours(id: Id, k: Annotated[K, Query()] = 5) -> Response:
        """Find what is nearest to an item of the index, without the item itself."""
        snapshot = service.snapshot
        row = _row(service, id)
        vector = snapshot.index.vectors(np.array([row]))
        other, found = await service.searcher.search(vector, k + 1, True)
        results = answers.results_of(other, found, [id], snapshot.ids[row])
        for one in results.results:
            one.neighbours = one.neighbours[:k]
        return _json(results)

    @api.get("/items", responses=_problems(404, 422), tags=["items"], summary="An item")
    async def item(id: Id) -> answers.Item:
        """What the index knows of an item."""
        return answers.item_of(service.snapshot, _row(service, id))

    @api.get(
        "/items/image",
        response_class=Response,
        responses={200: {"content": {"image/png": {}}}, **_problems(404, 413, 415, 422)},
        tags=["items"],
        summary="The picture of an item",
    )
    async def image(id: Id) -> Response:
        """A PNG file of at most 256 x 256 pixels. Only files of the index are read."""
        snapshot, row = service.snapshot, _row(service, id)
        file = snapshot.file_of(row)
        if file is None:
            raise HTTPException(404, "This item has no picture.")
        picture = await service.picture(file, _SIDE)
        return Response(
            picture, media_type="image/png", headers={"Cache-Control": "private, max-age=600"}
        )

    @api.get("/classes", tags=["classes"], summary="The classes")
    async def classes(
        q: Annotated[str, Query(description="Only names with this in them.")] = "",
        offset: Offset = 0,
        limit: Limit = 100,
    ) -> answers.Classes:
        """The classes of the index in the order of their names, some at a time."""
        snapshot = service.snapshot
        named = [
            one for one in snapshot.classes.items() if q.casefold() in (one[0] or "").casefold()
        ]
        return answers.Classes(
            total=len(named),
            classes=[
                answers.Class(
                    label=label, items=len(rows), example=answers.item_of(snapshot, int(rows[0]))
                )
                for label, rows in named[offset : offset + limit]
            ],
        )

    @api.get("/classes/items", responses=_problems(404, 422), tags=["classes"], summary="A class")
    async def members(
        label: Annotated[
            str | None, Query(description="Its name; leave it out for items without a class.")
        ] = None,
        offset: Offset = 0,
        limit: Limit = 100,
    ) -> answers.Members:
        """The items of a class, some at a time."""
        snapshot = service.snapshot
        if label not in snapshot.classes:
            raise HTTPException(404, "There is no such class in the index.")
        rows = snapshot.classes[label]
        return answers.Members(
            label=label,
            total=len(rows),
            items=[
                answers.item_of(snapshot, row) for row in rows[offset : offset + limit].tolist()
            ],
        )

    @api.get("/threshold", tags=["threshold"], summary="The thresholds")
    async def threshold() -> answers.Thresholds:
        """False accepts and rejects at every distance, and the distance that decides."""
        return answers.thresholds_of(service.snapshot)

    @api.get(
        "/map",
        response_model=answers.Map,
        responses={202: {"model": Problem}, **_problems(422)},
        tags=["map"],
        summary="The map",
    )
    async def map_(
        method: Annotated[str, Query(pattern=f"^({'|'.join(METHODS)})$")] = "pca",
    ) -> Response:
        """At most 5,000 items in the plane. 202 while it is computed: ask again in a moment."""
        snapshot = service.snapshot
        places = await service.places(snapshot, method)
        if places is None:
            return _json(Problem(detail="The map is being computed."), 202)
        x, y = places.at.T.tolist()
        return _json(
            answers.Map(
                index=snapshot.number,
                method=places.method,
                total=len(snapshot.index),
                x=[round(one, 4) for one in x],
                y=[round(one, 4) for one in y],
                items=[answers.item_of(snapshot, row) for row in places.rows.tolist()],
            )
        )

    @api.post("/reload", responses=_problems(409), tags=["server"], summary="Read a new index")
    async def reload() -> answers.Status:
        """Read the index and the calibration of the run again. Searches go on meanwhile."""
        try:
            return _status(await service.reload())
        except (FileNotFoundError, ValueError) as error:
            raise HTTPException(409, f"The index before stays in use. {error}") from None

    @api.get("/health", tags=["server"], summary="Whether it works")
    async def health() -> answers.Status:
        """Needs no token."""
        return _status(service.snapshot)

    @api.get("/about", tags=["server"], summary="The run")
    async def about() -> answers.About:
        """What is served."""
        snapshot = service.snapshot
        return answers.About(
            name=shown(served.path.resolve().name),
            takes_images=served.takes_images,
            items=len(snapshot.index),
            classes=sum(label is not None for label in snapshot.classes),
            dimension=snapshot.index.dimension or 0,
            largest=LARGEST,
        )

    @api.get("/metrics", response_class=PlainTextResponse, tags=["server"], summary="Metrics")
    async def measured() -> Response:
        """Requests, times and sizes, as Prometheus reads them."""
        snapshot = service.snapshot
        text = service.metrics.text(
            {
                "index_items": ("Items in the index.", len(snapshot.index)),
                "index_number": ("Number of the index; a reload raises it.", snapshot.number),
                "searches_waiting": ("Examples that wait.", service.searcher.waiting),
            }
        )
        return PlainTextResponse(text, media_type=metrics.TEXT)

    return api


def _status(snapshot: Any) -> answers.Status:
    return answers.Status(index=snapshot.number, items=len(snapshot.index))


def _row(service: Service, item: str) -> int:
    row = service.snapshot.row_of(item)
    if row is None:
        raise HTTPException(404, "There is no such item in the index.")
    return row


def _name(file: UploadFile) -> str:
    name = file.filename or "the image"
    return shown(name if len(name) <= 100 else f"{name[:99]}…")


def _reader(file: UploadFile) -> Read:
    async def read() -> bytes:
        return await file.read()

    return read


def _matrix(rows: list[list[float]] | None) -> np.ndarray:
    """float32 [n, d], n and d at least 1, all finite."""
    if not rows or not rows[0]:
        raise HTTPException(422, "There is nothing to search for.")
    if len({len(row) for row in rows}) > 1:
        raise HTTPException(422, "Vectors must be of one length.")
    with np.errstate(over="ignore"):
        found = np.array(rows, np.float32)
    if not np.isfinite(found).all():
        raise HTTPException(422, "Vectors must be of finite numbers.")
    return found


def _json(content: Any, status: int = 200) -> Response:
    """A model as it is: its types were checked when it was made."""
    return Response(content.model_dump_json(), status, media_type="application/json")
