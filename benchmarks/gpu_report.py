"""What the GPU benchmark says in the terminal: figures and targets."""

from collections.abc import Sequence
from typing import Any

from benchmarks import gpu
from benchmarks.tables import table
from benchmarks.targets import MIB, seconds

TITLES = {gpu.CIRCLE: "Circle", gpu.INFO_NCE: "InfoNCE", gpu.SIG_LIP: "SigLIP"}
Row = dict[str, Any]


def find(
    rows: Sequence[Row], loss: str, name: str, batch: int, dtype: str = gpu.HALF, dim: int = 512
) -> Row | None:
    """A measurement, or None where there is none or it failed."""
    wanted = gpu.job(loss, name, batch, dim, dtype)
    for row in rows:
        if all(row.get(key) == value for key, value in wanted.items()) and "error" not in row:
            return row
    return None


def targets(rows: Sequence[Row]) -> list[Row]:
    """Each target with its figure; `reached` is None where something was not measured."""
    large = find(rows, gpu.CIRCLE, gpu.FUSED, 131072)
    out = [entry("Circle, 131072", "TFLOP/s of 6nnd", 400.0, large and large["tflops"])]
    for dtype in (gpu.HALF, gpu.FULL):
        ours = find(rows, gpu.CIRCLE, gpu.FUSED, 16384, dtype)
        peer = find(rows, gpu.CIRCLE, gpu.COMPILED, 16384, dtype)
        what = f"times faster than {gpu.COMPILED}, {dtype}"
        out.append(entry("Circle, 16384", what, 3.0, ratio(peer, ours, "seconds")))
    most = find(rows, gpu.CIRCLE, gpu.FUSED, 1048576)
    out.append(entry("Circle, 1048576", "seconds a step", -20.0, most and most["seconds"]))
    peak = most and most["peak_bytes"] / 2**30
    out.append(entry("Circle, 1048576", "GiB at the peak", -8.0, peak))
    for dim in (768, 512):
        ours, peer = (
            find(rows, gpu.SIG_LIP, name, 65536, dim=dim) for name in (gpu.FUSED, gpu.SIGLIP_KERNEL)
        )
        for what, key in (("time", "seconds"), ("memory", "extra_bytes")):
            figure = ratio(ours, peer, key)
            title = f"{what} of {gpu.SIGLIP_KERNEL}'s, d = {dim}"
            out.append(entry("SigLIP, 65536", title, -1.0, figure))
    for batch in (16384, 65536):
        ours, *peers = (
            find(rows, gpu.INFO_NCE, name, batch) for name in (gpu.FUSED, gpu.INF_CL, gpu.MEMEFF)
        )
        for name, least, peer in zip((gpu.INF_CL, gpu.MEMEFF), (1.3, 1.0), peers, strict=True):
            what = f"times faster than {name}"
            out.append(entry(f"InfoNCE, {batch}", what, least, ratio(peer, ours, "seconds")))
    for loss, name in (
        (gpu.INFO_NCE, gpu.INF_CL),
        (gpu.INFO_NCE, gpu.MEMEFF),
        (gpu.CIRCLE, gpu.EAGER),
    ):
        both = (find(rows, loss, one, 16384) for one in (gpu.FUSED, name))
        figure = ratio(*both, "gradient_error")
        what = f"gradient's error over {name}'s"
        out.append(entry(f"{TITLES[loss]}, 16384", what, -1.0, figure))
    for batch in (16384, 131072):
        both = (find(rows, gpu.CIRCLE, one, batch) for one in (gpu.FUSED_JAX, gpu.FUSED))
        what = "time in JAX over PyTorch's"
        out.append(entry(f"Circle, {batch}", what, -1.5, ratio(*both, "seconds")))
    return out


def ratio(one: Row | None, other: Row | None, key: str) -> float | None:
    if not (one and other and one.get(key) and other.get(key)):
        return None
    return one[key] / other[key]


def entry(title: str, what: str, bound: float, figure: float | None) -> Row:
    """A target of at least `bound`, or of at most -`bound` where that is negative."""
    reached = None
    if figure is not None:
        reached = figure >= bound if bound > 0 else figure <= -bound
    sign = ">=" if bound > 0 else "<="
    text = "" if figure is None else f"{figure:.3g}"
    shown = f"{sign} {abs(bound):g}"
    return {"of": title, "target": what, "bound": shown, "text": text, "reached": reached}


def line(row: Row) -> str:
    what = f"{row['loss']}, {row['implementation']}, {row['batch']} x {row['dim']}, {row['dtype']}"
    if "error" in row:
        return f"{what}: {row['error']}"
    error = row.get("gradient_error")
    more = "" if error is None else f", gradient {error:.1e} off"
    size = f"{row['extra_bytes'] / MIB:.0f} MiB"
    return f"{what}: {seconds(row['seconds'])}, {row['tflops']:.0f} TFLOP/s, {size}{more}"


def report(record: dict[str, Any]) -> str:
    """Everything that the terminal shows."""
    head = ("loss", "batch", "d", "dtype", "", "step", "value", "TFLOP/s", "MiB", "gradient error")
    lines = []
    for row in record["rows"]:
        start = (row["loss"], row["batch"], row["dim"], row["dtype"], row["implementation"])
        if "error" in row:
            lines.append((*start, row["error"][:60]))
            continue
        error, alone = row.get("gradient_error"), row.get("evaluation_seconds")
        lines.append(
            (
                *start,
                seconds(row["seconds"]),
                "" if alone is None else seconds(alone),
                f"{row['tflops']:.0f}",
                f"{row['extra_bytes'] / MIB:.0f}",
                "" if error is None else f"{error:.1e}",
            )
        )
    words = {True: "reached", False: "missed", None: "not measured"}
    goals = [
        (t["of"], t["target"], t["bound"], words[t["reached"]], t["text"])
        for t in record.get("targets", ())
    ]
    device, rates = record["device"], record["rates"]
    checks = record["checks"]
    wrong = sum(not check["right"] for check in checks)
    return "\n".join(
        (
            f"{device.get('gpu', device['cpu'])}: products of bfloat16 {rates['bfloat16']:.0f}, of "
            f"float32 {rates['float32']:.0f} TFLOP/s, a copy {rates['copy']:.2f} TB/s",
            f"checks against float64: {len(checks)}, of which wrong: {wrong}",
            "",
            table(head, lines, left=(0, 3, 4)),
            "",
            table(("", "target", "bound", "", "measured"), goals, left=(0, 1, 2, 3, 4)),
        )
    )
