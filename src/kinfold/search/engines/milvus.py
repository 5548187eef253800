"""Milvus: a file on this machine (Milvus Lite), or a server or cluster by its address."""

import importlib

import numpy as np

from kinfold import distances

_BATCH = 1000  # vectors sent at once
_COLLECTION = "kinfold"
_FIELDS = {"number", "vector"}  # of its collections
_METRICS = {"cosine": "COSINE", "inner_product": "IP"}
_MOST = 16_384  # items that Milvus gives for a query


class Milvus:
    """Keeps the vectors in a collection of Milvus, made anew from them, and searches there.

    Args:
        kind: the distance: cosine, euclidean, squared_euclidean or inner_product.
        dimension: of the vectors.
        uri: a file whose name ends in .db, or the address of a server.
        token: of the server.
        collection: its name.
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
        self.client = pymilvus.MilvusClient(uri=uri, token=token)
        self.collection = collection
        self.metric = _METRICS.get(kind.name, "L2")
        if self.client.has_collection(collection):  # of an earlier process, perhaps out of date
            fields = self.client.describe_collection(collection)["fields"]
            if {field["name"] for field in fields} != _FIELDS:
                raise ValueError(
                    f"The collection {collection!r} at {uri} is not of Kinfold. Name another one: "
                    "options={'collection': ...}."
                )
            self.client.drop_collection(collection)
        schema = self.client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("number", pymilvus.DataType.INT64, is_primary=True)
        schema.add_field("vector", pymilvus.DataType.FLOAT_VECTOR, dim=dimension)
        indexed = self.client.prepare_index_params()
        indexed.add_index("vector", index_type="AUTOINDEX", metric_type=self.metric)
        self.client.create_collection(collection, schema=schema, index_params=indexed)
        self.client.load_collection(collection)
        self.count = 0

    def add(self, vectors: np.ndarray, numbers: np.ndarray) -> None:
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
        self.count -= len(numbers)
        for start in range(0, len(numbers), _BATCH):
            self.client.delete(self.collection, ids=numbers[start : start + _BATCH].tolist())

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> np.ndarray:
        limit = k
        if allowed is not None:  # of more than a filter could name; the index completes what lacks
            limit = min(_MOST, 2 * k * self.count // max(1, len(allowed)) + k)
        found = self.client.search(
            self.collection,
            data=list(queries),
            limit=min(limit, self.count),
            search_params={"metric_type": self.metric},
            consistency_level="Strong",
        )
        out = np.full((len(queries), k), -1, np.int64)
        for row, hits in zip(out, found, strict=True):
            numbers = np.array([hit["number"] for hit in hits], np.int64)
            if allowed is not None:
                numbers = numbers[np.isin(numbers, allowed)]
            row[: len(numbers)] = numbers[:k]
        return out

    def close(self) -> None:
        self.client.close()
