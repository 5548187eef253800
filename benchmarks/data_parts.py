"""What `benchmarks.data` measures, each part in a process of its own; the last line is JSON."""

import contextlib
import csv
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

MIB, EACH, SIDE = 2**20, 20, 256
SIZE, WORKERS, BATCH = 96, 2, 128
ROUNDS = 3

Row = dict[str, Any]


def make_images(folder: Path, count: int) -> None:
    """Write `count` JPEG files, twenty of each class, where they are not there yet."""
    classes = [folder / f"{k:05}" for k in range(count // EACH)]
    missing = [path for path in classes if not (path / f"{EACH - 1:03}.jpg").exists()]
    with ProcessPoolExecutor(WORKERS) as pool:
        list(pool.map(_make_class, missing, chunksize=50))


def _make_class(folder: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(int(folder.name))
    base = rng.uniform(0, 255, (6, 6, 3))
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(EACH):
        small = np.clip(base + rng.normal(0, 40, (6, 6, 3)), 0, 255).astype(np.uint8)
        image = Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        noise = rng.integers(-12, 12, (SIDE, SIDE, 1))
        pixels = np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{k:03}.jpg", quality=85)


def decoding(photos: Path, count: int) -> Row:
    """Images a second: our batches, bare Pillow threads, DataLoader, Grain; medians of rounds."""
    import torch
    from PIL import Image, ImageOps

    split = _split(photos, count)
    files = [photos / name for name in split.files]
    for file in files:
        file.read_bytes()  # from the disk once

    def decode(file: Path) -> np.ndarray:
        with Image.open(file) as image:
            image.draft("RGB", (2 * SIZE, 2 * SIZE))
            fitted = ImageOps.fit(image.convert("RGB"), (SIZE, SIZE), Image.Resampling.BICUBIC)
            return np.array(fitted)

    class Loaded(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, index: int) -> torch.Tensor:
            return torch.from_numpy(decode(files[index]))

    def threads() -> int:
        with ThreadPoolExecutor(WORKERS) as pool:
            return len(np.stack(list(pool.map(decode, files))))

    def data_loader() -> int:
        loader = torch.utils.data.DataLoader(Loaded(), BATCH, shuffle=True, num_workers=WORKERS)
        return sum(len(batch) for batch in loader)

    class Read:
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, index: int) -> np.ndarray:
            return decode(files[index])

    def grain_threads() -> int:
        import grain

        read = grain.ReadOptions(num_threads=WORKERS, prefetch_buffer_size=4 * BATCH)
        examples = grain.MapDataset.source(Read()).seed(0).shuffle().to_iter_dataset(read)
        return sum(len(batch) for batch in examples.batch(BATCH))

    def ours() -> int:
        batches = _batches(split)
        return sum(len(batches[k][0]) for k in range(len(batches)))

    rates: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for way in (ours, threads, data_loader, grain_threads):
            start = time.perf_counter()
            done = way()
            rates.setdefault(way.__name__, []).append(done / (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in rates.items()}


def waiting(photos: Path, count: int) -> Row:
    """The share of the time that a loop waits for batches, whose step outlasts a decoding.

    The step sleeps, as a step on an accelerator leaves the processor free.
    """
    split = _split(photos, count)
    batches = _batches(split)
    start = time.perf_counter()
    first = min(10, len(batches))
    for k in range(first):
        batches[k]
    step = 1.25 * (time.perf_counter() - start) / first
    batches.current_epoch = 1
    batches[0]
    waited, start = 0.0, time.perf_counter()
    for k in range(1, len(batches)):
        before = time.perf_counter()
        batches[k]
        waited += time.perf_counter() - before
        time.sleep(step)
    return {"share": waited / (time.perf_counter() - start), "step_s": step}


def listing(path: Path, rows: int) -> Row:
    """Seconds and MiB that the paths, labels and splits of a listing take."""
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["path", "label", "product"])
        out.writerows(
            [f"images/{k % 1000:03}/photo_{k:07}.jpg", f"class {k % (rows // EACH):05}", k // 3]
            for k in range(rows)
        )
    from kinfold.datasets import _fingerprints, _image_files
    from kinfold.training import sources

    # There are no such files: what is measured is the listing, not a million openings.
    nothing = _fingerprints.Fingerprints.none(rows)
    _settle()
    before, peak = _resident(), _Peak()
    start = time.perf_counter()
    with peak, mock.patch.object(_image_files, "look", return_value=(nothing, {})):
        splits = sources.load_splits(str(path), 64)
    seconds = time.perf_counter() - start
    counts = [len(split) for split in splits]
    assert sum(counts) == rows
    return {"rows": rows, "seconds": seconds, "mib": peak.mib - before, "splits": counts}


def run(photos: Path, out: Path) -> Row:
    """Memory, first step and folder of `kinfold train PHOTOS --image-size 96 --backbone small`."""
    import keras
    import matplotlib.pyplot  # noqa: F401
    import sklearn.manifold  # noqa: F401

    from kinfold.training import Settings, train
    from kinfold.training.progress import Progress

    # What Keras loads with the first model is of the libraries, such as TensorFlow beside JAX.
    inputs = keras.Input((8, 8, 3))
    features = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(features))
    model.compile("adam", "mse")
    model.fit(np.zeros((8, 8, 8, 3)), np.zeros((8, 2)), verbose=0)
    at: dict[str, float] = {}

    class Timed(Progress):
        def working(self, what: str, done: int, total: int) -> None:
            if done == total:
                at.setdefault("scanned", time.perf_counter())

        def step(self, step: int, loss: Callable[[], float]) -> None:
            at.setdefault("first step", time.perf_counter())

    settings = Settings(
        str(photos), image_size=SIZE, backbone="small", epochs=1, steps_per_epoch=50
    )
    _settle()
    before, peak = _resident(), _Peak()
    start = time.perf_counter()
    with peak:
        train(settings, out, progress=Timed())
    return {
        "libraries_mib": before,
        "peak_mib": peak.mib - before,
        "scan_s": at["scanned"] - start,
        "first_step_s": at["first step"] - at["scanned"],
        "whole_s": time.perf_counter() - start,
        "folder_mib": sum(file.stat().st_size for file in out.iterdir()) / MIB,
    }


def kills(folder: Path, count: int) -> Row:
    """Whether a run that is killed again and again ends with the weights of an unbroken one."""
    folder.mkdir(parents=True)
    photos = folder / "photos"
    make_images(photos, 24 * EACH)
    from kinfold.training import run_folder

    def start(out: Path) -> subprocess.Popen:
        command = [sys.executable, "-m", "benchmarks.data_parts", "killed", str(photos), str(out)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL)

    unbroken, broken = folder / "unbroken", folder / "broken"
    assert start(unbroken).wait() == 0
    rng, done, tries = random.Random(0), 0, 0
    while True:
        process = start(broken)
        tries += 1
        unfinished, before = broken / "unfinished.npz", _changed(broken / "unfinished.npz")
        # Killed in the middle of an epoch, some steps after the run has gone on.
        while process.poll() is None and _changed(unfinished) == before:
            time.sleep(0.02)
        if process.poll() is None and done < count:
            time.sleep(rng.uniform(0, 1.5))
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                done += 1
        if process.wait() == 0:
            break
    ours, theirs = (
        run_folder.read_checkpoint(out / "checkpoint.npz") for out in (broken, unbroken)
    )
    pairs = [
        *zip(ours.weights, theirs.weights, strict=True),
        *zip(ours.best_weights, theirs.best_weights, strict=True),
    ]
    same = all(np.array_equal(*pair) for pair in pairs) and ours.history == theirs.history
    return {"kills": done, "starts": tries, "same": same}


def killed(photos: Path, out: Path) -> Row:
    """The run that `kills` stops: long epochs, which are written every few steps."""
    from kinfold.training import Settings, checkpoints, resume, train

    checkpoints.EVERY = 0.5
    if (out / "config.json").exists():
        resume(out)
    else:
        shutil.rmtree(out, ignore_errors=True)  # killed before it began
        train(Settings(str(photos), image_size=32, epochs=2, steps_per_epoch=150), out)
    return {}


def _split(photos: Path, count: int) -> Any:
    """Some of the images, opened."""
    from kinfold.core.stored import Stored
    from kinfold.datasets import Split, parts

    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "some.csv")
        names = [f"{k // EACH:05}/{k % EACH:03}.jpg" for k in range(count)]
        lines = ["path,label", *(f"{photos / name},{name[:5]}" for name in names)]
        table.write_text("\n".join(lines), encoding="utf-8")
        split = parts(table, (SIZE, SIZE), as_needed=True)["all"]
    assert isinstance(split, Split)
    assert isinstance(split.x, Stored)
    return split


def _batches(split: Any) -> Any:
    """Batches as a run has them."""
    from kinfold.batches import ClassBalancedBatches

    classes = min(BATCH // 4, len(split.names))
    return ClassBalancedBatches(split.x, split.y, classes, 4, seed=0, workers=2, max_queue_size=4)


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _settle() -> None:
    import gc

    gc.collect()


def _resident() -> float:
    """MiB of this process and of those that decode for it."""
    pages = 0
    children = (task.read_text() for task in Path("/proc/self/task").glob("*/children"))
    for process in ("self", *" ".join(children).split()):
        with contextlib.suppress(OSError):  # it has just ended
            command = Path("/proc", process, "cmdline").read_bytes()
            # One that is being started still shows the memory of this process.
            if process == "self" or b"_kinfold_decode" in command:
                pages += int(Path("/proc", process, "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


class _Peak:
    """The largest `_resident` while it lasts."""

    def __init__(self) -> None:
        self.mib = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.mib = max(self.mib, _resident())


PARTS = {
    "decoding": decoding,
    "waiting": waiting,
    "listing": listing,
    "run": run,
    "kills": kills,
    "killed": killed,
}

if __name__ == "__main__":
    name, where, what = sys.argv[1:]
    print(json.dumps(PARTS[name](Path(where), int(what) if what.isdigit() else Path(what))))
