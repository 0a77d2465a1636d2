"""The commands of the guides are commands that the parser takes."""

import pathlib
import re
import shlex

import pytest

from speechbrain_ssl.cli.main import make_parser

DOCS = pathlib.Path(__file__).resolve().parents[3] / "docs"
COMMAND = re.compile(r"^(?:\$ )?speechbrain-ssl (.+)$", re.MULTILINE)


@pytest.mark.parametrize(
    "page", ["tutorial", "clustering", "enrol_and_identify"]
)
def test_commands_of_a_guide(page):
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    commands = COMMAND.findall(text)
    assert commands
    for command in commands:
        _, unknown = make_parser().parse_known_args(shlex.split(command))
        assert all(re.match(r"\w+=", key) for key in unknown), command


def test_the_tutorial_shows_what_its_commands_print():
    """As docs/make_tutorial.py writes it, with both pictures."""
    text = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    assert "12 speakers: speakers.csv" in text
    assert "Anna enrolled from 6 recordings: known" in text
    for picture in re.findall(r"\]\((images/.+?)\)", text):
        assert 5_000 < (DOCS / picture).stat().st_size < 150_000
