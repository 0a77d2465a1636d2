"""CPC against its equation, frame by frame."""

import math

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.base import Branch
from speechbrain_ssl.objectives.cpc import CPC

CHANNELS, HIDDEN, SIZE = 6, 5, 3


def make(steps=2, frames_per_step=3, size=SIZE, across=True):
    torch.manual_seed(0)
    return CPC(CHANNELS, size, HIDDEN, steps, frames_per_step, across)


def input_frames(seed=1, batch=4, crops=2, time=20):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, crops, time, CHANNELS, generator=generator)


def embed(frames):
    """Something of each crop, in place of an encoder's embedding."""
    frames = frames.float()
    return frames[..., :SIZE].std(2) + frames[..., -SIZE:].mean(2)


def forward(cpc, frames):
    embeddings = embed(frames)
    first = Branch(embeddings, embeddings, cpc.head, frames=frames)
    # What there is no use for is not looked at.
    return cpc(first, None)


def gru(cpc, inputs, embedding):
    """The equations of a gated recurrent unit; all its states."""
    net, state, states = cpc.context, torch.zeros(HIDDEN), []
    if cpc.start is not None:
        state = torch.tanh(cpc.start.weight @ embedding + cpc.start.bias)
    for x in inputs:
        i = net.weight_ih_l0 @ x + net.bias_ih_l0
        h = net.weight_hh_l0 @ state + net.bias_hh_l0
        (ir, iz, inew), (hr, hz, hnew) = i.chunk(3), h.chunk(3)
        reset, update = torch.sigmoid(ir + hr), torch.sigmoid(iz + hz)
        new = torch.tanh(inew + reset * hnew)
        state = (1 - update) * new + update * state
        states.append(state)
    return states


def by_the_equation(cpc, frames):
    """In loops over crops, utterances, places and steps ahead."""
    width = cpc.frames_per_step
    count = frames.shape[2] // width
    matrices = cpc.targets.weight.view(cpc.steps, HIDDEN, CHANNELS)
    losses = []
    crops, embeddings = frames.shape[1], embed(frames)
    for c in range(crops):
        here, there = (
            [
                [row[t * width : (t + 1) * width].mean(0) for t in range(count)]
                for row in frames[:, crop]
            ]
            for crop in (c, (c + 1) % crops if cpc.across_crops else c)
        )
        for i in range(len(here)):
            context = gru(cpc, here[i], embeddings[i, c])
            for t in range(count - cpc.steps):
                for k in range(1, cpc.steps + 1):
                    # W_k is CHANNELS x HIDDEN.
                    predicted = matrices[k - 1].T @ context[t]
                    scores = torch.stack([z[t + k] @ predicted for z in there])
                    losses.append(-torch.log_softmax(scores, 0)[i])
    return torch.stack(losses).mean()


@pytest.mark.parametrize("across, crops", [(True, 2), (True, 3), (False, 2)])
@pytest.mark.parametrize("size", [SIZE, None])
@pytest.mark.parametrize("steps, width, time", [(2, 3, 20), (4, 2, 13)])
def test_equals_the_equation(steps, width, time, size, across, crops):
    """Loss and all gradients; a rest of frames at the end is left out."""
    cpc = make(steps, width, size, across)
    frames = input_frames(crops=crops, time=time).requires_grad_()
    loss, _ = forward(cpc, frames)
    wanted = by_the_equation(cpc, frames)
    torch.testing.assert_close(loss, wanted)
    inputs = [frames, *cpc.parameters()]
    grads = torch.autograd.grad(loss, inputs)
    others = torch.autograd.grad(wanted, inputs)
    for mine, other in zip(grads, others, strict=True):
        assert mine.abs().max() > 1e-5
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-4)
    if size is None:
        # Nothing else looks at them.
        assert not grads[0][:, :, time - time % width :].any()


def test_the_embedding_is_trained():
    """By the context that begins with it; without, it is not looked at."""
    for size in (SIZE, None):
        cpc = make(size=size)
        embeddings = torch.randn(4, 2, SIZE, requires_grad=True)
        first = Branch(embeddings, embeddings, cpc.head, frames=input_frames())
        cpc(first, None)[0].backward()
        assert (embeddings.grad is None) == (size is None)


