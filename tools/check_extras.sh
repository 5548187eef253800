#!/usr/bin/env bash
# Tries each extra of a wheel in an environment that has nothing else, with a run that was trained from
# it: check_extras.sh WHEEL RUN. tools/check_wheel.sh calls it; WHEEL_EXTRAS=all tries the large ones too.
set -euo pipefail
constraints=$(cd "$(dirname "$0")/.." && pwd)/constraints.txt
wheel=$1 run=$2
here=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$here"' EXIT
cp -r "$run" "$here/run"
cd "$here"
export TF_CPP_MIN_LOG_LEVEL=3

# try EXTRAS COMMAND: the wheel with these extras alone does what they are for.
try() {
    rm -rf alone
    "$PYTHON" -m venv alone
    alone/bin/python -m pip install --quiet --disable-pip-version-check -c "$constraints" "$wheel[$1]"
    PATH=$PWD/alone/bin:$PATH bash -euc "$2" >try.log 2>&1 ||
        { echo "kinfold[$1] does not do: $2"; tail -n 20 try.log; exit 1; }
    echo "kinfold[$1]"
}

cat >parquet.py <<'END'
import kinfold
import pyarrow as pa
import pyarrow.parquet as pq

rows = [[0.0, 1.0], [1.0, 0.0]] * 4
pq.write_table(pa.table({"embedding": rows, "label": list("aabbccdd")}), "e.parquet")
assert len(kinfold.datasets.parquet("e.parquet")) == 8
END
cat >index.py <<'END'
import sys

import kinfold
import numpy as np

x = np.random.default_rng(0).normal(size=(50, 8)).astype("float32")
index = kinfold.Index(engine=sys.argv[1])
index.add(x)
assert (index.search(x, 1).ids[:, 0] == np.arange(50)).all()
END
cat >images.py <<'END'
from pathlib import Path

import kinfold
from PIL import Image

test = kinfold.datasets.glyphs()[1]
for i in test.y.argsort(kind="stable")[:100]:  # several of a class, for `evaluate`
    folder = Path("images", f"class {test.y[i]}")
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(test.x[i, :, :, 0]).save(folder / f"{i}.png")
Image.fromarray(test.x[i, :, :, 0]).save("new.png")
END
cat >bundle.py <<'END'
from kinfold_bundle import Bundle

found = Bundle("bundle").search(["new.png"], k=3)[0]
assert len(found.neighbours.ids) == 3, found
END
cat >serve.py <<'END'
import signal
import subprocess
import urllib.request

with subprocess.Popen(["kinfold", "serve", "bundle", "--port", "0"], stdout=-1, text=True) as server:
    root = server.stdout.readline().split()[-1].rstrip("/")
    assert b"Kinfold" in urllib.request.urlopen(root, timeout=30).read()
    server.send_signal(signal.SIGINT)
    server.wait(30)
assert server.returncode == 0
END

# Two at a time: each waits for the network and for one core. The scripts and the run are a folder up.
indexes() {
    mkdir indexes && cd indexes
    try jax,parquet 'python ../parquet.py'
    try jax,faiss 'python ../index.py faiss'
    try jax,milvus 'python ../index.py milvus'
}
indexes >indexes.log 2>&1 &
try torch,train,onnx 'export KERAS_BACKEND=torch; python images.py
    kinfold index run images
    kinfold export run --out bundle'
try onnx 'kinfold search bundle new.png; python bundle.py'
try onnx,serve 'python serve.py'
wait $! || { cat indexes.log; exit 1; }
cat indexes.log
[ "${WHEEL_EXTRAS:-}" = all ] || exit 0
try openvino,torch,train 'kinfold export run --format openvino --out openvino'
try gpu 'python -c "import triton"'
try ray 'python -c "import ray.train"'
try docs 'mkdocs --version'
try tensorflow,train 'KERAS_BACKEND=tensorflow kinfold evaluate run images'
