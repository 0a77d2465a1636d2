"""No label reaches training, judged by results and by what the code reads."""

import ast
import re

import numpy as np
import pandas as pd
import pytest
import tiny
import tiny_objectives
from tiny_objectives import CASES, STEPS

from speechbrain_ssl.data.manifest import write_manifest
from speechbrain_ssl.errors import ManifestError

pytestmark = pytest.mark.usefixtures("no_report")

#: Files that may refer to speakers, and why.
EXEMPT = {
    "brains/evaluation.py": "scores a trial list for the reader; that it changes "
    "no weight is tested below",
    "brains/finish.py": "scores a trial list for the reader, after training; "
    "that it changes no weight is tested below",
    "brains/positives.py": "reads `monitor_labels` for the monitor of SSPS, which "
    "changes no weight, as is tested below",
    "objectives/margin.py": "classifies pseudo labels, the numbers of clusters; "
    "the name is the field's",
    "brains/pseudo_label_brain.py": "trains on classes that a clustering, or a "
    "configuration that says so in its results, has made; of people's labels "
    "it has `truth`, which gets into the log alone, as is tested below",
    "brains/audio_visual_brain.py": "as pseudo_label_brain.py; that no name of "
    "a person changes a weight is tested in test_audio_visual.py",
    "brains/audio_visual_rounds.py": "hands the numbers of clusters on, as "
    "stages.py",
    "brains/stages.py": "hands the numbers of clusters from stage to stage; "
    "reads `monitor_labels` for figures of that name, and that these change no "
    "label and no weight is tested below",
    "positives/ssps.py": "names the file and the columns that its monitor looks "
    "at, which changes no weight, as is tested below",
    "brains/emotion_brain.py": "trains on emotions, which is what it is for, "
    "and on no speaker; no self-supervised training uses it",
    "minivox/corpus.py": "makes MiniVox, and writes minivox_meta.csv, which "
    "nothing in training opens",
}

#: Names of columns with labels.
LABEL = re.compile(r"^(spk|spk_id|spkid|speaker|speakers|speaker_id|label)s?$")


def labelled(corpus, tmp_path, kind):
    """Return the training manifest with a speaker column of some kind."""
    table = pd.read_csv(corpus.train_csv)
    speakers = table["ID"].str.split("-").str[0]
    assert speakers.nunique() == 4
    if kind == "present":
        table["spk_id"] = speakers
    elif kind == "shuffled":
        table["spk_id"] = np.random.default_rng(0).permutation(speakers)
        # The position of a column does not matter, either.
        table = table[["spk_id", "wav", "ID", "duration"]]
    elif kind == "garbage":
        texts = ['a, "b"', "\x01", "", "NaN", "žluťoučký", "-1e999"]
        table["spk_id"] = np.resize(texts, len(table))
        table["speaker"] = range(len(table))
    path = tmp_path / "labelled.csv"
    table.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("kind", ["present", "shuffled", "garbage"])
def test_a_speaker_column_changes_nothing(
    corpus, train, reference, tmp_path, kind
):
    """With labels, shuffled labels or garbage the weights are the same bits."""
    manifest = labelled(corpus, tmp_path, kind)
    train.main(corpus.argv(tmp_path / "run", train_manifest=manifest))
    tiny.assert_identical(tmp_path / "run", reference)
    assert tiny.lines(tmp_path / "run") == tiny.lines(reference)


@pytest.mark.parametrize("part", [1, 2])
def test_trials_change_nothing(corpus, train, reference, tmp_path, part):
    """Evaluating all or half of the trials after each epoch changes no bit."""
    lines = corpus.trials.read_text().splitlines(keepends=True)
    assert {line[0] for line in lines} == {"0", "1"}
    path = tmp_path / "trials.txt"
    path.write_text("".join(lines[::part]))
    output = tmp_path / "run"
    train.main(
        corpus.argv(output, trials=path, trials_folder=corpus.audio / "wav")
    )
    tiny.assert_identical(output, reference)
    for stage in ("train", "valid"):
        assert tiny.lines(output, stage) == tiny.lines(reference, stage)
    # They were looked at.
    assert 0 < tiny.results(output)["eer"] < 100
    assert "eer" not in tiny.results(reference)
    assert tiny.results(output)["labels_seen"] == "none"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["present", "shuffled", "few"])
