"""Rounds of pseudo-labels, from a self-supervised model to the results."""

import json
import os
import shutil
import signal
import types

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from killed import kill_at

from speechbrain_ssl.brains import rounds as module
from speechbrain_ssl.brains.pseudo_label_brain import PseudoLabelBrain
from speechbrain_ssl.brains.rounds import Rounds
from speechbrain_ssl.brains.stages import Stages
from speechbrain_ssl.brains.training_brain import TrainingBrain
from speechbrain_ssl.clustering.kmeans import spherical_kmeans
from speechbrain_ssl.clustering.rows import ClusteringError
from speechbrain_ssl.data.manifest import Manifest
from speechbrain_ssl.embedding.store import EmbeddingStore
from speechbrain_ssl.errors import (
    CheckpointError,
    ConfigError,
    ManifestError,
    UserError,
)
from speechbrain_ssl.objectives.margin import AAMSoftmax
from speechbrain_ssl.pseudo_labels import plda_clusters
from speechbrain_ssl.pseudo_labels.centers import set_centers
from speechbrain_ssl.pseudo_labels.labels import keep_sizes, read_labels
from speechbrain_ssl.pseudo_labels.plda_clusters import PLDAClusters
from speechbrain_ssl.report.rounds import build_rounds_report

pytestmark = pytest.mark.usefixtures("no_report")

STAGES = [(r, stage) for r in (1, 2) for stage in ("embed", "cluster", "train")]


def done(output):
    """Return the rounds and stages that are recorded."""
    records = json.loads((output / "rounds.json").read_text())
    return [(record["round"], record["stage"]) for record in records]


def record(output, number, stage):
    """Return the record of a stage."""
    records = json.loads((output / "rounds.json").read_text())
    (found,) = [
        r for r in records if (r["round"], r["stage"]) == (number, stage)
    ]
    return found


def exported(folder):
    """Return the bytes of an exported model's weights."""
    return (folder / "model" / "embedding_model.ckpt").read_bytes()


def assert_same_round(left, right, number):
    """Assert equal labels, weights and log lines."""
    left, right = (each / f"round_{number}" for each in (left, right))
    for name in ("labels.csv", "trusted.csv"):
        assert (left / name).read_bytes() == (right / name).read_bytes()
    tiny.assert_identical(left, right, tiny.LABEL_PARTS)
    for stage in ("train", "valid"):
        assert tiny.lines(left, stage) == tiny.lines(right, stage)


@pytest.fixture
def untrained(monkeypatch):
    """Skip training, so that a round ends with its initial model."""

    def fit(brain, *_):
        brain.on_fit_start()
        brain.epoch = 1
        brain.recent_weights.save(brain.averaged_modules(), 1)

    monkeypatch.setattr(PseudoLabelBrain, "fit", fit)


# -- a whole run -----------------------------------------------------------------


def test_two_rounds(two_rounds, ssl_model):
    """Check the files that a run leaves, and their contents."""
    assert done(two_rounds) == STAGES
    found = tiny.results(two_rounds)
    assert (found["rounds"], found["stopped"]) == (2, "all rounds done")
    assert found["labels_seen"] == "none"
    assert [r["stage"] for r in found["stages"]] == [s for _, s in STAGES]
    assert not [k for k in str(found["stages"]).split("'") if "monitor" in k]
    assert exported(two_rounds) == exported(two_rounds / "round_2")
    models = [ssl_model, two_rounds / "round_1", two_rounds / "round_2"]
    assert len({exported(model) for model in models}) == 3
    for number in (1, 2):
        folder = two_rounds / f"round_{number}"
        labels = pd.read_csv(folder / "labels.csv")
        trusted = pd.read_csv(folder / "trusted.csv")
        assert list(labels) == list(trusted) == ["ID", "label"]
        both = labels.merge(trusted)
        assert 0 < len(trusted) == len(both) < len(labels)
        figures = record(two_rounds, number, "cluster")
        assert figures["labelled"] == len(labels)
        assert ("agreement_nmi" in figures) == (number == 2)
        assert len(list((folder / "gate").glob("epoch_*.json"))) == 3
        # Both the gate and label correction were active.
        valid = tiny.lines(folder, "valid")
        assert valid[0]["gate_kept"] == 1.0 and "corrected" not in valid[0]
        for line in valid[1:]:
            assert 0 < line["gate_kept"] < 1 and line["corrected"] > 0


