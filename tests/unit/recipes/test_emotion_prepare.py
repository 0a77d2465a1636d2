"""IEMOCAP, CREMA-D, MSP-Podcast and RAVDESS: real layouts, wrong label files."""

import importlib.util
import json
import os
import pathlib
import re
import signal

import numpy as np
import pandas as pd
import pytest
import soundfile

from speechbrain_ssl.downstream.folds import (
    LeaveOneGroupOut,
    OfficialPartitions,
    SpeakerFolds,
)
from speechbrain_ssl.downstream.task import read_task
from speechbrain_ssl.errors import (
    CheckpointError,
    ConfigError,
    ManifestError,
    UserError,
)
from speechbrain_ssl.run_folder import lock_folder

RECIPES = pathlib.Path(__file__).parents[3] / "recipes"


def load(name):
    """Imports a recipe's script, which is in no package."""
    path = RECIPES / name
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ravdess = load("RAVDESS/ravdess_prepare.py").prepare_ravdess
iemocap = load("IEMOCAP/iemocap_prepare.py").prepare_iemocap
crema_d = load("CREMA-D/crema_d_prepare.py").prepare_crema_d
msp = load("MSP-Podcast/msp_podcast_prepare.py").prepare_msp_podcast


def write_wav(path, silent=False, rate=16000):
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = np.random.default_rng(0).normal(0, 0.1, rate // 2)
    soundfile.write(path, 0 * wave if silent else wave, rate)


def write_text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def run(prepare, data, save, **keys):
    summary = prepare(str(data), str(save), num_workers=0, **keys)
    table = pd.read_csv(save / "utterances.csv", dtype=str)
    return summary, table.set_index(table["ID"].str.split("/").str[-1])


# -------------------------------------------------------------------- RAVDESS


@pytest.fixture
def ravdess_data(tmp_path):
    data = tmp_path / "RAVDESS"
    for actor in range(1, 5):
        folder = data / f"Audio_Speech_Actors_01-24/Actor_{actor:02d}"
        for emotion in range(1, 9):
            for repetition in (1, 2):
                name = f"03-01-{emotion:02d}-01-02-{repetition:02d}"
                write_wav(folder / f"{name}-{actor:02d}.wav", rate=48000)
    # A song, another's file, a name that says nothing.
    one = data / "Audio_Speech_Actors_01-24/Actor_01"
    write_wav(one / "03-02-01-01-01-01-01.wav")
    write_wav(one / "03-01-05-01-02-01-02.wav")
    write_wav(one / "noise.wav")
    return data


def test_ravdess(ravdess_data, tmp_path):
    save = tmp_path / "save"
    summary, table = run(ravdess, ravdess_data, save)
    assert summary["utterances"] == 64 and summary["speakers"] == 4
    assert summary["missing"] == [
        "64 utterances; the whole corpus has 1440",
        "4 speakers; the whole corpus has 24",
    ]
    assert summary["rejected"] == {"unexpected name": 1, "unexpected place": 1}
    row = table.loc["03-01-05-01-02-01-04"]
    assert row["emotion"] == "angry" and row["spk_id"] == "04"
    assert row["gender"] == "female" and row["statement"] == "dogs"
    assert row["wav"].startswith("$data_root/Audio_Speech_Actors_01-24/Actor")
    task = read_task(save / "utterances.csv", "emotion", str(ravdess_data))
    assert len(task.classes) == 8
    assert pathlib.Path(task.paths([0])[0]).is_file()
    assert len(SpeakerFolds(2, inner_folds=2)(task)) == 2
    # The folder of the actors itself may be given as well.
    inner = ravdess_data / "Audio_Speech_Actors_01-24"
    summary, table = run(ravdess, inner, tmp_path / "save2")
    assert summary["utterances"] == 64
    assert table["wav"].iloc[0].startswith("$data_root/Actor_01/03-01")


def test_ravdess_refuses(ravdess_data, tmp_path):
    with pytest.raises(UserError, match="no folder /not/there"):
        ravdess("/not/there", str(tmp_path / "save"))
    with pytest.raises(UserError, match="RAVDESS was not found.*Actor_01"):
        ravdess(
            str(tmp_path / "RAVDESS/Audio_Speech_Actors_01-24/Actor_01"), "x"
        )
    for path in ravdess_data.rglob("*.wav"):
        path.rename(path.with_name(f"x{path.name}"))
    with pytest.raises(ManifestError, match="has the name of an utterance"):
        ravdess(str(ravdess_data), str(tmp_path / "save"))


def test_what_is_prepared_is_known_again(ravdess_data, tmp_path):
    save = tmp_path / "save"
    first, _ = run(ravdess, ravdess_data, save)
    before = (save / "utterances.csv").stat().st_mtime_ns
    assert run(ravdess, ravdess_data, save)[0] == first
    assert (save / "utterances.csv").stat().st_mtime_ns == before
    assert json.loads((save / "prepare.json").read_text())["summary"] == first
    assert ravdess("/not/there", str(save), skip_prep=True) == {}


def test_a_second_preparation_is_refused(ravdess_data, tmp_path):
    """While another process writes to the folder."""
    save, (ready, told) = tmp_path / "save", os.pipe()
    if (other := os.fork()) == 0:
        lock_folder(save)
        os.write(told, b".")
        signal.pause()
    os.read(ready, 1)
    try:
        with pytest.raises(CheckpointError, match=f"process {other} on"):
            run(ravdess, ravdess_data, save)
    finally:
        os.kill(other, signal.SIGKILL)
        os.waitpid(other, 0)
    assert run(ravdess, ravdess_data, save)[0]["utterances"] == 64


def test_audio_that_is_gone_is_listed(ravdess_data, tmp_path):
    broken = sorted(ravdess_data.rglob("*-01.wav"))
    broken[0].write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    summary, _ = run(ravdess, ravdess_data, tmp_path / "save")
    assert summary["utterances"] == 63
    rejected = pd.read_csv(tmp_path / "save/rejected.csv")
    assert (
        f"{broken[0].name}" in rejected["wav"].str.split("/").str[-1].tolist()
    )
    for path in ravdess_data.rglob("03-01-*.wav"):
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ManifestError, match="none of the 64 .* unreadable"):
        run(ravdess, ravdess_data, tmp_path / "other")


