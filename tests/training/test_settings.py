"""The settings of a run and its losses by name: one definition, whatever the backend."""

import inspect
import re
from typing import Any

import keras
import pytest
from tools import settings_table

import _kinfold_settings as definition
from _kinfold_about import about, option
from _kinfold_settings import GROUPS, LOSSES
from _kinfold_text import did_you_mean, is_of, parse, printable
from kinfold import losses
from kinfold.training import run_losses
from kinfold.training.settings import Settings

pytestmark = pytest.mark.once

# The settings in the config.json of a run of version 0.1.0.
OLD = {
    "data": "glyphs",
    "loss": "contrastive",
    "margin": 0.5,
    "gamma": None,
    "backbone": None,
    "weights": "none",
    "freeze": 0,
    "augment": "none",
    "precision": "float32",
    "image_size": None,
    "embedding_size": 4,
    "classes_per_batch": 3,
    "examples_per_class": 2,
    "steps_per_epoch": 10,
    "epochs": 3,
    "patience": None,
    "learning_rate": 0.01,
    "seed": 5,
    "tensorboard": False,
}


def test_every_loss_has_its_name() -> None:
    base = (losses.PairLoss, losses.LogSumExpLoss, losses.PrototypeLoss)
    every = {
        name
        for name, value in vars(losses).items()
        if inspect.isclass(value) and issubclass(value, keras.losses.Loss) and value not in base
    }
    assert set(LOSSES.values()) == every
    assert len(every) > 30
    for name, cls in LOSSES.items():
        default = inspect.signature(getattr(losses, cls)).parameters["name"].default
        plain = default.removesuffix("_loss").replace("_", "-")
        assert name == plain or name in ("contrastive", "siamese-contrastive")


def test_the_tables_of_the_page_are_those_of_the_definition() -> None:
    page = settings_table.PAGE.read_text("utf-8")
    assert settings_table.written(page) == page, "run: python tools/settings_table.py"
    changed = page.replace("(default 50)", "(default 49)").replace("`beta=1.2`", "`beta=1`")
    assert settings_table.written(changed) == page


def test_every_setting_is_told_in_full_sentences() -> None:
    shown = inspect.getdoc(Settings) or ""
    for one in definition.settings():
        it = about(one)
        text = it.help(one.default)
        assert it.group in GROUPS
        assert re.match(r"[A-Z].*\.$", text), text
        assert not re.search(r"batches an epoch|a batch,|a block|an anchor", text), text
        assert f"{one.name}: {text.split()[0]}" in shown
    assert "Number of classes in a batch (default 32, or all" in shown
    assert "Number of training steps per epoch (default as many as one pass through the" in shown