@pytest.mark.parametrize("number", [1, 2])
def test_the_labels_are_the_clusters_of_the_embeddings(
    corpus, two_rounds, number
):
    """K-means of the previous model's embeddings, with another seed."""
    manifest = Manifest.read(corpus.train_csv)
    folder = two_rounds / f"round_{number}"
    rows, places = EmbeddingStore(folder / "embeddings", manifest, 20).read()
    assert len(places) == 56
    found = spherical_kmeans(
        rows,
        7,
        iterations=30,
        seed=7 + number,
        init="k-means++",
        empty="reseed",
    )
    wanted = keep_sizes(found.assignments.numpy(), 3)
    labels, names = read_labels(folder / "labels.csv", manifest)
    assert np.array_equal(labels, wanted)
    assert names == [str(k) for k in range(wanted.max() + 1)]


def test_the_page(two_rounds, tmp_path):
    """The report is built from the files of such a run."""
    copy = tmp_path / "run"
    shutil.copytree(two_rounds, copy)
    text = build_rounds_report(copy).read_text(encoding="utf-8")
    assert "Agreement of the labels" in text and "all rounds done" in text


def test_the_log_of_the_loop(two_rounds):
    """It is one file; the logs of stages hold only training messages."""
    text = (two_rounds / "log.txt").read_text()
    for number, stage in STAGES:
        assert f"round {number}: {stage}" in text
    for number in (1, 2):
        own = (two_rounds / f"round_{number}" / "log.txt").read_text()
        assert "Going into epoch" in own and ": embed" not in own
    assert "Going into epoch" not in text


@pytest.fixture
def copied(two_rounds, tmp_path):
    """Return a copy of the two rounds that a test may change."""
    shutil.copytree(two_rounds, tmp_path / "run")
    return tmp_path / "run"


def contents(folder):
    """Return the bytes of every file with learned or measured values."""
    return {
        p.relative_to(folder): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.suffix in {".ckpt", ".pt", ".jsonl", ".csv", ".npz"}
    }


def test_started_again(corpus, rounds, ssl_model, copied, monkeypatch):
    """Nothing is run again, and nothing changes."""
    before, results = contents(copied), tiny.results(copied)
    for stage in ("embed", "cluster", "train", "fine_tune"):
        monkeypatch.setattr(Stages, stage, None)
    rounds.main(corpus.rounds_argv(copied, ssl_model))
    assert contents(copied) == before
    assert tiny.results(copied) == results


def test_a_higher_number_goes_on(
    corpus, rounds, ssl_model, two_rounds, copied, untrained
):
    """A third round follows two, which do not change."""
    rounds.main(corpus.rounds_argv(copied, ssl_model, rounds=3))
    assert done(copied) == [*STAGES, *[(3, s) for _, s in STAGES[:3]]]
    assert tiny.results(copied)["rounds"] == 3
    for number in (1, 2):
        assert_same_round(copied, two_rounds, number)


# -- interrupted -------------------------------------------------------------------


def killed(rounds, argv, owner, name, count):
    """Run in a subprocess that is killed after a given call."""
    child = os.fork()
    if child == 0:
        kill_at(owner, name, count)
        try:
            rounds.main(argv)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.slow
def test_killed_in_every_stage(corpus, rounds, ssl_model, two_rounds, tmp_path):
    """After several kills, labels and weights equal an uninterrupted run's."""
    argv = corpus.rounds_argv(tmp_path, ssl_model, ckpt_interval_steps=2)
    shards = tmp_path / "round_1" / "embeddings"
    killed(rounds, argv, EmbeddingStore, "_make_shard", 2)
    assert len(list(shards.glob("shard_*.npz"))) == 2
    assert not (tmp_path / "rounds.json").exists()
    # Killed when the labels are written, but not their record.
    killed(rounds, argv, Stages, "cluster", 1)
    assert (tmp_path / "round_1" / "labels.csv").is_file()
    assert done(tmp_path) == STAGES[:1]
    # Killed in the middle of the second epoch, when the gate is active.
    killed(rounds, argv, TrainingBrain, "on_fit_batch_end", 8)
    assert done(tmp_path) == STAGES[:2]
    steps = [line["step"] for line in tiny.lines(tmp_path / "round_1")]
    assert steps == list(range(1, 9))
    # Killed after training and export, before the record.
    killed(rounds, argv, Stages, "train", 1)
    assert (tmp_path / "round_1" / "trusted.csv").is_file()
    assert done(tmp_path) == STAGES[:2]
    # Killed before the first checkpoint of the second round.
    killed(rounds, argv, TrainingBrain, "on_fit_batch_end", 1)
    assert done(tmp_path) == STAGES[:5]
    rounds.main(argv)
    assert done(tmp_path) == STAGES
    for number in (1, 2):
        assert_same_round(tmp_path, two_rounds, number)
    assert exported(tmp_path) == exported(two_rounds)


