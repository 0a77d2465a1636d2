"""Mistakes that a user can make, and how ``train.py`` reports them."""

import csv
import json
import os
import re
import shutil
import types

import numpy as np
import pandas as pd
import pytest
import soundfile
import tiny

from speechbrain_ssl.data.crops import CropPlan
from speechbrain_ssl.errors import (
    AudioError,
    ConfigError,
    ManifestError,
    TrialError,
    UserError,
)

pytestmark = pytest.mark.usefixtures("no_report")


@pytest.mark.slow
def test_one_line_and_no_traceback(corpus, tmp_path):
    """On the command line an error is one line with a remedy, and status 1."""
    status, stderr = tiny.shell(
        corpus.command(tmp_path, train_manifest="absent.csv")
    )
    assert status == 1
    assert "Traceback" not in stderr
    last = stderr.strip().splitlines()[-1]
    assert last.startswith("Error: there is no manifest absent.csv")
    assert "prepare script" in last


@pytest.mark.parametrize(
    "overrides, error, text",
    [
        ({"train_manifest": "no.csv"}, ManifestError, "no manifest no.csv"),
        ({"bach_size": 4}, ConfigError, "did you mean `batch_size`"),
        (
            {"train_manifest": None},
            ConfigError,
            "train_manifest.*needs a value",
        ),
        ({"output_folder": None}, ConfigError, "--output_folder="),
        ({"valid_seconds": 9}, ManifestError, "lower `valid_seconds`"),
        ({"noise_csv": "no.csv"}, ConfigError, "no manifest no.csv.*noise_csv"),
        ({"noise_csv": "null"}, ConfigError, "noise.*p?robabilities"),
        ({"p_noise": 0.7}, ConfigError, "add up to 1"),
        ({"clip_per_tensor": -1}, ConfigError, r"clip_per_tensor.*\.inf"),
        ({"device": "cuda:99"}, ConfigError, r"cuda:99.*GPU"),
    ],
)
def test_refused(corpus, train, tmp_path, overrides, error, text):
    """Each message names the key or file at fault, before the first step."""
    output = tmp_path / "run"
    argv = corpus.argv(output, **overrides)
    for key, value in overrides.items():
        if value is None:
            argv = [a for a in argv if not a.startswith(f"--{key}=")]
    with pytest.raises(error, match=f"(?s){text}"):
        train.main(argv)
    path = output / "metrics.jsonl"
    # No line but that of the validation before the first step.
    lines = path.read_text().splitlines() if path.exists() else []
    assert [json.loads(line)["stage"] for line in lines] in ([], ["start"])


def rewritten(corpus, tmp_path, change):
    """Change the text of the configuration; return a command line for it."""
    path = tmp_path / "recipe" / "hparams" / "changed.yaml"
    path.parent.mkdir(parents=True)
    before = corpus.yaml.read_text()
    path.write_text(change(before))
    assert path.read_text() != before
    return [str(path), *corpus.argv(tmp_path / "run")[1:]]


def test_misspelt_key_in_the_file(corpus, train, tmp_path):
    """A misspelt key is an error; it is not silently ignored."""
    argv = rewritten(
        corpus, tmp_path, lambda text: text + "freeze_last_layer_epoch: 2\n"
    )
    with pytest.raises(ConfigError, match="freeze_last_layer_epochs"):
        train.main(argv)


@pytest.mark.parametrize("name", ["momentum", "cosine_weight"])
def test_schedules_missing_a_name(corpus, train, tmp_path, name):
    """The error lists the schedules that are needed and those given."""

    def change(text):
        pattern = rf"\n    {name}: !new.*?(?=\n    \w+: !new|\nepoch_)"
        return re.sub(pattern, "", text, flags=re.S)

    argv = rewritten(corpus, tmp_path, change)
    with pytest.raises(ConfigError, match=f"schedules.*{name}.*DINO; got"):
        train.main(argv)


def test_output_folder_that_cannot_be(corpus, train, tmp_path):
    """A file exists where the output folder should be."""
    (tmp_path / "file").write_text("")
    with pytest.raises((UserError, OSError), match="file") as caught:
        train.main(corpus.argv(tmp_path / "file" / "run"))
    assert isinstance(caught.value, UserError)


