"""Milvus: a file on this machine (Milvus Lite), or a server or cluster by its address.

A collection that holds what an index has saved is named after what was saved: a later process finds
it by this name. Before it is changed it is renamed, so that the name tells the truth.
"""

import importlib
import re
from pathlib import Path

import numpy as np

from kinfold import distances

_BATCH = 1000  # vectors sent at once
_COLLECTION = "kinfold"
_FIELDS = {"number", "vector"}  # of its collections
_METRICS = {"cosine": "COSINE", "inner_product": "IP"}
_SAVED = "_[0-9a-f]{12}"  # ends the name of a collection that is kept: of which files it is
_MOST = 16_384  # items that Milvus gives for a query


class Milvus:
    """Keeps the vectors in a collection of Milvus, and searches there.

    Args:
        kind: the distance: cosine, euclidean, squared_euclidean or inner_product.
        dimension: of the vectors.
        uri: a file whose name ends in .db, or the address of a server.
        token: of the server.
        collection: its name, or what its name begins with.
    """

    def __init__(
        self,
        kind: distances.Distance,
        dimension: int,
        uri: str,
        token: str = "",
        collection: str = _COLLECTION,
    ) -> None:
        try:
            pymilvus = importlib.import_module("pymilvus")
        except ImportError:
            raise ImportError("The engine milvus needs it: pip install kinfold[milvus]") from None
        self.pymilvus = pymilvus
        self.client = pymilvus.MilvusClient(uri=uri, token=token)
        self.dimension = dimension
        self.base = self.collection = collection
        self.metric = _METRICS.get(kind.name, "L2")
        self.count = 0
        if self.client.has_collection(collection) and not self._is_ours(collection):
            raise ValueError(
                f"The collection {collection!r} at {uri} is not of Kinfold. Name another one: "
                "options={'collection': ...}."
            )

    def keep(self, folder: Path, name: str) -> None:
        if not self.client.has_collection(self.collection):
            return  # another process has built its own in its place
        self._rename(f"{self.base}_{name}")
        saved = re.escape(self.base) + _SAVED
        for one in self.client.list_collections():
            if one != self.collection and re.fullmatch(saved, one) and self._is_ours(one):
                self.client.drop_collection(one)  # of what was saved before

    def restore(self, folder: Path, name: str, count: int) -> bool:
        kept = f"{self.base}_{name}"
        if not self.client.has_collection(kept) or not self._is_ours(kept):
            return False
        self.client.load_collection(kept)
        (found,) = self.client.query(
            kept, filter="", output_fields=["count(*)"], consistency_level="Strong"
        )
        if found["count(*)"] != count:
            return False
        self.collection, self.count = kept, count
        return True

    def add(self, vectors: np.ndarray, numbers: np.ndarray) -> None:
        if self.count:
            self._rename(self.base)  # no longer what is saved
        else:
            self._create()
        for start in range(0, len(vectors), _BATCH):
            rows = zip(
                numbers[start : start + _BATCH].tolist(),
                vectors[start : start + _BATCH],
                strict=True,
            )
            self.client.upsert(
                self.collection, [{"number": number, "vector": row} for number, row in rows]
            )
        self.count += len(vectors)

    def remove(self, numbers: np.ndarray) -> None:
        self._rename(self.base)
        self.count -= len(numbers)
        for start in range(0, len(numbers), _BATCH):
            self.client.delete(self.collection, ids=numbers[start : start + _BATCH].tolist())

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> np.ndarray:
        limit = k
        if allowed is not None:  # of more than a filter could name; the index completes what lacks
            limit = min(_MOST, 2 * k * self.count // max(1, len(allowed)) + k)
        out = np.full((len(queries), k), -1, np.int64)
        try:
            found = self.client.search(
                self.collection,
                data=list(queries),
                limit=min(limit, self.count),
                search_params={"metric_type": self.metric},
                consistency_level="Strong",
            )
        except self.pymilvus.MilvusException:
            if self.client.has_collection(self.collection):
                raise
            return out  # the index was saved anew elsewhere: this one compares its own vectors
        for row, hits in zip(out, found, strict=True):
            numbers = np.array([hit["number"] for hit in hits], np.int64)
            if allowed is not None:
                numbers = numbers[np.isin(numbers, allowed)]
            row[: len(numbers)] = numbers[:k]
        return out

    def close(self) -> None:
        self.client.close()

    def _is_ours(self, collection: str) -> bool:
        fields = self.client.describe_collection(collection)["fields"]
        return {field["name"] for field in fields} == _FIELDS

    def _rename(self, name: str) -> None:
        if name == self.collection:
            return
        if self.client.has_collection(name):
            self.client.drop_collection(name)
        self.client.rename_collection(self.collection, name)
        self.client.load_collection(name)
        self.collection = name

    def _create(self) -> None:
        """An empty collection; those that are kept still serve other processes meanwhile."""
        if self.client.has_collection(self.base):  # of a process that ended before it was kept
            self.client.drop_collection(self.base)
        schema = self.client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("number", self.pymilvus.DataType.INT64, is_primary=True)
        schema.add_field("vector", self.pymilvus.DataType.FLOAT_VECTOR, dim=self.dimension)
        indexed = self.client.prepare_index_params()
        indexed.add_index("vector", index_type="AUTOINDEX", metric_type=self.metric)
        self.collection = self.base
        self.client.create_collection(self.base, schema=schema, index_params=indexed)
        self.client.load_collection(self.base)
