"""Face manifests, and the same views of pictures whatever the machine."""

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch

from speechbrain_ssl.data.crops import CropPlan
from speechbrain_ssl.data.face_dataset import (
    FaceDataset,
    FaceHalves,
    FaceViews,
)
from speechbrain_ssl.data.faces import FaceManifest, write_faces
from speechbrain_ssl.data.loaders import make_loaders
from speechbrain_ssl.data.manifest import Manifest, StringColumn
from speechbrain_ssl.errors import ConfigError, ImageError, ManifestError

#: Pictures of each utterance; picture ``j`` of utterance ``i`` is all 10 i + j.
COUNTS = [3, 1, 0, 2, 3, 3, 1, 2]
SIZE = 8


def manifest_of(ids):
    names = StringColumn.from_strings(ids)
    wavs = StringColumn.from_strings([f"/x/{i}.wav" for i in ids])
    return Manifest(names, wavs, np.ones(len(ids)))


@pytest.fixture(scope="module")
def manifest():
    return manifest_of([f"u{i}" for i in range(len(COUNTS))])


@pytest.fixture
def csv(tmp_path):
    rows = []
    for i, count in enumerate(COUNTS):
        for j in range(count):
            name = f"{i}_{j}.png"
            PIL.Image.new("L", (9, 9), 10 * i + j).save(tmp_path / name)
            rows.append(f"u{i},{name}")
    path = tmp_path / "faces.csv"
    # Not in the order of the manifest, and with the person named.
    lines = [f"{row},someone" for row in rows[::-1]]
    path.write_text("\n".join(["ID,image,person", *lines, "other,o.png,x"]))
    return path


@pytest.fixture
def faces(csv, manifest):
    return FaceManifest.read(csv, manifest)


def data_of(manifest, faces, plan=None, **options):
    plan = plan or FaceViews("", size=SIZE)
    return FaceDataset(manifest, faces, plan, seed=3, **options)


def values(views):
    """Grey value of each view."""
    return views[:, 0, 0, 0].tolist()


def test_a_face_manifest_is_aligned_with_the_utterances(faces, tmp_path):
    assert [faces.count(i) for i in range(len(faces))] == COUNTS
    assert faces.has_face.tolist() == [c > 0 for c in COUNTS]
    assert faces.paths(3) == [str(tmp_path / f"3_{j}.png") for j in (1, 0)]
    assert faces.paths(2) == []


def test_paths_may_start_from_the_data_root(tmp_path, manifest):
    (tmp_path / "f.csv").write_text("ID,image\nu1,$data_root/a.png\nu0,/b.png")
    found = FaceManifest.read(tmp_path / "f.csv", manifest, "/data")
    assert found.paths(0) + found.paths(1) == ["/b.png", "/data/a.png"]
    with pytest.raises(ManifestError, match="data_root"):
        FaceManifest.read(tmp_path / "f.csv", manifest)


@pytest.mark.parametrize(
    "text, message",
    [
        ("ID,image\n", "lists no picture"),
        ("ID,wav\nu0,a\n", "columns ID, image"),
        ("ID,image\nu0,\n", "line 2: the column image is empty"),
        ("ID,image\n,a.png\n", "line 2: the column ID is empty"),
        ("ID,image\nu0,a\nu1,a\nu0,a\n", "line 4: the picture a"),
        ("ID,image\nv0,a\n", "no picture of any of the 8 utterances"),
    ],
)
def test_a_malformed_face_manifest_is_refused(
    tmp_path, manifest, text, message
):
    path = tmp_path / "faces.csv"
    path.write_text(text)
    with pytest.raises(ManifestError, match=message) as error:
        FaceManifest.read(path, manifest)
    assert str(path) in str(error.value)
    with pytest.raises(ManifestError, match="there is no face manifest"):
        FaceManifest.read(tmp_path / "absent.csv", manifest)
    with pytest.raises(ManifestError, match="there is no face manifest"):
        FaceManifest.read(tmp_path, manifest)


def test_a_written_face_manifest_names_no_person(tmp_path):
    table = pd.DataFrame({"image": ["a.png"], "ID": ["u0"]})
    write_faces(tmp_path / "f.csv", table)
    assert (tmp_path / "f.csv").read_text() == "ID,image\nu0,a.png\n"
    with pytest.raises(ManifestError, match="person"):
        write_faces(tmp_path / "f.csv", table.assign(person="x"))


