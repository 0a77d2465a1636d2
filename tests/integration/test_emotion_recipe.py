"""Run recipes/RAVDESS/Emotion/train.py from the command line."""

import csv
import importlib.util
import json
import re
import zlib

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from speechbrain_ssl.config_base import read_plain
from speechbrain_ssl.data.augmentation import Augmentation
from speechbrain_ssl.data.manifest import Manifest
from speechbrain_ssl.embedding.extract import embed_files
from speechbrain_ssl.encoders.ecapa import FastECAPA
from speechbrain_ssl.encoders.features import LogMel
from speechbrain_ssl.errors import ConfigError, ManifestError, UserError
from speechbrain_ssl.publishing.export import export_encoder

EMOTIONS = {"angry": "05", "happy": "03", "neutral": "01", "sad": "04"}
SMALL = {
    "device": "cpu",
    "num_workers": 0,
    "channels": 16,
    "pooled_channels": 48,
    "bootstrap_replicates": 50,
    "noprogressbar": None,
}
TUNING = {
    "affine_epochs": 1,
    "epochs": 1,
    "batch_size": 8,
    "chunk_seconds": 0.4,
}


@pytest.fixture(scope="module")
def script(repository):
    path = repository / "recipes/RAVDESS/Emotion/train.py"
    spec = importlib.util.spec_from_file_location("emotion_train", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sound(path, speaker, emotion):
    """Return a hum at the speaker's pitch, as bright as the emotion."""
    number = sorted(EMOTIONS).index(emotion)
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    t = np.arange(9600) / 16000
    wave = sum(
        np.sin(2 * np.pi * k * (100 + 9 * speaker) * t) / k ** (3 - number / 2)
        for k in range(1, 20)
    )
    wave = 0.02 * wave + 0.001 * rng.normal(size=len(t))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, 16000)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """Create eight (ten) speakers of each corpus, in its own layout."""
    root = tmp_path_factory.mktemp("corpora")
    actors, labels = ["ActorID,Age,Sex"], []
    for speaker in range(1, 9):
        actors.append(f"{1000 + speaker},{20 + speaker},Male")
        for emotion, code in EMOTIONS.items():
            for take in (1, 2):
                name = f"03-01-{code}-01-01-{take:02d}-{speaker:02d}.wav"
                folder = root / f"RAVDESS/Actor_{speaker:02d}"
                sound(folder / name, speaker, emotion)
                name = f"{1000 + speaker}_{('DFA', 'IEO')[take - 1]}_"
                name += f"{emotion[:3].upper()}_XX"
                sound(root / f"CREMA/AudioWAV/{name}.wav", speaker, emotion)
                part = "Train" if speaker < 5 else "Development"
                part = "Test1" if speaker > 6 else part
                number = len(labels) + 1
                name = f"MSP-PODCAST_0001_{number:04d}.wav"
                sound(root / f"MSP/Audios/{name}", speaker, emotion)
                letter = emotion[0].upper()
                labels.append(f"{name},{letter},4,4,4,{speaker},Male,{part}")
        # Two emotions that the four classes leave out.
        for code in ("DIS", "FEA"):
            name = f"{1000 + speaker}_DFA_{code}_XX.wav"
            sound(root / f"CREMA/AudioWAV/{name}", speaker, "angry")
    (root / "CREMA/VideoDemographics.csv").write_text("\n".join(actors))
    table = root / "MSP/Labels/labels_consensus.csv"
    table.parent.mkdir()
    header = "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set"
    table.write_text("\n".join([header, *labels]) + "\n")
    codes = {"angry": "ang", "happy": "exc", "neutral": "neu", "sad": "sad"}
    for session in range(1, 6):
        folder = root / f"IEMOCAP/Session{session}"
        dialog, lines = f"Ses0{session}F_impro01", []
        for number, (emotion, code) in enumerate(codes.items()):
            for side, gender in enumerate("FM"):
                turn = f"{dialog}_{gender}{number:03d}"
                sound(
                    folder / f"sentences/wav/{dialog}/{turn}.wav",
                    2 * session + side,
                    emotion,
                )
                lines.append(f"[1.0 - 2.0]\t{turn}\t{code}\t[2, 2, 2]")
        path = folder / f"dialog/EmoEvaluation/{dialog}.txt"
        path.parent.mkdir(parents=True)
        path.write_text("\n".join(lines) + "\n")
    torch.manual_seed(1)
    encoder = FastECAPA(
        80,
        channels=[16, 16, 16, 16, 48],
        lin_neurons=8,
        attention_channels=8,
        se_channels=8,
    )
    export_encoder(root / "run1/model", encoder.eval(), LogMel())
    record = {"seed": 7, "labels_seen": "none"}
    (root / "run1/results.json").write_text(json.dumps(record))
    return root