def test_what_all_utterances_share_tells_none_apart():
    """A constant on what is only predicted (the last steps) does not count."""
    cpc = make(size=None)
    frames = input_frames()
    loss, _ = forward(cpc, frames)
    later = frames.clone()
    later[:, :, 12:] += 1.0
    torch.testing.assert_close(forward(cpc, later)[0], loss)
    # On one utterance it does, and in the contexts too.
    for rows, start in (([1], 12), ([0, 1, 2, 3], 0)):
        other = frames.clone()
        other[rows, :, start:] += 1.0
        changed = forward(cpc, other)[0].detach()
        assert abs(float(changed - loss.detach())) > 1e-3


def test_order_does_not_count():
    cpc = make()
    frames = input_frames()
    loss, scalars = forward(cpc, frames)
    for other in (frames[[2, 0, 3, 1]], frames.flip(1)):
        changed, others = forward(cpc, other)
        torch.testing.assert_close(changed, loss)
        assert others == scalars


def test_crops_are_samples_of_their_own():
    """No crop is a negative of another one of its utterance."""
    cpc = make(across=False)
    frames = input_frames()
    apart = [forward(cpc, frames[:, c : c + 1])[0] for c in (0, 1)]
    torch.testing.assert_close(forward(cpc, frames)[0], sum(apart) / 2)


def test_it_learns_what_tells_utterances_apart():
    """Frames with a constant of their utterance can be told from others."""
    cpc = make()
    frames = input_frames(2) + 2 * input_frames(3, time=1)
    optimiser = torch.optim.Adam(cpc.parameters(), lr=0.05)
    first, _ = forward(cpc, frames)
    for _ in range(40):
        optimiser.zero_grad()
        loss, scalars = forward(cpc, frames)
        loss.backward()
        optimiser.step()
    assert loss < 0.3 * first
    assert float(scalars["accuracy"]) > 0.9


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_collapsed_frames_are_at_chance(value):
    frames = torch.full((4, 2, 20, CHANNELS), value, requires_grad=True)
    loss, _ = forward(make(), frames)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(math.log(4), rel=1e-5)
    assert torch.isfinite(frames.grad).all()


def test_one_utterance_and_nan():
    """Without negatives nothing would be learnt; and a NaN is seen."""
    with pytest.raises(ConfigError, match="another utterance.*batch_size to 2"):
        forward(make(), input_frames(batch=1))
    frames = input_frames()
    frames[1, 0, 2, 3] = float("nan")
    assert torch.isnan(forward(make(), frames)[0])


def test_fp32_under_autocast():
    cpc = make()
    frames = input_frames().bfloat16()
    wanted, _ = forward(cpc, frames.float())
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = forward(cpc, frames)
    # Casting changes how the frames lie in memory, and so the order of sums.
    torch.testing.assert_close(found, wanted)


def test_what_it_asks_for():
    """Frames of the online branch, and no second one."""
    assert CPC.needs_frames and not CPC.supports_positive_sampling
    assert not CPC.momentum


def test_what_an_encoder_gives_has_to_fit():
    """The key to change is in the message."""
    with pytest.raises(ConfigError, match="`frame_channels` 7, .* 6 numbers"):
        forward(CPC(7, SIZE, HIDDEN, 2, 3), input_frames())
    with pytest.raises(ConfigError, match="`embedding_size` 9, .* 3 numbers"):
        forward(make(size=9), input_frames())


def test_short_crops_and_bad_sizes_are_refused():
    with pytest.raises(ConfigError, match="only 8 frames.*global_seconds"):
        forward(make(), input_frames(time=8))
    assert torch.isfinite(forward(make(), input_frames(time=9))[0])
    with pytest.raises(ConfigError, match="only one; set global_crops to 2"):
        forward(make(), input_frames(crops=1))
    for key in ("channels", "hidden", "steps", "frames_per_step"):
        for value in (0, 2.5):
            with pytest.raises(ConfigError, match=f"{key} must be a whole"):
                CPC(**{"channels": 6, key: value})


def test_configuration(repository):
    """The block of the configurations makes the objective."""
    with open(repository / "hparams/objectives/cpc.yaml") as stream:
        block = load_hyperpyyaml(stream, {"frame_channels": 192})
    cpc = block["objective"]
    assert (cpc.steps, cpc.frames_per_step) == (4, 8)
    assert cpc.targets.weight.shape == (4 * 256, 192)
    assert cpc.start.in_features == 192 and cpc.across_crops
