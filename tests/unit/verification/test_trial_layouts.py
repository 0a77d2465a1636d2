"""Trial lists of other corpora: what is read, and what is refused."""

import numpy as np
import pytest

from speechbrain_ssl.errors import TrialError
from speechbrain_ssl.verification.evaluation import evaluate_scores
from speechbrain_ssl.verification.protocol import (
    check_files,
    check_speakers,
    load_lists,
    write_scores,
)
from speechbrain_ssl.verification.scoring import cosine_scores
from speechbrain_ssl.verification.trial_layouts import (
    ALIASES,
    LAYOUTS,
    detect_layout,
    read_enrolment,
)
from speechbrain_ssl.verification.trials import (
    Trials,
    linked_speakers,
    read_trials,
)

LINES = {
    "voxceleb": ["1 m1 a.wav", "0 m1 b.wav"],
    "cnceleb": ["m1 a.wav 1", "m1 b.wav 0"],
    "sitw": ["m1 a.wav tgt", "m1 b.wav imp"],
    "kaldi": ["m1 a.wav target", "m1 b.wav nontarget"],
}


def write(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.mark.parametrize("layout", LINES)
def test_all_layouts_say_the_same(tmp_path, layout):
    path = write(tmp_path / "trials", *LINES[layout])
    names = [name for name, of in ALIASES.items() if of == layout]
    for name in (None, layout, *names):
        trials = read_trials(path, layout=name)
        assert trials.labels.tolist() == [True, False]
        assert trials.names == ["m1", "a.wav", "b.wav"]
        assert trials.left.tolist() == [0, 0]
        assert trials.right.tolist() == [1, 2]


def test_lines_as_the_corpora_have_them():
    lines = {
        "1 id10270/x6uYqmx31kE/00001.wav id10270/8jEAjG6SegY/00008.wav": (
            "voxceleb"
        ),
        "12013 audio/unotx.flac imp": "sitw",
        "Lab41-SRI-VOiCES-rm1-none-sp0032 sid_dev/sp0032/b.wav tgt": "sitw",
        "id00800-enroll test/id00800-singing-01-005.wav 1": "cnceleb",
        "a.wav b.wav": "pairs",
        # Not to be told apart, or nothing at all.
        "1 model 0": None,
        "1 a.flac tgt": "sitw",
        "a b c": None,
        "a": None,
    }
    for line, layout in lines.items():
        assert detect_layout(line.split()) == layout


@pytest.mark.parametrize("layout", LINES)
def test_a_line_of_another_layout_is_named(tmp_path, layout):
    other = next(name for name in LINES if name != layout)
    path = write(tmp_path / "trials", *LINES[layout], "", LINES[other][0])
    with pytest.raises(
        TrialError, match=r"trials, line 4: '.*' is not a trial"
    ):
        read_trials(path)
    with pytest.raises(
        TrialError, match=r"trials, line 1: '.*' is not a trial"
    ):
        read_trials(path, layout=other)


def test_a_layout_that_must_or_cannot_be_named(tmp_path):
    path = write(tmp_path / "trials", "1 model 0", "0 a 1")
    with pytest.raises(TrialError, match="line 1.*name the layout"):
        read_trials(path)
    trials = read_trials(path, layout="cnceleb")
    assert trials.labels.tolist() == [False, True]
    assert trials.names == ["1", "model", "0", "a"]
    with pytest.raises(TrialError, match="no layout 'nist'.*voxceleb.*voices"):
        read_trials(path, layout="nist")


def test_lists_without_labels(tmp_path):
    path = write(tmp_path / "pairs.txt", "a.wav b.wav", "", "b.wav c.wav")
    with pytest.raises(TrialError, match="pairs.txt have no labels"):
        read_trials(path)
    trials = read_trials(path, require_both=False)
    assert trials.labels is None and len(trials) == 2
    scores = cosine_scores(np.eye(3), trials)
    write_scores(tmp_path / "scores.txt", trials, scores)
    assert (tmp_path / "scores.txt").read_text() == (
        "a.wav b.wav 0.000000\nb.wav c.wav 0.000000\n"
    )
    with pytest.raises(TrialError, match="line 2.*expected 'a.wav b.wav'"):
        read_trials(write(path, "a b", "1 a b"), require_both=False)


def test_models_of_several_recordings(tmp_path):
    enrolment = read_enrolment(
        write(tmp_path / "enroll.lst", "m1 x.wav y.wav", "m2 z.wav")
    )
    path = write(tmp_path / "trials", "m1 a.wav tgt", "m2 a.wav imp")
    trials = read_trials(path, enrolment=enrolment)
    assert trials.names == ["m1", "a.wav", "m2"]
    assert trials.recordings == ["x.wav", "y.wav", "a.wav", "z.wav"]
    rows = np.arange(8.0).reshape(4, 2)
    expected = [(rows[0] + rows[1]) / 2, rows[2], rows[3]]
    np.testing.assert_allclose(trials.pool(rows), expected)
    assert trials.pool(rows.astype(np.float32)).dtype == np.float32


def test_rows_stay_as_they_are_without_models():
    trials = Trials([1], [0], [1], ["a", "b"])
    rows = np.eye(2)
    assert trials.pool(rows) is rows


def test_models_that_are_not_enrolled(tmp_path):
    enrolment = {"m1": ("x.wav",)}
    path = write(tmp_path / "trials", "m1 a tgt", "", "m3 a imp")
    with pytest.raises(TrialError, match="line 3: the model 'm3' is not in"):
        read_trials(path, enrolment=enrolment)
    path = write(tmp_path / "trials", "m1 a tgt", "m1 m1 imp")
    with pytest.raises(TrialError, match="line 2: 'm1' is a model"):
        read_trials(path, enrolment=enrolment)


@pytest.mark.parametrize(
    "lines, message",
    [
        (["m1 a.wav", "", "m2"], "line 3: the model 'm2' has no recording"),
        (["m1 a.wav", "m1 b.wav"], "line 2: the model 'm1' has occurred"),
        (["m1 a.flac 72.000 77.310"], "line 1: .*gives times"),
        ([], "is empty"),
    ],
)
def test_enrolment_lists_that_are_refused(tmp_path, lines, message):
    path = write(tmp_path / "enroll.lst", *lines)
    with pytest.raises(TrialError, match=f"enroll.lst.*{message}"):
        read_enrolment(path)
    with pytest.raises(TrialError, match="no enrolment list"):
        read_enrolment(tmp_path / "nowhere")


def test_absent_recordings_of_a_model(tmp_path):
    for name in ("x.wav", "a.wav", "b.wav"):
        (tmp_path / name).touch()
    path = write(tmp_path / "trials", *LINES["sitw"])
    trials = read_trials(path, enrolment={"m1": ("x.wav",)})
    check_files(trials, tmp_path)
    trials = read_trials(path, enrolment={"m1": ("x.wav", "y.wav")})
    with pytest.raises(TrialError, match="line 1: .*'y.wav'.*; 1 of 4"):
        check_files(trials, tmp_path)


def test_speakers_by_the_target_trials():
    # a-b-c and d-e are one speaker each, f has no target.
    left = [0, 1, 3, 0, 5, 5]
    right = [1, 2, 4, 3, 0, 4]
    trials = Trials([1, 1, 1, 0, 0, 0], left, right, list("abcdef"))
    trials.speaker_of = linked_speakers(trials)
    assert trials.speaker_indices().tolist() == [0, 0, 0, 1, 1, 2]
    # A non-target within: labels that contradict each other are found.
    trials = Trials([1, 1, 0], [0, 1, 0], [1, 2, 2], list("abc"))
    trials.speaker_of = linked_speakers(trials)
    with pytest.raises(TrialError, match="line 3: labelled 0"):
        trials.speaker_indices()


def test_a_list_with_models_from_files_to_figures(tmp_path):
    """SITW's way: a key, an enrolment list, speakers that no name tells."""
    rng = np.random.default_rng(0)
    models, key, rows = [], [], {}
    voices = rng.normal(size=(8, 6))
    for m in range(8):
        files = [f"audio/e{m}{u}.flac" for u in range(2)]
        models.append(" ".join([f"{100 + m}", *files]))
        tests = [f"audio/t{m}{u}.flac" for u in range(3)]
        for file in files + tests:
            rows[file] = voices[m] + 0.4 * rng.normal(size=6)
            (tmp_path / "audio").mkdir(exist_ok=True)
            (tmp_path / file).touch()
        for other in range(8):
            word = "tgt" if other == m else "imp"
            key += [f"{100 + other} {test} {word}" for test in tests]
    lists = load_lists(
        {"core": str(write(tmp_path / "core-core.lst", *key))},
        None,
        str(tmp_path),
        enrolment=write(tmp_path / "enroll-core.lst", *models),
    )
    check_speakers(lists)
    trials, paths = lists["core"]
    assert len(paths) == 40 and paths[0] == f"{tmp_path}/audio/e00.flac"
    embeddings = trials.pool(np.array([rows[r] for r in trials.recordings]))
    np.testing.assert_allclose(
        embeddings[trials.names.index("103")],
        (rows["audio/e30.flac"] + rows["audio/e31.flac"]) / 2,
    )
    scores = cosine_scores(embeddings, trials)
    figures = evaluate_scores(scores, trials, replicates=50)
    assert figures["speakers"] == 8
    assert figures["eer_percent"] < 15
    # By a component of the names it cannot be, and the remedy is said.
    lists["core"][0].speaker_of = lambda name: name.split("/")[0]
    with pytest.raises(TrialError, match="core: .*or set it to null"):
        check_speakers(lists)


def test_every_layout_has_an_example_here():
    assert set(LINES) | {"pairs"} == set(LAYOUTS)