@pytest.mark.slow
def test_killed_in_the_last_of_two_final_stages(
    corpus, rounds, ssl_model, tmp_path
):
    """The kill comes in the middle of fine-tuning, after a checkpoint."""
    options = {
        "rounds": 1,
        "final_stage": f"[{FINAL}, {FINAL.replace('0.3', '0.4')}]",
        "gate": 30.0,
        "ckpt_interval_steps": 2,
    }
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    rounds.main(corpus.rounds_argv(whole, ssl_model, **options))
    folders = ["round_1", "fine_tuning_1", "fine_tuning_1_2"]
    steps = [len(tiny.lines(whole / folder)) for folder in folders]
    assert steps[2] > 3
    argv = corpus.rounds_argv(broken, ssl_model, **options)
    killed(rounds, argv, TrainingBrain, "on_fit_batch_end", sum(steps[:2]) + 3)
    tuned = (1, "fine_tune")
    assert done(broken) == [*STAGES[:3], tuned]
    rounds.main(argv)
    assert done(broken) == [*STAGES[:3], tuned, tuned]
    for folder in folders:
        tiny.assert_identical(broken / folder, whole / folder, tiny.LABEL_PARTS)
    assert exported(broken) == exported(whole / folders[2])
    assert exported(broken) != exported(whole / folders[1])
    # The second begins with the model and the classes of the first.
    assert tiny.results(whole)["model_from"] == folders[2]
    words = (whole / folders[2] / "hyperparams.yaml").read_text().split()
    before = str(whole / folders[1])
    assert words[words.index("initial_model:") + 1] == before


@pytest.mark.slow
def test_one_stage_at_a_time(corpus, rounds, ssl_model, two_rounds, tmp_path):
    """``--stop_after`` each stage, then none, equals a single command."""
    for count, (_, stage) in enumerate(STAGES, 1):
        rounds.main(corpus.rounds_argv(tmp_path, ssl_model, stop_after=stage))
        assert done(tmp_path) == STAGES[:count]
        assert not (tmp_path / "results.json").exists()
    rounds.main(corpus.rounds_argv(tmp_path, ssl_model))
    for number in (1, 2):
        assert_same_round(tmp_path, two_rounds, number)
    assert exported(tmp_path) == exported(two_rounds)


def forget(folder, count):
    """Delete the last records and the files of the last training."""
    path = folder / "rounds.json"
    path.write_text(json.dumps(json.loads(path.read_text())[:-count]))
    for name in ("results.json", "model"):
        target = folder / name
        shutil.rmtree(target) if target.is_dir() else target.unlink()


def test_stop_by_agreement(
    corpus, rounds, ssl_model, two_rounds, copied, untrained
):
    """Labels that agree are not trained on, unless the bar is higher."""
    forget(copied, 1)
    shutil.rmtree(copied / "round_2" / "model")
    agreement = record(copied, 2, "cluster")["agreement_nmi"]
    rounds.main(corpus.rounds_argv(copied, ssl_model, stop_agreement=agreement))
    found = tiny.results(copied)
    assert found["rounds"] == 1
    assert f"NMI {agreement:.3f}" in found["stopped"]
    assert exported(copied) == exported(two_rounds / "round_1")
    assert done(copied) == STAGES[:5]
    # A second call gives the same result and runs nothing.
    rounds.main(corpus.rounds_argv(copied, ssl_model, stop_agreement=agreement))
    assert tiny.results(copied) == found
    rounds.main(
        corpus.rounds_argv(copied, ssl_model, stop_agreement=agreement + 1e-9)
    )
    assert tiny.results(copied)["rounds"] == 2
    assert done(copied) == STAGES


# -- how a round is initialised --------------------------------------------------------


