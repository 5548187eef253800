"""Write the tables of docs/training.md: the settings of a run, and the options of each loss.

python tools/settings_table.py    writes them; a test fails where they are not up to date
"""

import os
import re
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from _kinfold_about import about, option
from _kinfold_settings import GROUPS, LOSSES, settings
from kinfold.training import run_losses

PAGE = Path(__file__).resolve().parent.parent / "docs" / "training.md"


def settings_table() -> str:
    """One row per setting, under the heading that it has in the help."""
    lines = ["| option | what it is |", "|---|---|"]
    for group in GROUPS:
        rows = [one for one in settings() if about(one).group == group]
        for one in rows:
            it, name = about(one), option(one)
            value = "" if name == it.metavar or isinstance(one.default, bool) else f" {it.metavar}"
            text = it.help(one.default).replace("|", "\\|")
            value = value.replace("|", "\\|")
            lines.append(f"| `{name}{value}` | {text} |")
    return "\n".join(lines)


def losses_table() -> str:
    """One row per loss, with the options that are its own and those of many."""
    lines = ["| `--loss` | class | options with their defaults |", "|---|---|---|"]
    for name, cls in LOSSES.items():
        defaults = ", ".join(f"`{text}`" for text in run_losses.defaults(name))
        lines.append(f"| `{name}` | `{cls}` | {defaults} |")
    return "\n".join(lines)


def written(page: str) -> str:
    """Return the page with its tables as they should be."""
    for name, table in (("settings", settings_table()), ("losses", losses_table())):
        between = re.compile(rf"(<!-- {name}: .*?-->\n).*?(<!-- end of {name} -->)", re.DOTALL)
        page, found = between.subn(lambda m, t=table: f"{m[1]}{t}\n{m[2]}", page)
        if found != 1:
            raise ValueError(f"{PAGE} must have one place for the table of {name}, not {found}.")
    return page


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")
