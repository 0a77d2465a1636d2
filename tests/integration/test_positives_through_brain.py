"""SSPS and cluster-aware sampling in whole runs of ``train.py``."""

import collections
import math

import pytest
import tiny
import tiny_objectives
import torch
from tiny import torchrun
from tiny_objectives import CASES, STEPS

from speechbrain_ssl.data.dataset import CropDataset
from speechbrain_ssl.data.manifest import Manifest
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.positives import ssps
from speechbrain_ssl.positives.cluster_aware import ClusterAware

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_report")]

WITHOUT_SECOND_BRANCH = ("cpc", "deepcluster")


# -- SSPS ------------------------------------------------------------------------


@pytest.fixture
def replacements(monkeypatch):
    """Record the arguments and results of ``put_vectors``."""
    seen = []
    original = ssps.put_vectors

    def put_vectors(target, queue, pseudo_positives):
        after = original(target, queue, pseudo_positives)
        seen.append((target, pseudo_positives, queue.vectors.clone(), after))
        return after

    monkeypatch.setattr(ssps, "put_vectors", put_vectors)
    return seen


@pytest.mark.parametrize(
    "name", [name for name in CASES if name not in WITHOUT_SECOND_BRANCH]
)
def test_ssps_replaces_vectors(corpus, train, tmp_path, replacements, name):
    """From its first epoch on, vectors of other utterances are used."""
    path = tiny_objectives.configuration(corpus, name, "ssps")
    train.main(tiny_objectives.argv(corpus, path, tmp_path))
    lines = tiny.lines(tmp_path)
    assert len(lines) == 2 * STEPS
    assert not any("coverage" in line for line in lines[:STEPS])
    assert all(0 < line["coverage"] <= 1 for line in lines[STEPS:])
    assert all(line["loss"] == line["loss"] for line in lines)
    assert len(replacements) == STEPS
    for target, pseudo_positives, queue, after in replacements:
        found = pseudo_positives.slots >= 0
        assert found.any()
        assert (pseudo_positives.utterances[found] != target.index[found]).all()
        there = queue[pseudo_positives.slots[found]].to(after.projections.dtype)
        assert torch.equal(after.projections[found], there)
        assert (
            (after.projections[found] != target.projections[found])
            .any(-1)
            .all()
        )
        assert torch.equal(
            after.projections[~found], target.projections[~found]
        )
        assert not there.requires_grad


@pytest.mark.parametrize(
    "name, positives, changes, message",
    [
        *[
            (name, "ssps", {}, "target branch.*positives: null")
            for name in WITHOUT_SECOND_BRANCH
        ],
        (
            "simclr",
            "ssps",
            {"queue": 15},
            "batch of 16.*raise `positive_queue`",
        ),
        (
            "moco",
            None,
            {"queue": 15},
            "15 does not hold.*16 or more utterances.*`moco_queue` larger",
        ),
        ("simclr", "ssps", {"neighbours": 4}, "4 neighbours.*lower"),
        ("simclr", "ssps", {"clusters": 49}, "49 clusters.*48.*lower"),
        ("simclr", "ssps", {"start_epoch": 1}, "initial_checkpoint"),
        ("simclr", "cluster_aware", {"clusters": 49}, "49.*48.*lower"),
        ("simclr", "cluster_aware", {"start_epoch": 1}, "initial_checkpoint"),
        ("deepcluster", "cluster_aware", {}, "first crop.*`rule` to locals"),
    ],
)
def test_refused_at_the_start(
    corpus, train, tmp_path, name, positives, changes, message
):
    """The error comes before the first step, and names a remedy."""
    path = tiny_objectives.configuration(corpus, name, positives, **changes)
    with pytest.raises(ConfigError, match=message):
        train.main(tiny_objectives.argv(corpus, path, tmp_path / "run"))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_references_are_cut_once_they_are_needed(
    corpus, train, tmp_path, monkeypatch
):
    """They are cut from the epoch on that fills memory and queue."""
    seen = set()
    original = CropDataset.collate

    def collate(data, samples):
        batch = original(data, samples)
        seen.add((batch.epoch, batch.reference is not None))
        return batch

    monkeypatch.setattr(CropDataset, "collate", collate)
    path = tiny_objectives.configuration(
        corpus, "simclr", "ssps", start_epoch=3
    )
    train.main(tiny_objectives.argv(corpus, path, tmp_path, number_of_epochs=3))
    assert seen == {(1, False), (2, True), (3, True)}


