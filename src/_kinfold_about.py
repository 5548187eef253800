"""What is known of one setting: its help, its option, how its text is read, its bounds.

`_kinfold_settings` says it of each; like that module this one imports no Keras.
"""

from dataclasses import MISSING, Field, dataclass, field
from typing import Any

from _kinfold_text import did_you_mean, in_words, is_of, parse


@dataclass(frozen=True)
class About:
    """What the command line, the checks and the docs need to know of a setting.

    Args:
        group: the heading that it stands under.
        what: the first sentence of the help, without its full stop.
        more: further sentences.
        default: the default in words; None for the value itself.
        metavar: the placeholder of the value in the help.
        least: the smallest value.
        above: the value that it must be greater than.
        below: the value that it must be less than.
        choices: the values that it can have, if there are few.
        option: its option, if that is not its name.
    """

    group: str
    what: str
    more: str = ""
    default: str | None = None
    metavar: str = "N"
    least: int | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    option: str = ""

    def help(self, value: Any) -> str:
        """Return the help with its default, which is `value` where no words were given."""
        default = self.default
        if default is None and isinstance(value, (int, float, str)) and value is not False:
            default = str(value)
        first = f"{self.what} (default {default})." if default else f"{self.what}."
        return f"{first} {self.more}".strip()


def setting(value: Any, group: str, what: str, **about: Any) -> Any:
    """Return a field with this default and an `About` of what else is given."""
    return field(default=value, metadata={"about": About(group, what, **about)})


def about(one: Field) -> About:
    """What is known of a field."""
    return one.metadata["about"]


def option(one: Field) -> str:
    """The option of a field: --image-size; of the data, which is an argument, DATA."""
    if one.default is MISSING:
        return about(one).metavar
    return about(one).option or "--" + one.name.replace("_", "-")


def read(text: str, one: Field) -> Any:
    """Read a setting from the command line; ValueError if its text is not of its type."""
    return parse(text, one.type, option(one))


def check(value: Any, one: Field) -> None:
    """Raise ValueError for a value that is not of a setting's type or out of its bounds."""
    it, name, kind = about(one), one.name, one.type
    unknown = it.choices and isinstance(value, str) and value not in it.choices
    if unknown or not is_of(value, kind):
        expected = in_words(kind, it.choices)
        near = did_you_mean(value, it.choices) if isinstance(value, str) else ""
        raise ValueError(f"`{name}` must be {expected}.{near} Received: {name}={value!r}.")
    if not isinstance(value, (int, float)):
        return
    if it.least is not None and value < it.least:
        raise ValueError(f"`{name}` must be at least {it.least}. Received: {name}={value}.")
    if it.above is not None and not value > it.above:
        raise ValueError(f"`{name}` must be a number above {it.above:g}. Received: {name}={value}.")
    if it.below is not None and not value < it.below:
        limit = "2^32" if it.below == 2**32 else f"{it.below:g}"
        raise ValueError(f"`{name}` must be below {limit}. Received: {name}={value}.")
