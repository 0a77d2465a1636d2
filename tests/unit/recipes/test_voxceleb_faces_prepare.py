"""Faces of VoxCeleb: found by name or number, bounded, checked, and paired."""

import importlib
import itertools
import json
import logging
import shutil

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import tiny

from speechbrain_ssl.data.faces import FaceManifest, write_faces
from speechbrain_ssl.data.manifest import Manifest, write_manifest
from speechbrain_ssl.errors import (
    ConfigError,
    ManifestError,
    TrialError,
    UserError,
)
from speechbrain_ssl.verification.faces import evaluate_faces
from speechbrain_ssl.verification.trials import read_trials

META = (
    "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\n"
    "id10001\tA.J._Buckley\tm\tIreland\tdev\n"
    "id10002\tSammy_Davis_Jr.\tm\tUSA\tdev\n"
)
VIDEO = "1zcIwhmdeo4"


@pytest.fixture(scope="module", autouse=True)
def script():
    folder = tiny.ROOT / "recipes" / "VoxCeleb" / "AudioVisual"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield importlib.import_module("voxceleb_faces_prepare")


@pytest.fixture
def corpus(tmp_path):
    """Speaker 1 by name; speaker 2's name ends in a point; 3 by number."""

    def pictures(folder, count):
        folder = tmp_path / "data" / "unzippedFaces" / folder
        folder.mkdir(parents=True)
        for i in range(count):
            PIL.Image.new("RGB", (20, 20)).save(folder / f"{i * 25:07d}.jpg")

    pictures(f"A.J._Buckley/1.6/{VIDEO}", 10)
    pictures("Sammy_Davis_Jr/1.6/-ANuEyfWFn4", 1)
    pictures("id10003/K5zRxtXc27s", 2)
    pictures("id10003/K5zRxtXc27s/00002", 1)
    (tmp_path / "data" / "vox1_meta.csv").write_text(META)
    ids = [
        f"id10001/{VIDEO}/00001",
        f"id10001/{VIDEO}/00002",
        "id10001/aaaaaaaaaaa/00001",
        "id10002/-ANuEyfWFn4/00001",
        "id10003/K5zRxtXc27s/00001",
        "id10003/K5zRxtXc27s/00002",
        "id00012/21Uxsk56VDQ/00001",
    ]
    table = pd.DataFrame({"ID": ids, "duration": 1.0, "wav": "x.wav"})
    write_manifest(tmp_path / "save" / "vox1.csv", table)
    return tmp_path


def prepare(script, corpus, **options):
    options = {"pictures": 4, "num_workers": 1, **options}
    return script.prepare_voxceleb_faces(
        corpus / "data",
        corpus / "save",
        [str(corpus / "save" / "vox1.csv")],
        **options,
    )


def counts(corpus):
    manifest = Manifest.read(corpus / "save" / "vox1.csv")
    faces = FaceManifest.read(
        corpus / "save" / "faces.csv", manifest, corpus / "data"
    )
    for i in range(len(faces)):
        for path in faces.paths(i):
            PIL.Image.open(path).close()
    return [faces.count(i) for i in range(len(faces))], faces


@pytest.mark.parametrize("workers", [1, 2])
def test_utterances_are_paired_with_the_faces_of_their_video(
    script, corpus, workers
):
    summary = prepare(script, corpus, num_workers=workers)
    found, faces = counts(corpus)
    assert found == [4, 4, 0, 1, 2, 1, 0]
    # Spread over the video, and shared by its utterances.
    stems = [path.rsplit("/")[-1] for path in faces.paths(0)]
    assert stems == [f"{25 * i:07d}.jpg" for i in (0, 3, 6, 9)]
    assert faces.paths(0) == faces.paths(1)
    assert "K5zRxtXc27s/00002/" in faces.paths(5)[0]
    text = (corpus / "save" / "faces.csv").read_text()
    assert "$data_root/unzippedFaces/" in text
    missing = (corpus / "save" / "missing_faces.csv").read_text().split()
    assert missing == [
        "ID", "id00012/21Uxsk56VDQ/00001", "id10001/aaaaaaaaaaa/00001",
    ]  # fmt: skip
    assert summary == {
        "utterances": 7,
        "with_face": 5,
        "speakers": 3,
        "videos": 3,
        "pictures": 8,
        "rejected": 0,
    }


