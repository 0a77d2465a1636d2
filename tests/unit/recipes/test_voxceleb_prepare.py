"""Preparation of VoxCeleb, on folders as they are unpacked."""

import pathlib
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from speechbrain_ssl.data.manifest import Manifest
from speechbrain_ssl.errors import ManifestError, TrialError, UserError

# The scripts of a recipe are in no package, and import each other by name.
sys.path.insert(0, str(pathlib.Path(__file__).parents[3] / "recipes/VoxCeleb"))

import voxceleb_places as places
import voxceleb_prepare as prepare
import voxceleb_trials as trials

VOX2 = (
    "id00012/21Uxsk56VDQ/00001",
    "id00012/21Uxsk56VDQ/00002",
    "id00012/2DLq_Kkc1r8/00016",
    "id00015/0fijmz4vTVU/00001",
)
VOX1 = (
    "id10001/1zcIwhmdeo4/00001",
    "id10270/x6uYqmx31kE/00001",
    "id10270/8jEAjG6SegY/00008",
    "id10300/ize_eiCFEg0/00003",
)
TRIALS = (
    "1 id10270/x6uYqmx31kE/00001.wav id10270/8jEAjG6SegY/00008.wav\n"
    "0 id10270/x6uYqmx31kE/00001.wav id10300/ize_eiCFEg0/00003.wav\n"
)


