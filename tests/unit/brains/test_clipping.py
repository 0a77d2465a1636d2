"""What an optimiser step does and does not do, compared with stock Brain."""

import copy
import math

import pytest
import speechbrain as sb
import torch

from speechbrain_ssl.brains.optimisation import clip_per_tensor_
from speechbrain_ssl.brains.ssl_brain import SSLBrain
from speechbrain_ssl.errors import ConfigError, DivergenceError
from speechbrain_ssl.schedules import Constant, StepDecay


def parameters(*scales):
    """Return parameters whose gradients have norms of the given scales."""
    torch.manual_seed(0)
    made = []
    for number, scale in enumerate(scales):
        p = torch.nn.Parameter(torch.zeros(3, 2 + number))
        grad = torch.randn_like(p)
        p.grad = grad * (scale / grad.norm())
        made.append(p)
    return made


# -- clip_per_tensor_ ------------------------------------------------------


@pytest.mark.parametrize("most", [0.5, 3.0, 1e9, math.inf])
def test_clip_is_a_loop_over_tensors(most):
    """Every tensor is clipped on its own, as torch clips a single one."""
    ours = parameters(0.1, 2.0, 5.0, 4e4, 0.0)
    theirs = copy.deepcopy(ours)
    for a, b in zip(ours, theirs, strict=True):
        b.grad = a.grad.clone()
    total = math.sqrt(sum(float(p.grad.norm()) ** 2 for p in ours))
    norm = clip_per_tensor_(ours, most)
    assert float(norm) == pytest.approx(total, rel=1e-5)
    for a, b in zip(ours, theirs, strict=True):
        torch.nn.utils.clip_grad_norm_([b], most)
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-7)
        assert a.grad.norm() <= most * 1.0001


def test_clip_spares_whom_it_is_told_to():
    """The gradient stays; it counts in the norm all the same."""
    ours = parameters(9.0, 12.0, 0.0)
    before = ours[0].grad.clone()
    norm = clip_per_tensor_(ours, 3.0, unclipped=ours[:1])
    assert float(norm) == pytest.approx(15.0)
    assert torch.equal(ours[0].grad, before)
    assert float(ours[1].grad.norm()) == pytest.approx(3.0)