def test_pictures_that_cannot_be_read_are_listed_and_left_out(script, corpus):
    root = corpus / "data" / "unzippedFaces"
    broken = root / "A.J._Buckley" / "1.6" / VIDEO / "0000075.jpg"
    broken.write_bytes(broken.read_bytes()[:100])
    (root / "Sammy_Davis_Jr/1.6/-ANuEyfWFn4/0000000.jpg").write_bytes(b"")
    assert prepare(script, corpus)["rejected"] == 2
    assert counts(corpus)[0] == [3, 3, 0, 0, 2, 1, 0]
    rejected = pd.read_csv(corpus / "save" / "rejected_faces.csv")
    assert rejected["image"][0].endswith(f"{VIDEO}/0000075.jpg")
    assert rejected["reason"].str.contains("cannot be read").all()
    missing = (corpus / "save" / "missing_faces.csv").read_text()
    assert "id10002/-ANuEyfWFn4/00001" in missing


def test_a_completed_preparation_is_not_repeated(script, corpus, caplog):
    first = prepare(script, corpus)
    with caplog.at_level(logging.INFO):
        assert prepare(script, corpus) == first
    assert "prepared already" in caplog.text
    assert prepare(script, corpus, pictures=2)["pictures"] == 6
    (corpus / "save" / "faces.csv").unlink()
    assert prepare(script, corpus, pictures=2)["pictures"] == 6
    assert (corpus / "save" / "faces.csv").is_file()


def test_what_is_not_there_is_named(script, corpus, tmp_path):
    with pytest.raises(UserError, match="give their folder as faces_folder"):
        prepare(script, corpus, faces_folder=str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match="pictures"):
        prepare(script, corpus, pictures=0)
    (corpus / "data" / "vox1_meta.csv").write_text("a\tb\n")
    with pytest.raises(UserError, match="no columns"):
        prepare(script, corpus)
    # Without it, only folders that are named by numbers are found.
    (corpus / "data" / "vox1_meta.csv").unlink()
    assert prepare(script, corpus)["speakers"] == 1
    only = corpus / "data" / "unzippedFaces" / "Sammy_Davis_Jr"
    with pytest.raises(UserError, match="vox1_meta.csv has to tell"):
        prepare(script, corpus, faces_folder=str(only.parent / "A.J._Buckley"))
    table = pd.DataFrame({"ID": ["a"], "duration": [1.0], "wav": ["x.wav"]})
    write_manifest(corpus / "save" / "vox1.csv", table)
    with pytest.raises(ManifestError, match="none of the 1 utterances"):
        prepare(script, corpus)


def test_the_published_names_are_told_apart(script, shared_data):
    names = script.read_names(shared_data / "voxceleb_meta" / "vox1_meta.csv")
    assert len(names) == len(set(names.values())) == script.VOX1["speakers"]
    assert names["A.J._Buckley"] == "id10001"


def test_the_command_line(script, corpus, capsys):
    arguments = [
        f"--data_folder={corpus / 'data'}",
        f"--save_folder={corpus / 'save'}",
        "--num_workers=1",
        "--manifests",
        str(corpus / "save" / "vox1.csv"),
    ]
    assert script.main(arguments) == 0
    assert counts(corpus)[0] == [8, 8, 0, 1, 2, 1, 0]
    assert script.main([*arguments, str(corpus / "absent.csv")]) == 1
    assert "absent.csv" in capsys.readouterr().err