@pytest.fixture(scope="module")
def noises(tmp_path_factory):
    """Create a folder of manifests as the preparation of VoxCeleb does."""
    folder = tmp_path_factory.mktemp("noises")
    rng = np.random.default_rng(0)
    for name in ("noise", "music", "speech", "rirs"):
        wave = rng.normal(size=8000) * np.exp(-np.arange(8000) / 500)
        soundfile.write(folder / f"{name}.wav", wave / 9, 16000)
        row = f"ID,duration,wav\n{name},0.5,{folder}/{name}.wav\n"
        (folder / f"{name}.csv").write_text(row)
    return folder


@pytest.fixture
def call(script, repository, corpora, noises, tmp_path):
    """Return ``call("RAVDESS", "probe", key=value)``, which runs main."""
    folders = {"CREMA-D": "CREMA", "MSP-Podcast": "MSP"}

    def call(recipe, name, **changes):
        keys = {
            "model": corpora / "run1",
            "data_folder": corpora / folders.get(recipe, recipe),
            "save_folder": tmp_path / f"save_{recipe}",
            "output_folder": tmp_path / f"{recipe}_{name}",
            **SMALL,
        }
        if name.startswith("finetune"):
            keys["noise_manifests"] = noises
        keys.update(changes)
        path = repository / f"recipes/{recipe}/Emotion/hparams/{name}.yaml"
        flags = [
            f"--{k}" if v is None else f"--{k}={v}"
            for k, v in keys.items()
            if v != "leave out"
        ]
        return script.main([str(path), *flags])

    return call


