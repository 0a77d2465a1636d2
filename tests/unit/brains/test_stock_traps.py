"""Stock SpeechBrain's behaviour that would harm self-supervised training.

Each test shows the stock behaviour beside ours. When stock is fixed upstream,
the test says so.
"""

import importlib.util
import sys

import pytest
import speechbrain as sb
import tiny
import torch

from speechbrain_ssl.data.draws import uniform


class WithTeacher(sb.Brain):
    """A stock Brain whose frozen teacher is one of its modules."""

    def compute_forward(self, batch, stage):
        self.teacher_was_training = self.modules.teacher.training
        with torch.no_grad():
            target = self.modules.teacher(batch)
        return self.modules.student(batch) - target

    def compute_objectives(self, predictions, batch, stage):
        return predictions.square().mean()


def layers():
    return torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))


def test_a_teacher_among_the_modules_is_trained():
    """Stock puts it in training mode and in the optimiser."""
    teacher = layers().eval().requires_grad_(False)
    brain = WithTeacher(
        modules={"student": layers(), "teacher": teacher},
        opt_class=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        run_opts={"device": "cpu", "noprogressbar": True},
    )
    before = teacher[1].running_mean.clone()
    batches = torch.utils.data.DataLoader([torch.randn(8, 3)], batch_size=None)
    brain.fit(range(1), batches)
    held = {id(p) for g in brain.optimizer.param_groups for p in g["params"]}
    assert brain.teacher_was_training
    assert all(id(p) in held for p in teacher.parameters())
    # An evaluation-mode teacher would have kept its statistics.
    assert not torch.equal(before, teacher[1].running_mean)


def test_our_teacher_is_no_module(make_brain):
    """Ours does neither; the teacher's mode is set where it is used."""
    brain = make_brain.brain()
    brain.fit(brain.hparams.epoch_counter, make_brain.loader(3))
    held = {id(p) for g in brain.optimizer.param_groups for p in g["params"]}
    assert not any(id(p) in held for p in brain.teacher.parameters())
    assert not any(m is brain.teacher.encoder for m in brain.modules.modules())


def test_a_stream_of_draws_does_not_survive_a_resume():
    """A generator that is seeded again repeats the draws of step one."""

    def stream(steps):
        torch.manual_seed(5)
        return [float(torch.rand(())) for _ in steps]

    def addressed(steps):
        return [float(uniform(5, step, "crop")) for step in steps]

    assert stream(range(4))[2:] != stream(range(2, 4))
    assert addressed(range(4))[2:] == addressed(range(2, 4))


def test_ranks_that_share_a_seed_draw_the_same():
    """In stock, ranks 0 and 1 cut utterances at the same places."""

    def stock(rank):
        del rank  # SpeechBrain seeds every rank with the same number.
        torch.manual_seed(5)
        return torch.rand(4).tolist()

    def ours(rank):
        return uniform(5, 1, [10 * rank + i for i in range(4)]).tolist()

    assert stock(0) == stock(1)
    assert not set(ours(0)) & set(ours(1))


@pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is not None,
    reason="the warning is about its absence",
)
def test_a_text_log_needs_no_torchvision(tmp_path):
    """Stock warns of it as soon as its log of an epoch is imported."""

    def said(code):
        command = [sys.executable, "-c", code, str(tmp_path)]
        return tiny.shell(command)

    warning = "torchvision is not available"
    status, text = said("import speechbrain.utils.train_logger")
    assert status == 0 and warning in text
    status, text = said(
        "import sys; from speechbrain_ssl.brains.run_log import RunLog; "
        "RunLog(sys.argv[1], epochs=1)"
    )
    assert status == 0 and warning not in text
