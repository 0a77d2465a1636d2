"""Force representations to collapse, and judge runs that did not."""

import torch

from speechbrain_ssl.brains.collapse import CollapseAlarm
from speechbrain_ssl.errors import CollapseError


def _encoders(brain):
    """Return the layers that make embeddings, of student and teacher."""
    return [e.fc.conv for e in (brain.encoder, brain.teacher.encoder)]


def _constant(brain):
    for layer in _encoders(brain):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.ones_(layer.bias)


def _one_direction(brain):
    for layer in _encoders(brain):
        direction = torch.linspace(-1, 1, len(layer.weight)).view(-1, 1, 1)
        layer.weight.data = direction * layer.weight.data[:1]
        torch.nn.init.zeros_(layer.bias)


def _uniform(brain):
    brain.schedules["teacher_temperature"][:] = 1e6


def _single(brain):
    brain.objective.center.zero_()
    brain.objective.center.flatten()[0] = -1e3


#: Name -> function that does it to a Brain after a step, and what is said.
FORCED = {
    "constant embeddings": (_constant, "no longer tell utterances apart"),
    "embeddings in one direction": (
        _one_direction,
        "no longer tell utterances apart",
    ),
    "uniform targets": (_uniform, "targets are uniform"),
    "a single prototype": (_single, "one prototype takes nearly every"),
}


def alarmed(lines):
    """Tell whether the alarm would have stopped a run.

    Arguments
    ---------
    lines : list of dict
        Its ``metrics.jsonl``.
    """
    for utterances in (8, 40, 200):
        alarm, counts, trained = CollapseAlarm(), {}, {}
        for line in lines:
            if line["stage"] == "train":
                trained = line
            elif line["stage"] == "valid":
                scalars = {**trained, **line, "utterances": utterances}
                try:
                    counts = alarm.check(line["epoch"], scalars, counts)
                except CollapseError:
                    return True
    return False
