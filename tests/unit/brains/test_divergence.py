"""A run that diverges stops, says since when, and saves nothing of it."""

import os

import pytest
import torch

from speechbrain_ssl.brains.divergence import weights_are_finite
from speechbrain_ssl.errors import DivergenceError


def saved(brain):
    """Return the names of everything that a run has saved."""
    folders = brain.checkpointer.checkpoints_dir, brain.recent_weights.folder
    return [sorted(os.listdir(f)) for f in folders if f.is_dir()]


def diverge(brain, name, value):
    """Fill a parameter with a value before the second epoch's validation."""
    original = brain.after_epoch

    def after_epoch():
        if brain.epoch == 2:
            parameter = dict(brain.modules.named_parameters())[name]
            torch.nn.init.constant_(parameter, value)
            brain.before = saved(brain)
        return original()

    brain.after_epoch = after_epoch


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
    assert f"--initial_checkpoint={brain.hparams.output_folder}" in text
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
