"""Rounds with voices and faces, through the recipe's script."""

import os
import signal

import numpy as np
import pandas as pd
import pytest
import tiny
import tiny_faces
import tiny_objectives
import torch
from killed import kill_at
from sklearn.metrics import normalized_mutual_info_score
from speechbrain.inference.speaker import EncoderClassifier

from speechbrain_ssl.brains.audio_visual_brain import AudioVisualBrain
from speechbrain_ssl.brains.training_brain import TrainingBrain
from speechbrain_ssl.clustering.methods import KMeansClusters
from speechbrain_ssl.data.manifest import Manifest
from speechbrain_ssl.embedding.face_store import FaceStore
from speechbrain_ssl.embedding.store import EmbeddingStore
from speechbrain_ssl.errors import UserError
from speechbrain_ssl.positives.given_clusters import GivenClusters
from speechbrain_ssl.pseudo_labels.labels import read_labels
from speechbrain_ssl.publishing.export import load_encoder
from speechbrain_ssl.report.gate import read_epochs
from speechbrain_ssl.report.logbook import read_metrics

pytestmark = pytest.mark.usefixtures("no_report")

PARTS = (*tiny.LABEL_PARTS, "face_encoder", "face_classifier")


@pytest.fixture(scope="module")
def faces(drawn_faces):
    """Return the pictures of the tiny corpus."""
    return drawn_faces


