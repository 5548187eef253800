"""config.json and metrics.json of a run, which another version may have written: read, checked."""

import dataclasses
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kinfold
from kinfold.core import files
from kinfold.encoders.scaling import Scaling
from kinfold.training.run_folder import RunFolder
from kinfold.training.settings import Settings


@dataclass(frozen=True)
class Config:
    """How a run was begun.

    Args:
        settings: what it trains, and on what.
        backend: that it trains on.
        command: how it was asked for.
        scaling: what its model does to images; None before its data is read, and for vectors.
        version: of Kinfold.
    """

    settings: Settings
    backend: str
    command: str = ""
    scaling: Scaling | None = None
    version: str = kinfold.__version__


def write_config(folder: RunFolder, config: Config) -> None:
    """Write how a run was begun."""
    scaling = {"scaling": config.scaling.get_config()} if config.scaling else {}
    content = {
        "kinfold": config.version,
        "command": config.command,
        "backend": config.backend,
        "settings": dataclasses.asdict(config.settings),
        **scaling,
    }
    files.write_json(folder.config, content)


def read_config(folder: RunFolder) -> Config:
    """Read how a run was begun.

    Raises:
        FileNotFoundError: there is no run in the folder.
        ValueError: config.json is damaged, or of another version of Kinfold.
    """
    if not folder.config.exists():
        raise FileNotFoundError(
            f"There is no run in {folder.path}: it has no config.json. Begin one: kinfold train "
            f"DATA --out {folder.path}"
        )
    content = files.read_json(folder.config)
    try:
        return _config(content)
    except ValueError as error:
        version = content.get("kinfold") if isinstance(content, dict) else None
        theirs = f"version {version} of Kinfold" if version else "a version that it does not name"
        raise ValueError(
            f"{folder.config} is not of a run that this version of Kinfold, {kinfold.__version__}, "
            f"can read: {error}. It was written by {theirs}: use that version, or begin again in "
            "another folder."
        ) from None


def _config(content: Any) -> Config:
    if not isinstance(content, dict):
        raise ValueError(f"it holds {_kind(content)}, not an object")
    for name, kind in (("settings", dict), ("backend", str)):
        if name not in content:
            raise ValueError(f"it has no {name!r}")
        if not isinstance(content[name], kind):
            raise ValueError(f"its {name!r} is {_kind(content[name])}")
    scaling = content.get("scaling")
    return Config(
        _settings(content["settings"]),
        content["backend"],
        str(content.get("command", "")),
        None if scaling is None else Scaling.from_config(scaling),
        str(content.get("kinfold", "")),
    )


def _settings(given: dict[str, Any]) -> Settings:
    """Build the settings of a file, whose names and types may be those of another version."""
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    unknown = sorted(given.keys() - fields)
    if unknown:
        raise ValueError(f"it has settings that are not known here: {', '.join(unknown)}")
    missing = [
        name
        for name, field in fields.items()
        if name not in given
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"it lacks the setting {', '.join(missing)}")
    kinds = typing.get_type_hints(Settings)
    for name, value in given.items():
        if not _fits(value, kinds[name]):
            raise ValueError(f"its setting {name!r} is {_kind(value)}")
    try:
        return Settings(**given)
    except TypeError as error:
        raise ValueError(str(error).rstrip(".")) from None


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value of a JSON file is of the type of a setting; True for types unknown here."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in typing.get_args(kind))
    kind = typing.get_origin(kind) or kind
    if kind in (int, float):
        number = (int,) if kind is int else (int, float)
        return isinstance(value, number) and not isinstance(value, bool)
    if kind in (str, bool, type(None)):
        return isinstance(value, kind)
    return True


def read_metrics(path: Path, rows: tuple[str, ...]) -> dict[str, Any]:
    """Read metrics.json; {} where there is none yet.

    Args:
        path: of the file.
        rows: names that its table may have.

    Raises:
        ValueError: it is damaged, or holds something else.
    """
    if not path.exists():
        return {}
    content = files.read_json(path)
    problem = _problem_of_metrics(content, rows)
    if problem:
        raise ValueError(
            f"{path} is not the result of a run: {problem}. Remove it, and kinfold train --resume "
            f"{path.parent} writes it anew."
        )
    return content


def _problem_of_metrics(content: Any, rows: tuple[str, ...]) -> str:
    if not isinstance(content, dict):
        return f"it holds {_kind(content)}, not an object"
    for name in ("epochs", "best_epoch"):
        if not _fits(content.get(name), int):
            return f"its {name!r} is {_kind(content.get(name))}"
    tables = [name for name in rows if name in content]
    if "trained" not in tables:
        return "it has no row 'trained'"
    for name in tables:
        row = content[name]
        if not isinstance(row, dict) or not all(_fits(value, float) for value in row.values()):
            return f"its row {name!r} holds no numbers"
    for name in tables:
        row = content[name]
        if row.keys() != content["trained"].keys() or not row.keys() >= {"recall@1", "map@r"}:
            return f"its row {name!r} lacks metrics"
    gain = content.get("gain", {})
    whole = isinstance(gain, dict) and (not gain or gain.keys() == content["trained"].keys())
    keys = {"difference", "low", "high", "errors_removed"}
    if not whole or not all(
        isinstance(row, dict)
        and row.keys() == keys
        and all(_fits(value, float | None) for value in row.values())
        and row["difference"] is not None
        for row in gain.values()
    ):
        return "its gain is not of its metrics"
    return ""


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    if value is None:
        return "null"
    return names.get(type(value), f"the number {value}")
