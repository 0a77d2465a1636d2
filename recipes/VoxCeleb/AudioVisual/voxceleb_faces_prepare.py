"""Pair the utterances of VoxCeleb with pictures of their speakers' faces.

    python voxceleb_faces_prepare.py --data_folder=/path/to/corpora \
        --manifests ../save/train.csv ../save/vox1.csv --save_folder=../save

VoxCeleb1 comes with cropped faces, ``unzippedFaces/<name>/<size>/<video>/*.jpg``,
whose folders are named by persons; ``vox1_meta.csv`` tells their numbers. Faces
in folders named by numbers, such as those cut from the videos of VoxCeleb2, are
read as well, and those of a single utterance in
``<speaker>/<video>/<utterance>``. The names are used to find folders and leave
this script in paths alone.
"""

import argparse
import collections
import functools
import hashlib
import logging
import os
import pathlib
import re
import sys

import numpy as np
import pandas as pd

from speechbrain_ssl.checks import check_int
from speechbrain_ssl.data.faces import write_faces
from speechbrain_ssl.data.images import read_image
from speechbrain_ssl.data.manifest import Manifest
from speechbrain_ssl.errors import ImageError, ManifestError, UserError
from speechbrain_ssl.files import write_csv
from speechbrain_ssl.prepare.completed import completed, mark_completed
from speechbrain_ssl.prepare.preparation import spaced
from speechbrain_ssl.prepare.prepare_script import run_parsed
from speechbrain_ssl.prepare.workers import default_workers, finish_jobs
from speechbrain_ssl.progress import open_bar
from speechbrain_ssl.run_folder import locked

logger = logging.getLogger(__name__)

FACES_CSV = "faces.csv"
REJECTED_CSV = "rejected_faces.csv"
MISSING_CSV = "missing_faces.csv"

#: Published size of VoxCeleb1.
VOX1 = {"speakers": 1251, "videos": 22496}

SPEAKER = re.compile(r"id\d{5}$")
VIDEO = re.compile(r"[\w-]{11}$")
PICTURES = (".jpg", ".jpeg", ".png")


def prepare_voxceleb_faces(
    data_folder,
    save_folder,
    manifests,
    faces_folder=None,
    meta=None,
    pictures=8,
    num_workers=None,
):
    """Write ``faces.csv`` for the utterances of manifests.

    Every picture that is listed has been decoded once.

    Arguments
    ---------
    data_folder : str
        Folder of the corpora; ``$data_root`` in the outputs stands for it.
    save_folder : str
        Folder for ``faces.csv``, ``rejected_faces.csv`` (pictures that cannot
        be read, and why) and ``missing_faces.csv`` (utterances without a face).
    manifests : list of str
        Manifests of ``voxceleb_prepare.py``, whose IDs are
        ``<speaker>/<video>/<utterance>``.
    faces_folder : str, optional
        Folder of the pictures; ``unzippedFaces`` below ``data_folder`` by
        default.
    meta : str, optional
        ``vox1_meta.csv``; looked for below ``data_folder`` and beside the
        pictures by default. Folders named by persons need it.
    pictures : int
        Largest number of pictures of an utterance, spread evenly over those of
        its folder. Utterances of one video share them, unless each has a folder
        of its own.
    num_workers : int, optional
        Number of processes; one per core by default.

    Returns
    -------
    dict
        ``utterances``, ``with_face``, ``speakers`` and ``videos`` (with a
        face), ``pictures`` and ``rejected``: numbers.

    Raises
    ------
    UserError
        If the folder of the pictures is not found, or if folders are named by
        persons and ``vox1_meta.csv`` is not found.
    ManifestError
        If no utterance has a face.
    """
    check_int("prepare_voxceleb_faces", "pictures", pictures, least=1)
    data_folder = os.path.abspath(data_folder)
    root = _find_faces(data_folder, faces_folder)
    meta = _find_meta(data_folder, root) if meta is None else meta
    manifest = Manifest.read(manifests, data_folder)
    arguments = {
        "data_folder": data_folder,
        "utterances": hashlib.sha256(manifest.keys.tobytes()).hexdigest(),
        "faces_folder": root,
        "meta": meta,
        "pictures": pictures,
    }
    # In a folder of its own, beside that of the audio's preparation.
    record = pathlib.Path(save_folder) / "faces_prepared"
    before = completed(record, arguments)
    if before is not None:
        return before
    folders = list_folders(root, read_names(meta))
    wanted, missing = {}, []
    for i in range(len(manifest)):
        folder = _folder_of(manifest.ids[i], folders)
        if folder is None:
            missing.append(manifest.ids[i])
        else:
            wanted.setdefault(folder, []).append(manifest.ids[i])
    found, rejected = _read_all(root, wanted, folders, pictures, num_workers)
    rows = []
    for folder, ids in wanted.items():
        names = [f"{_as_written(root, data_folder)}/{n}" for n in found[folder]]
        rows += [(i, name) for i in ids for name in names]
        missing += [] if names else ids
    if not rows:
        raise ManifestError(
            f"none of the {len(manifest)} utterances of {', '.join(manifests)} "
            f"has a face below {root}: its first folder is "
            f"{next(iter(folders), 'missing')}, and the first utterance "
            f"{manifest.ids[0]}; give the pictures of this corpus as "
            "faces_folder"
        )
    with locked(record):
        return _write(
            save_folder, record, arguments, rows, rejected, missing, manifest
        )


