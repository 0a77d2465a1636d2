"""The batch norm behind the embedding: its equation, state and fold."""

import copy

import pytest
import torch
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

from speechbrain_ssl import distributed
from speechbrain_ssl.encoders.ecapa import FastECAPA
from speechbrain_ssl.encoders.resnet import FastResNet34, ResNet34
from speechbrain_ssl.objectives.teacher import MomentumTeacher
from speechbrain_ssl.publishing.stock import fold_embedding_norm
from speechbrain_ssl.sync_batch_norm import (
    SyncBatchNorm,
    synchronise_batch_norms,
)

ENCODERS = {
    "ecapa": (
        FastECAPA,
        {"input_size": 20, "channels": [16] * 4 + [48], "lin_neurons": 12},
    ),
    "resnet": (ResNet34, {"input_size": 20, "lin_neurons": 12, "channels": 4}),
    "fast": (
        FastResNet34,
        {"input_size": 20, "lin_neurons": 12, "channels": 8},
    ),
}
ENCODER = pytest.mark.parametrize("name", ENCODERS)


def make(name, seed=0):
    """The encoder with the norm, and the same without."""
    torch.manual_seed(seed)
    kind, config = ENCODERS[name]
    plain = kind(**config)
    normed = kind(**config, embedding_batch_norm=True)
    missing = normed.load_state_dict(plain.state_dict(), strict=False)
    assert missing.unexpected_keys == []
    assert all(k.startswith("embedding_norm.") for k in missing.missing_keys)
    norm = normed.embedding_norm
    torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
    torch.nn.init.normal_(norm.bias)
    torch.nn.init.normal_(norm.running_mean)
    torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    return normed, plain


@torch.no_grad()
@ENCODER
def test_is_the_equation(name):
    """(x - mean) / sqrt(var + 1e-5), scaled and shifted, for each value."""
    normed, plain = make(name)
    norm, x = normed.embedding_norm, torch.randn(6, 40, 20)
    before = norm.running_mean.clone(), norm.running_var.clone()
    scale, shift = norm.weight, norm.bias
    raw = plain.train()(x)[:, 0]
    mean, variance = raw.mean(0), raw.var(0, correction=0)
    wanted = (raw - mean) / (variance + 1e-5).sqrt() * scale + shift
    found = normed.train()(x)
    assert found.shape == (6, 1, 12)
    torch.testing.assert_close(found[:, 0], wanted, rtol=1e-3, atol=1e-4)
    # The running statistics follow by a tenth, with the unbiased variance.
    for running, old, new in zip(
        (norm.running_mean, norm.running_var),
        before,
        (mean, raw.var(0)),
        strict=True,
    ):
        torch.testing.assert_close(running, 0.9 * old + 0.1 * new)
    raw = plain.eval()(x)[:, 0]
    wanted = (raw - norm.running_mean) / (norm.running_var + 1e-5).sqrt()
    wanted = wanted * scale + shift
    torch.testing.assert_close(
        normed.eval()(x)[:, 0], wanted, rtol=1e-4, atol=1e-5
    )


def test_frames_come_with_the_same_embedding():
    normed, _ = make("ecapa")
    x = torch.randn(3, 40, 20)
    embeddings, _ = normed.eval().with_frames(x)
    assert torch.equal(embeddings, normed(x))


@ENCODER
def test_without_it_nothing_changes(name):
    """Neither the state, nor the arguments; stock models have none."""
    normed, plain = make(name)
    assert plain.embedding_norm is None
    assert "embedding_batch_norm" not in plain.arguments
    assert normed.arguments == {**plain.arguments, "embedding_batch_norm": True}
    again = type(normed)(**normed.arguments)
    again.load_state_dict(normed.state_dict())
    assert copy.deepcopy(normed).arguments == normed.arguments
    stock = ECAPA_TDNN(**ENCODERS["ecapa"][1])
    assert FastECAPA.from_stock(stock).embedding_norm is None


@ENCODER
def test_last_affine_has_it(name):
    """Where the last layer alone is trained, its norm is, too."""
    normed, plain = make(name)
    last = {id(p) for p in plain.last_affine().parameters()}
    assert last == {id(p) for p in plain.fc.parameters()}
    last = [id(p) for p in normed.last_affine().parameters()]
    parts = (*normed.fc.parameters(), *normed.embedding_norm.parameters())
    assert last == [id(p) for p in parts]


@ENCODER
def test_two_rows_are_needed(name):
    normed, plain = make(name)
    assert normed.needs_two_rows
    assert plain.needs_two_rows == (name == "ecapa")
    with pytest.raises(ValueError, match="more than 1 value"):
        normed.train()(torch.randn(1, 40, 20))


def test_teacher_moves_it_as_its_other_norms():
    """Scale and shift by the average, running statistics by its own input."""
    normed, _ = make("ecapa")
    teacher = MomentumTeacher(normed, torch.nn.Identity())
    norm, mine = teacher.encoder.embedding_norm, normed.embedding_norm
    buffer, scale = norm.running_mean.clone(), norm.weight.clone()
    with torch.no_grad():
        mine.weight.add_(1.0)
        mine.running_mean.add_(1.0)
    teacher.update(normed, torch.nn.Identity(), momentum=0.9)
    torch.testing.assert_close(norm.weight, scale + 0.1)
    assert torch.equal(norm.running_mean, buffer)
    with torch.no_grad():
        teacher.train().encoder(torch.randn(5, 40, 20))
    assert not torch.equal(norm.running_mean, buffer)


@ENCODER
def test_it_is_synchronised_as_the_other_norms(name, monkeypatch):
    normed, _ = make(name)
    monkeypatch.setattr(distributed, "is_distributed", lambda: True)
    state = copy.deepcopy(normed.state_dict())
    other = synchronise_batch_norms(normed)
    assert isinstance(other.embedding_norm, SyncBatchNorm)
    assert other.embedding_norm.affine
    for key, value in other.state_dict().items():
        assert torch.equal(value, state[key])


@torch.no_grad()
@ENCODER
def test_fold_is_exact(name):
    """To the rounding of fp32."""
    normed, _ = make(name)
    normed.eval()
    x = torch.randn(4, 60, 20) * 5
    folded = fold_embedding_norm(normed)
    assert folded.embedding_norm is None
    assert normed.embedding_norm is not None
    names = [key for key in folded.state_dict() if "embedding_norm" in key]
    assert names == [] and "embedding_batch_norm" not in folded.arguments
    wanted, found = normed(x), folded(x)
    assert (found - wanted).norm() < 5e-7 * wanted.norm()
    assert fold_embedding_norm(folded) is folded