@pytest.mark.parametrize("start", ["initial", "previous", "nothing"])
def test_start_from(
    corpus, rounds, ssl_model, two_rounds, tmp_path, untrained, start
):
    """Look at the model of the second round before its first step."""
    other = two_rounds / "round_2"
    original = Stages._model_before

    def before(self, number):
        # Pretend that round 1 left another model than the initial one.
        return original(self, number) if number == 1 else other

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stages, "_model_before", before)
        rounds.main(corpus.rounds_argv(tmp_path, ssl_model, start_from=start))
    found = [exported(tmp_path / f"round_{number}") for number in (1, 2)]
    first, initial = exported(other), exported(ssl_model)
    if start == "initial":
        assert found == [initial, initial]
    elif start == "previous":
        assert found == [initial, first]
    else:
        assert initial not in found and first not in found


def test_classes_begin_at_their_members(
    corpus, rounds, ssl_model, tmp_path, untrained
):
    """With ``centers_from_embeddings`` a class starts at its mean."""
    rounds.main(
        corpus.rounds_argv(
            tmp_path, ssl_model, rounds=1, centers_from_embeddings=True
        )
    )
    folder = tmp_path / "round_1"
    manifest = Manifest.read(corpus.train_csv)
    rows, _ = EmbeddingStore(folder / "embeddings", manifest, 20).read()
    labels, names = read_labels(folder / "labels.csv", manifest)
    state = torch.load(folder / "save" / "classifier.pt", weights_only=True)
    weight = state["weight"].double().numpy()
    assert len(weight) == len(names)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for label, center in enumerate(weight):
        mean = unit[labels == label].mean(0)
        cosine = center @ mean / np.linalg.norm(center) / np.linalg.norm(mean)
        assert cosine > 0.97


def test_centers_of_classes_without_members():
    """They keep random weights; sub-centres of the others differ."""
    torch.manual_seed(0)
    classifier = AAMSoftmax(8, 3, sub_centers=2)
    before = classifier.weight.detach().clone()
    rows = np.random.default_rng(0).normal(size=(5, 8))
    labels = np.array([0, -1, 2, 2, 0, 2, -1])
    set_centers(classifier, rows, np.array([0, 1, 2, 4, 6]), labels)
    after = classifier.weight.detach()
    assert torch.equal(after[2:4], before[2:4])
    assert not torch.equal(after[0], after[1])
    mean = rows[[0, 3]] / np.linalg.norm(rows[[0, 3]], axis=1)[:, None]
    mean = torch.from_numpy(mean.mean(0)).float()
    assert torch.cosine_similarity(after[0], mean, dim=0) > 0.97


# -- the final stage -------------------------------------------------------------------

FINAL = (
    "{global_seconds: 0.6, margin: 0.3, margin_epochs: 0, number_of_epochs: 1}"
)


@pytest.mark.slow
def test_the_final_stage(corpus, rounds, ssl_model, tmp_path, monkeypatch):
    """It trains on trusted labels, from model and classes of the last round.

    This also holds if the highest class has lost all its members.
    """
    original, brains = PseudoLabelBrain.trusted, []

    def trusted(self):
        kept = original(self)
        highest = int(self.labels.max())
        return kept & (self.labels != highest).numpy()

    def started(self):
        result = begin(self)
        weights = {k: v.clone() for k, v in self.modules.state_dict().items()}
        brains.append((weights, self.hparams, self.schedules["margin"]))
        return result

    begin = PseudoLabelBrain.on_fit_start
    monkeypatch.setattr(PseudoLabelBrain, "on_fit_start", started)
    monkeypatch.setattr(PseudoLabelBrain, "trusted", trusted)
    options = {"rounds": 1, "final_stage": FINAL, "gate": 30.0}
    rounds.main(corpus.rounds_argv(tmp_path, ssl_model, **options))
    assert done(tmp_path) == [*STAGES[:3], (1, "fine_tune")]
    folder = tmp_path / "fine_tuning_1"
    assert exported(tmp_path) == exported(folder)
    assert exported(folder) != exported(tmp_path / "round_1")
    first = torch.load(
        tmp_path / "round_1" / "save" / "classifier.pt", weights_only=True
    )
    weights, hparams, margin = brains[1]
    assert torch.equal(weights["classifier.weight"], first["weight"])
    labels = pd.read_csv(tmp_path / "round_1" / "labels.csv")["label"]
    kept = pd.read_csv(tmp_path / "round_1" / "trusted.csv")["label"]
    assert len(first["weight"]) == labels.max() + 1 == kept.max() + 2
    assert (hparams.number_of_epochs, margin.min()) == (1, 0.3)
    assert hparams.crops.global_seconds == 0.6
    averaged = torch.load(
        tmp_path / "round_1" / "model" / "embedding_model.ckpt",
        weights_only=True,
    )
    assert torch.equal(
        weights["encoder.fc.conv.weight"], averaged["fc.conv.weight"]
    )
    # After more rounds there is another final stage.
    options |= {"rounds": 2}
    rounds.main(corpus.rounds_argv(tmp_path, ssl_model, **options))
    assert done(tmp_path)[-1] == (2, "fine_tune")
    assert exported(tmp_path) == exported(tmp_path / "fine_tuning_2")


