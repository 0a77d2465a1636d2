"""Write the manifests of MUSAN and RIRS_NOISES, for the augmentation."""

import os

from speechbrain_ssl.errors import UserError
from speechbrain_ssl.prepare.listing import list_files

# Published numbers of files.
MUSAN = {"noise": 930, "music": 660, "speech": 426}
SIMULATED_RIRS = 60000


def find_musan(given, data_folder):
    """Find MUSAN.

    Arguments
    ---------
    given : str or None
        The folder that the user named, if any.
    data_folder : str
        Where to look for it otherwise.

    Returns
    -------
    str or None
        Its absolute path; None if it was not found.

    Raises
    ------
    UserError
        If ``given`` is not the folder of MUSAN.
    """
    return _find(given, data_folder, ("musan", "MUSAN"), MUSAN, "musan_folder")


def find_rirs(given, data_folder):
    """Find RIRS_NOISES, as ``find_musan`` finds MUSAN."""
    return _find(
        given,
        data_folder,
        ("RIRS_NOISES", "rirs_noises"),
        ("simulated_rirs", "real_rirs_isotropic_noises"),
        "rirs_folder",
    )


def _find(given, data_folder, names, parts, argument):
    """Find a corpus by its subfolders."""
    root = os.path.abspath(given or data_folder)
    candidates = [os.path.join(root, name) for name in names]
    if given:
        candidates.insert(0, root)
    for path in candidates:
        if any(os.path.isdir(os.path.join(path, part)) for part in parts):
            return path
    if given:
        raise UserError(
            f"{argument}={given} has none of the folders {', '.join(parts)}; "
            "give the folder that holds them"
        )
    return None


def prepare_musan(preparation, folder):
    """Write ``noise.csv``, ``music.csv`` and ``speech.csv``.

    Arguments
    ---------
    preparation : speechbrain_ssl.prepare.preparation.Preparation
        Records the manifests, the counts and what is missing.
    folder : str or None
        What ``find_musan`` returned.
    """
    if folder is None:
        preparation.missing.append(
            "MUSAN: not found; give musan_folder, or train without noise: "
            "--noise_csv=null --music_csv=null --speech_csv=null --noise=0 "
            "--both=0, and --clean such that the probabilities add up to 1"
        )
        return
    for part, published in MUSAN.items():
        files = _list_part(folder, part)
        found = preparation.scan(
            folder, files, "musan", speech=False, wav_root=folder
        )
        preparation.count(
            f"MUSAN {part}", {"files": len(found.usable)}, {"files": published}
        )
        if len(found.usable):
            preparation.write(f"{part}.csv", found.manifest())
        else:
            preparation.missing.append(
                f"MUSAN {part}: nothing usable; complete MUSAN, or train "
                f"without this kind of noise: --{part}_csv=null"
            )


def prepare_rirs(preparation, folder):
    """Write ``rirs.csv``: simulated and real room responses.

    Arguments
    ---------
    preparation : speechbrain_ssl.prepare.preparation.Preparation
        Records the manifest, the count and what is missing.
    folder : str or None
        What ``find_rirs`` returned.
    """
    if folder is None:
        preparation.missing.append(
            "RIRS_NOISES: not found; give rirs_folder, or train without "
            "rooms: --rirs_csv=null --reverb=0 --both=0, and --clean such "
            "that the probabilities add up to 1"
        )
        return
    # The real responses share their folder with recordings of noise.
    files = _list_part(folder, "simulated_rirs") + [
        name
        for name in _list_part(folder, "real_rirs_isotropic_noises")
        if "noise" not in name.rsplit("/", 1)[1]
    ]
    found = preparation.scan(
        folder, files, "rirs", speech=False, wav_root=folder
    )
    simulated = found.usable["ID"].str.startswith("simulated_rirs/").sum()
    preparation.count(
        "RIRS_NOISES",
        {"simulated responses": int(simulated)},
        {"simulated responses": SIMULATED_RIRS},
    )
    if len(found.usable):
        preparation.write("rirs.csv", found.manifest())


def _list_part(folder, part):
    """List the audio files of a subfolder, relative to the folder."""
    path = os.path.join(folder, part)
    if not os.path.isdir(path):
        return []
    return [f"{part}/{name}" for name in list_files(path).files]
