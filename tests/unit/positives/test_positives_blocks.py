"""The YAML blocks make what they say."""

from hyperpyyaml import load_hyperpyyaml

from speechbrain_ssl.positives.cluster_aware import ClusterAware
from speechbrain_ssl.positives.given_clusters import GivenClusters
from speechbrain_ssl.positives.ssps import SSPS


def load(repository, name, overrides=None):
    path = repository / "hparams" / "positives" / name
    with open(path, encoding="utf-8") as stream:
        return load_hyperpyyaml(stream, overrides)


def test_ssps_block(repository):
    """The paper's values, and every key reaches the object."""
    ssps = load(repository, "ssps.yaml")["positives"]
    assert isinstance(ssps, SSPS)
    assert (ssps.clusters, ssps.neighbours) == (25_000, 1)
    assert ssps.queue_size == 25_000
    assert (ssps.start_epoch, ssps.reference_seconds) == (101, 4.0)
    assert ssps.iterations == 10
    other = {
        "clusters": 6000,
        "neighbours": 2,
        "queue": 512,
        "start_epoch": 7,
        "reference_seconds": 3.0,
        "iterations": 5,
        "merge_from": 9000,
    }
    ssps = load(repository, "ssps.yaml", other)["positives"]
    other["queue_size"] = other.pop("queue")
    assert {key: getattr(ssps, key) for key in other} == other
    asked = {"speaker_count": 60, "choose_clusters": True}
    other = {"monitor_labels": "a.csv", **asked}
    ssps = load(repository, "ssps.yaml", other)["positives"]
    assert {key: getattr(ssps, key) for key in other} == other


def test_cluster_aware_block(repository):
    sampling = load(repository, "cluster_aware.yaml")["positives"]
    assert isinstance(sampling, ClusterAware)
    assert sampling.counts == [7500] and sampling.rule == "all"
    other = {
        "clusters": [30, 15],
        "start_epoch": 3,
        "every": 2,
        "rule": "locals",
        "iterations": 5,
        "merge_from": 50,
        "embed_batch_seconds": 90,
    }
    sampling = load(repository, "cluster_aware.yaml", other)["positives"]
    assert sampling.counts == [30, 15]
    del other["clusters"]
    assert {key: getattr(sampling, key) for key in other} == other


def test_face_clusters_block(repository):
    given = load(
        repository,
        "face_clusters.yaml",
        {"clusters_csv": "faces.csv", "start_epoch": 3},
    )["positives"]
    assert isinstance(given, GivenClusters)
    assert (given.clusters_csv, given.start_epoch) == ("faces.csv", 3)