def test_a_gate_that_has_kept_nothing(
    corpus, rounds, ssl_model, tmp_path, untrained
):
    """There is nothing to fine-tune on; the error names the empty file."""
    with pytest.raises(ManifestError, match=r"trusted\.csv gives no utteran"):
        rounds.main(
            corpus.rounds_argv(tmp_path, ssl_model, rounds=1, final_stage=FINAL)
        )


# -- given labels, and further views ---------------------------------------------


def given_argv(corpus, output, model, csv, **overrides):
    """Return a command line for given labels."""
    text = corpus.rounds_yaml.read_text()
    new = "speechbrain_ssl.pseudo_labels.given.GivenLabels"
    old = "speechbrain_ssl.clustering.methods.KMeansClusters"
    text = text.replace(old, new).replace(
        "    clusters: !ref <clusters>\nmin",
        "    path: !ref <labels_csv>\n    fraction: !ref <fraction>\n"
        "    of: !ref <of>\nmin",
    )
    text = text.replace("clusters: 7\n", "labels_csv: null\nfraction: 1.0\n")
    text = text.replace("rounds: 2\n", "rounds: 1\nof: speakers\n")
    path = corpus.rounds_yaml.with_name("given.yaml")
    path.write_text(text)
    argv = corpus.rounds_argv(output, model, labels_csv=csv, **overrides)
    return [str(path), *argv[1:]]


@pytest.mark.parametrize("model", [True, False])
def test_given_labels(corpus, rounds, ssl_model, tmp_path, untrained, model):
    """Every result says which labels were used; nothing is clustered."""
    rounds.main(
        given_argv(
            corpus,
            tmp_path,
            ssl_model if model else None,
            corpus.speakers_csv,
            fraction=0.5,
            of="utterances",
            centers_from_embeddings=True,
        )
    )
    for folder in (tmp_path, tmp_path / "round_1"):
        assert tiny.results(folder)["labels_seen"] == "50 % of the utterances"
    labels = pd.read_csv(tmp_path / "round_1" / "labels.csv")
    assert labels["label"].value_counts().tolist() == [7] * 4
    # Embeddings are made only for initial centres, if there is a model.
    assert (tmp_path / "round_1" / "embeddings").is_dir() == model


def plda_yaml(corpus, **values):
    """Write a configuration whose clusters are merged by PLDA scores."""
    options = {
        "centroids": 20,
        "cosine_threshold": 0.95,
        "plda_threshold": [0.0, 2.0],
        "least": 2,
        "most": 50,
        "lda": 2,
        "posterior": 0.6,
        "round": "!ref <round>",
        **values,
    }
    block = "labels_from: !new:speechbrain_ssl.pseudo_labels.plda_clusters."
    block += "PLDAClusters\n"
    block += "".join(f"    {key}: {value}\n" for key, value in options.items())
    text = corpus.rounds_yaml.read_text().replace("clusters: 7\n", "")
    begin = text.index("labels_from:")
    text = text[:begin] + block + text[text.index("min_cluster_size:") :]
    path = corpus.rounds_yaml.with_name("plda.yaml")
    path.write_text(text)
    return str(path)