def _find_faces(data_folder, faces_folder):
    tried = (
        [faces_folder]
        if faces_folder
        else [
            os.path.join(data_folder, *base, "unzippedFaces")
            for base in ((), ("vox1",), ("voxceleb1",), ("VoxCeleb1",))
        ]
    )
    for path in tried:
        if os.path.isdir(path):
            return os.path.abspath(path)
    raise UserError(
        f"there are no faces in {', '.join(tried)}; give their folder as "
        "faces_folder"
    )


def _find_meta(data_folder, root):
    """Return the path of ``vox1_meta.csv``, or None."""
    places = (
        data_folder,
        os.path.dirname(root),
        root,
        os.path.join(data_folder, "vox1"),
        os.path.join(data_folder, "meta"),
    )
    paths = [os.path.join(place, "vox1_meta.csv") for place in places]
    return next(filter(os.path.isfile, paths), None)


def read_names(path):
    """Read the number of each person from ``vox1_meta.csv``.

    Arguments
    ---------
    path : str or None
        The file, if there is one.

    Returns
    -------
    dict
        Name without points at its end (a file system may not keep them) ->
        number, such as ``id10001``.

    Raises
    ------
    UserError
        If the file has no such columns.
    """
    if path is None:
        return {}
    table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    try:
        names, ids = table["VGGFace1 ID"], table["VoxCeleb1 ID"]
    except KeyError as error:
        raise UserError(
            f"{path} has no columns 'VoxCeleb1 ID' and 'VGGFace1 ID'; get the "
            "file again"
        ) from error
    return dict(zip(names.str.strip().str.rstrip("."), ids, strict=True))


def list_folders(root, names):
    """List the folders that hold pictures.

    Arguments
    ---------
    root : str
        Folder of the pictures.
    names : dict
        Name -> number, from ``read_names``.

    Returns
    -------
    dict
        ``<speaker>/<video>`` or ``<speaker>/<video>/<utterance>`` -> paths
        of the pictures, relative to ``root`` and sorted.

    Raises
    ------
    UserError
        If a folder of pictures belongs to nobody known.
    """
    found, unknown = collections.defaultdict(list), []
    for folder, inner, files in os.walk(root):
        inner.sort()
        files = [n for n in files if n.lower().endswith(PICTURES)]
        if not files:
            continue
        place = pathlib.Path(folder).relative_to(root)
        person, *rest = place.parts or ("",)
        # <size>/<video>, <video> or <video>/<utterance>.
        video = next((i for i, p in enumerate(rest) if VIDEO.match(p)), None)
        speaker = names.get(person.rstrip("."), person)
        if video is None or not SPEAKER.match(speaker):
            unknown.append(str(place))
            continue
        key = "/".join([speaker, *rest[video : video + 2]])
        found[key] += [(place / name).as_posix() for name in files]
    if unknown and not found:
        raise UserError(
            f"no folder of pictures below {root} belongs to a known speaker, "
            f"the first is {unknown[0]}; folders are <name>/1.6/<video>, and "
            "vox1_meta.csv has to tell the names (give it as meta)"
        )
    if unknown:
        logger.warning(
            "%s folders of pictures belong to no known speaker and are left "
            "out, the first is %s",
            spaced(len(unknown)),
            unknown[0],
        )
    return {key: sorted(found[key]) for key in sorted(found)}