def test_settings_of_an_earlier_version_still_load() -> None:
    settings = Settings(**OLD)
    settings.check()
    assert settings.make_loss().negative_margin == 0.5
    assert Settings(**OLD | {"loss": "circle", "margin": None}).make_loss().margin == 0.25


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "`epochs` must be at least 1. Received: epochs=0."),
        ({"epochs": 1.5}, "`epochs` must be a whole number. Received: epochs=1.5."),
        ({"epochs": True}, "`epochs` must be a whole number. Received: epochs=True."),
        ({"epochs": None}, "`epochs` must be a whole number. Received: epochs=None."),
        ({"examples_per_class": 1}, "`examples_per_class` must be at least 2."),
        ({"memory_size": -1}, "`memory_size` must be at least 0."),
        ({"chunk": 0}, "`chunk` must be at least 1."),
        ({"seed": 2**32}, "`seed` must be below 2^32. Received: seed=4294967296."),
        ({"learning_rate": 0.0}, "`learning_rate` must be a number above 0."),
        ({"learning_rate": float("nan")}, "`learning_rate` must be a number above 0."),
        ({"learning_rate": float("inf")}, "`learning_rate` must be below inf."),
        ({"learning_rate": "0.1"}, "`learning_rate` must be a number or none. Received: "),
        ({"freeze": -1}, "`freeze` must be at least 0."),
        ({"freeze": "some"}, "`freeze` must be a whole number or all. Received: freeze='some'."),
        ({"precision": "float16"}, "`precision` must be one of float32, mixed_float16, mixed_"),
        (
            {"augment": "foto"},
            "`augment` must be one of auto, none, light, photo. Did you mean photo?",
        ),
        ({"loss_options": 3}, "`loss_options` must be names with values or none."),
        ({"data": 3}, "`data` must be text. Received: data=3."),
        ({"backbone": "ResNet5"}, "Received: 'ResNet5'. Did you mean ResNet50?"),
        ({"loss": "arcface"}, "Unknown loss. Did you mean arc-face? Expected one of circle, "),
        ({"loss": "TripletLoss"}, "Unknown loss. Did you mean triplet?"),
        ({"loss": "xyz"}, "Unknown loss. Expected one of circle, "),
        ({"loss": "contrastive", "gamma": 1.0}, "The loss contrastive has no gamma"),
        ({"loss": "sup-con", "margin": 1.0}, "The loss sup-con has no margin"),
        ({"margin": 0.2, "loss_options": {"margin": 0.3}}, "The margin is given twice"),
        ({"gamma": -1.0}, "`gamma` must be greater than 0"),
        ({"margin": float("nan")}, "`margin` must be finite"),
        ({"memory_warmup": 5}, "There is no memory to warm up"),
        ({"loss": "n-pairs", "memory_size": 8}, "The loss n-pairs compares nothing with earlier"),
        ({"loss": "arc-face", "memory_size": 8}, "arc-face compares nothing with earlier batches"),
        ({"loss": "info-nce", "memory_size": 8}, "info-nce compares nothing with earlier batches"),
    ],
)
def test_settings_that_do_not_do_are_refused_in_a_sentence(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Settings(**OLD | {"loss": "circle", "margin": None} | change).check()


def test_every_loss_is_built_with_its_own_options() -> None:
    for name in LOSSES:
        loss = Settings("glyphs", loss=name, examples_per_class=2).make_loss(7, 5)
        if isinstance(loss, run_losses.TwoByTwo):
            loss = loss.loss
        assert type(loss).__name__ == LOSSES[name]
        if isinstance(loss, losses.PrototypeLoss):
            assert (loss.num_classes, loss.embedding_size) == (7, 5)
        # Each option as text gives what its default is.
        values = run_losses.parse_options(name, run_losses.defaults(name))
        assert values.keys() == run_losses.options(name).keys()
        run_losses.make(name, values, 7, 5, 2)

    values = run_losses.parse_options("triplet", ["margin=none", "negatives=hard", "swap=true"])
    assert values == {"margin": None, "negatives": "hard", "swap": True}
    triplet = Settings("glyphs", loss="triplet", loss_options=values).make_loss()
    assert (triplet.margin, triplet.negatives, triplet.swap) == (None, "hard", True)
    assert Settings("glyphs", loss="arc-face", margin=0.3).make_loss().margin == 0.3
    assert Settings("glyphs", loss="lifted-structure", margin=2.0).make_loss().negative_margin == 2


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["margn=0.2"], "The loss triplet has no option 'margn'. Did you mean margin? Options of"),
        (
            ["temperature=1"],
            "no option 'temperature'. Options of triplet, with their defaults: mar",
        ),
        (["name=mine"], "The loss triplet has no option 'name'"),
        (["margin"], "--loss-option takes NAME=VALUE, such as margin=0.2. Received: 'margin'."),
        (["margin=wide"], "--loss-option margin must be a number or none. Received: 'wide'. Opti"),
        (["swap=1"], "--loss-option swap must be true or false. Received: '1'."),
        (["block_size=1.5"], "--loss-option block_size must be a whole number or none."),
        (["margin=1", "margin=2"], "--loss-option margin is given twice"),
        (["negatives=harder"], "Received: negatives='harder'. Options of triplet, with their defa"),
        (["distance=cosinus"], "Received: distance='cosinus'. Options of triplet"),
    ],
)
def test_options_that_a_loss_does_not_have_are_refused_with_those_it_has(
    texts: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        run_losses.make("triplet", run_losses.parse_options("triplet", texts), 2, 1, 2)


def test_options_given_in_python_have_the_types_of_the_loss() -> None:
    for options, message in (
        ({"swap": "false"}, "`swap` must be true or false. Received: swap='false'"),
        ({"margin": "0.2"}, "`margin` must be a number or none."),
        ({"num_classes": 3}, "has no option 'num_classes'"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            Settings("glyphs", loss="triplet", loss_options=options).check()


def test_values_are_read_by_their_types() -> None:
    assert parse("3", int | None, "n") == 3
    assert parse("None", int | None, "n") is None
    assert parse("1e-3", float, "x") == 0.001
    assert parse("all", int | str, "freeze") == "all"
    assert parse("7", str | int, "freeze") == 7
    assert parse("FALSE", bool, "swap") is False
    for text, kind in (("3.0", int), ("", float), ("none", int), ("yes", bool)):
        with pytest.raises(ValueError, match=r"--it must be .* Received"):
            parse(text, kind, "--it")
    assert is_of(3, float)
    assert not is_of(True, float)
    assert not is_of(1, bool)


def test_words_for_people() -> None:
    assert did_you_mean("pytorch", ["jax", "torch"]) == " Did you mean torch?"
    assert did_you_mean("xyz", ["jax", "torch"]) == ""
    assert printable("a\x1b[31mb\u202e\udcff é\n") == "a\\x1b[31mb\\u202e\\udcff é\n"
    assert option(next(one for one in definition.settings() if one.name == "data")) == "DATA"
