"""MoCo against its equation, and the ways of its queue."""

import math

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.base import Branch
from speechbrain_ssl.objectives.moco import MoCo
from speechbrain_ssl.objectives.teacher import MomentumTeacher

SIZE = 8


def vectors(seed, batch=4, crops=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, crops, SIZE, generator=generator)


def forward(moco, first, second):
    return moco(
        Branch(first, first, moco.head), Branch(second, second, moco.head)
    )


def take(moco, *batches):
    """A step with these keys, in one or several batches."""
    for keys in batches:
        forward(moco, vectors(99, len(keys)), keys)
    moco.after_step()


def by_the_equation(
    first, second, past, temperature, margin=0.0, kind="cosface"
):
    """Query by query, in plain loops; ``past`` are the keys in the queue."""

    def cosine(a, b):
        return float(a @ b / a.norm() / b.norm())

    losses = []
    for i in range(len(first)):
        for v, w in ((0, 1), (1, 0)):
            query = first[i, v].double()
            positive = cosine(query, second[i, w].double())
            if kind == "arcface":
                positive = math.cos(math.acos(positive) + margin)
            else:
                positive -= margin
            logits = [positive] + [
                cosine(query, keys[w].double()) for keys in past
            ]
            terms = [math.exp(logit / temperature) for logit in logits]
            losses.append(-math.log(terms[0] / sum(terms)))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.03, 0.2])
@pytest.mark.parametrize(
    "margin", [(0.0, "cosface"), (0.2, "cosface"), (0.3, "arcface")]
)
def test_equals_the_equation(temperature, margin):
    """With a queue that is empty, half full, and has been written over."""
    moco = MoCo(SIZE, 10, temperature, *margin)
    past = []
    for step in range(4):
        first, second = vectors(step), vectors(100 + step)
        loss, scalars = forward(moco, first, second)
        wanted = by_the_equation(first, second, past, temperature, *margin)
        assert float(loss) == pytest.approx(wanted, rel=1e-4, abs=1e-6)
        cosine = torch.cosine_similarity(first, second.flip(1), dim=-1).mean()
        torch.testing.assert_close(scalars["positive_cosine"], cosine)
        moco.after_step()
        past = (past + list(second))[-10:]
    assert len(past) == int(moco.filled) == 10


def test_the_queue_holds_the_last_keys_in_their_places():
    """A queue of 10 and batches of 4: the third goes over the end."""
    moco = MoCo(SIZE, 10)
    keys = [vectors(s) for s in range(3)]
    for step, filled, place in ((0, 4, 4), (1, 8, 8), (2, 10, 2)):
        take(moco, keys[step])
        assert (int(moco.filled), int(moco.place)) == (filled, place)
    every = torch.nn.functional.normalize(torch.cat(keys), dim=-1)
    wanted = torch.cat([every[10:], every[2:10]])
    # Queries of a crop meet keys of the other one.
    torch.testing.assert_close(moco.queue, wanted.flip(1).transpose(0, 1))


def test_accumulated_batches_are_one_step():
    """The queue stands still between the batches of a step."""
    together, apart = MoCo(SIZE, 10), MoCo(SIZE, 10)
    keys = vectors(1, batch=6)
    take(together, keys)
    take(apart, keys[:2], keys[2:])
    # Normalising a batch of another size may round differently.
    torch.testing.assert_close(together.queue, apart.queue)
    before = apart.queue.clone()
    forward(apart, vectors(2), vectors(3))
    assert torch.equal(apart.queue, before)
    assert int(apart.filled) == 6


def test_a_skipped_step_leaves_no_trace():
    moco, twin = MoCo(SIZE, 10), MoCo(SIZE, 10)
    for each in (moco, twin):
        take(each, vectors(1))
    loss, _ = forward(moco, vectors(2), vectors(3) * float("nan"))
    assert torch.isnan(loss)
    moco.skip_step()
    for each in (moco, twin):
        take(each, vectors(4))
    for name, value in twin.state_dict().items():
        assert torch.equal(moco.state_dict()[name], value)
    assert int(moco.filled) == 8


def test_a_checkpoint_carries_the_queue():
    moco = MoCo(SIZE, 10)
    for step in range(3):
        take(moco, vectors(step))
    other = MoCo(SIZE, 10)
    other.load_state_dict(moco.state_dict())
    for step in range(3, 6):
        losses = [
            forward(each, vectors(step), vectors(50 + step))[0]
            for each in (moco, other)
        ]
        assert torch.equal(*losses)
        for each in (moco, other):
            each.after_step()


def test_keys_are_taken_over_where_they_were_replaced():
    """A positive of another utterance is compared with, and is queued."""
    moco = MoCo(SIZE, 10)
    first, second = vectors(1), vectors(2)
    second[1] = vectors(3)[0]
    loss, _ = forward(moco, first, second)
    assert float(loss) == 0.0
    moco.after_step()
    wanted = torch.nn.functional.normalize(vectors(3)[0], dim=-1).flip(0)
    torch.testing.assert_close(moco.queue[:, 1], wanted)


def test_only_queries_have_a_gradient():
    moco = MoCo(SIZE, 10)
    take(moco, vectors(1))
    first = vectors(2).requires_grad_()
    second = vectors(3).requires_grad_()
    forward(moco, first, second)[0].backward()
    assert first.grad.abs().flatten(0, 1).sum(1).min() > 0
    assert second.grad is None


def test_the_first_step_is_harmless():
    """No key, no negative: the loss is 0 and moves nothing."""
    moco = MoCo(SIZE, 10)
    first = vectors(1).requires_grad_()
    loss, scalars = forward(moco, first, vectors(2))
    loss.backward()
    assert float(loss.detach()) == 0.0 and not first.grad.any()
    assert float(scalars["accuracy"]) == 1.0