def _folder_of(utterance, folders):
    """Return the key of an utterance's own folder, or of its video's."""
    video = utterance.rsplit("/", 1)[0]
    return next((key for key in (utterance, video) if key in folders), None)


def _read_all(root, wanted, folders, pictures, num_workers):
    """Decode the chosen pictures of all folders.

    Returns
    -------
    tuple
        Key -> pictures that can be read, and (picture, reason) of the others.
    """
    workers = default_workers() if num_workers is None else num_workers
    jobs = [(key, _spread(folders[key], pictures)) for key in wanted]
    good, bad = {}, []
    with open_bar(total=len(jobs), desc="faces", unit="folder") as bar:
        read = functools.partial(read_folder, root)
        for (key, _), (names, reasons) in finish_jobs(
            read, jobs, workers if workers > 1 else 0
        ):
            good[key] = names
            bad += reasons
            bar.update(1)
    return good, bad


def _spread(names, count):
    """Return at most ``count`` names, spread evenly."""
    places = np.linspace(0, len(names) - 1, min(count, len(names)))
    return [names[i] for i in places.round().astype(int)]


def read_folder(root, key, names):
    """Decode pictures; return those that can be read, and why others cannot."""
    good, bad = [], []
    for name in names:
        try:
            read_image(os.path.join(root, name))
            good.append(name)
        except ImageError as error:
            bad.append((name, str(error)))
    return good, bad


def _as_written(root, data_folder):
    """Return the folder of the pictures with ``$data_root``."""
    inner = os.path.relpath(root, data_folder).replace(os.sep, "/")
    return root if inner.startswith("..") else f"$data_root/{inner}"


def _write(save_folder, record, arguments, rows, rejected, missing, manifest):
    """Write the three tables and the record; log and return the numbers."""
    save_folder = pathlib.Path(save_folder)
    faces = pd.DataFrame(sorted(rows), columns=["ID", "image"])
    write_faces(save_folder / FACES_CSV, faces)
    for name, columns, table in (
        (REJECTED_CSV, ["image", "reason"], sorted(rejected)),
        (MISSING_CSV, ["ID"], [[i] for i in sorted(missing)]),
    ):
        write_csv(save_folder / name, pd.DataFrame(table, columns=columns))
    shown = faces["ID"].unique()
    summary = {
        "utterances": len(manifest),
        "with_face": len(shown),
        "speakers": len({i.split("/")[0] for i in shown}),
        "videos": len({i.rsplit("/", 1)[0] for i in shown}),
        "pictures": int(faces["image"].nunique()),
        "rejected": len(rejected),
    }
    logger.info(
        "%s of %s utterances have a face: %s pictures of %s videos of %s "
        "speakers (VoxCeleb1 has %s videos of %s speakers); %s pictures cannot "
        "be read; %s and %s name what is missing",
        *(
            spaced(n)
            for n in (
                summary["with_face"],
                summary["utterances"],
                summary["pictures"],
                summary["videos"],
                summary["speakers"],
                VOX1["videos"],
                VOX1["speakers"],
                summary["rejected"],
            )
        ),
        save_folder / MISSING_CSV,
        save_folder / REJECTED_CSV,
    )
    outputs = [f"../{n}" for n in (FACES_CSV, REJECTED_CSV, MISSING_CSV)]
    mark_completed(record, arguments, outputs, summary)
    return summary


def main(argv=None):
    """Run the preparation from the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--data_folder", required=True, help="Folder of the corpora.")
    add("--save_folder", required=True, help="Folder for faces.csv.")
    add("--manifests", required=True, nargs="+", help="Manifests of the audio.")
    add("--faces_folder", help="Folder of the pictures.")
    add("--meta", help="vox1_meta.csv, for folders named by persons.")
    add("--pictures", type=int, default=8, help="Most pictures an utterance.")
    add("--num_workers", type=int, help="Processes (default: one per core).")
    return run_parsed(prepare_voxceleb_faces, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