def test_probe_end_to_end(call, corpora, tmp_path, capsys):
    record = call("RAVDESS", "probe", folds_count=4)
    out = tmp_path / "RAVDESS_probe"
    assert record == json.loads((out / "results.json").read_text())
    assert record["utterances"] == 64 and record["speakers"] == 8
    assert record["classes"] == sorted(EMOTIONS)
    assert record["micro_f1"] > 40 > record["majority"] == 25
    low, high = record["micro_f1_ci_low"], record["micro_f1_ci_high"]
    assert low <= record["micro_f1"] <= high
    assert record["labels_seen"] == (
        "emotion, by the classifier; none by the encoder"
    )
    assert record["seed"] == 7 and record["system"].endswith("/run1")
    with open(out / "predictions.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    right = np.mean([row["truth"] == row["predicted"] for row in rows])
    assert 100 * right == pytest.approx(record["micro_f1"])
    # Each speaker is tested in exactly one fold.
    judged = {(row["speaker"], row["fold"]) for row in rows}
    assert len(judged) == 8 and len(rows) == len({r["ID"] for r in rows}) == 64
    assert all(line["C"] > 0 for line in record["per_fold"])
    assert "What is taken for what" in (out / "report.html").read_text()
    assert (out / "confusion.svg").is_file()
    printed = capsys.readouterr().out
    assert "unweighted average recall" in printed and "over folds" in printed


def test_embeddings_are_those_of_the_model(call, corpora, tmp_path):
    call("RAVDESS", "probe", embeddings=tmp_path / "kept.npz", folds_count=4)
    kept = np.load(tmp_path / "kept.npz")["embeddings"]
    save = tmp_path / "save_RAVDESS/utterances.csv"
    manifest = Manifest.read(save, corpora / "RAVDESS")
    torch.manual_seed(1)
    encoder = FastECAPA(
        80,
        channels=[16, 16, 16, 16, 48],
        lin_neurons=8,
        attention_channels=8,
        se_channels=8,
    )
    expected = embed_files(
        encoder.eval(),
        LogMel(),
        [manifest.path(i) for i in range(64)],
        progress=False,
    )
    np.testing.assert_allclose(kept, expected, atol=1e-5)


@pytest.mark.parametrize("model", ["statistics", "untrained"])
def test_baselines(call, model):
    record = call("RAVDESS", "probe", model=model, folds_count=2)
    assert record["system"] == model and record["micro_f1"] > 40


@pytest.mark.slow
def test_fine_tuning_end_to_end(call, tmp_path):
    record = call("RAVDESS", "finetune", folds_count=2, **TUNING)
    assert record["method"] == "FineTuning"
    assert "by classifier and encoder" in record["labels_seen"]
    assert record["utterances"] == 64
    again = call("RAVDESS", "finetune", folds_count=2, **TUNING)
    assert again["confusion"] == record["confusion"]


@pytest.mark.parametrize(
    "recipe, suffix, folds, utterances",
    [
        pytest.param(
            *("CREMA-D", "_four", {"folds_count": 4}, 64),
            marks=pytest.mark.slow,
        ),
        pytest.param("IEMOCAP", "", {}, 40, marks=pytest.mark.slow),
        ("MSP-Podcast", "", {"classes": "[angry, happy, neutral, sad]"}, 16),
    ],
)
def test_other_corpora(call, recipe, suffix, folds, utterances):
    record = call(recipe, f"probe{suffix}", **folds)
    assert record["utterances"] == utterances
    assert set(record["classes"]) == set(EMOTIONS)
    assert record["micro_f1"] > 35
    if recipe == "IEMOCAP":
        names = [line["fold"] for line in record["per_fold"]]
        assert names == [f"Session{n}" for n in range(1, 6)]
    if recipe == "MSP-Podcast":
        assert record["per_fold"][0]["speakers"] == ["7", "8"]
    tuned = call(recipe, f"finetune{suffix}", **folds, **TUNING)
    assert tuned["utterances"] == utterances


def test_six_emotions_of_crema_d_are_another_result(
    call, tmp_path, monkeypatch
):
    """Neither number of classes overwrites the results of the other."""
    monkeypatch.chdir(tmp_path)
    keys = {"output_folder": "null", "folds_count": 2, "inner_folds": 2}
    four = call("CREMA-D", "probe_four", **keys)
    six = call("CREMA-D", "probe", **keys)
    assert set(six["classes"]) == {*four["classes"], "disgust", "fearful"}
    assert (four["utterances"], six["utterances"]) == (64, 80)
    found = (tmp_path / "results").glob("*/emotion/**/results.json")
    folders = {path.relative_to(tmp_path).parts[1] for path in found}
    assert folders == {"probe", "probe_four"}


@pytest.mark.parametrize("recipe", ["CREMA-D", "IEMOCAP", "MSP-Podcast"])
def test_fine_tuning_is_augmented_like_training_without_labels(
    recipe, repository
):
    tuned = repository / f"recipes/{recipe}/Emotion/hparams/finetune.yaml"
    trained = repository / "recipes/VoxCeleb/SSL/hparams/dino_cho_resnet34.yaml"
    tuned, trained = read_plain(tuned), read_plain(trained)
    for key in (
        *("clean", "reverb", "noise", "both"),
        *("noise_snr", "music_snr", "speech_snr"),
    ):
        assert tuned[key] == trained[key], key
    block = trained["augmentation_block"]
    assert tuned["speech_voices"] == block["speech_voices"]
    assert block["kinds"] == "equal"  # the default of the block


@pytest.mark.slow
def test_augmentation_and_how_to_do_without(call, monkeypatch, tmp_path):
    noisy = []
    forward = Augmentation.forward

    def noted(self, crops, *args):
        waves = forward(self, crops, *args)
        noisy.append(not torch.equal(waves, crops))
        return waves

    monkeypatch.setattr(Augmentation, "forward", noted)
    keys = {"folds_count": 2, **TUNING}
    call("CREMA-D", "finetune", **keys)
    assert noisy and all(noisy)
    noisy.clear()
    # The default is the folder of another recipe, which is not here.
    monkeypatch.chdir(tmp_path)
    there = {**keys, "noise_manifests": "leave out"}
    there["output_folder"] = tmp_path / "other"
    message = "no manifest ../../VoxCeleb/save/.*`--noise_manifests`.*without"
    with pytest.raises(ConfigError, match=message):
        call("CREMA-D", "finetune", **there)
    off = {"clean": 1, "reverb": 0, "noise": 0, "both": 0}
    call("CREMA-D", "finetune", **there, **off)
    assert noisy and not any(noisy)
    noisy.clear()
    # RAVDESS needs no other corpus.
    there["output_folder"] = tmp_path / "ravdess"
    call("RAVDESS", "finetune", **there)
    assert noisy and not any(noisy)


def test_any_column_of_a_csv(call, corpora, tmp_path):
    """Probe the speaker's group, a label that the recipe does not know."""
    rows = []
    for path in sorted((corpora / "RAVDESS").rglob("*.wav")):
        actor = int(path.stem[-2:])
        rows.append(
            {
                "ID": path.stem,
                "duration": 0.6,
                "wav": str(path),
                "who": f"a{actor}",
                "years": 10 * actor,
            }
        )
    pd.DataFrame(rows).to_csv(tmp_path / "mine.csv", index=False)
    keys = {
        "manifest": tmp_path / "mine.csv",
        "speaker_column": "who",
        "save_folder": "leave out",
        "label": "years",
        "bins": "[45]",
        "folds_count": 2,
        "inner_folds": 2,
    }
    record = call("RAVDESS", "probe_column", **keys)
    assert record["classes"] == ["below 45", "45 or more"]
    assert record["label"] == "years" and record["speakers"] == 8
    with pytest.raises(ManifestError, match="no column `city`; there are ID"):
        call("RAVDESS", "probe_column", **{**keys, "label": "city"})
    # Every speaker is a group of its own, so that nothing can be learned.
    one = {**keys, "bins": "[15, 25, 35]"}
    with pytest.raises(ConfigError, match="no training utterance of the class"):
        call("RAVDESS", "probe_column", **one)


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"model": "/not/there"}, ConfigError, "`statistics` or `untrained`"),
        ({"folds_count": 9}, ConfigError, "ask for 2 to 8"),
        ({"classes": "[angry, glad]"}, ConfigError, "the emotion glad"),
        ({"strengths": "[0]"}, ConfigError, "above 0"),
        ({"bootstrap_replicates": -1}, ConfigError, "whole number from 0"),
        ({"manifest": "no.csv"}, ManifestError, "no manifest no.csv"),
        ({"data_folder": "/not/there"}, UserError, "no folder /not/there"),
        ({"lable": "x"}, ConfigError, "did you mean `label`"),
    ],
)
def test_errors(call, changes, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call("RAVDESS", "probe", **changes)


def test_several_processes_are_refused(call, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="without torchrun"):
        call("RAVDESS", "probe")


@pytest.mark.slow
def test_real_ravdess_through_its_manifest(call, shared_data, tmp_path):
    record = call(
        "RAVDESS",
        "probe",
        model="statistics",
        data_folder=shared_data / "ravdess",
        manifest=shared_data / "ravdess/manifest.csv",
        prepare="null",
        folds_count=4,
        strengths="[0.01]",
    )
    assert record["speakers"] == 24 and record["utterances"] == 1440
    assert record["micro_f1"] == pytest.approx(39, abs=5)
