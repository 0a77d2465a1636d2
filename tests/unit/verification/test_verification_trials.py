"""Reading trial lists: what is kept, what is refused, and how fast."""

import time

import numpy as np
import pytest

from speechbrain_ssl.errors import TrialError
from speechbrain_ssl.verification.protocol import (
    check_files,
    load_lists,
    load_trials,
)
from speechbrain_ssl.verification.trials import (
    Trials,
    path_component,
    read_trials,
)


def write(folder, text, encoding="utf-8"):
    path = folder / "trials.txt"
    path.write_bytes(text.encode(encoding))
    return path


def test_columns_and_names(tmp_path):
    path = write(tmp_path, "1 a/x.wav a/y.wav\n0 b/z.wav a/x.wav\n")
    trials = read_trials(path)
    assert trials.labels.dtype == bool
    assert trials.left.dtype == trials.right.dtype == np.int32
    assert trials.labels.tolist() == [True, False]
    assert trials.names == ["a/x.wav", "a/y.wav", "b/z.wav"]
    assert trials.left.tolist() == [0, 2]
    assert trials.right.tolist() == [1, 0]
    assert len(trials) == 2


def test_names_are_never_cut_at_a_dot(tmp_path):
    path = write(tmp_path, "1 a/v.1.wav a/v.2.wav\n0 a/v.1.wav b/v.1.flac\n")
    assert read_trials(path).names == ["a/v.1.wav", "a/v.2.wav", "b/v.1.flac"]


def test_any_white_space_blank_lines_and_byte_order_mark(tmp_path):
    text = "\ufeff1\ta/x  a/y \r\n\r\n  0 a/x\tb/z"
    trials = read_trials(write(tmp_path, text))
    assert trials.labels.tolist() == [True, False]
    assert trials.names == ["a/x", "a/y", "b/z"]
    assert trials.lines.tolist() == [1, 3]


@pytest.mark.parametrize(
    "bad", ["1 a/x", "2 a/x a/y", "a/x a/y 1", "1 a/x a/y extra", "-1 a b"]
)
def test_a_malformed_line_is_named(tmp_path, bad):
    path = write(tmp_path, f"1 a/x a/y\n\n{bad}\n0 a/x b/z\n")
    with pytest.raises(TrialError, match="line 3: '" + bad):
        read_trials(path)


def test_a_page_long_line_is_not_repeated(tmp_path):
    with pytest.raises(TrialError) as caught:
        read_trials(write(tmp_path, "x" * 10_000))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_an_empty_file(tmp_path, text):
    with pytest.raises(TrialError, match="is empty"):
        read_trials(write(tmp_path, text))


def test_a_missing_file_and_a_binary_one(tmp_path):
    with pytest.raises(TrialError, match="no trial list"):
        read_trials(tmp_path / "nowhere.txt")
    with pytest.raises(TrialError, match="not a text file"):
        read_trials(write(tmp_path, "1 é a", encoding="latin-1"))


def test_one_class_missing(tmp_path):
    path = write(tmp_path, "1 a/x a/y\n1 a/x a/z\n")
    with pytest.raises(TrialError, match="all 2 trials .* are targets"):
        read_trials(path)
    assert len(read_trials(path, require_both=False)) == 2
    path = write(tmp_path, "0 a/x b/y\n")
    with pytest.raises(TrialError, match="are non-targets"):
        read_trials(path)


def test_absent_files(tmp_path):
    path = write(tmp_path, "\n1 a/x a/y\n0 a/x b/z\n0 c/w a/x\n")
    trials = read_trials(path)
    for name in trials.names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    check_files(trials, tmp_path)
    (tmp_path / "b/z").unlink()
    (tmp_path / "c/w").unlink()
    with pytest.raises(TrialError, match=r"line 3: .*'b/z'.*; 2 of 4"):
        check_files(trials, tmp_path)
    # A folder is no recording.
    (tmp_path / "b/z").mkdir()
    with pytest.raises(TrialError, match=r"'b/z'"):
        check_files(trials, str(tmp_path))


