"""What is rejected before the first step, and what each step does."""

import copy

import pytest
import torch

from speechbrain_ssl.brains.ssl_brain import SSLBrain
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.sdpn import SDPN
from speechbrain_ssl.schedules import Constant, Linear


@pytest.mark.parametrize(
    ("name", "schedule", "rule"),
    [
        ("momentum", Constant(1.5), "momentum .* 1.5 to 1.5.* between 0 and 1"),
        ("momentum", Linear(-1, 1, 1), "from -1 to .* between 0 and 1"),
        ("teacher_temperature", Constant(0.0), "from 0 to 0.* above 0"),
        ("teacher_temperature", Linear(0.04, -0.04, 1), "above 0"),
        ("teacher_temperature", Constant(float("nan")), "finite and above 0"),
        ("weight_decay", Constant(-0.1), "weight_decay .* not negative"),
        ("lr", Constant(float("inf")), "lr .* finite"),
    ],
)
def test_values_that_no_step_can_be_taken_with(
    make_brain, name, schedule, rule
):
    brain = make_brain.brain()
    brain.hparams.schedules[name] = schedule
    with pytest.raises(ConfigError, match=rule):
        brain.on_fit_start()


def test_a_head_for_another_encoder_is_refused(make_brain):
    """The error comes before the first step, with the key and its value."""
    brain = make_brain.brain()
    brain.modules["encoder"].fc.conv = torch.nn.Conv1d(48, 7, 1)
    with pytest.raises(
        ConfigError, match="DINO's head .* size 7, which FastECAPA.*size` to 7"
    ):
        brain.on_fit_start()


class Noting(SSLBrain):
    """Records the weights of student and teacher after each step."""

    def after_step(self):
        super().after_step()
        self.noted.append(
            (weights(self.encoder), weights(self.teacher.encoder))
        )


def weights(encoder):
    return [p.detach().clone() for p in encoder.parameters()]


def test_the_teacher_follows_by_the_momentum_of_the_step(make_brain):
    """t <- m t + (1 - m) s, with m of the step that was just taken."""
    brain = make_brain.brain(steps=4)
    brain.hparams.schedules["momentum"] = Linear(0.2, 1.0, 1)
    brain.__class__, brain.noted = Noting, []
    teacher = weights(copy.deepcopy(brain.encoder))
    brain.fit(brain.hparams.epoch_counter, make_brain.loader(4))
    assert len(brain.noted) == 4
    for m, (student, found) in zip(
        [0.2, 0.4, 0.6, 0.8], brain.noted, strict=True
    ):
        for old, new, t in zip(teacher, student, found, strict=True):
            torch.testing.assert_close(t, m * old + (1 - m) * new)
        teacher = found


def test_weight_decay_is_for_matrices(make_brain):
    """Vectors, and what an objective exempts, get none."""

    def groups(brain):
        brain.init_optimizers()
        decayed, exempt = brain.optimizer.param_groups
        assert decayed["decay"] and not exempt["decay"]
        return [{id(p) for p in g["params"]} for g in (decayed, exempt)]

    brain = make_brain.brain()
    for p in brain.modules.parameters():
        assert (id(p) in groups(brain)[0]) == (p.dim() > 1)
    brain.modules["objective"] = SDPN(10, prototypes=12, hidden=8, bottleneck=6)
    decayed, exempt = groups(brain)
    prototypes = brain.objective.head.prototypes
    assert prototypes.dim() == 2 and id(prototypes) in exempt
    assert all(
        (id(p) in decayed) == (p.dim() > 1)
        for p in brain.modules.parameters()
        if p is not prototypes
    )
    assert not decayed & exempt