@pytest.fixture(scope="module")
def script():
    """Return the ``train.py`` of the recipe."""
    return tiny.load_train(tiny_faces.ROUNDS)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Return an untrained model of voices."""
    return tiny_faces.export_voices(tmp_path_factory.mktemp("voices"))


@pytest.fixture(scope="module")
def two_rounds(corpus, faces, script, model, tmp_path_factory):
    """Return the folder of two uninterrupted rounds, with trials."""
    output = tmp_path_factory.mktemp("av") / "run"
    trials = {
        "trials": corpus.trials,
        "trials_folder": corpus.audio / "wav",
        "trials_faces": faces.trials_csv,
    }
    script.main(faces.argv(output, model, **trials))
    return output


def assert_same(left, right):
    """Assert equal labels and weights after the first round."""
    left, right = left / "round_1", right / "round_1"
    for name in ("labels.csv", "trusted.csv"):
        assert (left / name).read_bytes() == (right / name).read_bytes()
    tiny.assert_identical(left, right, PARTS)
    exported = "model/face/model.safetensors"
    assert (left / exported).read_bytes() == (right / exported).read_bytes()
    assert tiny.lines(left) == tiny.lines(right)


def test_two_rounds(two_rounds, model, faces):
    """Both encoders have learnt, and every utterance has a label."""
    results = tiny.results(two_rounds)
    for name in ("eer", "face_eer", "both_eer"):
        assert 0 <= results[name] <= 100
    assert results["face_trials"] < results["both_trials"]
    labelled = [
        r["labelled"] for r in results["stages"] if r["stage"] == "cluster"
    ]
    assert max(labelled) > 0.8 * len(faces.ids)
    embedded = [r["faces"] for r in results["stages"] if r["stage"] == "embed"]
    assert embedded == [sum(i % tiny_faces.LACKING > 0 for i in range(56))] * 2
    lines = tiny.lines(two_rounds / "round_2")
    assert {"face_kept", "face_label_loss"} <= lines[-1].keys()
    valid = [
        line
        for line in read_metrics(two_rounds / "round_2" / "metrics.jsonl")
        if line["stage"] == "valid"
    ]
    assert len(valid) == 2
    for line in valid:
        assert 0 <= line["face_pseudo_eer"] <= 100 and line["face_rankme"] > 1
    for folder in ("gate", "gate_face"):
        assert len(read_epochs(two_rounds / "round_1" / folder)) == 2
    before = load_encoder(faces.model, pictures=True)[0].state_dict()
    after = load_encoder(two_rounds / "model" / "face", pictures=True)[0]
    moved = {
        name
        for name, value in after.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert {"conv1.weight", "fc.weight", "bn1.running_mean"} <= moved


def test_stock_speechbrain_loads_the_voice(two_rounds):
    stock = EncoderClassifier.from_hparams(str(two_rounds / "model"))
    assert stock.encode_batch(torch.randn(1, 8000)).shape == (1, 1, 192)


def test_the_labels_are_those_of_voice_and_face(two_rounds, faces, corpus):
    """They are nearer to the drawn people than the clusters of the voices."""
    manifest = Manifest.read(corpus.train_csv)
    folder = two_rounds / "round_1"
    labels, _ = read_labels(folder / "labels.csv", manifest)
    voices, _ = EmbeddingStore(folder / "embeddings", manifest, 20).read()
    alone, _ = KMeansClusters(7)(voices, seed=8)
    here = labels >= 0
    people = np.array(corpus.speakers)[here]
    joint, alone = (
        normalized_mutual_info_score(people, found[here])
        for found in (labels, alone)
    )
    assert joint > alone


@torch.no_grad()
def expected_loss(brain, embeddings, batch):
    """Compute the loss in the reading ``both``, utterance by utterance."""
    margin = brain.scheduled("margin", brain.optimizer_step)
    limits = {m: float(gate.limit) for m, gate in brain.gate.gates.items()}
    count, total, events = len(batch.index), 0.0, []
    clean = brain._clean_logits(batch, torch.arange(count))

    def losses(m, i, target):
        aam = brain.classifiers[m]
        cosines = torch.cosine_similarity(embeddings[m][i], aam.weight, dim=-1)
        angles = cosines.clamp(-1, 1).acos()
        angles[target] += margin
        return -(aam.scale * angles.cos()).log_softmax(-1)

    for i in range(count):
        label = int(brain.labels[batch.index[i]])
        has = ["audio", "face"] if batch.faces.present[i] else ["audio"]
        mine = {m: losses(m, i, label)[label] for m in has}
        if all(mine[m] < limits[m] for m in has):
            total += sum(mine.values())
            events.append(("kept", len(has)))
        elif brain._correcting:
            p = sum(clean[m][i].softmax(-1) for m in has) / len(has)
            if p.max() > 0.3:
                target = int(p.argmax())
                total += sum(p @ losses(m, i, target) for m in has)
                events.append(("corrected", len(has)))
    return float(total) / count, events


def test_the_loss_equals_its_equation(faces, script, model, tmp_path):
    """Kept and corrected utterances, with a face and without one."""
    original, seen = AudioVisualBrain.compute_objectives, set()

    def checked(brain, embeddings, batch, stage):
        wanted, events = expected_loss(brain, embeddings, batch)
        found = original(brain, embeddings, batch, stage)
        assert float(found.detach()) == pytest.approx(wanted, rel=1e-3)
        seen.update(events)
        return found

    argv = faces.argv(tmp_path, model, rounds=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AudioVisualBrain, "compute_objectives", checked)
        script.main([*argv, "--gate=2.5"])
    assert seen >= {("kept", 1), ("kept", 2), ("corrected", 2)}


def killed(script, argv, owner, name, count):
    """Run the script in a child process that kills itself; see ``killed.py``."""
    child = os.fork()
    if child == 0:
        try:
            kill_at(owner, name, count)
            script.main(argv)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.slow
def test_killed_and_resumed(faces, script, model, two_rounds, tmp_path):
    """Killed while faces are embedded, and with the gates in force."""
    argv = faces.argv(tmp_path, model, rounds=1, ckpt_interval_steps=2)
    killed(script, argv, FaceStore, "_make_shard", 2)
    shards = tmp_path / "round_1" / "faces"
    assert len(list(shards.glob("shard_*.npz"))) == 2
    killed(script, argv, TrainingBrain, "on_fit_batch_end", 9)
    assert tiny.newest_step(tmp_path / "round_1") == 8
    script.main(argv)
    assert_same(tmp_path, two_rounds)


@pytest.mark.slow
def test_no_name_of_a_person_reaches_training(
    corpus, faces, script, model, two_rounds, tmp_path
):
    """Columns with the speaker and the person on the picture change no bit."""
    table = pd.read_csv(faces.csv)
    people = dict(zip(faces.ids, corpus.speakers, strict=True))
    for column in ("person", "spk_id", "label"):
        table[column] = [people[key] for key in table["ID"]]
    pictures = tmp_path / "faces.csv"
    table[["person", "image", "spk_id", "ID", "label"]].to_csv(
        pictures, index=False
    )
    voices = tmp_path / "train.csv"
    rows = pd.read_csv(corpus.train_csv).assign(spk_id=corpus.speakers)
    rows.to_csv(voices, index=False)
    argv = faces.argv(
        tmp_path / "run",
        model,
        rounds=1,
        face_csv=pictures,
        train_manifest=voices,
        monitor_labels=voices,
    )
    script.main(argv)
    assert_same(tmp_path / "run", two_rounds)
    (cluster,) = [
        r
        for r in tiny.results(tmp_path / "run")["stages"]
        if r["stage"] == "cluster"
    ]
    assert 0 < cluster["monitor_purity"] <= 1


@pytest.mark.slow
def test_two_processes_are_one(faces, script, model, tmp_path):
    """Labels are equal, and losses up to the order of additions."""
    text = faces.corpus.rounds_yaml.read_text().replace("AdamW", "SGD")
    base = faces.yaml.with_name("rounds_sgd_av.yaml")
    base.write_text(text.replace("betas: [0.9, 0.99]", "momentum: 0.9"))
    path = faces.yaml.with_name("audio_visual_sgd.yaml")
    path.write_text(faces.yaml.read_text().replace("rounds.yaml", base.name))

    def argv(name, **options):
        options |= {"rounds": 1, "lr": 0.002}
        options |= {"centers_from_embeddings": True, "reading": "sum"}
        return [
            str(path),
            *faces.argv(tmp_path / name, model, **options)[1:],
        ]

    status, stderr = tiny.torchrun(
        tiny_faces.ROUNDS,
        *argv("two", batch_size=4, distributed_backend="gloo"),
    )
    assert status == 0, stderr
    script.main(argv("one"))
    pair, alone = (tmp_path / name / "round_1" for name in ("two", "one"))
    left, right = (each / "labels.csv" for each in (pair, alone))
    assert left.read_bytes() == right.read_bytes()
    left, right = tiny.lines(pair), tiny.lines(alone)
    assert len(left) == len(right) == 12
    for mine, other in zip(left, right, strict=True):
        # The sum of both modalities, and that of the voice. Figures of faces
        # are means over each process's own.
        for key in ("loss", "label_loss"):
            assert mine[key] == pytest.approx(other[key], rel=1e-3), key


@pytest.mark.slow
def test_the_final_stage(faces, script, model, tmp_path, monkeypatch):
    """It begins with both encoders and both classifiers of the last round."""
    begin, begun = AudioVisualBrain.on_fit_start, []

    def started(brain):
        begin(brain)
        state = brain.modules.state_dict().items()
        begun.append({name: value.clone() for name, value in state})

    monkeypatch.setattr(AudioVisualBrain, "on_fit_start", started)
    final = "{margin: 0.3, margin_epochs: 0, number_of_epochs: 1}"
    options = {"rounds": 1, "gate": 30.0, "final_stage": final}
    script.main(faces.argv(tmp_path, model, **options))
    before, after = tmp_path / "round_1", tmp_path / "fine_tuning_1"
    assert tiny.results(tmp_path)["model_from"] == "fine_tuning_1"
    for part, pictures in (("", False), ("face", True)):
        folder = before / "model" / part
        encoder, _ = load_encoder(folder, pictures=pictures)
        name = "face_encoder" if pictures else "encoder"
        for key, value in encoder.state_dict().items():
            assert torch.equal(begun[1][f"{name}.{key}"], value), key
        weights = "model.safetensors"
        exported = (after / "model" / part / weights).read_bytes()
        assert exported != (folder / weights).read_bytes()
        assert exported == (tmp_path / "model" / part / weights).read_bytes()
    for name in ("classifier", "face_classifier"):
        saved = torch.load(before / "save" / f"{name}.pt", weights_only=True)
        assert torch.equal(begun[1][f"{name}.weight"], saved["weight"]), name
        assert not torch.equal(begun[0][f"{name}.weight"], saved["weight"])


# -- bad input -------------------------------------------------------------------


def no_face_at_all(faces, path):
    """A manifest without a single row."""
    pd.DataFrame(columns=["ID", "image"]).to_csv(path, index=False)


def of_others(faces, path):
    """A manifest whose IDs are of another corpus."""
    table = pd.read_csv(faces.csv)
    table["ID"] = "other_" + table["ID"]
    table.to_csv(path, index=False)


def one_for_all(faces, path):
    """Copies of one picture for every utterance."""
    table = pd.read_csv(faces.csv).drop_duplicates("ID")
    table["image"] = table["image"].iloc[0]
    table.to_csv(path, index=False)


def gone(faces, path):
    """Pictures that are not where the manifest says."""
    table = pd.read_csv(faces.csv)
    table["image"] += ".moved"
    table.to_csv(path, index=False)


@pytest.mark.parametrize(
    "write, text",
    [
        (no_face_at_all, "lists no picture"),
        (of_others, "give the face manifest of this corpus"),
        (one_for_all, "one face for all"),
        (gone, "can be read"),
    ],
)
def test_bad_faces_end_before_training(
    faces, script, model, tmp_path, write, text
):
    path = tmp_path / "faces.csv"
    write(faces, path)
    argv = faces.argv(tmp_path / "run", model, face_csv=path)
    with pytest.raises(UserError, match=text):
        script.main(argv)
    assert not (tmp_path / "run" / "round_1" / "labels.csv").exists()


@pytest.mark.parametrize(
    "overrides, text",
    [
        ({"initial_face_model": "null"}, "`initial_face_model` is needed"),
        ({"initial_face_model": "VOICES"}, "encoder of recordings of voices"),
        ({"image_size": 24}, "size"),
        ({"reading": "either"}, "each"),
    ],
)
def test_bad_settings_end_at_once(
    faces, script, model, tmp_path, overrides, text
):
    overrides = {k: model if v == "VOICES" else v for k, v in overrides.items()}
    with pytest.raises(UserError, match=text):
        script.main(faces.argv(tmp_path / "run", model, **overrides))
    assert not (tmp_path / "run" / "round_1").exists()


def test_faces_of_held_out_utterances_alone_end_at_once(
    corpus, faces, script, model, tmp_path
):
    """Nothing is embedded and clustered before."""
    manifest = Manifest.read(corpus.train_csv)
    _, held_out = manifest.hold_out(4, 1.0)
    lines = faces.csv.read_text().splitlines(keepends=True)
    ids = [held_out.ids[i] for i in range(4)]
    few = tmp_path / "few.csv"
    few.write_text("".join(x for x in lines if x.split(",")[0] in ["ID", *ids]))
    argv = faces.argv(
        tmp_path / "run",
        model,
        face_csv=few,
        valid_utterances=4,
        valid_seconds=0.5,
    )
    with pytest.raises(UserError, match="all utterances with a picture are"):
        script.main(argv)
    assert not (tmp_path / "run" / "round_1").exists()


def test_pictures_of_fewer_utterances_are_no_error(
    faces, script, model, tmp_path
):
    """All others are clustered and trained on by their voices."""
    path = tmp_path / "faces.csv"
    table = pd.read_csv(faces.csv)
    some = table["ID"].unique()[:5]
    table[table["ID"].isin(some)].to_csv(path, index=False)
    argv = faces.argv(
        tmp_path / "run",
        model,
        face_csv=path,
        rounds=1,
        min_cluster_size=1,
    )
    script.main(argv)
    labels = pd.read_csv(tmp_path / "run" / "round_1" / "labels.csv")
    assert len(labels) == len(Manifest.read(faces.corpus.train_csv))
    lines = tiny.lines(tmp_path / "run" / "round_1")
    assert all(np.isfinite(line["loss"]) for line in lines)
    # In some batches there is no face, and their figures are 0.
    shown = [line["face_label_loss"] for line in lines]
    assert min(shown) == 0 < max(shown)


@pytest.mark.parametrize("calibrated", [False, True])
def test_evaluate_prints_three_rows(
    corpus, faces, two_rounds, capsys, calibrated
):
    """The rows by voice and face are those that the run has reported."""
    script = tiny.load_train(tiny_faces.ROUNDS.with_name("evaluate.py"))
    argv = [
        f"--model={two_rounds}",
        f"--faces={faces.trials_csv}",
        f"--trials={corpus.trials}",
        f"--trials_folder={corpus.audio / 'wav'}",
    ]
    if calibrated:
        argv.append(f"--calibration_trials={corpus.trials}")
    script.main(argv)
    results, printed = tiny.results(two_rounds), capsys.readouterr().out
    rows = dict(
        line.removeprefix("by ").split(": EER ")
        for line in printed.splitlines()
        if line.startswith("by ")
    )
    rates = {name: float(row.split()[0]) for name, row in rows.items()}
    assert list(rates) == ["audio", "face", "both"]
    assert rates["audio"] == pytest.approx(results["eer"], abs=0.01)
    assert rates["face"] == pytest.approx(results["face_eer"], abs=0.01)
    if not calibrated:
        assert rates["both"] == pytest.approx(results["both_eer"], abs=0.01)


def test_positives_by_faces(
    corpus, faces, train, tmp_path, monkeypatch, capsys
):
    """From the second epoch on, the other crops are of a cluster of faces."""
    script = tiny.load_train(tiny_faces.ROUNDS.with_name("cluster_faces.py"))
    clusters_csv = tmp_path / "face_clusters.csv"
    script.main(
        [
            f"--model={faces.model}",
            f"--manifest={corpus.train_csv}",
            f"--faces={faces.csv}",
            "--clusters=7",
            f"--output={clusters_csv}",
        ]
    )
    assert "44 of 56 utterances in 7 clusters" in capsys.readouterr().out
    drawn, original = [], GivenClusters.pseudo_positives

    def watched(rule, epoch, index, *rest):
        found = original(rule, epoch, index, *rest)
        drawn.append((epoch, index, found, rule.clusters))
        return found

    monkeypatch.setattr(GivenClusters, "pseudo_positives", watched)
    path = tiny_objectives.configuration(
        corpus, "simclr", "face_clusters", clusters_csv=clusters_csv
    )
    train.main(tiny_objectives.argv(corpus, path, tmp_path / "run"))
    others = 0
    for epoch, index, found, clusters in drawn:
        if epoch == 1 or clusters[index] < 0:
            assert (found == index).all()
        else:
            assert (clusters[found] == clusters[index]).all()
            others += int((found[1:] != index).all() and found[0] == index)
    assert others > 30
    results = tiny.results(tmp_path / "run")
    assert results["positives_from_epoch"] == 2
    assert results["labels_seen"] == "unknown: clusters_csv"