# -- cluster-aware sampling --------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_crops_come_from_the_cluster(
    corpus, train, tmp_path, monkeypatch, name
):
    """In the second epoch every utterance that is read is of the cluster."""
    rule = "locals" if name == "deepcluster" else "all"
    drawn, read, clusters = collections.defaultdict(list), set(), []
    pseudo_positives, recluster = (
        ClusterAware.pseudo_positives,
        ClusterAware.recluster,
    )

    def watched(sampling, epoch, index, *rest, **options):
        found = pseudo_positives(sampling, epoch, index, *rest, **options)
        drawn[epoch].append((index, found))
        return found

    def noted(sampling, epoch, embeddings):
        recluster(sampling, epoch, embeddings)
        clusters.append((epoch, sampling.assignments.clone()))

    monkeypatch.setattr(ClusterAware, "pseudo_positives", watched)
    monkeypatch.setattr(ClusterAware, "recluster", noted)
    original = Manifest.path

    def path_of(manifest, index):
        read.add(index)
        return original(manifest, index)

    path = tiny_objectives.configuration(
        corpus, name, "cluster_aware", rule=rule
    )
    monkeypatch.setattr(Manifest, "path", path_of)
    train.main(tiny_objectives.argv(corpus, path, tmp_path))
    crops = 2 if CASES[name].crops == "global" else 4
    assert all((found == i).all() for i, found in drawn[1])
    ((epoch, assignments),) = clusters
    assert epoch == 2 and len(assignments.unique()) == 8
    assert len(drawn[2]) == 48
    others = 0
    for index, found in drawn[2]:
        assert len(found) == crops
        assert (assignments[found] == assignments[index]).all()
        assert rule == "all" or (found[:2] == index).all()
        others += int((found != index).sum())
        assert set(found.tolist()) <= read
    assert others > 48
    lines = tiny.lines(tmp_path)
    assert len(lines) == 2 * STEPS
    assert all(math.isfinite(line["loss"]) for line in lines)


# -- two processes -----------------------------------------------------------------


@pytest.mark.parametrize(
    "name, positives", [("moco", "ssps"), ("simclr", "cluster_aware")]
)
def test_two_processes_are_one(corpus, train, tmp_path, name, positives):
    """Scalars, clusters and pseudo_positives agree, up to the order of additions."""
    path = tiny_objectives.configuration(corpus, name, positives)
    # Adam's first steps depend on signs: see test_distributed.py.
    text = path.read_text().replace("AdamW", "SGD")
    path.write_text(text.replace("betas: [0.9, 0.99]", "momentum: 0.9"))
    options = {"lr": 0.0001}
    one, two = tmp_path / "one", tmp_path / "two"
    train.main(tiny_objectives.argv(corpus, path, one, **options))
    options |= {"batch_size": 8, "distributed_backend": "gloo"}
    status, stderr = torchrun(
        tiny.TRAIN, *tiny_objectives.argv(corpus, path, two, **options)
    )
    assert status == 0, stderr
    ours, theirs = tiny.lines(two), tiny.lines(one)
    assert len(ours) == len(theirs) == 2 * STEPS
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.keys() == other.keys()
        for key in set(mine) - {"stage", "grad_norm", "accuracy"}:
            assert mine[key] == pytest.approx(other[key], rel=2e-3), key
        if positives == "ssps":
            assert mine.get("coverage") == other.get("coverage")
    parts = (*CASES[name].parts, "positives")
    left, right = (tiny.final_tensors(each, parts) for each in (two, one))
    assert left.keys() == right.keys()
    whole = [key for key in left if not left[key].is_floating_point()]
    # Clusters, positions in queues, their utterances, counters.
    assert any(key.startswith("positives") for key in whole)
    for key in whole:
        assert torch.equal(left[key], right[key]), key
    # Six steps from random weights amplify rounding differences.
    for key in set(left) - set(whole):
        if not key.startswith("optimizer"):
            a, b = left[key].double(), right[key].double()
            error = (a - b).norm() / b.norm().clamp(min=1e-2)
            assert error < 5e-2, (key, float(error))
