"""Find the parts of VoxCeleb, in the folder layouts that are in use.

``voxceleb_prepare.py`` calls ``find_places``.
"""

import os
import pathlib
import re

from speechbrain_ssl.errors import UserError
from speechbrain_ssl.prepare.background import find_musan, find_rirs

# VoxCeleb2 speakers are id00012 to id09272, VoxCeleb1's id10001 to id11251.
VOX2_SPEAKER = re.compile(r"id0\d{4}$")
VOX1_SPEAKER = re.compile(r"id1\d{4}$")

# Where the speaker folders may be, below the corpus folder or data folder.
VOX2_BASES = ("", "voxceleb2", "VoxCeleb2", "vox2")
VOX2_WAV = ("dev/wav", "wav", "vox2_dev_wav/wav", "")
VOX2_AAC = ("dev/aac", "aac", "vox2_dev_aac/aac", "")
VOX1_BASES = ("", "voxceleb1", "VoxCeleb1", "vox1")
VOX1_WAV = (
    "wav",
    "dev/wav",
    "test/wav",
    "vox1_dev_wav/wav",
    "vox1_test_wav/wav",
    "vox1_dev_wav",
    "vox1_test_wav",
    "",
)

# Our name -> name of the file at the source, and number of trials.
TRIAL_LISTS = {
    "vox1_O": ("veri_test.txt", 37720),
    "vox1_O_cleaned": ("veri_test2.txt", 37611),
    "vox1_E": ("list_test_all.txt", 581480),
    "vox1_E_cleaned": ("list_test_all2.txt", 579818),
    "vox1_H": ("list_test_hard.txt", 552536),
    "vox1_H_cleaned": ("list_test_hard2.txt", 550894),
}


def find_places(
    data_folder, vox2_folder, vox1_folder, musan_folder, rirs_folder, wav_folder
):
    """Find all corpora and trial lists.

    Arguments
    ---------
    data_folder : str
        Folder to search for corpora whose own folder is not given.
    vox2_folder, vox1_folder, musan_folder, rirs_folder, wav_folder
        See ``voxceleb_prepare.prepare_voxceleb``.

    Returns
    -------
    dict
        ``vox2_wav`` (which may not exist yet), ``vox2_aac``, ``vox2_meta``,
        ``musan`` and ``rirs``: absolute paths, or None. ``vox1``: a list of
        folders. ``trials``: our name -> path, for each list that exists.

    Raises
    ------
    UserError
        If VoxCeleb2, or a folder that was given, is not found.
    """
    vox2_root = os.path.abspath(vox2_folder or data_folder)
    vox1_root = os.path.abspath(vox1_folder or data_folder)
    wav, aac = _find_vox2(vox2_root, wav_folder)
    vox1_trees = _find_vox1(vox1_root)
    if vox1_folder and not vox1_trees:
        raise UserError(
            f"VoxCeleb1 was not found below {vox1_root}: no folder "
            f"{', '.join(t or '.' for t in VOX1_WAV)} in it holds speaker "
            "folders such as id10001; correct vox1_folder"
        )
    meta = [data_folder, vox2_root]
    for tree in filter(None, (wav, aac)):
        meta += [str(p) for p in pathlib.Path(tree).parents[:3]]
    meta = [os.path.join(folder, "vox2_meta.csv") for folder in meta]
    return {
        "vox2_wav": wav,
        "vox2_aac": aac,
        "vox2_meta": next(filter(os.path.isfile, meta), None),
        "vox1": vox1_trees,
        "musan": find_musan(musan_folder, data_folder),
        "rirs": find_rirs(rirs_folder, data_folder),
        "trials": _find_trials(vox1_root, data_folder),
    }


def _find_vox2(root, wav_folder):
    """Find the wav folder (or its future place) and the aac folder."""
    wav = _first_tree(root, VOX2_WAV, ".wav")
    aac = _first_tree(root, VOX2_AAC, ".m4a")
    if wav_folder and (aac or wav is None):
        wav = os.path.abspath(wav_folder)
    elif wav is None and aac:
        wav = os.path.join(os.path.dirname(aac), "wav")
    if wav is None or not (aac or os.path.isdir(wav)):
        tried = dict.fromkeys(
            _candidates(root, VOX2_BASES, VOX2_WAV + VOX2_AAC)
        )
        raise UserError(
            "VoxCeleb2 was not found: none of these holds speaker folders such "
            f"as id00012: {', '.join(tried)}; give its folder as vox2_folder"
        )
    return wav, aac


def _first_tree(root, trees, extension):
    """Return the first place that holds VoxCeleb2, or None."""
    for path in _candidates(root, VOX2_BASES, trees):
        # Look into several speakers, as one may be empty, but not into all.
        for name in _speakers(path, VOX2_SPEAKER)[:20]:
            for _, _, files in os.walk(os.path.join(path, name)):
                if any(f.lower().endswith(extension) for f in files):
                    return path
    return None


def _find_vox1(root):
    """List all places that hold a part of VoxCeleb1."""
    found = {}
    for path in _candidates(root, VOX1_BASES, VOX1_WAV):
        if _speakers(path, VOX1_SPEAKER):
            # Two candidates may be one folder, through a link or on a file
            # system that ignores case.
            found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def _find_trials(vox1_root, data_folder):
    """Find the trial lists; return our name -> path."""
    lists = {}
    for name, (file_name, _) in TRIAL_LISTS.items():
        for root in (vox1_root, data_folder):
            paths = _candidates(root, VOX1_BASES, ("", "meta"), file_name)
            path = next(filter(os.path.isfile, paths), None)
            if path:
                lists[name] = path
                break
    return lists


def _candidates(root, bases, trees, *names):
    """List the usual places below a folder."""
    return [
        os.path.normpath(os.path.join(root, base, tree, *names))
        for base in bases
        for tree in trees
    ]


def _speakers(folder, pattern):
    """List the subfolders that are named like speakers."""
    try:
        return sorted(filter(pattern.match, os.listdir(folder)))
    except OSError:
        return []