def write(path, seconds=2.0, rate=16000, **kwargs):
    """Writes noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(0).normal(0, 0.1, int(seconds * rate))
    sf.write(path, samples, rate, **kwargs)


def write_vox2(tree):
    for name in VOX2:
        write(tree / f"{name}.wav")


def write_vox1(dev, test=None):
    for name in VOX1:
        tree = dev if name.startswith("id10001") else test or dev
        write(tree / (name + ".wav"))


@pytest.fixture
def data(tmp_path):
    """All corpora in one folder."""
    root = tmp_path / "data"
    write_vox2(root / "dev/wav")
    write_vox1(root / "vox1_dev_wav/wav", root / "vox1_test_wav/wav")
    (root / "veri_test.txt").write_text(TRIALS)
    (root / "veri_test2.txt").write_text(TRIALS.splitlines()[0] + "\n")
    write(root / "musan/noise/free-sound/noise-free-sound-0000.wav")
    write(root / "musan/music/fma/music-fma-0000.wav")
    write(root / "musan/speech/librivox/speech-librivox-0000.wav")
    (root / "musan/noise/free-sound/ANNOTATIONS").write_text("x")
    rirs = root / "RIRS_NOISES"
    write(rirs / "simulated_rirs/smallroom/Room001/Room001-00001.wav", 0.3)
    real = rirs / "real_rirs_isotropic_noises"
    write(real / "RVB2014_type1_rir_largeroom1_far_angla.wav", 0.5)
    write(real / "RVB2014_type1_noise_largeroom1_1.wav", 0.5)
    return root


def run(data, save, **kwargs):
    kwargs.setdefault("num_workers", 0)
    return prepare.prepare_voxceleb(str(data), str(save), **kwargs)


def ids(path):
    table = pd.read_csv(path)
    assert list(table.columns) == ["ID", "duration", "wav"]
    return list(table["ID"])


def test_all_corpora(data, tmp_path):
    save = tmp_path / "save"
    summary = run(data, save)
    assert ids(save / "train.csv") == list(VOX2)
    line = (save / "train.csv").read_text().splitlines()[1]
    assert line == f"{VOX2[0]},2.0,$data_root/dev/wav/{VOX2[0]}.wav"
    assert ids(save / "vox1.csv") == sorted(VOX1[1:])
    assert ids(save / "noise.csv") == ["noise/free-sound/noise-free-sound-0000"]
    assert ids(save / "music.csv") == ["music/fma/music-fma-0000"]
    assert len(ids(save / "speech.csv")) == 1
    assert ids(save / "rirs.csv") == [
        "real_rirs_isotropic_noises/RVB2014_type1_rir_largeroom1_far_angla",
        "simulated_rirs/smallroom/Room001/Room001-00001",
    ]
    text = (save / "rejected.csv").read_text()
    assert text == "wav,reason,detail\n"
    assert (save / "trials_vox1_O.txt").read_text() == TRIALS
    assert (save / "trials_vox1_O_cleaned.txt").is_file()
    assert summary["trials"]["vox1_O"] == {
        "trials": 2,
        "published": 37720,
        "utterances": 3,
    }
    counts = summary["counts"]
    assert counts["VoxCeleb2 dev"] == {
        "speakers": [2, 5994],
        "videos": [3, 145569],
        "utterances": [4, 1092009],
    }
    assert counts["VoxCeleb1 dev"]["speakers"] == [1, 1211]
    assert counts["VoxCeleb1 test"]["utterances"] == [3, 4874]
    assert counts["MUSAN noise"] == {"files": [1, 930]}
    assert "VoxCeleb2 dev: 2 of 5 994 speakers" in summary["missing"]
    # Every path leads to a file, from two roots or from none.
    for name in ("train", "vox1", "noise", "rirs"):
        manifest = Manifest.read(save / f"{name}.csv", data_root=data)
        for i in range(len(manifest)):
            assert pathlib.Path(manifest.path(i)).is_file()


@pytest.mark.parametrize("tree", ["wav", "dev/wav", "vox2/dev/wav", "."])
def test_layouts_of_voxceleb2(tmp_path, tree):
    write_vox2(tmp_path / "vox2x" / tree)
    summary = run(tmp_path / "vox2x", tmp_path / "save")
    assert ids(tmp_path / "save/train.csv") == list(VOX2)
    assert any(m.startswith("VoxCeleb1: not") for m in summary["missing"])
    for corpus, keys in (
        ("MUSAN", "--noise_csv=null --music_csv=null --speech_csv=null"),
        ("RIRS_NOISES", "--rirs_csv=null --reverb=0 --both=0"),
    ):
        (line,) = (m for m in summary["missing"] if m.startswith(corpus))
        assert keys in line


def test_separate_folders_get_absolute_paths(data, tmp_path):
    elsewhere = tmp_path / "elsewhere/vox2"
    write_vox2(elsewhere / "dev/wav")
    shutil.rmtree(data / "dev")
    run(data, tmp_path / "save", vox2_folder=str(elsewhere))
    manifest = Manifest.read(tmp_path / "save/train.csv")
    assert manifest.path(0) == f"{elsewhere}/dev/wav/{VOX2[0]}.wav"


def test_merged_tree_keeps_voxceleb1_and_test_out(tmp_path):
    root = tmp_path / "data"
    write_vox2(root / "wav")
    write_vox1(root / "wav")
    write(root / "wav/id00017/5MkXgwdrmJw/00001.wav")
    write(root / "wav/misc/tone.wav")
    (root / "vox2_meta.csv").write_text(
        "Name \tVoxCeleb2 ID \tVGGFace2 ID \tGender \tSet \n"
        "A \tid00012 \tn000012 \tm \tdev \n"
        "B \tid00015 \tn000015 \tm \tdev \n"
        "C \tid00016 \tn000016 \tf \tdev \n"
        "D \tid00017 \tn000017 \tm \ttest \n"
    )
    (root / "veri_test.txt").write_text(TRIALS)
    summary = run(root, tmp_path / "save")
    assert ids(tmp_path / "save/train.csv") == list(VOX2)
    assert summary["rejected"] == {"unexpected place": 1}
    assert any("1 speakers of vox2_meta.csv" in m for m in summary["missing"])
    assert ids(tmp_path / "save/vox1.csv") == sorted(VOX1[1:])


def test_bad_files_become_rows(data, tmp_path):
    tree = data / "dev/wav/id00099/abc"
    write(tree / "00001.wav", 0.5)
    write(tree / "00002.wav", 2, 8000)
    (tree / "00003.wav").touch()
    (tree / "00004.wav").write_bytes(b"no audio")
    sf.write(tree / "00005.wav", np.full(32000, np.nan), 16000, subtype="FLOAT")
    summary = run(data, tmp_path / "save", check="decode")
    assert ids(tmp_path / "save/train.csv") == list(VOX2)
    table = pd.read_csv(tmp_path / "save/rejected.csv")
    assert list(table["reason"]) == [
        "too short",
        "wrong sample rate",
        "empty file",
        "unreadable",
        "samples out of range",
    ]
    assert table["wav"][0] == "$data_root/dev/wav/id00099/abc/00001.wav"
    assert sum(summary["rejected"].values()) == 5


def test_not_found_names_the_candidates(tmp_path):
    with pytest.raises(UserError, match="no folder"):
        run(tmp_path / "absent", tmp_path / "save")
    with pytest.raises(UserError, match=r"dev/wav.*dev/aac.*vox2_folder"):
        run(tmp_path, tmp_path / "save")
    write_vox2(tmp_path / "dev/wav")
    for argument in ("vox1_folder", "musan_folder", "rirs_folder"):
        with pytest.raises(UserError, match=argument):
            run(tmp_path, tmp_path / "save", **{argument: str(tmp_path / "x")})


def test_all_files_bad(data, tmp_path):
    for path in (data / "dev/wav").rglob("*.wav"):
        path.write_bytes(b"")
    with pytest.raises(ManifestError, match=r"rejected\.csv"):
        run(data, tmp_path / "save")
    assert len(pd.read_csv(tmp_path / "save/rejected.csv")) == 4


# ------------------------------------------------------------------------- m4a


@pytest.fixture
def m4a(tmp_path):
    """VoxCeleb2 as it is published."""
    av_files = pytest.importorskip("av_files")
    root = tmp_path / "data"
    for name in VOX2:
        path = root / "dev/aac" / f"{name}.m4a"
        path.parent.mkdir(parents=True, exist_ok=True)
        av_files.encode(path, "aac", 16000)
    return root


def test_m4a_without_pyav(tmp_path, m4a, monkeypatch):
    monkeypatch.setattr(prepare, "has_pyav", lambda: False)
    with pytest.raises(UserError, match=r"4 m4a files.*pip install"):
        run(m4a, tmp_path / "save")
    # With the wavs there it is not needed.
    write_vox2(m4a / "dev/wav")
    assert run(m4a, tmp_path / "save")["utterances"] == 4


def test_m4a_conversion(tmp_path, m4a):
    bad = m4a / "dev/aac/id00012/21Uxsk56VDQ/00009.m4a"
    bad.write_bytes(b"no audio")
    summary = run(m4a, tmp_path / "save", num_workers=2)
    table = pd.read_csv(tmp_path / "save/train.csv")
    assert list(table["ID"]) == list(VOX2)
    assert table["wav"][0] == f"$data_root/dev/wav/{VOX2[0]}.wav"
    assert table["duration"].to_list() == pytest.approx([3.0] * 4, abs=0.1)
    info = sf.info(m4a / "dev/wav" / f"{VOX2[0]}.wav")
    assert (info.samplerate, info.channels, info.format, info.subtype) == (
        (16000, 1, "WAV", "PCM_16")
    )
    assert summary["rejected"] == {"unreadable": 1}
    row = pd.read_csv(tmp_path / "save/rejected.csv").iloc[0]
    assert row["wav"] == "$data_root/dev/aac/id00012/21Uxsk56VDQ/00009.m4a"
    assert row["detail"] == "Invalid data found when processing input"
    assert not list((m4a / "dev/wav").rglob(".*"))
    # Converted files that were deleted are made again.
    shutil.rmtree(m4a / "dev/wav")
    run(m4a, tmp_path / "save")
    assert (m4a / "dev/wav" / f"{VOX2[0]}.wav").is_file()


def test_m4a_conversion_goes_on(tmp_path, m4a):
    """Also where another program has converted a part of the corpus."""
    wavs = tmp_path / "converted"
    write(wavs / f"{VOX2[0]}.wav", seconds=2.5)
    # What a killed preparation leaves behind is no wav.
    (wavs / "id00012/21Uxsk56VDQ/.00002.wav.part").write_bytes(b"half")
    run(m4a, tmp_path / "save", wav_folder=str(wavs))
    table = pd.read_csv(tmp_path / "save/train.csv")
    assert list(table["ID"]) == list(VOX2)
    assert table["wav"][0] == f"{wavs}/{VOX2[0]}.wav"
    assert table["duration"][0] == 2.5


# ---------------------------------------------------------------------- trials


def test_absent_trial_file(data, tmp_path):
    (data / "vox1_test_wav/wav/id10300/ize_eiCFEg0/00003.wav").unlink()
    with pytest.raises(TrialError) as caught:
        run(data, tmp_path / "save")
    message = str(caught.value)
    assert "veri_test.txt, line 2" in message
    assert "id10300/ize_eiCFEg0/00003.wav" in message
    assert "1 of the 3" in message
    assert not (tmp_path / "save/trials_vox1_O.txt").exists()


def test_unusable_trial_file(data, tmp_path):
    (data / "vox1_test_wav/wav/id10300/ize_eiCFEg0/00003.wav").write_bytes(b"")
    with pytest.raises(TrialError, match="line 2.*empty file"):
        run(data, tmp_path / "save")


@pytest.mark.parametrize(
    "line",
    [
        "2 id10270/x6uYqmx31kE/00001.wav id10270/8jEAjG6SegY/00008.wav",
        "1 id10270/x6uYqmx31kE/00001.wav",
        "1 id10270-x6uYqmx31kE-00001.wav id10270/8jEAjG6SegY/00008.wav",
        "<html>",
    ],
)
def test_malformed_trials(data, tmp_path, line):
    (data / "veri_test.txt").write_text(TRIALS + line + "\n")
    with pytest.raises(TrialError, match=r"veri_test\.txt, line 3"):
        run(data, tmp_path / "save")


def test_empty_list(tmp_path):
    (tmp_path / "veri_test.txt").write_text("\n")
    with pytest.raises(TrialError, match=r"veri_test\.txt is empty"):
        trials.read_trials(tmp_path / "veri_test.txt")


def test_what_editors_and_downloads_do_to_a_list(tmp_path):
    """A byte order mark is no part of a label; an archive is no list."""
    path = tmp_path / "veri_test.txt"
    path.write_text("\n" + TRIALS, encoding="utf-8-sig")
    count, lines = trials.read_trials(path)
    assert count == 2
    assert sorted(set(lines.values())) == [2, 3]
    path.write_bytes(b"\x1f\x8b\x08\xff\xfe")
    with pytest.raises(TrialError, match="is it an archive"):
        trials.read_trials(path)


def test_overlap_of_training_and_trials():
    named = {VOX1[1] + ".wav": ("veri_test.txt", 1)}
    trials.check_overlap({"id00012"}, named)
    with pytest.raises(ManifestError, match="the first id10270"):
        trials.check_overlap({"id10270", "id00012"}, named)
    with pytest.raises(ManifestError, match="the first id10001"):
        trials.check_overlap({"id10001", "id00012"}, named)


def test_real_vox1_o(shared_data):
    path = shared_data / "voxceleb_meta/veri_test.txt"
    if not path.is_file():
        pytest.skip("no VoxCeleb1 trial list")
    count, lines = trials.read_trials(path)
    assert count == places.TRIAL_LISTS["vox1_O"][1] == 37720
    assert len(lines) == 4715
    speakers = {name.split("/")[0] for name in lines}
    assert speakers == trials.VOX1_TEST_SPEAKERS


def test_real_meta(shared_data):
    path = shared_data / "voxceleb_meta/vox2_meta.csv"
    if not path.is_file():
        pytest.skip("no VoxCeleb2 metadata")
    meta = prepare.read_meta(path)
    dev = [s for s in meta if meta[s] == "dev"]
    assert len(dev) == prepare.VOX2_DEV["speakers"]


def test_meta_with_commas(tmp_path):
    path = tmp_path / "vox2_meta.csv"
    path.write_text(
        "VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set \nid00012 ,n12 ,m ,dev \n"
    )
    assert prepare.read_meta(path) == {"id00012": "dev"}
    path.write_text("a,b\n")
    with pytest.raises(UserError, match="columns"):
        prepare.read_meta(path)


# ------------------------------------------------------------------- repetition


def test_second_call_does_no_work(data, tmp_path, monkeypatch):
    first = run(data, tmp_path / "save")

    def forbidden(*args, **kwargs):
        raise AssertionError("work was done")

    with monkeypatch.context() as patch:
        for module in (prepare, trials):
            patch.setattr(module, "list_files", forbidden)
        patch.setattr(prepare.Preparation, "scan", forbidden)
        assert run(data, tmp_path / "save") == first
        assert run(data, tmp_path / "other", skip_prep=True) == {}
    # A list that has come since makes it another preparation.
    (data / "list_test_all.txt").write_text(TRIALS)
    again = run(data, tmp_path / "save")
    assert "vox1_E" in again["trials"]
    # And one that has gone leaves no copy behind.
    (data / "list_test_all.txt").unlink()
    run(data, tmp_path / "save")
    assert not (tmp_path / "save/trials_vox1_E.txt").exists()


def test_bytes_are_the_same_everywhere(data, tmp_path):
    run(data, tmp_path / "a")
    run(data, tmp_path / "b", num_workers=2)
    names = sorted(p.name for p in (tmp_path / "a").iterdir() if p.is_file())
    assert "prepare.json" in names and "vox1.csv" in names
    for name in names:
        a, b = (tmp_path / s / name for s in "ab")
        assert a.read_bytes() == b.read_bytes()


def test_command_line(data, tmp_path, capsys):
    save = tmp_path / "s"
    arguments = [f"--data_folder={data}", f"--save_folder={save}"]
    assert prepare.main([*arguments, "--num_workers=0"]) == 0
    assert (save / "train.csv").is_file()
    assert prepare.main([*arguments, f"--vox1_folder={save}"]) == 1
    assert "VoxCeleb1 was not found" in capsys.readouterr().err