def test_frames_are_taken_out_of_videos(corpus):
    frames = importlib.import_module("voxceleb_frames")
    folder = corpus / "mp4" / "id00012" / "21Uxsk56VDQ"
    folder.mkdir(parents=True)
    write_video(folder / "00001.mp4", 30)
    write_video(folder / "00002.mp4", 2)
    whole = (folder / "00001.mp4").read_bytes()
    (folder / "00003.mp4").write_bytes(whole[:200])
    (folder / "00004.mp4").write_bytes(b"")
    faces = corpus / "data" / "unzippedFaces"
    options = {"pictures": 4, "num_workers": 1}
    found = frames.extract_frames(corpus / "mp4", faces, **options)
    assert found == {"videos": 2, "rejected": 2}
    rejected = pd.read_csv(faces / "rejected_videos.csv")
    assert rejected["video"].str[-9:].tolist() == ["00003.mp4", "00004.mp4"]
    pictures = sorted((faces / "id00012/21Uxsk56VDQ/00001").iterdir())
    assert [p.stem for p in pictures] == ["00000", "00010", "00019", "00029"]
    # The videos become brighter.
    shades = [PIL.Image.open(p).convert("L").getpixel((9, 9)) for p in pictures]
    assert shades == sorted(shades) and shades[-1] - shades[0] > 100
    # Only what is missing is read again.
    shutil.rmtree(pictures[0].parent)
    again = frames.extract_frames(corpus / "mp4", faces, **options)
    assert again["videos"] == 1
    with pytest.raises(UserError, match="no mp4 file"):
        frames.extract_frames(corpus / "save", faces)


def test_frames_are_paired_with_their_utterance(script, corpus):
    frames = importlib.import_module("voxceleb_frames")
    folder = corpus / "mp4" / "id00012" / "21Uxsk56VDQ"
    folder.mkdir(parents=True)
    write_video(folder / "00001.mp4", 5)
    faces = corpus / "data" / "unzippedFaces"
    frames.extract_frames(corpus / "mp4", faces, 3, num_workers=1)
    prepare(script, corpus)
    assert counts(corpus)[0] == [4, 4, 0, 1, 2, 1, 3]


def write_video(path, frames):
    """A grey picture that becomes brighter from frame to frame."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for i in range(frames):
            grey = np.full((32, 32, 3), 30 + 200 * i // frames, np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_trials_are_evaluated_by_face(script, tmp_path, capsys):
    evaluate = importlib.import_module("evaluate_faces")
    rng = np.random.default_rng(0)
    rows, names = [], [f"s{s}/{u}" for s in range(8) for u in range(3)]
    for name in names[:-1]:
        speaker = np.random.default_rng(int(name[1])).integers(0, 200, (32, 32))
        pixels = speaker + rng.integers(0, 55, (32, 32))
        path = tmp_path / f"{name.replace('/', '_')}.png"
        PIL.Image.fromarray(pixels.astype(np.uint8)).save(path)
        rows.append((name, str(path)))
    write_faces(
        tmp_path / "faces.csv", pd.DataFrame(rows, columns=["ID", "image"])
    )
    pairs = itertools.combinations(names, 2)
    lines = [f"{int(a[:2] == b[:2])} {a}.wav {b}.wav\n" for a, b in pairs]
    (tmp_path / "trials.txt").write_text("".join(lines))
    evaluate.main(
        [
            "--model=pixels",
            f"--faces={tmp_path / 'faces.csv'}",
            f"--trials={tmp_path / 'trials.txt'}",
            f"--output={tmp_path / 'results.json'}",
        ]
    )
    figures = json.loads((tmp_path / "results.json").read_text())
    assert figures["eer_percent"] == 0
    # The last utterance has no face.
    assert figures["trials_without_face"] == len(names) - 1
    assert figures["trials"] == len(lines) - len(names) + 1
    assert f"{figures['trials']} trials; 23 lack" in capsys.readouterr().out
    with pytest.raises(TrialError, match="all targets or all nontargets"):
        trials = read_trials(tmp_path / "trials.txt")
        evaluate_faces(np.eye(24), np.arange(24) < 3, trials)