def test_scale_and_order_do_not_count():
    moco = MoCo(SIZE, 10)
    take(moco, vectors(1))
    first, second = vectors(2), vectors(3)
    loss, _ = forward(moco, first, second)
    order = [2, 0, 3, 1]
    for a, b in (
        (first[order], second[order]),
        (first * torch.rand(4, 2, 1).add(0.5), second * 3),
    ):
        moco.skip_step()
        torch.testing.assert_close(forward(moco, a, b)[0], loss)
    # The two crops are not interchangeable: their keys lie in queues apart.
    moco.skip_step()
    swapped = forward(moco, first.flip(1), second.flip(1))[0]
    assert abs(float(swapped - loss)) > 1e-3


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_collapsed_and_zero_vectors(value):
    """All keys alike: chance, among one more than the queue holds."""
    moco = MoCo(SIZE, 10)
    same = torch.full((4, 2, SIZE), value)
    take(moco, same)
    first = same.clone().requires_grad_()
    loss, scalars = forward(moco, first, same)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(math.log(5), rel=1e-5)
    assert torch.isfinite(first.grad).all()
    assert float(scalars["accuracy"]) == 0.0


def test_one_utterance_at_a_time():
    moco = MoCo(SIZE, 1)
    for step in range(3):
        loss, _ = forward(moco, vectors(step, 1), vectors(9 + step, 1))
        assert torch.isfinite(loss)
        moco.after_step()
    assert (int(moco.filled), int(moco.place)) == (1, 0)


def test_logits_stay_fp32_under_autocast():
    moco = MoCo(SIZE, 10)
    take(moco, vectors(1))
    wanted, _ = forward(moco, vectors(2), vectors(3))
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = forward(moco, vectors(2), vectors(3))
    assert torch.equal(found, wanted)


def test_head():
    """None by default; else two layers, which the teacher has too."""
    plain, headed = MoCo(SIZE, 10), MoCo(SIZE, 10, hidden=16, output_size=5)
    assert not list(plain.parameters())
    teacher = MomentumTeacher(torch.nn.Linear(3, SIZE), headed.head)
    vector = teacher.head(torch.randn(3, SIZE))
    assert vector.shape == (3, 5) and headed.queue.shape == (2, 10, 5)
    linear = [m for m in headed.modules() if isinstance(m, torch.nn.Linear)]
    assert [layer.out_features for layer in linear] == [16, 5]
    # The teacher copies no queue.
    assert not list(teacher.buffers())


def test_a_queue_shorter_than_a_step_is_refused():
    """At the first batch that shows it, and not when it wraps around itself."""
    moco = MoCo(SIZE, 10)
    with pytest.raises(
        ConfigError, match="queue of 10 .* one step .12 or more"
    ):
        forward(moco, vectors(1, 12), vectors(2, 12))
    accumulated = MoCo(SIZE, 10)
    forward(accumulated, vectors(1, 6), vectors(2, 6))
    with pytest.raises(ConfigError, match="accumulated batches"):
        forward(accumulated, vectors(1, 6), vectors(2, 6))


def test_vectors_of_another_size_are_refused():
    moco = MoCo(SIZE + 1, 20)
    with pytest.raises(
        ConfigError, match="MoCo was made with `embedding_size`"
    ):
        forward(moco, vectors(1), vectors(2))


def test_a_queue_longer_than_the_training_set_is_refused():
    """Every utterance would be a negative of itself."""
    with pytest.raises(
        ConfigError,
        match="queue of 10 is at least as long as the training set .10 utt",
    ):
        MoCo(SIZE, 10).set_up(10, seed=1)
    MoCo(SIZE, 10).set_up(11, seed=1)


@pytest.mark.parametrize("crops", [(1, 1), (3, 3), (4, 2)])
def test_wants_two_crops(crops):
    with pytest.raises(ConfigError, match="global_crops to 2 and local_crops"):
        forward(
            MoCo(SIZE, 10),
            vectors(1, crops=crops[0]),
            vectors(2, crops=crops[1]),
        )


@pytest.mark.parametrize(
    "options, words",
    [
        ({"temperature": 0.0}, "temperature must be a number above 0, got 0.0"),
        (
            {"temperature": math.nan},
            "temperature must be a number above 0, got nan",
        ),
        ({"queue": 0}, "queue must be a whole number from 1, got 0"),
        ({"queue": 10.5}, "queue must be a whole number from 1, got 10.5"),
        ({"margin": 2.0}, "margin"),
        ({"margin_kind": "none"}, "margin_kind"),
        ({"hidden": -1}, "hidden must be a whole number"),
    ],
)
def test_values_that_cannot_be_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        MoCo(SIZE, **options)


def test_configuration(repository):
    """The block of the configurations makes objective and schedule."""
    with open(repository / "hparams/objectives/moco.yaml") as stream:
        block = load_hyperpyyaml(stream, {"margin": 0.1, "queue": 64})
    moco = block["objective"]
    assert moco.queue.shape == (2, 64, 192)
    assert (moco.temperature, moco.margin.margin) == (0.03, 0.1)
    values = block["momentum_schedule"](epochs=2, steps_per_epoch=3)
    assert values.tolist() == [0.999] * 6


def test_a_batch_norm_that_is_unknown():
    assert not MoCo(SIZE).shuffles_keys
    assert MoCo(SIZE, batch_norm="shuffled").shuffles_keys
    with pytest.raises(ConfigError, match="`synchronised` or `shuffled`"):
        MoCo(SIZE, batch_norm="local")