# -------------------------------------------------------------------- IEMOCAP

EVALUATION = """\
% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]

[6.2901 - 8.2357]	{dialog}_F000	neu	[2.5000, 2.5000, 2.5000]
C-E2:	Neutral;	()
A-E3:	val 3; act 2; dom  2;	()

[10.0100 - 11.3925]	{dialog}_M000	exc	[2.5000, 2.5000, 2.5000]
[12.0100 - 13.3925]	{dialog}_M001	hap	[2.5000, 2.5000, 2.5000]
[14.8872 - 18.0175]	{dialog}_F001	ang	[2.5000, 2.5000, 2.5000]
[19.2900 - 20.7875]	{dialog}_M002	sad	[2.5000, 3.0000, 3.0000]
[21.3257 - 24.7400]	{dialog}_F002	fru	[2.5000, 3.5000, 3.5000]
[25.3257 - 26.7400]	{dialog}_F003	xxx	[2.5000, 3.5000, 3.5000]
"""
DIALOGS = ("Ses0{n}F_impro01", "Ses0{n}M_script01_1b")


@pytest.fixture
def iemocap_data(tmp_path):
    data = tmp_path / "IEMOCAP_full_release"
    for n in range(1, 6):
        for dialog in DIALOGS:
            dialog = dialog.format(n=n)
            session = data / f"Session{n}"
            text = EVALUATION.format(dialog=dialog)
            folder = session / "dialog/EmoEvaluation"
            write_text(folder / f"{dialog}.txt", text)
            # What else lies about there.
            write_text(folder / f"._{dialog}.txt", "\0\0")
            write_text(folder / f"Categorical/{dialog}_e1_cat.txt", "x :neu")
            for turn in re.findall(rf"{dialog}_\w+", text):
                write_wav(session / f"sentences/wav/{dialog}/{turn}.wav")
    return data


