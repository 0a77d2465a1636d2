"""Run evaluate.py with back-ends, and compare.py, from the command line."""

import csv
import importlib.util
import json
import re

import numpy as np
import pytest
import soundfile

from speechbrain_ssl.errors import ConfigError, ManifestError, TrialError
from speechbrain_ssl.verification.backends import NormalisedCosine, PLDABackend
from speechbrain_ssl.verification.calibration import Calibration, cllr
from speechbrain_ssl.verification.metrics import eer
from speechbrain_ssl.verification.trials import read_trials

TEST, TRAINING, UTTERANCES = 6, 10, 4


def load(repository, name):
    path = repository / f"recipes/VoxCeleb/Verification/{name}.py"
    spec = importlib.util.spec_from_file_location(f"{name}_of_backends", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Create voices: six for trials, ten for training."""
    root = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    names, rows, labels = [], ["ID,duration,wav"], ["ID,label"]
    for speaker in range(TEST + TRAINING):
        for utterance in range(UTTERANCES):
            count = round(16000 * (0.6 + 0.1 * rng.integers(4)))
            axis = np.arange(count) / 16000
            pitch = 90 + 11 * speaker
            wave = sum(
                np.sin(6.283 * k * pitch * axis) / k for k in range(1, 9)
            )
            # Sessions differ in how much noise there is.
            wave = 0.05 * wave + 0.02 * (1 + utterance) * rng.normal(size=count)
            name = f"s{speaker:02d}/u{utterance}"
            path = root / "audio" / f"{name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, wave, 16000)
            if speaker < TEST:
                names.append(f"{name}.wav")
            else:
                rows.append(f"{name},{count / 16000},$data_root/{name}.wav")
                labels.append(f"{name},{speaker}")
    lines = [
        f"{int(a[:3] == b[:3])} {a} {b}\n"
        for i, a in enumerate(names)
        for b in names[i + 1 :]
    ]
    (root / "all.txt").write_text("".join(lines))
    (root / "half.txt").write_text("".join(lines[::2]))
    (root / "train.csv").write_text("\n".join(rows) + "\n")
    (root / "labels.csv").write_text("\n".join(labels) + "\n")
    table = ["VoxCeleb1 ID\tGender\tNationality"]
    table += [f"s{i:02d}\t{'mf'[i % 2]}\tUK" for i in range(TEST)]
    (root / "meta.csv").write_text("\n".join(table) + "\n")
    return root


@pytest.fixture(scope="module")
def script(repository):
    return load(repository, "evaluate")


@pytest.fixture
def call(script, repository, corpus, tmp_path):
    """Return a function that calls ``main`` of a configuration."""

    def call(config, **changes):
        keys = {
            "model": "statistics",
            "trials": corpus / "all.txt",
            "trials_folder": corpus / "audio",
            "trials_manifest": "null",
            "data_folder": corpus / "audio",
            "output_folder": tmp_path / "out",
            "bootstrap_replicates": 20,
            "channels": 16,
            "pooled_channels": 48,
            "num_workers": 0,
            "device": "cpu",
        }
        if config != "cosine_one_list":
            keys["backend_manifest"] = corpus / "train.csv"
        keys.update(changes)
        folder = repository / "recipes/VoxCeleb/Verification/hparams"
        return script.main(
            [
                str(folder / f"{config}.yaml"),
                *(f"--{key}={value}" for key, value in keys.items()),
            ]
        )

    return call


def kept(tmp_path, names):
    """Return the embeddings that a run has saved, by name."""
    with np.load(tmp_path / "out/embeddings.npz") as found:
        files = json.loads(found["files"].tobytes().decode())
        rows = found["embeddings"]
    row = {
        "/".join(f.split(" ")[0].split("/")[-2:]): i
        for i, f in enumerate(files)
    }
    return rows[[row[name] for name in names]]


def training_names():
    return [
        f"s{s:02d}/u{u}.wav"
        for s in range(TEST, TEST + TRAINING)
        for u in range(UTTERANCES)
    ]


def by_key(corpus):
    """Return training names in the order of their keys."""
    from speechbrain_ssl.data.manifest import Manifest

    manifest = Manifest.read(corpus / "train.csv", corpus / "audio")
    return [training_names()[i] for i in np.argsort(manifest.keys)]


def written(tmp_path, scoring, name="all"):
    lines = (tmp_path / f"out/scores_{name}_{scoring}.txt").read_text()
    return np.array([float(line.split()[3]) for line in lines.splitlines()])


def test_as_norm_from_the_command_line(call, corpus, tmp_path, capsys):
    record = call("cosine_asnorm", top=15, backend_utterances=30)
    found = [e["scoring"] for e in record["evaluations"]]
    assert found == ["cosine", "as_norm"]
    assert record["labels_seen"] == "none"
    trials = read_trials(corpus / "all.txt")
    cohort = kept(tmp_path, by_key(corpus)[:30])
    backend = NormalisedCosine(top=15).fit(cohort)
    expected = backend.score(kept(tmp_path, trials.names), trials)
    np.testing.assert_allclose(
        written(tmp_path, "as_norm"), expected, atol=1e-4
    )
    rate = 100 * eer(expected, trials.labels)[0]
    assert record["eer_all_as_norm"] == pytest.approx(rate, abs=1e-6)
    assert "as norm" in capsys.readouterr().out
    # The headline is still the plain cosine.
    assert record["headline"] == "all, cosine"


def test_a_cohort_of_pseudo_speakers(call, corpus, tmp_path):
    call(
        "cosine_asnorm",
        top="null",
        centroids=True,
        backend_labels=corpus / "labels.csv",
    )
    trials = read_trials(corpus / "all.txt")
    names = training_names()
    backend = NormalisedCosine(top=None, centroids=True)
    backend.fit(kept(tmp_path, names), [int(name[1:3]) for name in names])
    expected = backend.score(kept(tmp_path, trials.names), trials)
    np.testing.assert_allclose(written(tmp_path, "s_norm"), expected, atol=1e-3)


def test_plda_from_the_command_line(call, corpus, tmp_path):
    keys = {"lda": 5, "backend_labels": corpus / "labels.csv"}
    # Clusters of four are below the eight that the configuration asks for.
    with pytest.raises(ConfigError, match="none of 10 clusters has from 8"):
        call("plda", **keys)
    record = call("plda", **keys, smallest_cluster=2)
    trials, names = read_trials(corpus / "all.txt"), training_names()
    backend = PLDABackend(lda=5).fit(
        kept(tmp_path, names), [int(name[1:3]) for name in names]
    )
    expected = backend.score(kept(tmp_path, trials.names), trials)
    np.testing.assert_allclose(
        written(tmp_path, "plda"), expected, atol=1e-4, rtol=1e-4
    )
    assert record["evaluations"][1]["scoring"] == "plda"
    # Without labels k-means makes the clusters.
    assert "eer_all_plda" in call("plda", lda=5, clusters=8, smallest_cluster=2)


def test_calibration_on_another_list(call, corpus, tmp_path, capsys):
    record = call(
        "cosine_one_list",
        trials=[str(corpus / "all.txt"), str(corpus / "half.txt")],
        calibrate_on="half",
    )
    trials, half = (read_trials(corpus / f"{n}.txt") for n in ("all", "half"))
    calibration = Calibration().fit(
        written(tmp_path, "cosine", "half"), half.labels
    )
    ratios = calibration(written(tmp_path, "cosine"))
    of_all, of_half = record["evaluations"]
    assert of_all["cllr"] == pytest.approx(
        cllr(ratios, trials.labels), abs=1e-4
    )
    assert of_all["min_cllr"] <= of_all["cllr"]
    assert of_all["act_dcf_0.05"] >= of_all["min_dcf_0.05"]
    assert "cllr" not in of_half
    known = json.loads((tmp_path / "out/calibration.json").read_text())
    assert known["trials"] == "half"
    at = known["thresholds"]["0.05"]
    # The threshold is where the ratio is the log-odds of the costs.
    assert known["scale"] * at + known["offset"] == pytest.approx(np.log(19))
    with open(tmp_path / "out/table.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert float(rows[0]["cllr"]) == pytest.approx(of_all["cllr"], abs=1e-4)
    assert rows[1]["cllr"] == ""
    assert "Cllr (min)" in capsys.readouterr().out


def test_breakdown_by_gender_and_nationality(call, corpus, tmp_path):
    call("cosine_one_list", speaker_table=corpus / "meta.csv")
    with open(tmp_path / "out/breakdown.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(r["group"], r["value"]) for r in rows] == [
        ("all", ""),
        ("same gender", ""),
        ("nationality", "UK"),
    ]
    trials = read_trials(corpus / "all.txt")
    gender = np.array([int(name[1:3]) % 2 for name in trials.names])
    same = gender[trials.left] == gender[trials.right]
    scores = written(tmp_path, "cosine")
    rate = 100 * eer(scores[same], trials.labels[same])[0]
    assert float(rows[1]["eer_percent"]) == pytest.approx(rate, abs=1e-3)
    assert int(rows[1]["nontargets"]) == (~trials.labels[same]).sum()


def test_several_crops(call, tmp_path):
    record = call("cosine_asnorm", top=15, crops=3, crop_seconds=0.4)
    scorings = [e["scoring"] for e in record["evaluations"]]
    assert scorings == ["cosine", "as_norm", "multi_crop"]
    plain, crops = (written(tmp_path, s) for s in ("cosine", "multi_crop"))
    assert np.corrcoef(plain, crops)[0, 1] > 0.8
    assert (plain != crops).all()
    assert (tmp_path / "out/embeddings_crops.npz").is_file()


def test_sitw_from_the_command_line(call, corpus, tmp_path):
    """An enrolment list, words as labels, speakers from target trials."""
    models, key = [], []
    for speaker in range(TEST):
        models.append(
            f"{speaker} s{speaker:02d}/u0.wav s{speaker:02d}/u1.wav\n"
        )
        for other in range(TEST):
            word = "tgt" if other == speaker else "imp"
            key += [f"{speaker} s{other:02d}/u{u}.wav {word}\n" for u in (2, 3)]
    (tmp_path / "enroll.lst").write_text("".join(models))
    (tmp_path / "core.lst").write_text("".join(key))
    record = call(
        "cosine_one_list",
        trials=tmp_path / "core.lst",
        trials_enrolment=tmp_path / "enroll.lst",
        trials_speaker_component="null",
    )
    (found,) = record["evaluations"]
    assert found["speakers"] == TEST and found["trials"] == 72
    tests = [f"s{s:02d}/u{u}.wav" for s in range(TEST) for u in (2, 3)]
    rows = kept(tmp_path, tests)
    enrolled = [
        kept(tmp_path, [f"s{s:02d}/u{u}.wav" for u in (0, 1)]).mean(0)
        for s in range(TEST)
    ]
    unit = [r / np.linalg.norm(r) for r in rows]
    expected = [
        float(m / np.linalg.norm(m) @ row) for m in enrolled for row in unit
    ]
    np.testing.assert_allclose(
        written(tmp_path, "cosine", "core"), expected, atol=1e-5
    )


@pytest.mark.parametrize(
    "config, changes, error, message",
    [
        (
            "cosine_asnorm",
            {"top": 300},
            ConfigError,
            "the size of the cohort, 40",
        ),
        (
            "cosine_asnorm",
            {"backend_utterances": 1, "top": "null"},
            ConfigError,
            "a cohort of 1 has no deviation",
        ),
        (
            "cosine_asnorm",
            {"backend_manifest": "null"},
            ConfigError,
            "give both, or null",
        ),
        ("plda", {"backend_utterances": 0}, ConfigError, "backend_utterances"),
        ("plda", {"backend_labels": "no.csv"}, ManifestError, "no.csv"),
        ("cosine_one_list", {"crops": -1}, ConfigError, "crops is -1"),
        (
            "cosine_one_list",
            {"crops": 3, "crop_seconds": 0.01},
            ConfigError,
            "CropGrid's seconds must be",
        ),
        ("cosine_one_list", {"calibrate_on": "E"}, ConfigError, "'E', which"),
        ("cosine_one_list", {"speaker_table": "no.csv"}, TrialError, "no.csv"),
        ("cosine_one_list", {"trials_layout": "nist"}, TrialError, "'nist'"),
        (
            "cosine_one_list",
            {"trials_enrolment": "no.lst"},
            TrialError,
            "no enrolment list no.lst",
        ),
    ],
)
def test_errors(call, tmp_path, config, changes, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call(config, **changes)
    # It fails before any embedding is computed.
    assert not (tmp_path / "out").exists()


def test_the_cohort_never_comes_from_the_trials(call, tmp_path):
    manifest = tmp_path / "cohort.csv"
    manifest.write_text(
        "ID,duration,wav\nx,1.0,$data_root/s00/u0.wav\n"
        "y,1.0,$data_root/s09/u0.wav\n"
    )
    with pytest.raises(ConfigError, match="backend_manifest: 1 of its 2"):
        call("cosine_asnorm", backend_manifest=manifest)


def test_comparing_systems(repository, call, corpus, tmp_path, capsys):
    lists = [str(corpus / "all.txt"), str(corpus / "half.txt")]
    call("cosine_asnorm", top=15, trials=lists)
    compare = load(repository, "compare")
    out = str(tmp_path / "out")
    rows = compare.main(
        [
            f"plain={out}",
            f"under_score={out}:as_norm",
            "--fuse_on=half",
            "--fuse",
            "--bootstrap_replicates=20",
            f"--output_folder={tmp_path / 'page'}",
        ]
    )
    found = {(row["list"], row["system"]): row for row in rows}
    assert list(found) == [
        ("all", "plain"),
        ("all", "under_score"),
        ("all", "mean of all"),
        ("all", "fusion, learnt on half"),
        ("half", "plain"),
        ("half", "under_score"),
        ("half", "mean of all"),
    ]
    trials = read_trials(corpus / "all.txt")
    rate = 100 * eer(written(tmp_path, "as_norm"), trials.labels)[0]
    row = found["all", "under_score"]
    assert row["eer_percent"] == pytest.approx(rate)
    assert row["difference"] == pytest.approx(
        rate - found["all", "plain"]["eer_percent"]
    )
    low, high = row["difference_low"], row["difference_high"]
    words = "better" if high < 0 else "worse" if low > 0 else "not distinguish"
    page = (tmp_path / "page/comparison.html").read_text()
    assert page.count("<svg") == 2 and f"{high:+.2f}], {words}" in page
    assert "fusion, learnt on half" in page
    with open(tmp_path / "page/comparison.csv", newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 7
    said = capsys.readouterr().out
    assert "list  system" in said and "under_score" in said
    assert f"{high:+.2f}], {words}" in said
    for arguments, message in (
        ([out, out], "two systems are called"),
        ([f"{out}:plda"], "has no scores called 'plda'"),
        ([str(tmp_path / "nothing")], "has no scores called 'cosine'"),
        ([out, "--fuse_on=E"], "the lists are all, half"),
    ):
        with pytest.raises(ConfigError, match=message):
            compare.main(arguments)


def test_comparing_training_runs(repository, tmp_path):
    """By the scores that a run leaves, with names of two components."""
    rng = np.random.default_rng(0)
    compare = load(repository, "compare")
    runs = [tmp_path / name / "1" for name in ("poor", "good")]
    for number, run in enumerate(runs):
        run.mkdir(parents=True)
        lines = [
            f"{int(a == b)} x/{a}/0.wav x/{b}/1.wav "
            f"{rng.normal() + (1 + number) * (a == b):.6f}\n"
            for a in range(12)
            for b in range(12)
        ]
        (run / "trial_scores.txt").write_text("".join(lines))
        (run / "hyperparams.yaml").write_text(
            "trials: !ref <folder>/dev.txt\ntrials_speaker_component: 1\n"
        )
    options = [
        "--bootstrap_replicates=20",
        f"--output_folder={tmp_path / 'page'}",
    ]
    rows = compare.main([*map(str, runs), *options])
    assert [row["system"] for row in rows] == ["poor/1", "good/1"]
    assert {row["list"] for row in rows} == {"dev"}
    assert rows[0]["speakers"] == 12
    (runs[1] / "trial_scores.txt").unlink()
    with pytest.raises(ConfigError, match="good/1 has no scores called"):
        compare.main([*map(str, runs), *options])