def test_views_are_the_same_on_any_machine(manifest, faces):
    data = data_of(manifest, faces, FaceViews("", None, 2, 1, SIZE))
    epoch, index, groups, bad, present = data[(1, 0)]
    assert (epoch, index, bad, present) == (1, 0, [], True)
    assert [g.shape for g in groups] == [(2, 3, 8, 8), (1, 3, 8, 8)]
    # Different pictures as long as there are some.
    assert sorted(values(groups[0]) + values(groups[1])) == [0, 1, 2]
    assert values(data[(1, 1)][2][0]) == [10, 10]
    firsts = [data[(epoch, 0)][2][0] for epoch in range(30)]
    assert {v[0, 0, 0, 0] for v in firsts} == {0, 1, 2}
    again = data_of(manifest, faces, FaceViews("", None, 2, 1, SIZE))
    assert np.array_equal(again[(7, 0)][2][0], firsts[7])
    # Another order of the manifest, another position: the key counts.
    turned = manifest.select(np.arange(len(manifest))[::-1])
    other = data_of(turned, None, FaceViews("", None, 2, 1, SIZE))
    offsets = np.concatenate([[0], np.cumsum(COUNTS[::-1])])
    paths = [p for i in range(8)[::-1] for p in faces.paths(i)]
    other.faces = FaceManifest(StringColumn.from_strings(paths), offsets)
    assert np.array_equal(other[(7, 7)][2][0], firsts[7])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_has_what_a_batch_of_audio_has(manifest, faces, workers):
    data = data_of(manifest, faces, allow_missing=True)
    loader = torch.utils.data.DataLoader(
        data,
        batch_sampler=[[(2, 3), (2, 2), (2, 0)]],
        collate_fn=data.collate,
        num_workers=workers,
    )
    (batch,) = loader
    assert batch.crops[0].shape == (3, 2, 3, 8, 8)
    assert batch.crops[0].dtype == torch.uint8
    assert batch.index.tolist() == [3, 2, 0] and batch.epoch == 2
    assert np.array_equal(batch.keys, manifest.keys[[3, 2, 0]])
    assert batch.present.tolist() == [True, False, True] and batch.bad == []
    assert batch.nbytes == 3 * 2 * 3 * 8 * 8 and batch.reference is None
    assert batch.crops[0][1].max() == 0
    whole = batch.crops[0].clone()
    batch.to("cpu").to("cpu")
    assert batch.crops[0].dtype == torch.float32
    assert torch.equal((batch.crops[0] * 255).round().byte(), whole)


def test_a_reference_view_for_ssps(manifest, faces):
    data = data_of(manifest, faces, reference_seconds=1, reference_from=2)
    assert data.collate([data[(1, 0)]]).reference is None
    batch = data.collate([data[(2, 0)], data[(2, 3)]])
    assert batch.reference.shape == (2, 3, 8, 8) and len(batch.crops) == 1
    assert batch.crops[0].shape == (2, 2, 3, 8, 8)


def test_a_bad_picture_is_reported_and_another_one_shown(manifest, faces):
    path = faces.paths(3)[0]
    with open(path, "wb") as stream:
        stream.write(b"broken")
    _, index, groups, bad, _ = data_of(manifest, faces)[(1, 3)]
    assert index == 3 and values(groups[0]) == [30, 30]
    assert [p for p, _ in bad] == [path] and path in bad[0][1]


def test_an_utterance_without_pictures_is_replaced_or_absent(manifest, faces):
    with open(faces.paths(1)[0], "wb"):
        pass
    for index, why in ((1, "cannot be read"), (2, "has none")):
        _, other, groups, bad, present = data_of(manifest, faces)[(1, index)]
        assert present and values(groups[0])[0] // 10 == other
        assert bad[0][0] == manifest.path(index) and why in bad[0][1]
        data = data_of(manifest, faces, allow_missing=True)
        _, same, groups, bad, present = data[(1, index)]
        assert same == index and not present and groups[0].max() == 0
        # Having no picture is no fault; having a broken one is.
        assert len(bad) == (index == 1)


def test_a_face_manifest_of_pictures_that_moved(manifest, faces, tmp_path):
    for path in tmp_path.glob("*.png"):
        path.unlink()
    with pytest.raises(ImageError, match="10 utterances in a row.*Check that"):
        data_of(manifest, faces)[(1, 0)]


def test_halves_show_different_pictures(manifest, faces):
    data = FaceHalves(manifest, faces, SIZE)
    index, views = data[0]
    halves = [set(values(views[:2])), set(values(views[2:]))]
    assert index == 0 and not halves[0] & halves[1]
    assert len(halves[0] | halves[1]) == 3
    assert values(data[1][1]) == [10] * 4
    assert np.array_equal(data[0][1], views)
    batch = data.collate([data[0], data[1]])
    assert batch.crops[0].shape == (2, 4, 3, 8, 8) and batch.epoch == 0
    assert data.usable(0) and not data.usable(2)


def test_loaders_leave_out_utterances_without_a_picture(csv, manifest):
    plan = FaceViews(str(csv), size=SIZE)
    train, sampler, valid = make_loaders(
        manifest, plan, 1, 2, valid_utterances=3, valid_seconds=0
    )
    ids = [train.dataset.manifest.ids[i] for i in range(4)]
    ids += [valid.dataset.manifest.ids[i] for i in range(3)]
    assert sorted(ids) == [f"u{i}" for i in (0, 1, 3, 4, 5, 6, 7)]
    seen = [i for batch in train for i in batch.index.tolist()]
    assert sorted(seen) == [0, 1, 2, 3]
    (batch,) = valid
    assert batch.crops[0].shape == (3, 4, 3, 8, 8)


def test_a_plan_of_views_has_what_a_plan_of_crops_has():
    own = set(dir(FaceViews("x")))
    audio = {"global_seconds", "local_seconds", "chunk_seconds", "sample_rate"}
    audio |= {"chunk", "starts"}
    public = {n for n in dir(CropPlan()) if not n.startswith("_")}
    assert public - audio <= own
    with pytest.raises(ConfigError, match="global_crops"):
        FaceViews("x", global_crops=0)
