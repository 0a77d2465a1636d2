"""A run that diverges stops, says since when, and saves nothing of it."""

import math
import os
import shutil

import pytest
import speechbrain as sb
import torch

from speechbrain_ssl.brains import divergence
from speechbrain_ssl.brains.divergence import weights_are_finite
from speechbrain_ssl.errors import (
    CheckpointError,
    ConfigError,
    DivergenceError,
)
from speechbrain_ssl.report.logbook import read_metrics


def saved(brain):
    """Return the names of everything that a run has saved."""
    folders = brain.checkpointer.checkpoints_dir, brain.recent_weights.folder
    return [sorted(os.listdir(f)) for f in folders if f.is_dir()]


def diverge(brain, name, value):
    """Fill a parameter with a value before the second epoch's validation."""
    original = brain.on_stage_start

    def on_stage_start(stage, epoch=None):
        if stage == sb.Stage.VALID and epoch == 2:
            parameter = dict(brain.modules.named_parameters())[name]
            torch.nn.init.constant_(parameter, value)
            brain.before = saved(brain)
        original(stage, epoch)

    brain.on_stage_start = on_stage_start


@pytest.mark.parametrize(
    "value, named",
    [
        (float("nan"), "the weights are not finite"),
        (float("inf"), "the weights are not finite"),
        # Finite weights whose products are not.
        (3e38, "are not finite"),
    ],
)
def test_nothing_is_saved(make_brain, value, named):
    """The error names epoch, rate, the last good checkpoint and the remedy."""
    brain = make_brain.brain(steps=3, epochs=3, checkpoints=True)
    diverge(brain, "encoder.fc.conv.weight", value)
    with pytest.raises(DivergenceError, match=named) as caught:
        brain.fit(
            brain.hparams.epoch_counter,
            make_brain.loader(3),
            make_brain.loader(2),
        )
    text = str(caught.value)
    assert "since epoch 2, at a learning rate of 0.01" in text
    assert "CKPT" in text and "of epoch 1" in text
    assert "--on_divergence=retreat" in text
    assert saved(brain) == brain.before
    # The next start continues from the last good checkpoint.
    again = make_brain.brain(steps=3, epochs=3, checkpoints=True)
    again.on_fit_start()
    assert again.optimizer_step == 3
    assert weights_are_finite(again.modules)


def test_gradients_that_stay_not_finite(make_brain):
    """The step at which it began is named."""
    brain = make_brain.brain(steps=30, checkpoints=True)
    with pytest.raises(DivergenceError, match="since step 6, at a") as caught:
        brain.fit(
            brain.hparams.epoch_counter,
            make_brain.loader(30, poison=range(5, 30)),
        )
    assert "No checkpoint was saved before" in str(caught.value)


def fit(brain, make_brain):
    """Train a Brain of three steps an epoch."""
    brain.fit(
        brain.hparams.epoch_counter, make_brain.loader(3), make_brain.loader(2)
    )


def rates(brain):
    """Return the learning rates that were logged, by step."""
    lines = read_metrics(brain.log.logbook.path)
    return [x["lr"] for x in lines if x["stage"] == "train"]


def divergent(make_brain, times, **options):
    """Return a Brain whose weights diverge in epoch 2, a number of times."""
    brain = make_brain.brain(steps=3, epochs=3, checkpoints=True, **options)
    original, left = brain.after_step, [times]

    def after_step():
        original()
        if brain.optimizer_step == 5 and left[0]:
            left[0] -= 1
            torch.nn.init.constant_(brain.encoder.fc.conv.weight, math.nan)

    brain.after_step = after_step
    return brain


def test_retreat(make_brain):
    """The run goes on from its last checkpoint with half the rate, and says so."""
    brain = divergent(make_brain, 1, on_divergence="retreat")
    fit(brain, make_brain)
    assert rates(brain) == [0.01] * 3 + [0.005] * 6
    assert weights_are_finite(brain.modules)
    said = divergence.results(brain)["divergences"]
    # The epoch's end is where it was noticed, and two steps of NaN came before.
    assert said.startswith("diverged at step 6 at a learning rate of 0.01")
    assert said.endswith("continued from step 3 with half the rate")


def test_a_start_after_a_divergence_is_a_retreat(make_brain, tmp_path):
    """Stopped, and started again by ``retreat``: the same weights."""
    fit(divergent(make_brain, 1, on_divergence="retreat"), make_brain)
    wanted = weights(tmp_path)
    for path in tmp_path.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(DivergenceError):
        fit(divergent(make_brain, 1), make_brain)
    again = divergent(make_brain, 0, on_divergence="retreat")
    fit(again, make_brain)
    found = weights(tmp_path)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_divergence_that_was_passed_is_forgotten(make_brain):
    """Gone on at the full rate and stopped again, the run does not go back."""
    with pytest.raises(DivergenceError):
        fit(divergent(make_brain, 1), make_brain)
    brain = divergent(make_brain, 0)
    brain.optimizer_step_limit = 7
    fit(brain, make_brain)
    again = divergent(make_brain, 0, on_divergence="retreat")
    fit(again, make_brain)
    assert set(rates(again)) == {0.01} and again.divergences == []


def weights(folder):
    """Return the weights that the last epoch has left."""
    path = folder / "save" / "weights" / "epoch_00003.pt"
    return torch.load(path, weights_only=True)


def test_retreats_are_few(make_brain):
    """A run that diverges whatever the rate ends with the error."""
    brain = divergent(make_brain, 99, on_divergence="retreat")
    with pytest.raises(DivergenceError):
        fit(brain, make_brain)
    made = [d for d in brain.divergences if "continued_from" in d]
    assert len(made) == divergence.MOST_RETREATS
    assert rates(brain)[3] == 0.01 / 8


def test_other_words_are_refused(make_brain):
    """Before training."""
    brain = make_brain.brain(checkpoints=True, on_divergence="go on")
    with pytest.raises(ConfigError, match="stop or retreat"):
        brain.on_fit_start()


def test_a_damaged_note_is_named(make_brain, tmp_path):
    """It is no traceback, and the rate does not rise in silence."""
    brain = make_brain.brain(checkpoints=True)
    (tmp_path / "save" / "divergences.json").write_text('[{"step": 3')
    with pytest.raises(CheckpointError, match="divergences.json.*is damaged"):
        brain.on_fit_start()
