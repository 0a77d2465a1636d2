"""The blocks of ``hparams/objectives``: each makes its objective."""

import pathlib

import pytest
from hyperpyyaml import load_hyperpyyaml

import speechbrain_ssl
from speechbrain_ssl.objectives.base import Objective

FOLDER = pathlib.Path(speechbrain_ssl.__file__).parents[1]
BLOCKS = [
    path
    for path in sorted((FOLDER / "hparams" / "objectives").glob("*.yaml"))
    # A loss with labels has a block there too.
    if "\nobjective:" in path.read_text(encoding="utf-8")
]

# As published, some heads take seconds to be drawn.
SMALL = {"hidden": 8, "prototypes": 16}


@pytest.mark.parametrize("path", BLOCKS, ids=lambda path: path.stem)
def test_block_makes_its_objective(path):
    """With every key in use, and a schedule for a teacher."""
    text = path.read_text(encoding="utf-8")
    plain = load_hyperpyyaml(text.split("\nobjective:")[0])
    small = {k: v for k, v in SMALL.items() if isinstance(plain.get(k), int)}
    made = load_hyperpyyaml(text, small)
    objective = made["objective"]
    assert isinstance(objective, Objective)
    if objective.momentum:
        assert made["momentum_schedule"](2, 3).shape == (6,)
    for key in plain:
        assert f"!ref <{key}>" in text, f"{key} has no effect"