def test_iemocap(iemocap_data, tmp_path):
    save = tmp_path / "save"
    summary, table = run(iemocap, iemocap_data, save)
    assert summary["utterances"] == 50 and summary["speakers"] == 10
    assert "5531" in summary["missing"][0] and len(summary["missing"]) == 1
    # In a dialog named after her, he speaks as well.
    row = table.loc["Ses01F_impro01_M000"]
    assert row["spk_id"] == "Ses01M" and row["gender"] == "male"
    assert row["emotion"] == "happy" and row["setting"] == "impro"
    assert table.loc["Ses03M_script01_1b_M001", "emotion"] == "happy"
    assert table.loc["Ses05M_script01_1b_F001", "spk_id"] == "Ses05F"
    assert table["wav"].iloc[0].startswith("$data_root/Session1/sentences/wav/")
    counts = table["emotion"].value_counts().to_dict()
    assert counts == {"happy": 20, "neutral": 10, "angry": 10, "sad": 10}
    task = read_task(save / "utterances.csv", "emotion", str(iemocap_data))
    folds = LeaveOneGroupOut("session")(task)
    assert [len(fold.test) for fold in folds] == [10] * 5
    assert set(task.speakers[folds[1].test]) == {"Ses02F", "Ses02M"}


@pytest.mark.parametrize(
    "change, message",
    [
        (
            ("\tneu\t", "\tneutral\t"),
            r"line 3: 'neutral' is not a label of IEM",
        ),
        (
            ("Ses02F_impro01_F000", "Ses03F_impro01_F000"),
            "not a turn of Session2",
        ),
        (("Ses02F_impro01_F000", "one"), "line 3: this is not a turn"),
        (("[", "("), "has no line such as '.6.2901"),
    ],
)
def test_iemocap_refuses_wrong_evaluations(
    iemocap_data, tmp_path, change, message
):
    path = iemocap_data / "Session2/dialog/EmoEvaluation/Ses02F_impro01.txt"
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(ManifestError, match=f"{path.name}.*{message}"):
        run(iemocap, iemocap_data, tmp_path / "save")


def test_iemocap_refuses_missing_evaluations(iemocap_data, tmp_path):
    folder = iemocap_data / "Session4/dialog/EmoEvaluation"
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(ManifestError, match="no evaluations .*Session4/dialog"):
        run(iemocap, iemocap_data, tmp_path / "save")
    with pytest.raises(UserError, match="IEMOCAP was not found.*Session1"):
        run(iemocap, iemocap_data / "Session1", tmp_path / "save")


# -------------------------------------------------------------------- CREMA-D


@pytest.fixture
def crema_data(tmp_path):
    data = tmp_path / "CREMA-D"
    votes = ['"","FileName","VoiceVote","VoiceLevel","FaceVote","FaceLevel"']
    actors = ["ActorID,Age,Sex,Race,Ethnicity"]
    for actor in range(1001, 1007):
        sex = ("Male", "Female")[actor % 2]
        actors.append(f"{actor},{actor - 980},{sex},Asian,Not Hispanic")
        for code in ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD"):
            for sentence in ("DFA", "IEO"):
                name = f"{actor}_{sentence}_{code}_XX"
                write_wav(data / "AudioWAV" / f"{name}.wav")
                # Disgust is heard as neutral; fear is a tie.
                vote = {"DIS": "N", "FEA": "F:S"}.get(code, code[0])
                votes.append(f'"1","{name}","{vote}","60","H","57"')
    write_text(data / "VideoDemographics.csv", "\n".join(actors) + "\n")
    write_text(
        data / "processedResults/summaryTable.csv", "\n".join(votes) + "\n"
    )
    return data


