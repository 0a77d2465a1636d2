"""Run recipes/VoxCeleb/Verification/evaluate.py from the command line."""

import csv
import importlib.util
import json
import re
import time

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_ssl.embedding.extract import embed_files
from speechbrain_ssl.encoders.ecapa import FastECAPA
from speechbrain_ssl.encoders.features import LogMel
from speechbrain_ssl.errors import ConfigError, ManifestError, TrialError
from speechbrain_ssl.publishing.export import export_encoder
from speechbrain_ssl.verification.metrics import eer
from speechbrain_ssl.verification.protocol import load_trials, score_trials
from speechbrain_ssl.verification.scoring import cosine_scores

SPEAKERS, UTTERANCES = 6, 3


@pytest.fixture(scope="session")
def script(repository):
    path = repository / "recipes/VoxCeleb/Verification/evaluate.py"
    spec = importlib.util.spec_from_file_location("evaluate_script", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def one_list(repository):
    folder = repository / "recipes/VoxCeleb/Verification/hparams"
    return str(folder / "cosine_one_list.yaml")


def make_encoder(seed):
    torch.manual_seed(seed)
    return FastECAPA(
        input_size=80,
        channels=[16, 16, 16, 16, 48],
        lin_neurons=8,
        attention_channels=8,
        se_channels=8,
    ).eval()


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Create wavs, a trial list, a training manifest and two models."""
    root = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    names, rows = [], ["ID,duration,wav"]
    for speaker in range(SPEAKERS + 1):
        for utterance in range(UTTERANCES):
            seconds = 0.6 + 0.1 * rng.integers(4)
            time_axis = np.arange(round(seconds * 16000)) / 16000
            wave = sum(
                np.sin(2 * np.pi * k * (100 + 23 * speaker) * time_axis) / k
                for k in range(1, 9)
            )
            wave = 0.05 * wave + 0.03 * rng.normal(size=len(time_axis))
            name = f"s{speaker}/u{utterance}.wav"
            path = root / "audio" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, wave, 16000)
            if speaker < SPEAKERS:
                names.append(name)
            else:  # the last speaker is for training
                rows.append(f"{name[:-4]},{seconds:.2f},$data_root/{name}")
    lines = [
        f"{int(a.split('/')[0] == b.split('/')[0])} {a} {b}\n"
        for i, a in enumerate(names)
        for b in names[i + 1 :]
    ]
    (root / "all.txt").write_text("".join(lines))
    (root / "half.txt").write_text("".join(lines[::2]))
    (root / "train.csv").write_text("\n".join(rows) + "\n")
    for seed in (1, 2):
        export_encoder(root / f"run{seed}/model", make_encoder(seed), LogMel())
    record = {"seed": 7, "labels_seen": "none"}
    (root / "run1/results.json").write_text(json.dumps(record))
    return root


@pytest.fixture
def call(script, one_list, corpus, tmp_path):
    """Return a function that calls ``main`` with overridable defaults."""

    def call(**changes):
        keys = {
            "model": corpus / "run1",
            "trials": corpus / "all.txt",
            "trials_folder": corpus / "audio",
            "output_folder": tmp_path / "out",
            "bootstrap_replicates": 20,
            "device": "cpu",
        }
        keys.update(changes)
        return script.main([one_list, *(f"--{k}={v}" for k, v in keys.items())])

    return call


@pytest.fixture
def embedded(script, monkeypatch):
    """Record how many files each call really embeds."""
    from speechbrain_ssl.embedding import cache

    counts = []

    def counting(encoder, features, paths, *args, **kwargs):
        counts.append(len(paths))
        return embed_files(encoder, features, paths, *args, **kwargs)

    monkeypatch.setattr(cache, "embed_files", counting)
    return counts


def direct(corpus, seed=1, name="all", **options):
    trials = load_trials(corpus / f"{name}.txt", corpus / "audio", 0)
    scores, embeddings = score_trials(
        make_encoder(seed),
        LogMel(),
        trials,
        corpus / "audio",
        progress=False,
        **options,
    )
    return trials, scores, embeddings


def test_long_files_are_embedded_in_windows(call, corpus, tmp_path):
    """With the bound in the configuration, whatever was embedded before."""
    call()
    call(embed_most_seconds=0.5)
    _, whole, _ = direct(corpus)
    _, wanted, _ = direct(corpus, most_seconds=0.5)
    lines = (tmp_path / "out/scores_all_cosine.txt").read_text().splitlines()
    scores = [float(line.split()[-1]) for line in lines]
    assert scores == pytest.approx(wanted, abs=1e-5)
    assert np.abs(whole - wanted).max() > 1e-3
    with pytest.raises(ConfigError, match="embed_most_seconds"):
        call(embed_most_seconds=0)


def test_end_to_end(call, corpus, tmp_path, capsys):
    record = call()
    trials, scores, _ = direct(corpus)
    expected = 100 * eer(scores, trials.labels)[0]
    assert record["eer"] == pytest.approx(expected, abs=1e-9)
    assert record["ci_low"] <= record["eer"] <= record["ci_high"]
    assert record["labels_seen"] == "none" and record["seed"] == 7
    assert record["system"].endswith("/run1")
    assert record["headline"] == "all, cosine"
    out = tmp_path / "out"
    assert record == json.loads((out / "results.json").read_text())
    with open(out / "table.csv", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert ",".join(row) == (
        "system,seed,trials,eer_percent,ci_low,ci_high,labels_seen,minutes,"
        "command,min_dcf_0.01,min_dcf_0.05"
    )
    assert row["trials"] == "all" and row["labels_seen"] == "none"
    assert float(row["eer_percent"]) == pytest.approx(expected, abs=1e-4)
    # The trial line, then its score.
    written = (out / "scores_all_cosine.txt").read_text().splitlines()
    wanted = (corpus / "all.txt").read_text().splitlines()
    assert [line.rpartition(" ")[0] for line in written] == wanted
    found = [float(line.rpartition(" ")[2]) for line in written]
    np.testing.assert_allclose(found, scores, atol=2e-6)
    printed = capsys.readouterr().out
    assert f"{expected:.2f} [" in printed and "minDCF 0.05" in printed
    page = (out / "report.html").read_text()
    assert "EER" in page and "Embeddings</h2>" in page
    names = {name for line in wanted for name in line.split()[1:]}
    assert f"{len(names)} embeddings, {SPEAKERS} speakers" in page
    assert (out / "hyperparams.yaml").is_file()
    heard = (out / "hardest_pairs.html").read_text()
    assert '<a href="hardest_pairs.html">' in page
    # Its worst error is on it, with its files.
    wrong = np.where(trials.labels, -np.inf, scores).argmax()
    sides = trials.names[trials.left[wrong]], trials.names[trials.right[wrong]]
    card = heard[heard.index('<div class="card">') :].split("</div>")[0]
    assert f"score {scores[wrong]:.3f}" in card
    assert all(f"▶ {name}<" in card for name in sides)


def test_no_pairs_are_asked_for(call, tmp_path):
    call(hardest_pairs=0)
    assert not (tmp_path / "out" / "hardest_pairs.html").exists()
    assert "worst errors" not in (tmp_path / "out/report.html").read_text()
    with pytest.raises(ConfigError, match="hardest_pairs is -1"):
        call(hardest_pairs=-1)


def test_nothing_is_left_where_the_user_stands(call, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    call()
    assert list((tmp_path / "here").iterdir()) == []


def test_second_call_embeds_nothing(call, corpus, embedded):
    first, second = call(), call()
    assert embedded == [SPEAKERS * UTTERANCES]
    assert second["eer"] == first["eer"]
    both = call(trials=[str(corpus / "all.txt"), str(corpus / "half.txt")])
    assert embedded == [SPEAKERS * UTTERANCES]
    assert [e["list"] for e in both["evaluations"]] == ["all", "half"]
    # Only the additional files of the same model are embedded.
    call(mean_manifest=corpus / "train.csv", data_folder=corpus / "audio")
    assert embedded == [SPEAKERS * UTTERANCES, UTTERANCES]


def test_another_model_never_gets_kept_embeddings(call, corpus, embedded):
    """The same holds if the weights in the same folder have changed."""
    call()
    record = call(model=corpus / "run2")
    trials, scores, _ = direct(corpus, seed=2)
    expected = 100 * eer(scores, trials.labels)[0]
    assert record["eer"] == pytest.approx(expected, abs=1e-9)
    call(model="statistics")
    call(model="untrained", channels=16, pooled_channels=48)
    call(model="untrained", channels=16, pooled_channels=48, seed=2)
    call(
        model="untrained",
        channels=16,
        pooled_channels=48,
        seed=2,
        eval_precision="bf16",
    )
    assert embedded == [SPEAKERS * UTTERANCES] * 6
    assert (
        record["labels_seen"] == "unknown"
    )  # There is no results.json beside it.


def test_changed_audio_is_embedded_again(call, corpus, embedded):
    call()
    path = corpus / "audio/s0/u0.wav"
    before = path.read_bytes()
    try:
        wave, rate = soundfile.read(path)
        soundfile.write(path, wave[: len(wave) // 2], rate)
        call()
    finally:
        path.write_bytes(before)
    assert embedded[1:] == [1]


def test_broken_cache_is_made_anew(call, embedded, tmp_path):
    first = call()
    cache = tmp_path / "out/embeddings.npz"
    cache.write_bytes(cache.read_bytes()[:300])
    assert call()["eer"] == first["eer"]
    assert len(embedded) == 2


def test_mean_of_training_utterances_is_subtracted(call, corpus, tmp_path):
    record = call(
        mean_manifest=corpus / "train.csv",
        mean_utterances=2,
        data_folder=corpus / "audio",
    )
    plain, centered = record["evaluations"]
    assert plain["scoring"] == "cosine"
    assert centered["scoring"] == "mean_subtracted"
    trials, _, embeddings = direct(corpus)
    from speechbrain_ssl.data.manifest import Manifest

    manifest = Manifest.read(corpus / "train.csv", corpus / "audio")
    chosen = np.argsort(manifest.keys)[:2]
    mean = embed_files(
        make_encoder(1),
        LogMel(),
        [manifest.path(i) for i in chosen],
        progress=False,
    ).mean(0)
    scores = cosine_scores(embeddings, trials, mean=mean)
    expected = 100 * eer(scores, trials.labels)[0]
    assert centered["eer_percent"] == pytest.approx(expected, abs=1e-9)
    lines = (tmp_path / "out/scores_all_mean_subtracted.txt").read_text()
    found = [float(line.split()[3]) for line in lines.splitlines()]
    np.testing.assert_allclose(found, scores, atol=1e-4)
    assert record["eer_all_mean_subtracted"] == centered["eer_percent"]
    rows = (tmp_path / "out/table.csv").read_text()
    assert "run1, mean subtracted" in rows


def test_manifest_says_where_the_files_are(call, corpus, tmp_path):
    rows = ["ID,duration,wav"]
    for speaker in range(SPEAKERS):
        for u in range(UTTERANCES):
            name = f"s{speaker}/u{u}"
            seconds = soundfile.info(corpus / f"audio/{name}.wav").duration
            rows.append(f"{name},{seconds},$data_root/{name}.wav")
    manifest = tmp_path / "vox1.csv"
    manifest.write_text("\n".join(rows) + "\n")
    keys = {
        "trials_manifest": manifest,
        "trials_folder": "null",
        "data_folder": corpus / "audio",
    }
    assert call(**keys)["eer"] == call()["eer"]
    manifest.write_text("\n".join(rows[:-1]) + "\n")
    with pytest.raises(TrialError, match=r"all.txt, line \d+: 's5/u2.wav' is"):
        call(**keys)


def test_statistics_and_untrained_are_reproducible(call, tmp_path):
    for model in ("statistics", "untrained"):
        found = [
            call(model=model, output_folder=tmp_path / str(i))["eer"]
            for i in range(2)
        ]
        assert found[0] == found[1]


def test_many_trials_take_seconds(call, corpus, tmp_path):
    names = (corpus / "all.txt").read_text().split()
    names = sorted({name for name in names if name.endswith(".wav")})
    rng = np.random.default_rng(0)
    left, right = rng.integers(len(names), size=(2, 600_000))
    with open(tmp_path / "many.txt", "w") as stream:
        for a, b in zip(left.tolist(), right.tolist(), strict=True):
            same = int(a // UTTERANCES == b // UTTERANCES)
            stream.write(f"{same} {names[a]} {names[b]}\n")
    start = time.perf_counter()
    record = call(trials=tmp_path / "many.txt")
    spent = time.perf_counter() - start
    assert record["evaluations"][0]["trials"] == 600_000
    assert spent < 20  # It took 5 s where it was measured.


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"trials": "null"}, ConfigError, "no trial list to evaluate"),
        ({"trials": "[]"}, ConfigError, "no trial list to evaluate"),
        ({"trials": "/not/there.txt"}, TrialError, "no trial list /not/there"),
        ({"model": "/not/there"}, ConfigError, "is not a model"),
        ({"model": "results/not/there"}, ConfigError, "is not a model"),
        ({"model": "statistic"}, ConfigError, "`statistics` or `untrained`"),
        ({"bootstrap_replicates": -1}, ConfigError, "bootstrap_replicates"),
        ({"trials_folder": "null"}, ConfigError, "either trials_folder"),
        ({"model_": "x"}, ConfigError, "did you mean `model`"),
        ({"mean_manifest": "no.csv"}, ManifestError, "no manifest no.csv"),
        (
            {"trials_speaker_component": 1},
            TrialError,
            "correct trials_speaker_component",
        ),
    ],
)
def test_errors(call, embedded, changes, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call(**changes)
    assert embedded == []


def test_model_folder_of_another_kind(call, tmp_path):
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd/hyperparams.yaml").write_text("sample_rate: 16000\n")
    (tmp_path / "odd/embedding_model.ckpt").write_bytes(b"")
    with pytest.raises(ConfigError, match="holds no ECAPA-TDNN"):
        call(model=tmp_path / "odd")


def test_precision_in_the_configuration(script, one_list, corpus, tmp_path):
    """The configuration sets the precision; a wrong one is an error."""
    config = tmp_path / "a/b/config.yaml"
    config.parent.mkdir(parents=True)
    with open(one_list) as stream:
        text = stream.read()
    for block in ("encoders", "features"):
        text = text.replace(
            f"../../../../hparams/{block}",
            str(corpus / "nothing" / block),
        )
    text = re.sub(r"\n(encoder|features)(_block)?:.*(\n    .*)*", "", text)
    text = text.replace("eval_precision: fp32", "eval_precision: fp8")
    text += "encoder: null\nfeatures: null\n"
    text = re.sub(r"\n(pooled_)?channels: .*", "", text)
    config.write_text(text)
    with pytest.raises(ConfigError, match="`eval_precision` is 'fp8'"):
        script.main(
            [str(config), "--model=x", "--trials=x", "--trials_folder=y"]
        )


def test_model_is_to_be_filled_in(script, one_list):
    with pytest.raises(ConfigError, match="--model="):
        script.main([one_list, "--trials=x", "--trials_folder=y"])


def test_all_lists_are_checked_before_any_embedding(
    call, corpus, embedded, tmp_path
):
    bad = tmp_path / "bad.txt"
    bad.write_text("1 s0/u0.wav s0/u1.wav\n0 s0/u0.wav s9/none.wav\n")
    with pytest.raises(TrialError, match=r"bad.txt, line 2.*s9/none.wav"):
        call(trials=[str(corpus / "all.txt"), str(bad)])
    assert embedded == []


def test_mean_never_comes_from_the_trials(call, corpus, tmp_path):
    manifest = tmp_path / "mean.csv"
    manifest.write_text("ID,duration,wav\nx,1.0,$data_root/s0/u0.wav\n")
    with pytest.raises(ConfigError, match="1 of its 1 utterances are in"):
        call(mean_manifest=manifest, data_folder=corpus / "audio")


def test_same_names_of_lists(call, corpus, tmp_path):
    (tmp_path / "all.txt").write_text((corpus / "all.txt").read_text())
    with pytest.raises(ConfigError, match="same file name"):
        call(trials=[str(corpus / "all.txt"), str(tmp_path / "all.txt")])


def test_voxceleb_configuration(script, repository, corpus, tmp_path):
    """Use the prepared names, leave out a list; the audio is our own."""
    save = tmp_path / "save"
    save.mkdir()
    for name in "OEH":
        text = (corpus / "all.txt").read_text()
        (save / f"trials_vox1_{name}_cleaned.txt").write_text(text)
    rows = ["ID,duration,wav"]
    for speaker in range(SPEAKERS):
        for u in range(UTTERANCES):
            name = f"s{speaker}/u{u}"
            seconds = soundfile.info(corpus / f"audio/{name}.wav").duration
            rows.append(f"{name},{seconds},$data_root/{name}.wav")
    (save / "vox1.csv").write_text("\n".join(rows) + "\n")
    (save / "train.csv").write_text((corpus / "train.csv").read_text())
    folder = repository / "recipes/VoxCeleb/Verification/hparams"
    record = script.main(
        [
            str(folder / "cosine.yaml"),
            "--model=statistics",
            f"--data_folder={corpus / 'audio'}",
            f"--save_folder={save}",
            "--trials={vox1_H: null}",
            f"--output_folder={tmp_path / 'out'}",
            "--num_workers=0",
            "--channels=16",
            "--pooled_channels=48",
            "--bootstrap_replicates=0",
            "--device=cpu",
        ]
    )
    found = [(e["list"], e["scoring"]) for e in record["evaluations"]]
    assert found == [
        (name, scoring)
        for name in ("vox1_O", "vox1_E")
        for scoring in ("cosine", "mean_subtracted")
    ]
    assert record["ci_low"] is None


@pytest.mark.slow
def test_statistics_on_real_speech(call, shared_data):
    folder = shared_data / "speechocean762"
    record = call(
        model="statistics",
        trials=folder / "dev_trials_H.txt",
        trials_folder=folder,
        trials_speaker_component=1,
        bootstrap_replicates=100,
    )
    assert record["eer"] == pytest.approx(15.4, abs=0.5)
    assert record["ci_low"] < record["eer"] < record["ci_high"]