def test_files_that_have_to_be_decoded_first(tmp_path):
    """Said before a run, with a remedy; scoring would fail at its end."""
    path = write(tmp_path, "1 a/x.wav a/y.mp3\n0 b/z.M4A a/x.wav\n")
    for name in ("a/x.wav", "a/y.mp3", "b/z.M4A"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    message = r"line 2: 'b/z\.M4A' .* one of 1 \.m4a\. .*trials_manifest"
    with pytest.raises(TrialError, match=message):
        load_trials(path, str(tmp_path), 0)
    with pytest.raises(TrialError, match=r"trials\.txt, " + message):
        load_lists({"a": str(path)}, 0, str(tmp_path))


def test_absent_files_that_no_trial_uses_do_not_matter(tmp_path):
    (tmp_path / "a").touch()
    check_files(Trials([1], [0], [0], ["a", "unused"]), tmp_path)
    with pytest.raises(TrialError, match="'unused'.*1 of 2 files"):
        check_files(Trials([1], [0], [1], ["a", "unused"]), tmp_path)


def test_speakers_by_path_rule_and_dictionary():
    names = ["audio/7/x", "audio/7/y", "audio/3/x"]
    columns = ([1, 0], [0, 0], [1, 2], names)
    by_rule = Trials(*columns, speaker_of=path_component(1))
    assert by_rule.speaker_indices().tolist() == [1, 1, 0]
    table = {"audio/7/x": 7, "audio/7/y": 7, "audio/3/x": 3}
    by_table = Trials(*columns, speaker_of=table)
    assert by_table.speaker_indices().tolist() == [1, 1, 0]


def test_speakers_that_contradict_the_labels():
    # Under `audio/` the default rule sees a single speaker.
    names = ["audio/7/x", "audio/7/y", "audio/3/x"]
    trials = Trials([1, 0], [0, 0], [1, 2], names, lines=[4, 9])
    with pytest.raises(TrialError, match="line 9: labelled 0.*1 such trials"):
        trials.speaker_indices()
    with pytest.raises(TrialError, match="line 4: labelled 1"):
        Trials(
            [1, 0], [0, 0], [1, 2], names, path_component(2), [4, 9]
        ).speaker_indices()


def test_utterances_without_a_speaker():
    trials = Trials([1], [0], [1], ["a", "b"], speaker_of={"a": "s"})
    with pytest.raises(TrialError, match="no speaker is known for 'b'"):
        trials.speaker_indices()
    trials = Trials([1], [0], [1], ["a", "b"], speaker_of=path_component(1))
    with pytest.raises(TrialError, match="for 'a'"):
        trials.speaker_indices()


@pytest.mark.parametrize(
    "columns, message",
    [
        (([], [], [], ["a"]), "no trial"),
        (([1, 0], [0], [0], ["a"]), "one length"),
        (([1], [0], [1], ["a"]), "outside"),
        (([1], [-1], [0], ["a"]), "outside"),
        (([1], [0], [1], ["a", "a"]), "repeat"),
        (([-1], [0], [1], ["a", "b"]), "label"),
        ((["0"], [0], [1], ["a", "b"]), "label"),
    ],
)
def test_columns_that_do_not_fit(columns, message):
    with pytest.raises(TrialError, match=message):
        Trials(*columns)


def test_600_000_lines_in_seconds(tmp_path):
    rng = np.random.default_rng(0)
    left, right = rng.integers(150_000, size=(2, 600_000))
    same = left % 1251 == right % 1251
    name = [
        f"id{u % 1251 + 10001}/aXbYcZdWeVf/{u:05d}.wav" for u in range(150_000)
    ]
    path = write(
        tmp_path,
        "\n".join(
            f"{int(s)} {name[a]} {name[b]}"
            for s, a, b in zip(same, left, right, strict=True)
        ),
    )
    begin = time.perf_counter()
    trials = read_trials(path)
    seconds = time.perf_counter() - begin
    assert (trials.labels == same).all()
    assert [trials.names[i] for i in trials.left[:50]] == [
        name[a] for a in left[:50]
    ]
    assert seconds < 10


def test_the_original_vox1_list(shared_data):
    trials = read_trials(shared_data / "voxceleb_meta" / "veri_test.txt")
    assert len(trials) == 37_720
    assert trials.labels.sum() == 18_860
    assert len(trials.names) == 4_715
    assert len(np.unique(trials.speaker_indices())) == 40