def test_crema_d(crema_data, tmp_path):
    name = "1004_DFA_SAD_XX"
    write_wav(crema_data / "AudioWAV" / f"{name}.wav", silent=True)
    save = tmp_path / "save"
    summary, table = run(crema_d, crema_data, save)
    # The silent clip is found.
    assert summary["utterances"] == 71 and summary["rejected"] == {"silent": 1}
    row = table.loc["1003_DFA_DIS_XX"]
    assert row["emotion"] == "disgust" and row["spk_id"] == "1003"
    assert row["gender"] == "female" and row["age"] == "23"
    task = read_task(save / "utterances.csv", "emotion", str(crema_data))
    for fold in SpeakerFolds(3)(task):
        assert len(set(task.speakers[fold.test])) == 2
    ages = read_task(save / "utterances.csv", "age", str(crema_data), bins=[24])
    assert ages.classes == ["below 24", "24 or more"]


def test_crema_d_as_it_is_heard(crema_data, tmp_path):
    summary, table = run(crema_d, crema_data, tmp_path / "save", labels="voice")
    assert table.loc["1003_DFA_DIS_XX", "emotion"] == "neutral"
    assert "1003_DFA_FEA_XX" not in table.index
    assert summary["utterances"] == 60
    # Whole as it is, but for the actors.
    assert summary["missing"] == ["6 speakers; the whole corpus has 91"]


def test_crema_d_without_demographics(crema_data, tmp_path, caplog):
    (crema_data / "VideoDemographics.csv").unlink()
    _, table = run(crema_d, crema_data, tmp_path / "save")
    assert "gender" not in table.columns
    assert "VideoDemographics.csv is missing" in caplog.text


@pytest.mark.parametrize(
    "file, change, keys, message",
    [
        ("processedResults/summaryTable.csv", None, {}, "votes .* is missing"),
        ("processedResults/summaryTable.csv", ("VoiceVote", "Vote"), {}, "no column VoiceVote"),
        ("processedResults/summaryTable.csv", ('"A"', '"Q"'), {}, "VoiceVote 'Q' of 1001_DFA_ANG_XX"),
        ("processedResults/summaryTable.csv", ("1002_IEO_HAP_XX", "x"), {}, "no votes on 1002_IEO_HAP_XX"),
        ("VideoDemographics.csv", ("1004,", "2004,"), {"labels": "intended"}, "not have the actor 1004"),
        ("VideoDemographics.csv", ("Age", "Years"), {"labels": "intended"}, "no column Age"),
    ],
)  # fmt: skip
def test_crema_d_refuses(crema_data, tmp_path, file, change, keys, message):
    path = crema_data / file
    if change is None:
        path.unlink()
    else:
        path.write_text(path.read_text().replace(*change))
    with pytest.raises(
        ManifestError, match=f"{path.name}.*{message}|{message}"
    ):
        run(
            crema_d,
            crema_data,
            tmp_path / "save",
            **{"labels": "voice", **keys},
        )


def test_crema_d_refuses_more(crema_data, tmp_path):
    with pytest.raises(ConfigError, match="one of intended, voice"):
        run(crema_d, crema_data, tmp_path / "save", labels="heard")
    with pytest.raises(UserError, match="no folder AudioWAV or CREMA-D/Audio"):
        run(crema_d, crema_data / "AudioWAV", tmp_path / "save")
    for path in crema_data.rglob("*.wav"):
        path.rename(path.with_name(f"x{path.name}"))
    with pytest.raises(ManifestError, match="the name of a clip of CREMA-D"):
        run(crema_d, crema_data, tmp_path / "save")


# ---------------------------------------------------------------- MSP-Podcast


@pytest.fixture
def msp_data(tmp_path):
    data = tmp_path / "MSP-Podcast"
    lines = ["FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set"]
    number = 0
    for part, first in (("Train", 0), ("Development", 10), ("Test1", 20)):
        for speaker in range(first, first + 4):
            for label in "ANHSDXO":
                number += 1
                name = f"MSP-PODCAST_0001_{number:04d}.wav"
                who = "Unknown" if speaker == 1 else speaker
                gender = "Male" if speaker % 2 else "Female"
                lines.append(f"{name},{label},5,3,4.5,{who},{gender},{part}")
                write_wav(data / "Audios" / name)
    # Labels of this partition are withheld.
    lines.append("MSP-PODCAST_0009_0001.wav,,,,,,,Test3")
    write_text(data / "Labels/labels_consensus.csv", "\n".join(lines) + "\n")
    return data