def test_monitored_speakers_change_nothing(
    corpus, rounds, ssl_model, two_rounds, tmp_path, kind
):
    """In rounds of pseudo-labels, labels and weights are equal bit for bit."""
    speakers, path = corpus.speakers, tmp_path / "speakers.csv"
    if kind == "shuffled":
        speakers = np.random.default_rng(0).permutation(speakers)
    corpus.write_speakers(path, speakers)
    if kind == "few":
        pd.read_csv(path).iloc[5:9].to_csv(path, index=False)
    output = tmp_path / "run"
    rounds.main(
        corpus.rounds_argv(output, ssl_model, rounds=1, monitor_labels=path)
    )
    left, right = output / "round_1", two_rounds / "round_1"
    for name in ("labels.csv", "trusted.csv"):
        assert (left / name).read_bytes() == (right / name).read_bytes()
    tiny.assert_identical(left, right, tiny.LABEL_PARTS)
    assert tiny.lines(left) == tiny.lines(right)
    # They were used, and everything that does not need them is the same.
    (clustered,) = [
        r for r in tiny.results(output)["stages"] if r["stage"] == "cluster"
    ]
    assert 0 < clustered["monitor_purity"] <= 1
    for mine, other in zip(
        tiny.lines(left, "valid"), tiny.lines(right, "valid"), strict=True
    ):
        assert other.items() <= mine.items()
        assert "gate_precision" in mine and "gate_precision" not in other
    assert tiny.results(output)["labels_seen"] == "none"


@pytest.mark.slow
def test_monitored_positives_change_nothing(corpus, train, tmp_path):
    """Monitoring SSPS with speaker labels changes no bit."""
    path = tiny_objectives.configuration(corpus, "simclr", "ssps")
    corpus.write_speakers(tmp_path / "speakers.csv", corpus.speakers)
    plain, watched = tmp_path / "plain", tmp_path / "watched"
    train.main(tiny_objectives.argv(corpus, path, plain))
    train.main(
        tiny_objectives.argv(
            corpus,
            path,
            watched,
            sampling=f"{{monitor_labels: {tmp_path / 'speakers.csv'}}}",
        )
    )
    parts = (*CASES["simclr"].parts, "positives")
    tiny.assert_identical(watched, plain, parts)
    pairs = zip(tiny.lines(watched), tiny.lines(plain), strict=True)
    seen = [(mine, other) for mine, other in pairs if "coverage" in other]
    assert len(seen) == STEPS
    for mine, other in seen:
        assert other.items() <= mine.items()
        # They were looked at.
        assert 0 <= mine["same_spk_id"] <= mine["known_spk_id"]
        assert mine["known_spk_id"] == mine["coverage"]
    assert sum(mine["same_spk_id"] for mine, _ in seen) > 0
    assert tiny.results(watched)["labels_seen"] == "none"


def strings(tree):
    """Return all string constants of a module except its docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and isinstance(node.body[0], ast.Expr)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in documentation
    ]


def names_of_labels(source):
    """Return strings, attributes and arguments that name a column of labels."""
    tree = ast.parse(source)
    found = strings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            found.append(node.attr)
        elif isinstance(node, (ast.arg, ast.keyword)):
            found.append(node.arg or "")
    return sorted({name for name in found if LABEL.match(name)})


def test_the_audit_finds_what_it_looks_for():
    """The audit finds code that reads labels in several disguises."""
    for code in (
        'table["speaker"]',
        "table.spk_id",
        "read(path, speaker=1)",
        'COLUMNS = ("ID", "spk")',
        "def f(labels): pass",
    ):
        assert names_of_labels(code), code
    assert not names_of_labels('"""The speaker."""\nx = "loudspeaker"')


@pytest.mark.parametrize(
    "part",
    [
        "data",
        "prepare",
        "minivox",
        "objectives",
        "brains",
        "encoders",
        "positives",
    ],
)
def test_no_module_of_training_names_a_label(repository, part):
    """No module names one as a column, an attribute or an argument."""
    package = repository / "speechbrain_ssl"
    files = sorted((package / part).glob("*.py"))
    assert len(files) > 1
    for path in files:
        name = path.relative_to(package).as_posix()
        if name not in EXEMPT:
            assert names_of_labels(path.read_text()) == [], name


def test_the_exempt_are_there_and_not_used_by_the_loaders(repository):
    """Code that reads a manifest imports nothing that knows speakers."""
    package = repository / "speechbrain_ssl"
    for name in EXEMPT:
        assert (package / name).is_file(), name
    for part in ("data", "objectives", "encoders"):
        for path in (package / part).glob("*.py"):
            for module in ("minivox", "finish", "trials", "verification"):
                assert not re.search(
                    rf"^\s*(from|import) .*\b{module}\b", path.read_text(), re.M
                ), f"{path} imports {module}"


def test_a_training_manifest_has_no_column_for_one(tmp_path):
    """``write_manifest`` rejects such a column from any prepare script."""
    table = pd.DataFrame(
        {"ID": ["a"], "duration": [1.0], "wav": ["a.wav"], "spk_id": ["s"]}
    )
    with pytest.raises(ManifestError, match="spk_id"):
        write_manifest(tmp_path / "a.csv", table)