def test_plda_clusters(corpus, rounds, ssl_model, tmp_path, untrained):
    """Each round has its threshold; doubtful utterances have no label."""
    thresholds = []

    class Watched(PLDAClusters):
        def __call__(self, *args):
            thresholds.append((self.round, self.plda_threshold))
            labels, metrics = super().__call__(*args)
            # As if their posteriors were too low.
            labels[::9] = -1
            return labels, metrics

    argv = corpus.rounds_argv(tmp_path, ssl_model, max_cluster_size=40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plda_clusters, "PLDAClusters", Watched)
        rounds.main([plda_yaml(corpus), *argv[1:]])
    assert done(tmp_path) == STAGES
    assert thresholds == [(1, [0.0, 2.0]), (2, [0.0, 2.0])]
    for number in (1, 2):
        found = record(tmp_path, number, "cluster")
        assert 1 < found["plda_clusters"] < 20
        assert -1 <= found["silhouette"] <= 1
        labels = pd.read_csv(tmp_path / f"round_{number}" / "labels.csv")
        assert len(labels) == found["labelled"] <= 49
        assert Manifest.read(corpus.train_csv).ids[9] not in set(labels["ID"])
        assert labels["label"].value_counts().between(3, 40).all()


def test_a_plda_threshold_that_leaves_one_cluster(
    corpus, rounds, ssl_model, tmp_path
):
    """The run ends before training, and says which scores there are."""
    argv = corpus.rounds_argv(tmp_path, ssl_model)
    path = plda_yaml(corpus, plda_threshold=-1e30)
    with pytest.raises(ClusteringError, match="all 20 centroids into one"):
        rounds.main([path, *argv[1:]])
    assert done(tmp_path) == STAGES[:1]
    assert not list(tmp_path.rglob("metrics.jsonl"))


def test_given_labels_are_not_iterated(corpus, rounds, ssl_model, tmp_path):
    argv = given_argv(
        corpus, tmp_path, ssl_model, corpus.speakers_csv, rounds=2
    )
    with pytest.raises(ConfigError, match="set `rounds` to 1"):
        rounds.main(argv)


def test_labels_of_absent_utterances(corpus, rounds, ssl_model, tmp_path):
    """The error names file, line and utterance, before any training."""
    path = tmp_path / "labels.csv"
    text = corpus.speakers_csv.read_text()
    path.write_text(text + "somebody-else,id10001\n")
    argv = given_argv(corpus, tmp_path / "run", ssl_model, path)
    with pytest.raises(ManifestError, match=r"labels\.csv, line 58.*somebody"):
        rounds.main(argv)
    assert not list((tmp_path / "run").rglob("metrics.jsonl"))


def test_other_models(
    corpus, rounds, ssl_model, two_rounds, tmp_path, untrained
):
    """Two equal views change nothing; different views change the labels.

    What a view has seen, the run has seen.
    """
    same, different = tmp_path / "same", tmp_path / "different"
    shutil.copytree(ssl_model, same)
    shutil.copytree(two_rounds / "round_2", different)
    path = different / "results.json"
    path.write_text(
        json.dumps(tiny.results(different) | {"labels_seen": "all"})
    )
    labels = []
    for name, other in (("a", same), ("b", different)):
        rounds.main(
            corpus.rounds_argv(
                tmp_path / name,
                ssl_model,
                other_models=f"[{other}]",
                rounds=1,
            )
        )
        folder = tmp_path / name / "round_1"
        assert (folder / "embeddings_1" / "shard_00002.npz").is_file()
        labels.append((folder / "labels.csv").read_bytes())
    alone = (two_rounds / "round_1" / "labels.csv").read_bytes()
    assert labels[0] == alone != labels[1]
    seen = [tiny.results(tmp_path / name)["labels_seen"] for name in "ab"]
    assert seen == ["none", "all"]


# -- bad input ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overrides, error, text",
    [
        ({"rounds": 0}, ConfigError, "`rounds` must be at least 1, got 0"),
        ({"stop_after": "lunch"}, ConfigError, "embed, cluster, train.*lunch"),
        ({"start_from": "scratch"}, ConfigError, "`start_from`.*'scratch'"),
        ({"model": None}, ConfigError, "`initial_model` is needed"),
        ({"model": "/no/model"}, UserError, "/no/model"),
        ({"clusters": 57}, ClusteringError, "57 clusters.* of 56 utterances"),
        ({"clusters": "[4, 99]"}, ClusteringError, "99 clusters.* of 56"),
        ({"other_models": "[/no/other]"}, UserError, "/no/other"),
        ({"max_cluster_size": 2}, ConfigError, "from 3 to 2.*`max_cluster_si"),
        ({"final_stage": "{margins: 1}"}, ConfigError, "margins.*mean `margin"),
        ({"monitor_labels": "no.csv"}, ManifestError, r"no labels at no\.csv"),
        ({"train_manifest": "no.csv"}, ManifestError, r"no manifest no\.csv"),
    ],
)
def test_refused(corpus, rounds, ssl_model, tmp_path, overrides, error, text):
    """The error names the key, before hours of embedding."""
    overrides = {"model": ssl_model, **overrides}
    argv = corpus.rounds_argv(tmp_path, **overrides)
    with pytest.raises(error, match=f"(?s){text}"):
        rounds.main(argv)
    assert not (tmp_path / "round_1").exists()
    assert not (tmp_path / "rounds.json").exists()