def test_msp_podcast(msp_data, tmp_path, caplog):
    save = tmp_path / "save"
    summary, table = run(msp, msp_data, save)
    assert summary["utterances"] == 60
    assert "5 in Train" in caplog.text
    row = table.loc["MSP-PODCAST_0001_0003"]
    assert row["emotion"] == "happy" and row["partition"] == "Train"
    assert row["spk_id"] == "0" and row["gender"] == "female"
    unknown = table.loc["MSP-PODCAST_0001_0008", "spk_id"]
    assert unknown == "unknown/MSP-PODCAST_0001_0008.wav"
    task = read_task(save / "utterances.csv", "emotion", str(msp_data))
    (fold,) = OfficialPartitions("partition", "Train", "Development", "Test1")(
        task
    )
    assert len(fold.train) == len(fold.test) == 20


def test_msp_podcast_with_a_speaker_on_both_sides(msp_data, tmp_path):
    path = msp_data / "Labels/labels_consensus.csv"
    path.write_text(path.read_text().replace(",20,Female", ",2,Female"))
    run(msp, msp_data, tmp_path / "save")
    task = read_task(tmp_path / "save/utterances.csv", "emotion", "/x")
    with pytest.raises(ConfigError, match="the speaker '2' on both sides"):
        OfficialPartitions("partition", "Train", "Development", "Test1")(task)


@pytest.mark.parametrize(
    "change, message",
    [
        (None, "the table of consensus labels .*labels_consensus.csv is miss"),
        (("EmoClass", "Emotion"), "it has no column EmoClass but FileName, Em"),
        ((",A,5", ",Angry,5"), "line 2: the EmoClass 'Angry' is not one of A"),
        (("_0002.wav", "_0001.wav"), "line 3: the FileName .* not named once"),
        (("_0002.wav", "_0002"), "line 3: the FileName 'MSP-PODCAST_0001_0002"),
        (("Male,Train", "Male,"), "the Split_Set '' is not filled in"),
    ],
)
def test_msp_podcast_refuses(msp_data, tmp_path, change, message):
    path = msp_data / "Labels/labels_consensus.csv"
    if change is None:
        path.unlink()
    else:
        path.write_text(path.read_text().replace(*change))
    with pytest.raises(ManifestError, match=message):
        run(msp, msp_data, tmp_path / "save")


def test_msp_podcast_refuses_what_is_no_table(msp_data, tmp_path):
    path = msp_data / "Labels/labels_consensus.csv"
    header = path.read_text().splitlines()[0]
    path.write_text(header + "\n")
    with pytest.raises(ManifestError, match="lists no file"):
        run(msp, msp_data, tmp_path / "save")
    path.write_text("")
    with pytest.raises(ManifestError, match="cannot be read as a table"):
        run(msp, msp_data, tmp_path / "save")
    path.write_bytes(b"\xff\xfe\x00\x81" * 9)
    with pytest.raises(ManifestError, match="read as a table|no column"):
        run(msp, msp_data, tmp_path / "save")


@pytest.mark.parametrize(
    "module, name",
    [
        ("RAVDESS/ravdess_prepare.py", "ravdess_data"),
        ("IEMOCAP/iemocap_prepare.py", "iemocap_data"),
        ("CREMA-D/crema_d_prepare.py", "crema_data"),
        ("MSP-Podcast/msp_podcast_prepare.py", "msp_data"),
    ],
)
def test_command_line(module, name, request, tmp_path, capsys):
    data = request.getfixturevalue(name)
    main = load(module).main
    save = f"--save_folder={tmp_path / 'save'}"
    assert main([f"--data_folder={data}", save, "--num_workers=0"]) == 0
    record = json.loads((tmp_path / "save/prepare.json").read_text())
    # CREMA-D alone decodes: one of its clips is silent.
    check = "decode" if name == "crema_data" else "header"
    assert record["arguments"]["check"] == check
    assert main([f"--data_folder={tmp_path / 'no'}", save]) == 1
    assert "error: there is no folder" in capsys.readouterr().err