def broken(corpus, tmp_path, count):
    """Return a manifest in which ``count`` training files hold NaN."""
    table = pd.read_csv(corpus.train_csv)
    held_out = corpus.held_out()
    paths = [p for p in table["wav"] if p not in held_out][::-1][:count]
    for number, path in enumerate(paths):
        wave, rate = soundfile.read(path)
        wave[len(wave) // 2 :: 3] = np.nan
        new = tmp_path / f"nan{number}.wav"
        soundfile.write(new, wave, rate, subtype="FLOAT")
        table.loc[table["wav"] == path, "wav"] = str(new)
    table.to_csv(tmp_path / "broken.csv", index=False)
    return tmp_path / "broken.csv"


@pytest.mark.parametrize("workers", [0, 2])
def test_some_bad_files(corpus, train, tmp_path, workers):
    """Bad files are listed once, with the reason, and training continues."""
    output = tmp_path / "run"
    manifest = broken(corpus, tmp_path, 3)
    train.main(
        corpus.argv(output, train_manifest=manifest, num_workers=workers)
    )
    with open(output / "bad_audio.csv", newline="") as stream:
        header, *rows = list(csv.reader(stream))
    assert header == ["wav", "reason"]
    assert sorted(row[0] for row in rows) == [
        str(tmp_path / f"nan{number}.wav") for number in range(3)
    ]
    assert all("NaN" in row[1] for row in rows)
    found = tiny.lines(output)
    assert len(found) == 2 * tiny.STEPS
    assert all(line["loss"] > 0 and line["grad_norm"] > 0 for line in found)


def test_most_files_bad(corpus, train, tmp_path):
    """The run stops, and the message names the table of bad files."""
    output = tmp_path / "run"
    manifest = broken(corpus, tmp_path, 30)
    with pytest.raises(AudioError, match="bad_audio.csv.*--check=decode"):
        train.main(corpus.argv(output, train_manifest=manifest))
    rows = (output / "bad_audio.csv").read_text().splitlines()
    assert len(rows) > 10


def test_all_files_gone(corpus, train, tmp_path):
    """A corpus that was moved is an error, not an endless search."""
    table = pd.read_csv(corpus.train_csv)
    table["wav"] = table["wav"].str.replace("corpus", "moved")
    table.to_csv(tmp_path / "moved.csv", index=False)
    with pytest.raises(AudioError, match="in a row.*manifest says"):
        train.main(
            corpus.argv(tmp_path / "run", train_manifest=tmp_path / "moved.csv")
        )


@pytest.mark.parametrize(
    "line, error",
    [
        ("1 id20001/none/0.wav id20001/none/1.wav", TrialError),
        ("maybe a.wav b.wav", TrialError),
    ],
)
def test_bad_trials_are_refused_at_the_start(
    corpus, train, tmp_path, line, error
):
    """Bad trials fail before training, not after hours of it."""
    path = tmp_path / "trials.txt"
    path.write_text(corpus.trials.read_text() + line + "\n")
    output = tmp_path / "run"
    with pytest.raises(error, match=r"none/0\.wav|trials\.txt"):
        train.main(
            corpus.argv(output, trials=path, trials_folder=corpus.audio / "wav")
        )
    assert not (output / "metrics.jsonl").exists()


def test_trials_without_their_folder(corpus, train, tmp_path):
    """The message names the missing key."""
    with pytest.raises(ConfigError, match="trials_folder"):
        train.main(corpus.argv(tmp_path / "run", trials=corpus.trials))


def test_trials_that_are_absent(corpus, train, tmp_path):
    """A missing list also fails before the first step."""
    output = tmp_path / "run"
    with pytest.raises(UserError, match=r"absent\.txt"):
        train.main(
            corpus.argv(
                output,
                trials=tmp_path / "absent.txt",
                trials_folder=corpus.audio / "wav",
            )
        )
    assert not (output / "metrics.jsonl").exists()


def test_bad_validation_file_is_named(corpus, train, tmp_path):
    """Another file is held out, from the first epoch on; training continues."""
    table = pd.read_csv(corpus.train_csv)
    victim = sorted(corpus.held_out())[0]
    copy = tmp_path / "cut.wav"
    shutil.copy(victim, copy)
    os.truncate(copy, 40)
    table.loc[table["wav"] == victim, "wav"] = str(copy)
    table.to_csv(tmp_path / "cut.csv", index=False)
    output = tmp_path / "run"
    train.main(corpus.argv(output, train_manifest=tmp_path / "cut.csv"))
    assert len(tiny.lines(output)) == 2 * tiny.STEPS
    # It stays in training, whose loader replaces and lists it.
    with open(output / "bad_audio.csv", newline="") as stream:
        assert [row[0] for row in csv.reader(stream)] == ["wav", str(copy)]
    log = (output / "log.txt").read_text()
    assert re.search(r"Not used for validation: .*cut\.wav", log)


@pytest.mark.parametrize("fault", ["component", "speakers"])
def test_trials_without_an_interval_are_refused_at_the_start(
    corpus, train, tmp_path, fault
):
    """Causes: a wrong `trials_speaker_component`, or too few speakers."""
    lines = corpus.trials.read_text().splitlines(keepends=True)
    names = sorted({line.split()[1].split("/")[0] for line in lines})[:2]
    few = [
        x for x in lines if all(n.split("/")[0] in names for n in x.split()[1:])
    ]
    path = tmp_path / "trials.txt"
    path.write_text("".join(lines if fault == "component" else few))
    output = tmp_path / "run"
    with pytest.raises(TrialError):
        train.main(
            corpus.argv(
                output,
                number_of_epochs=1,
                trials=path,
                trials_folder=corpus.audio / "wav",
                trials_speaker_component=1 if fault == "component" else 0,
            )
        )
    assert not (output / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    "key", ["batch_size", "log_every", "average_last", "number_of_epochs"]
)
def test_zeros_are_refused(corpus, train, tmp_path, key):
    with pytest.raises(ConfigError, match=f"`{key}` must be at least 1"):
        train.main(corpus.argv(tmp_path, **{key: 0}))


@pytest.mark.parametrize(
    "disjoint, local_crops, sees_global, message",
    [
        (True, 2, True, "with `disjoint: True` set `global_pairs: False`"),
        (False, 0, False, "raise `local_crops`"),
        (False, 2, False, None),  # SDPN with overlapping crops
        (True, 0, True, None),  # two disjoint crops of SimCLR
    ],
)
def test_pairs_that_do_not_fit_the_crops(
    train, disjoint, local_crops, sees_global, message
):
    """Global crops on both sides of a cut, or no crops to compare at all."""
    hparams = {
        **dict.fromkeys(train.AT_LEAST_ONE, 1),
        "crops": CropPlan(2, 3.0, local_crops, disjoint=disjoint),
        "objective": types.SimpleNamespace(
            student_sees_global_crops=sees_global,
            stores_first_crop_embedding=False,
        ),
        "positives": None,
    }
    if message is None:
        train.check_values(hparams)
    else:
        with pytest.raises(ConfigError, match=message):
            train.check_values(hparams)