def test_an_encoder_of_another_shape(corpus, rounds, ssl_model, tmp_path):
    """It is noticed at the start, not after the clustering."""
    text = corpus.rounds_yaml.read_text()
    path = corpus.rounds_yaml.with_name("wide.yaml")
    path.write_text(text.replace("channels: 16", "channels: 24"))
    argv = corpus.rounds_argv(tmp_path, ssl_model)
    with pytest.raises(
        ConfigError, match=r"does not fit.*channels \(\[16, .*there, \[24, "
    ):
        rounds.main([str(path), *argv[1:]])
    assert not (tmp_path / "round_1").exists()


def test_other_settings(corpus, rounds, ssl_model, copied):
    """The error names the setting, whatever stage is finished."""
    before = contents(copied)
    for change, named in (
        ({"lr": 0.1}, r"lr \(0.003 there, 0.1 here\)"),
        ({"clusters": 8}, r"clusters \(7 there, 8 here\)"),
        ({"embed_most_seconds": 9}, "embed_most_seconds"),
        ({"final_stage": FINAL}, "final_stage"),
    ):
        with pytest.raises(CheckpointError, match=named):
            rounds.main(corpus.rounds_argv(copied, ssl_model, **change))
    assert contents(copied) == before


def test_another_model_or_manifest(
    corpus, rounds, ssl_model, two_rounds, copied
):
    """The embeddings on disk are rejected, even if all is finished."""
    other = two_rounds / "round_1"
    with pytest.raises(CheckpointError, match="embeddings of another model"):
        rounds.main(corpus.rounds_argv(copied, other))
    table = pd.read_csv(corpus.train_csv)
    fewer = copied.parent / "fewer.csv"
    table.iloc[:-1].to_csv(fewer, index=False)
    argv = corpus.rounds_argv(copied, ssl_model, train_manifest=fewer)
    with pytest.raises(CheckpointError, match="embeddings of another manifest"):
        rounds.main(argv)


@pytest.fixture
def embedded(corpus, rounds, ssl_model, two_rounds, tmp_path):
    """Return a run with its first stage finished; its rows can be replaced."""
    folder = tmp_path / "run"
    shutil.copytree(two_rounds, folder)
    forget(folder, 5)
    for path in folder.glob("round_*/*"):
        if path.name != "embeddings" or "round_2" in str(path):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert done(folder) == STAGES[:1]

    def replace(rows):
        for number, begin in enumerate(range(0, 56, 20)):
            path = folder / "round_1" / "embeddings"
            with open(path / f"shard_{number:05d}.npz", "wb") as stream:
                np.savez(
                    stream,
                    embeddings=rows[begin : begin + 20].astype(np.float32),
                    bad=np.frombuffer(b"[]", np.uint8),
                )

    return folder, replace


def test_embeddings_that_are_not_finite(corpus, rounds, ssl_model, embedded):
    """The error names the utterance."""
    folder, replace = embedded
    rows = np.random.default_rng(0).normal(size=(56, 192))
    rows[33, 5] = np.nan
    replace(rows)
    name = Manifest.read(corpus.train_csv).ids[33]
    with pytest.raises(ClusteringError, match=f"{name}.*not finite"):
        rounds.main(corpus.rounds_argv(folder, ssl_model))
    assert done(folder) == STAGES[:1]


def test_a_cluster_of_one(corpus, rounds, ssl_model, embedded):
    """It is left out and counted; the others are numbered without gaps."""
    folder, replace = embedded
    draws = np.random.default_rng(0)
    centers = draws.normal(size=(7, 192))
    which = np.concatenate([np.arange(55) % 6, [6]])
    replace(centers[which] + 0.1 * draws.normal(size=(56, 192)))
    rounds.main(corpus.rounds_argv(folder, ssl_model, stop_after="cluster"))
    figures = record(folder, 1, "cluster")
    assert (figures["clusters"], figures["singletons"]) == (7, 1)
    assert figures["labelled"] == 55
    labels = pd.read_csv(folder / "round_1" / "labels.csv")
    assert sorted(labels["label"].unique()) == list(range(6))
    assert Manifest.read(corpus.train_csv).ids[55] not in set(labels["ID"])


