"""What may be added to DINO: penalties, and another way to centre."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hyperpyyaml import load_hyperpyyaml

from speechbrain_ssl.config_base import read_plain
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.base import Branch
from speechbrain_ssl.objectives.dino import DINO
from speechbrain_ssl.objectives.dino_head import DINOHead
from speechbrain_ssl.objectives.dino_regularisers import KoLeo, RDINOPenalties

SIZE, K, WIDE, BATCH = 6, 10, 7, 5
SCHEDULED = {"teacher_temperature": 0.05, "cosine_weight": 0.0}


def make(**options):
    torch.manual_seed(0)
    sizes = {"prototypes": K, "hidden": 8, "bottleneck": 4}
    for key in ("batch_norm", "wide"):
        if key in options:
            sizes[key] = options.pop(key)
    head = DINOHead(SIZE, **sizes)
    regularisers = [
        RDINOPenalties(
            options.pop("variance_weight", 0.0),
            options.pop("covariance_weight", 0.0),
        ),
        KoLeo(options.pop("koleo_weight", 0.0)),
    ]
    dino = DINO(head, regularisers, **options)
    torch.nn.init.normal_(dino.head.prototypes)
    return dino


def branches(dino, crops=4, batch=BATCH):
    torch.manual_seed(1)
    embeddings = torch.randn(batch, crops, SIZE, requires_grad=True)
    vectors = F.normalize(torch.randn(batch, crops, 4), dim=-1)
    teacher = F.normalize(torch.randn(batch, 2, 4), dim=-1)
    return (
        Branch(embeddings, vectors.requires_grad_(), dino.head),
        Branch(torch.randn(batch, 2, SIZE), teacher, make().head),
    )


def plain_wide(dino, embeddings):
    """The wide layer of the global crops, averaged: layer by layer."""
    x = embeddings.flatten(0, 1)
    layers = list(dino.head.layers)
    for layer in layers:
        x = layer(x)
        if x.shape[1] == WIDE:
            break
    return x.unflatten(0, embeddings.shape[:2]).mean(1)


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("global_pairs", [True, False])
def test_penalties_are_added(global_pairs, batch_norm):
    options = {
        "wide": WIDE,
        "global_pairs": global_pairs,
        "batch_norm": batch_norm,
    }
    weights = {"variance": 1.5, "covariance": 0.3, "koleo": 0.1}
    plain = make(**options)
    dino = make(**options, **{f"{k}_weight": w for k, w in weights.items()})
    online, target = branches(dino)
    without, before = plain(online, target, **SCHEDULED)
    loss, scalars = dino(online, target, **SCHEDULED)
    seen = online.embeddings[:, : 2 if global_pairs else 4]
    wide = plain_wide(dino, seen)
    table = torch.cov(wide.T)
    hinge = (1 - (table.diagonal() + 1e-4).sqrt()).clamp(min=0)
    off = table - torch.diag(table.diagonal())
    koleo = 0.0
    for crop in F.normalize(seen, dim=-1).unbind(1):
        distances = torch.cdist(crop, crop) + 10 * torch.eye(BATCH)
        koleo = koleo - distances.min(1).values.log().mean()
    terms = {
        "variance": hinge.mean(),
        "covariance": off.square().sum() / WIDE,
        "koleo": koleo,
    }
    wanted = without
    for name, term in terms.items():
        assert name not in before
        torch.testing.assert_close(
            scalars[name], term.detach(), rtol=1e-4, atol=1e-5
        )
        wanted = wanted + weights[name] * term
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-5)
    loss.backward()
    first_layer = dino.head.layers[0].weight
    assert first_layer.grad.abs().max() > 0
    assert not target.head.layers[0].weight.grad


def test_no_weight_leaves_all_as_it_was():
    """Bit by bit: the same parameters, the same loss, no further scalar."""
    torch.manual_seed(0)
    plain = DINO(DINOHead(SIZE, prototypes=K, hidden=8, bottleneck=4))
    torch.nn.init.normal_(plain.head.prototypes)
    dino = make(variance_weight=0.0, covariance_weight=0.0, koleo_weight=0.0)
    assert list(plain.state_dict()) == list(dino.state_dict())
    online, target = branches(plain)
    one, scalars = plain(online, target, **SCHEDULED)
    two, others = dino(
        Branch(None, online.projections, dino.head), target, **SCHEDULED
    )
    assert torch.equal(one, two) and scalars.keys() == others.keys()


def test_wide_layer_is_part_of_the_head():
    dino = make(wide=WIDE)
    assert dino.head.wide(torch.randn(3, SIZE)).shape == (3, WIDE)
    vectors = dino.head(torch.randn(3, SIZE))
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    # RDINO's: nothing between the two linear layers at the end.
    kinds = [type(m).__name__ for m in dino.head.layers]
    hidden = ["Linear", "BatchNorm1d", "GELU"] * 2
    assert kinds == [*hidden, "Linear", "Linear"]
    sizes = [
        m.out_features
        for m in dino.head.layers
        if hasattr(m, "bias") and isinstance(m, torch.nn.Linear)
    ]
    assert sizes == [8, 8, WIDE, 4]
    x = torch.randn(5, SIZE)
    last = dino.head.layers[-1]
    by_hand = dino.head.wide(x) @ last.weight.T + last.bias
    torch.testing.assert_close(dino.head(x), F.normalize(by_hand, dim=-1))


def test_penalty_weight_is_rdinos_factor():
    """It multiplies both penalties and nothing else."""
    weights = {"variance_weight": 1.5, "covariance_weight": 0.3}
    dino = make(wide=WIDE, koleo_weight=0.1, **weights)
    assert dino.scheduled == (
        "teacher_temperature",
        "cosine_weight",
        "penalty_weight",
    )
    online, target = branches(dino)
    without, scalars = dino(online, target, **SCHEDULED, penalty_weight=0.0)
    loss, _ = dino(online, target, **SCHEDULED, penalty_weight=0.05)
    both = 1.5 * scalars["variance"] + 0.3 * scalars["covariance"]
    torch.testing.assert_close(loss, without + 0.05 * both)
    assert float(both) > 0.1
    held_out = dino.held_out(target, **SCHEDULED, penalty_weight=0.05)
    assert "teacher_entropy" in held_out
    plain = make(koleo_weight=0.1)
    assert plain.scheduled == ("teacher_temperature", "cosine_weight")


def test_rdinos_configuration_has_its_values(repository):
    """Head, and 0.05 to 0.2 in ten epochs, then constant."""
    folder = repository / "recipes/VoxCeleb/SSL/hparams"
    values = read_plain(folder / "rdino_ecapa.yaml")
    assert values["wide"] == 8192
    # 10 x half a hinge; 1 x sum / 65 536 instead of the mean over 8 192.
    assert values["variance_weight"] == 10 / 2
    assert values["covariance_weight"] == 8192 / values["prototypes"]
    keys = ("penalty_weight_start", "penalty_weight", "penalty_weight_epochs")
    given = {key: values[key] for key in keys}
    given |= {"prototypes": 4, "hidden": 4, "bottleneck": 4}
    with open(repository / "hparams/objectives/dino.yaml") as stream:
        block = load_hyperpyyaml(stream, given)
    theirs = np.concatenate(
        (np.linspace(0.05, 0.2, 10), np.linspace(0.2, 0.2, 60))
    )
    found = block["penalty_schedule"](70, 2)
    np.testing.assert_allclose(found, np.repeat(theirs, 2))


def by_the_matrix(logits):
    q = logits.double().exp()
    for _ in range(3):
        q = q / q.sum(0, keepdim=True)
        q = q / q.sum(1, keepdim=True)
    return q.float()


def test_sinkhorn_targets():
    """Balanced over both global crops of the batch, as in DINOv2."""
    dino = make(centering="sinkhorn")
    online, target = branches(dino)
    loss, scalars = dino(online, target, **SCHEDULED)
    cosines = target.head.logits(target.projections)
    targets = by_the_matrix(cosines.flatten(0, 1) / 0.05).view(BATCH, 2, K)
    logs = torch.log_softmax(dino.head.logits(online.projections) / 0.1, -1)
    losses = [
        -(targets[:, q] * logs[:, v]).sum(1).mean()
        for q in range(2)
        for v in range(4)
        if q != v
    ]
    wanted = torch.stack(losses).mean()
    torch.testing.assert_close(loss, wanted, rtol=1e-4, atol=1e-5)
    mean = (cosines / 0.05).softmax(-1).mean((0, 1))
    own = -(targets * targets.log()).sum(-1).mean()
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(scalars["teacher_entropy"], own, **close)
    torch.testing.assert_close(
        scalars["usage_entropy"], -(mean * mean.log()).sum(), **close
    )
    torch.testing.assert_close(
        scalars["kl"], loss.detach() - scalars["teacher_entropy"], **close
    )
    dino.after_step()
    assert not dino.center.any()
    # A held-out batch is not balanced.
    held = dino.held_out(target, **SCHEDULED)
    torch.testing.assert_close(
        held["usage_entropy"], scalars["usage_entropy"], **close
    )


def test_one_prototype_for_all_shows_before_the_balance():
    """Sinkhorn would hide it from the collapse alarm."""
    dino = make(centering="sinkhorn")
    online, target = branches(dino)
    target.projections = F.normalize(target.head.prototypes[0], dim=0)
    target.projections = target.projections.detach().expand(BATCH, 2, 4)
    with torch.no_grad():
        target.head.prototypes[1:] = -target.head.prototypes[0]
    _, scalars = dino(online, target, **SCHEDULED)
    assert scalars["usage_entropy"] < 0.02 * math.log(K)
    assert scalars["teacher_entropy"] > 0.99 * math.log(K)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"centering": "median"}, "one of mean, sinkhorn; got 'median'"),
        ({"variance_weight": 1.0}, "set wide"),
        ({"covariance_weight": 1.0}, "set wide"),
        ({"variance_weight": -1.0, "wide": 8}, "variance_weight .* at least 0"),
        ({"koleo_weight": float("nan")}, "koleo_weight .* at least 0"),
        ({"wide": -1}, "wide must be a whole number from 0"),
    ],
)
def test_options_that_cannot_be(options, words):
    with pytest.raises(ConfigError, match=words):
        make(**options)


def test_degenerate_batches():
    dino = make(wide=WIDE, variance_weight=1.0, koleo_weight=0.1)
    with pytest.raises(ConfigError, match="batch_size to 2"):
        dino(*branches(dino, batch=1), **SCHEDULED)
    for centering in ("mean", "sinkhorn"):
        dino = make(
            wide=WIDE,
            centering=centering,
            variance_weight=1.0,
            covariance_weight=1.0,
            koleo_weight=0.1,
        )
        online, target = branches(dino)
        with torch.no_grad():
            online.embeddings.fill_(1.0)
            online.projections.zero_()
            target.projections.zero_()
        loss, _ = dino(online, target, **SCHEDULED)
        loss.backward()
        assert torch.isfinite(loss)
        for p in (
            online.embeddings,
            online.projections,
            *dino.head.parameters(),
        ):
            assert p.grad is None or torch.isfinite(p.grad).all()
