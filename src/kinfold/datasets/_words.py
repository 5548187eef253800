"""What people call examples, labels, paths and parts in files, in lower case; and we."""

EXAMPLES = ("embedding", "embeddings", "emb", "vector", "vectors", "features", "x")
LABELS = ("label", "labels", "class", "target", "y")
PATHS = (
    "path", "file", "image", "img", "filename", "file_name", "filepath", "file_path", "image_path",
    "img_path",
)  # fmt: skip
PARTS = ("split",)

WHOLE = "all"  # the part of data that is not divided
