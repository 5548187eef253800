"""`python -m benchmarks`: each command hands what it was given to its own run, and no other."""

from pathlib import Path

import pytest
from benchmarks.__main__ import COMMANDS, main
from benchmarks.quality import recipes
from benchmarks.quality import run as quality_run

from benchmarks import chunks, data, distributed, losses, losses_run, memory, options, survey

pytestmark = pytest.mark.once
SETTINGS = {
    "backbone": chunks.BACKBONE,
    "side": 32,
    "chunk": chunks.CHUNK,
    "batches": [16, 8],
    "largest": chunks.LARGEST,
    "memory_gib": 1.5,
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What would be measured: the command and what its run is given."""
    out: list[tuple] = []
    for name, module in [*COMMANDS.items(), ("all", survey)]:
        monkeypatch.setattr(
            module, "run", lambda *given, name=name: out.append((name, *given)) or {"rows": []}
        )
        if hasattr(module, "report"):
            monkeypatch.setattr(module, "report", lambda record: "a report")
    monkeypatch.setattr(losses_run.tables, "report", lambda record: "a report")
    monkeypatch.setattr(losses_run.plots, "draw", lambda rows, out: [])
    return out


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("losses", ("losses", losses.BACKENDS, False, options.RESULTS)),
        ("losses --quick", ("losses", losses.BACKENDS, True, Path("build/benchmarks"))),
        ("losses --quick --out x", ("losses", losses.BACKENDS, True, Path("x"))),
        ("losses --all --backends jax", ("all", ("jax",), options.RESULTS)),
        ("quality", ("quality", list(recipes.LOSSES), 150, 3, options.RESULTS)),
        (
            "distributed --batch 64 --out x",
            ("distributed", 64, distributed.LARGE, distributed.CLASSES, Path("x")),
        ),
        ("recipe --seeds 2 --out x", ("recipe", range(2), None, Path("x"))),
        (
            "serve --run r --items 10 20 --out x",
            ("serve", Path("r"), [10, 20], "exact", 200, 10, Path("x")),
        ),
        (
            "data --files 40 --backend torch --out x",
            ("data", 40, data.ROWS, data.KILLS, None, "torch", Path("x")),
        ),
        (
            "quality --losses SupConLoss --seeds 1",
            ("quality", ["SupConLoss"], 150, 1, options.RESULTS),
        ),
        (
            "chunks --backends torch,jax --side 32 --batches 16,8 --memory 1.5",
            ("chunks", ("torch", "jax"), options.RESULTS, SETTINGS),
        ),
        (
            "search --vectors v.npy --rounds 2 --engines exact --out x",
            ("search", 60_000, 10**6, 2, Path("v.npy"), None, ("exact",), Path("x")),
        ),
        ("memory --backends torch --out x", ("memory", ("torch",), Path("x"))),
        ("gpu --seconds 9 --out x", ("gpu", False, 9.0, Path("x"))),
        (
            "hard-negatives --seeds 2 --first-seed 3 --icons f.ttf",
            (
                "hard-negatives",
                *(6, 50, range(3, 5)),
                {"icons": Path("f.ttf"), "characters": None},
                options.RESULTS,
            ),
        ),
    ],
)
def test_a_command_runs_what_it_was_given(given: str, expected: tuple, calls: list[tuple]) -> None:
    main(given.split())
    assert calls == [expected]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("losses --backends jax,nonesuch", "unknown backend 'nonesuch'; known: jax, torch"),
        ("memory --backends nonesuch", "unknown backend 'nonesuch'"),
        ("quality --losses nonesuch", "unknown loss 'nonesuch'; known: CircleLoss,"),
        ("quality --steps 0", "--steps and --seeds must be at least 1"),
        ("losses --quick --all", "not allowed with argument --quick"),
        ("gpu --backends torch", "unrecognized arguments"),
    ],
)
def test_what_is_typed_wrong_runs_nothing(given: str, said: str, calls: list, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(given.split())
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err
    assert calls == []


def test_the_modules_of_the_commands() -> None:
    assert COMMANDS["memory"] is memory
    assert COMMANDS["quality"] is quality_run
    assert all(module.HELP and callable(module.add_arguments) for module in COMMANDS.values())
