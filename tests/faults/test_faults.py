"""The short form of ``make test-faults``: a few tries of a few faults."""

import csv
import random
import signal

import cases
import pytest
import table
from jobs import World
from speechbrain.utils import logger

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Return the tiny corpus and an undisturbed run of training."""
    with pytest.MonkeyPatch.context() as patch:
        # It calls pip at every start.
        patch.setattr(logger, "get_environment_description", lambda: "")
        world = World(tmp_path_factory.mktemp("faults"), random.Random(1))
        world.measure()
        yield world


@pytest.mark.parametrize(
    "case",
    [
        lambda w: cases.sudden(w, 2, signal.SIGKILL, w.ssl),
        lambda w: cases.sudden(w, 2, signal.SIGTERM, w.preparation),
        lambda w: cases.hostile_folders(w, 1),
        lambda w: cases.divergence(w, 1),
        lambda w: cases.fewer_processes(w, 1),
    ],
    ids=[
        "kills",
        "signals",
        "hostile folders",
        "divergence",
        "fewer processes",
    ],
)
def test_nothing_is_lost(world, case):
    for row in case(world):
        assert row.tried > 0 and not row.lost, "\n".join(row.details)


def test_table(tmp_path):
    """It is written anew between its marks, and the rest of the page stays."""
    readme = tmp_path / "README.md"
    readme.write_text(f"Before.\n{table.BEGIN}\nold\n{table.END}\nAfter.\n")
    row = table.Row("kill", "training", 50, "the same", 0, None, 2.04)
    table.write(tmp_path, [row])
    text = readme.read_text()
    assert "| kill | training | 50 | the same | 0 |  | 2.0 |" in text
    assert text.startswith("Before.") and text.endswith("After.\n")
    assert "old" not in text
    with open(tmp_path / "table.csv", newline="") as stream:
        assert [len(line) for line in csv.reader(stream)] == [7, 7]
