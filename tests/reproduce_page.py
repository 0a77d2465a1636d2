"""Read docs/reproduce.md: its sections, their commands and their tables."""

import dataclasses
import pathlib
import posixpath
import re
import shlex

from speechbrain_ssl.config_base import merge

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reproduce.md"

#: First line of a table of settings.
HEADER = "| | the source | ours | why |"

#: What the commands of the page call the folder of all corpora.
CORPORA = "/path/to/corpora"


@dataclasses.dataclass
class Command:
    """A call of a recipe's script.

    Attributes
    ----------
    folder : str
        Where it is called, relative to the repository.
    script : str
        Name of the script in that folder.
    yaml : str or None
        The configuration, relative to the repository.
    flags : dict
        Option without dashes -> value.
    rows : list of str
        The rows of the evaluation that the comment below it names.
    """

    folder: str
    script: str
    yaml: str | None
    flags: dict
    rows: list = dataclasses.field(default_factory=list)

    def place(self, path):
        """Return a path of a flag, relative to the repository."""
        return posixpath.normpath(posixpath.join(self.folder, path))

    @property
    def output(self):
        """Return the output folder of a training; None for an evaluation."""
        if self.yaml is None:
            return None
        folder = merge(ROOT / self.yaml).plain()["output_folder"]
        if folder is None:
            return None
        return self.place(folder.removeprefix("!ref ").replace("<seed>", "1"))


@dataclasses.dataclass
class Row:
    """A row of a table *what the source says, what we do, why*.

    Attributes
    ----------
    yaml : str
        The configuration that the table is about.
    setting, source, ours, remark : str
        The cells.
    """

    yaml: str
    setting: str
    source: str
    ours: str
    remark: str

    @property
    def values(self):
        """Return the keys of the cell "ours" with their values, as text."""
        return re.findall(r"`([\w.\[\]]+): ([^`]+)`", self.ours)


def sections():
    """Return heading -> text of the sections of the page."""
    parts = re.split(r"^## (.+)$", PAGE.read_text("utf-8"), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def commands(text):
    """Return the commands of the code blocks of a section."""
    found, folder = [], "."
    for block in re.findall(r"```\n(.*?)```", text, re.S):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("cd "):
                start = "." if line.startswith("cd recipes") else folder
                folder = posixpath.normpath(posixpath.join(start, line[3:]))
            elif line.startswith("#"):
                found[-1].rows += re.findall(r"`([^`]+)`", line)
            elif line.startswith(("python ", "torchrun ")):
                found.append(_command(folder, shlex.split(line)))
    return found


def chains():
    """Return heading -> commands of the sections with configurations."""
    found = {title: commands(text) for title, text in sections().items()}
    return {k: v for k, v in found.items() if any(c.yaml for c in v)}


def _command(folder, words):
    (number,) = (i for i, w in enumerate(words) if w.endswith(".py"))
    rest = words[number + 1 :]
    yaml = None
    if rest and rest[0].endswith(".yaml"):
        yaml = posixpath.normpath(posixpath.join(folder, rest.pop(0)))
    flags = dict(word.removeprefix("--").split("=", 1) for word in rest)
    return Command(folder, words[number], yaml, flags)


def rows(text):
    """Return the rows of the tables of a section that compare settings."""
    found = []
    # A paragraph that begins with a link, and the table that follows it.
    pattern = r"\]\((\.\./recipes/[^)]+\.yaml)\)(?:.+\n)+\n((?:\|.*\n)+)"
    for link, table in re.findall(pattern, text):
        header, _, *lines = table.splitlines()
        assert header == HEADER, header
        for line in lines:
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            found.append(Row(link.removeprefix("../"), *cells))
    return found