def test_embeddings_that_have_collapsed(corpus, rounds, ssl_model, embedded):
    """Fewer than two usable clusters give a plain error message."""
    folder, replace = embedded
    replace(np.ones((56, 192)))
    with pytest.raises(ManifestError, match="nothing to tell apart"):
        rounds.main(corpus.rounds_argv(folder, ssl_model))


def test_a_shard_that_is_gone(corpus, rounds, ssl_model, embedded):
    """The remedy in the error message works."""
    folder, _ = embedded
    (folder / "round_1" / "embeddings" / "shard_00001.npz").unlink()
    argv = corpus.rounds_argv(folder, ssl_model, stop_after="cluster")
    with pytest.raises(CheckpointError, match=r"00001\.npz.*rounds\.json"):
        rounds.main(argv)
    (folder / "rounds.json").write_text("[]")
    rounds.main(argv)
    assert done(folder) == STAGES[:2]


# -- several processes --------------------------------------------------------------------


def sgd(corpus, output, model, **overrides):
    """Return a command line with SGD; see ``test_distributed.sgd``."""
    path = corpus.rounds_yaml.with_name("rounds_sgd.yaml")
    text = corpus.rounds_yaml.read_text().replace("AdamW", "SGD")
    path.write_text(text.replace("betas: [0.9, 0.99]", "momentum: 0.9"))
    options = {"number_of_epochs": 2, "rounds": 1, "lr": 0.002, **overrides}
    return [str(path), *corpus.rounds_argv(output, model, **options)[1:]]


@pytest.mark.slow
def test_two_processes_are_one(corpus, rounds, ssl_model, two_rounds, tmp_path):
    """Labels are equal, and losses up to the order of additions."""
    options = {
        "other_models": f"[{two_rounds / 'round_2'}]",
        "batch_size": 4,
        "distributed_backend": "gloo",
        "centers_from_embeddings": True,
        "monitor_labels": corpus.speakers_csv,
    }
    argv = sgd(corpus, tmp_path / "two", ssl_model, **options)
    status, stderr = tiny.torchrun(tiny.ROUNDS, *argv)
    assert status == 0, stderr
    options |= {"batch_size": 8}
    del options["distributed_backend"]
    rounds.main(sgd(corpus, tmp_path / "one", ssl_model, **options))
    pair, alone = tmp_path / "two", tmp_path / "one"
    for name in ("labels.csv",):
        left, right = (each / "round_1" / name for each in (pair, alone))
        assert left.read_bytes() == right.read_bytes()
    ours, theirs = (record(each, 1, "cluster") for each in (pair, alone))
    assert ours.keys() == theirs.keys()
    for key in set(ours) - {"minutes", "stage"}:
        assert ours[key] == pytest.approx(theirs[key], rel=1e-4), key
    for stage in ("train", "valid"):
        left, right = (
            tiny.lines(each / "round_1", stage) for each in (pair, alone)
        )
        assert len(left) == len(right) > 1
        for mine, other in zip(left, right, strict=True):
            assert mine.keys() == other.keys()
            for key in set(mine) - {"stage", "grad_norm"}:
                assert mine[key] == pytest.approx(other[key], rel=1e-3), key
    trusted = [
        set(pd.read_csv(each / "round_1" / "trusted.csv")["ID"])
        for each in (pair, alone)
    ]
    assert len(trusted[0] ^ trusted[1]) <= 1


def test_nobody_sees_a_record_before_all_have_looked(tmp_path, monkeypatch):
    """If one process finishes a stage at once, the others do not skip it."""
    events = []
    monkeypatch.setattr(module, "ddp_barrier", lambda: events.append("wait"))
    original = module.atomic_write

    def noted(path):
        events.append("record")
        return original(path)

    monkeypatch.setattr(module, "atomic_write", noted)
    made = Stages.__new__(Rounds)
    made.folder = tmp_path
    made.hparams = {"stop_after": None}
    made.stages = types.SimpleNamespace(
        embed=lambda number: events.append("embed") or {}
    )
    assert made._do(1, "embed") is False
    assert events == ["embed", "wait", "record", "wait"]
    assert made._do(1, "embed") is False
    assert len(events) == 4