def test_clip_passes_over_missing_gradients():
    """A frozen tensor has no gradient."""
    ours = parameters(9.0, 9.0)
    ours[0].grad = None
    assert float(clip_per_tensor_(ours, 3.0)) == pytest.approx(9.0)
    assert ours[0].grad is None
    assert float(ours[1].grad.norm()) == pytest.approx(3.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("most", [3.0, math.inf])
def test_clip_reports_what_is_not_finite(bad, most):
    """One bad element anywhere makes the norm not finite."""
    ours = parameters(1.0, 2.0, 3.0)
    ours[1].grad[2, 1] = bad
    assert not torch.isfinite(clip_per_tensor_(ours, most))


@pytest.mark.parametrize("most", [0, -1, -1.0, math.nan])
def test_clip_refuses_what_would_flip_or_stop(most):
    """-1 does not switch clipping off: in stock it flips the gradient."""
    with pytest.raises(ConfigError, match=r"clip_per_tensor.*\.inf"):
        clip_per_tensor_(parameters(1.0), most)


# -- the stock traps ---------------------------------------------------------


class Stock(sb.Brain):
    """Has two parameter groups, and a loss with gradients of 300 and 1e5."""

    def init_optimizers(self):
        first, second = self.modules.net.parameters()
        self.optimizer = torch.optim.SGD(
            [{"params": [first]}, {"params": [second]}], lr=1.0
        )
        self.optimizers_dict = {"optimizer": self.optimizer}

    def compute_forward(self, batch, stage):
        """Nothing."""

    def compute_objectives(self, predictions, batch, stage):
        """Linear, so that the gradients are what they are."""
        first, second = self.modules.net.parameters()
        return 300.0 * first.sum() + 1e5 * second.sum()


def stock_step(max_grad_norm):
    """Return how far two scalars move in one step of stock Brain."""
    net = torch.nn.Linear(1, 1)
    before = [float(p.detach()) for p in net.parameters()]
    brain = Stock(
        modules={"net": net},
        opt_class=torch.optim.SGD,
        hparams={},
        run_opts={"device": "cpu", "max_grad_norm": max_grad_norm},
    )
    brain.init_optimizers()
    brain.step = 1
    brain.fit_batch(None)
    return [
        float(p.detach()) - b
        for p, b in zip(net.parameters(), before, strict=True)
    ]


def test_stock_clips_the_first_group_only():
    """``optimizers_step`` avoids this stock behaviour."""
    first, second = stock_step(5.0)
    assert first == pytest.approx(-5.0, rel=1e-3)
    assert second == pytest.approx(-1e5, rel=1e-3)


def test_stock_flips_the_gradient_at_minus_one():
    """-1, documented as "no clipping", makes stock climb."""
    first, _ = stock_step(-1.0)
    assert first > 0.5


def linear_step(brain, scale):
    """Take one step of ours on a linear loss; return all movements."""
    before = [p.detach().clone() for p in brain.trained]
    for p in brain.trained:
        p.grad = torch.full_like(p, scale)
    brain.optimizers_step()
    return [
        (p.detach() - b) for p, b in zip(brain.trained, before, strict=True)
    ]


@pytest.mark.parametrize("stock_option", [5.0, -1.0])
def test_ours_clips_every_tensor_and_never_flips(make_brain, stock_option):
    """With SGD and lr 1 no tensor moves beyond its limit, or uphill."""
    brain = make_brain.brain(run_opts={"max_grad_norm": stock_option})
    brain.opt_class = torch.optim.SGD
    brain.hparams.schedules["lr"] = lambda *_: _ones(3)
    brain.hparams.schedules["weight_decay"] = lambda *_: 0 * _ones(3)
    brain.on_fit_start()
    brain.epoch = 1
    moves = linear_step(brain, 1e5)
    assert len(brain.optimizer.param_groups) == 2
    for move in moves:
        assert float(move.norm()) == pytest.approx(3.0, rel=1e-2)
        assert (move < 0).all()


def _ones(count):
    return torch.ones(count, dtype=torch.float64).numpy()


# -- steps without a finite gradient -----------------------------------------


def snapshot(brain):
    """Return copies of everything that a step may change, by name."""
    state = {
        "modules": brain.modules.state_dict(),
        "teacher": brain.teacher.state_dict(),
    }
    found = {
        f"{part}.{name}": tensor.clone()
        for part, tensors in state.items()
        for name, tensor in tensors.items()
    }
    for number, entry in enumerate(brain.optimizer.state.values()):
        for name, value in entry.items():
            found[f"optimizer.{number}.{name}"] = torch.as_tensor(value).clone()
    return found


class Watched(SSLBrain):
    """Records the state after each batch."""

    def on_fit_batch_end(self, *args):
        super().on_fit_batch_end(*args)
        self.seen.append((self.stepped, snapshot(self)))


def watch(brain):
    """Turn a Brain into a watched one."""
    brain.__class__ = Watched
    brain.seen = []
    return brain


def differing(left, right):
    """Return the names of what differs; NaN equals nothing."""
    assert left.keys() == right.keys()
    return [k for k in left if not torch.equal(left[k], right[k])]


@pytest.mark.parametrize("poison", ["audio", "gradient"])
def test_skipped_step_changes_nothing(make_brain, poison, caplog):
    """Weights, teacher, centre, optimiser and running statistics stay."""
    brain = watch(make_brain.brain(steps=5))
    bad = (2,) if poison == "audio" else ()
    if poison == "gradient":
        # Only in the encoder's last bias, so that the loss itself is finite.
        def spoil(grad):
            return grad * (math.nan if len(brain.seen) == 2 else 1.0)

        brain.modules.encoder.fc.conv.bias.register_hook(spoil)
    brain.fit(brain.hparams.epoch_counter, make_brain.loader(5, bad))
    assert [s for s, _ in brain.seen] == [True, True, False, True, True]
    states = [state for _, state in brain.seen]
    assert not differing(states[1], states[2])
    assert len(differing(states[0], states[1])) > 100
    # Training continues, and schedules have moved on with the data.
    moved = differing(states[2], states[3])
    for part in ("modules.encoder", "modules.objective.center", "teacher"):
        assert any(name.startswith(part) for name in moved)
    assert brain.optimizer_step == 5
    assert all(torch.isfinite(t).all() for t in states[4].values())
    assert "step 3 skipped" in caplog.text
    assert brain.state.values["skipped"] == 0


def test_stock_steps_on_nan():
    """In stock one NaN loss turns every parameter into NaN."""
    net = torch.nn.Linear(1, 1)

    class Poisoned(Stock):
        def compute_objectives(self, predictions, batch, stage):
            return math.nan * super().compute_objectives(None, None, None)

    brain = Poisoned({"net": net}, torch.optim.SGD, {}, {"device": "cpu"})
    brain.init_optimizers()
    brain.step, brain.nonfinite_count = 1, 0
    brain.fit_batch(None)
    assert all(torch.isnan(p).all() for p in net.parameters())


def test_twenty_skips_in_a_row_stop_the_run(make_brain):
    """19 skipped steps are survived; the 20th is an error with a remedy."""
    brain = make_brain.brain(steps=21)
    brain.fit(brain.hparams.epoch_counter, make_brain.loader(21, range(19)))
    assert brain.optimizer_step == 21
    brain = make_brain.brain(steps=21)
    with pytest.raises(DivergenceError, match="since step 1.*learning rate"):
        brain.fit(brain.hparams.epoch_counter, make_brain.loader(21, range(20)))
    assert brain.optimizer_step == 20


# -- groups, last layer, teacher -----------------------------------------------


def test_last_layer_is_frozen_in_the_first_epoch(make_brain):
    """No bit changes in epoch 1, not even by weight decay; then it moves."""
    brain = watch(
        make_brain.brain(steps=2, epochs=2, freeze_last_layer_epochs=1)
    )
    start = brain.objective.head.prototypes.detach().clone()
    brain.fit(brain.hparams.epoch_counter, make_brain.loader(2))
    name = "modules.objective.head.prototypes"
    values = [state[name] for _, state in brain.seen]
    assert torch.equal(values[0], start) and torch.equal(values[1], start)
    assert not torch.equal(values[2], start)
    other = "modules.objective.head.layers.0.weight"
    assert other in differing(brain.seen[0][1], brain.seen[1][1])


def test_weight_decay_is_for_matrices(make_brain):
    """With zero gradients matrices shrink by lr x decay; vectors do not."""
    brain = make_brain.brain()
    brain.on_fit_start()
    brain.epoch = 1
    before = [p.detach().clone() for p in brain.trained]
    for p in brain.trained:
        p.grad = torch.zeros_like(p)
    brain.optimizers_step()
    kinds = set()
    for p, old in zip(brain.trained, before, strict=True):
        factor = 1 - 0.01 * 0.1 if p.dim() > 1 else 1.0
        torch.testing.assert_close(p.detach(), old * factor)
        kinds.add(p.dim() > 1)
    assert kinds == {True, False}


def test_what_keeps_its_learning_rate_and_what_is_not_clipped(make_brain):
    """One layer keeps the peak of the schedule, one its whole gradient."""
    brain = make_brain.brain(steps=3)
    layers = brain.objective.head.layers
    constant, unclipped = layers[0].weight, layers[3].weight
    brain.objective.constant_lr_parameters = lambda: [constant]
    brain.objective.unclipped_parameters = lambda: [unclipped]
    brain.opt_class = torch.optim.SGD
    brain.hparams.schedules["lr"] = StepDecay(0.5, 0.1, 1)
    brain.hparams.schedules["weight_decay"] = Constant(0.01)
    brain.hparams.number_of_epochs = 3
    brain.on_fit_start()
    # The last epoch: the learning rate has fallen to a hundredth.
    brain.epoch, brain.optimizer_step = 3, 8
    before = {id(p): p.detach().clone() for p in brain.trained}
    for p in brain.trained:
        p.grad = torch.full_like(p, 6.0 / p.numel() ** 0.5)
    brain.optimizers_step()
    matrices = [p for p in brain.trained if p.dim() > 1]
    for p in matrices:
        old, lr = before[id(p)], 0.5 if p is constant else 0.005
        pull = (6.0 if p is unclipped else 3.0) / p.numel() ** 0.5
        wanted = old - lr * (pull + 0.01 * old)
        torch.testing.assert_close(p.detach(), wanted, rtol=1e-5, atol=1e-6)
    assert {id(constant), id(unclipped)} < {id(p) for p in matrices}
    held = [id(p) for g in brain.optimizer.param_groups for p in g["params"]]
    assert sorted(held) == sorted(id(p) for p in brain.trained)


def test_every_trained_parameter_is_in_one_group(make_brain):
    """All of the student's parameters, none of the teacher's."""
    brain = make_brain.brain()
    brain.on_fit_start()
    held = [id(p) for g in brain.optimizer.param_groups for p in g["params"]]
    assert len(held) == len(set(held))
    assert set(held) == {id(p) for p in brain.modules.parameters()}
    assert not set(held) & {id(p) for p in brain.teacher.parameters()}
    assert "teacher" not in brain.modules


class Modes(Watched):
    """Records the teacher's mode when it is used."""

    def compute_forward(self, batch, stage):
        """As in the base class."""
        self.modes.append((stage, self.teacher.encoder.training))
        return super().compute_forward(batch, stage)

    def held_out(self, embeddings):
        """As in the base class."""
        self.modes.append((sb.Stage.VALID, self.teacher.encoder.training))
        return super().held_out(embeddings)


def test_teacher_moves_by_ema_only_and_has_its_modes(make_brain):
    """It uses batch statistics in training, running ones in validation."""
    brain = watch(make_brain.brain(steps=2, epochs=2))
    brain.__class__, brain.modes = Modes, []
    brain.fit(
        brain.hparams.epoch_counter,
        make_brain.loader(2),
        make_brain.loader(3),
    )
    train, valid = sb.Stage.TRAIN, sb.Stage.VALID
    epoch = [(train, True)] * 2 + [(valid, False)] * 3
    # It is validated before the first step, too.
    assert brain.modes == epoch[2:] + epoch * 2
    names = dict(brain.teacher.named_parameters())
    for (_, old), (_, new) in zip(brain.seen, brain.seen[1:], strict=False):
        for name in names:
            mine = old[f"teacher.{name}"]
            part, _, rest = name.partition(".")
            part = {"head": "objective.head"}.get(part, part)
            student = new[f"modules.{part}.{rest}"]
            torch.testing.assert_close(
                new[f"teacher.{name}"], 0.9 * mine + 0.1 * student
            )
    buffer = "teacher.encoder.blocks.0.norm.norm.running_mean"
    assert buffer in differing(brain.seen[0][1], brain.seen[1][1])


def test_validation_leaves_the_teacher_alone(make_brain):
    """Its running statistics change in training only."""
    brain = watch(make_brain.brain(steps=2))
    brain.fit(
        brain.hparams.epoch_counter,
        make_brain.loader(2),
        make_brain.loader(3),
    )
    assert not differing(brain.seen[-1][1], snapshot(brain))


def test_schedules_must_be_named(make_brain):
    """One too few, or one too many, is an error that lists both."""
    for change in ("less", "more"):
        brain = make_brain.brain()
        given = brain.hparams.schedules
        if change == "less":
            del given["momentum"]
        else:
            given["margin"] = given["lr"]
        with pytest.raises(ConfigError, match="teacher_temperature.*DINO"):
            brain.on_fit_start()
