"""The command line: parsing, the choice of the backend, and messages; the work is in `training`.

It stands beside the package because importing anything of `kinfold` imports Keras, which fixes the
backend, and `--backend` chooses that.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import _kinfold_backend

try:
    import typer
except ImportError:
    raise SystemExit("error: the command line needs typer: pip install kinfold[train]") from None

if TYPE_CHECKING:
    from kinfold.progress import Progress

# Nothing here imports Keras before `_use_backend` has said which backend it is to use.

_OPEN = ("resume", "epochs", "patience")  # options that --resume leaves open

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train models whose embeddings put things of one kind close together, and measure how "
    "well they find unseen kinds.",
)

DataArgument = typer.Argument(
    metavar="DATA",
    help="glyphs (characters in many typefaces, drawn on this machine), a folder with a folder of "
    "images a class, an .npz file with arrays x and y, or a .parquet file with columns embedding "
    "and label.",
    show_default=False,
)
BackendOption = typer.Option(
    help="jax, torch or tensorflow. By default KERAS_BACKEND, else the one in keras.json, else "
    "the first installed of tensorflow, jax and torch.",
    show_default=False,
)


@app.command()
def train(
    context: typer.Context,
    data: Annotated[str | None, DataArgument] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the model, its metrics and its report.")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Go on with the run in this folder; takes all from it."),
    ] = None,
    loss: Annotated[
        str, typer.Option(help="circle, or contrastive: over all pairs of a batch.")
    ] = "circle",
    margin: Annotated[
        float | None, typer.Option(help="Of the loss; by default 0.25 (circle), 1.0 (contrastive).")
    ] = None,
    gamma: Annotated[
        float | None, typer.Option(help="Scale of the circle loss; 80 by default.")
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="small (a light convolutional net, the default up to 64 x 64 pixels), or a name "
            "in keras.applications, such as MobileNetV2."
        ),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            metavar="none|imagenet|FILE",
            help="That the backbone begins with: none (random), imagenet (downloaded by Keras), or "
            "a file: the model.keras of an earlier run, a .keras, .weights.h5 or .h5 of the "
            "backbone.",
        ),
    ] = "none",
    freeze: Annotated[
        str,
        typer.Option(
            metavar="N|all", help="Do not train the first N layers of the backbone, or all of them."
        ),
    ] = "0",
    augment: Annotated[
        str,
        typer.Option(
            help="none; light: turns, moves and zooms a little; photo: also mirrors, and changes "
            "brightness and contrast. In training only."
        ),
    ] = "none",
    precision: Annotated[
        str, typer.Option(help="float32, mixed_float16 or mixed_bfloat16.")
    ] = "float32",
    image_size: Annotated[
        int | None,
        typer.Option(
            help="Height and width to read images at; by default 32 (glyphs), 64 (folders), 160 "
            "(folders, with a keras.applications backbone)."
        ),
    ] = None,
    embedding_size: Annotated[
        int | None,
        typer.Option(help="Dimensions of the embedding; by default 128, of vectors their own."),
    ] = None,
    classes_per_batch: Annotated[
        int | None, typer.Option(help="By default 32, or all if there are fewer.")
    ] = None,
    examples_per_class: Annotated[int, typer.Option(help="Of each class in a batch.")] = 4,
    steps_per_epoch: Annotated[int, typer.Option(help="Batches an epoch.")] = 50,
    epochs: Annotated[
        int, typer.Option(help="How many to train; with --resume it can be raised.")
    ] = 20,
    patience: Annotated[
        int | None,
        typer.Option(
            help="Stop after this many epochs without a better val_map@r; with --resume it can be "
            "changed. By default all epochs are trained.",
            show_default=False,
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="The highest: it warms up and decays. By default 0.001 with a keras.applications "
            "backbone, else 0.01, and a tenth of that with --weights."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the weights, the batches, the augmentation.")] = 0,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write logs for TensorBoard.")
    ] = False,
    backend: Annotated[str | None, BackendOption] = None,
) -> None:
    """Train a model on DATA into the folder --out, or go on with the run in --resume.

    The result is how well the model finds classes that were kept out of training, 30 % of them.
    """
    given = sorted(name for name in context.params if _is_given(context, name))
    with _messages(resume or out):
        if resume is not None:
            others = [_option(name) for name in given if name not in _OPEN]
            if others:
                raise ValueError(
                    "--resume takes everything from the run, except that --epochs can be raised "
                    f"and --patience changed: leave out {', '.join(others)}."
                )
            _use_backend(_backend_of(resume))
            from kinfold import training

            more = epochs if "epochs" in given else None
            training.resume(resume, more, _progress(), patience)
            return
        if data is None:
            raise ValueError("Name the DATA to train on, or a run to go on with: --resume RUN.")
        if out is None:
            raise ValueError("Name the folder for the run: --out RUN.")
        _use_backend(backend)
        from kinfold import training

        settings = training.Settings(
            data=data,
            loss=loss,
            margin=margin,
            gamma=gamma,
            backbone=backbone,
            weights=weights,
            freeze=int(freeze) if freeze.isdecimal() else freeze,
            augment=augment,
            precision=precision,
            image_size=image_size,
            embedding_size=embedding_size,
            classes_per_batch=classes_per_batch,
            examples_per_class=examples_per_class,
            steps_per_epoch=steps_per_epoch,
            epochs=epochs,
            patience=patience,
            learning_rate=learning_rate,
            seed=seed,
            tensorboard=tensorboard,
        )
        training.train(settings, out, shlex.join(["kinfold", *sys.argv[1:]]), _progress())


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A folder that train has written.")],
    data: Annotated[str, DataArgument],
    backend: Annotated[str | None, BackendOption] = None,
) -> None:
    """Measure the model of RUN on DATA: of glyphs the unseen test characters, else all of it."""
    with _messages(None):
        own = _backend_of(run)
        if (
            backend is None
            and "KERAS_BACKEND" not in os.environ
            and own
            and _kinfold_backend.is_installed(own)
        ):
            backend = own
        _use_backend(backend)
        from kinfold import training

        training.evaluate(run, data, _progress())


def main() -> None:
    """Run the command line: the entry point `kinfold`."""
    app(prog_name="kinfold")


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _option(name: str) -> str:
    return "DATA" if name == "data" else "--" + name.replace("_", "-")


def _progress() -> Progress:
    from kinfold.progress import Bar, Lines

    return Bar() if sys.stdout.isatty() else Lines()


@contextlib.contextmanager
def _messages(run: Path | None) -> Iterator[None]:
    """Tell warnings and errors in a line each; exit with 2 for the user's, 1 for the machine's."""
    go_on = f"Go on: kinfold train --resume {shlex.quote(str(run))}"
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            yield
        except KeyboardInterrupt:
            begun = run is not None and (run / "config.json").exists()
            _say(f"Stopped. {go_on}" if begun else "Stopped.")
            raise typer.Exit(130) from None
        except (ValueError, FileNotFoundError, ImportError) as error:
            _say(f"error: {error}")
            raise typer.Exit(2) from None
        except OSError as error:
            from kinfold.runs import WriteError

            _say(f"error: {error} {go_on}" if isinstance(error, WriteError) else f"error: {error}")
            raise typer.Exit(1) from None


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, UserWarning):  # others are for those who write programs
        _say(f"warning: {message}")


def _use_backend(asked: str | None) -> None:
    """Choose the backend and set it for Keras, which reads it once, when it is imported."""
    _kinfold_backend.use(asked)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _backend_of(run: Path) -> str | None:
    """The backend of a run, or None where there is none to read; `training` then says so."""
    try:
        return json.loads((run / "config.json").read_text(encoding="utf-8"))["backend"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


if __name__ == "__main__":
    main()
