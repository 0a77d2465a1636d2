"""Prepares VoxCeleb, MUSAN and RIRS_NOISES.

    python voxceleb_prepare.py --data_folder=/path/to/corpora --save_folder=save

VoxCeleb2 dev becomes ``train.csv``, without a speaker column: the folder names
of the speakers are counted here, against the published numbers, and leave this
script only as a part of the utterance IDs. VoxCeleb1 gives the trial lists and
``vox1.csv``; MUSAN and RIRS_NOISES the manifests for augmentation. What is not
there is left out with a warning, apart from VoxCeleb2.
"""

import argparse
import collections
import concurrent.futures
import logging
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pandas as pd
from tqdm import tqdm

from speechbrain_ssl.data.manifest import write_manifest
from speechbrain_ssl.data.prepare_script import run_parsed
from speechbrain_ssl.data.scan import (
    CHECKS,
    completed,
    default_workers,
    list_files,
    mark_completed,
    reasons,
    rejected_table,
    scan,
    write_rejected,
)
from speechbrain_ssl.errors import ManifestError, TrialError, UserError
from speechbrain_ssl.files import atomic_write
from speechbrain_ssl.verification import trials as trial_lists

logger = logging.getLogger(__name__)

SAMPLE_RATE = 16000

# VoxCeleb2 speakers are id00012 to id09272, VoxCeleb1's id10001 to id11251.
VOX2_SPEAKER = re.compile(r"id0\d{4}$")
VOX1_SPEAKER = re.compile(r"id1\d{4}$")
UTTERANCE = re.compile(r"id\d{5}/[^/]+/[^/]+$")

# Where the speaker folders lie, below the corpus folder or the data folder.
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

# Published sizes.
VOX2_DEV = {"speakers": 5994, "videos": 145569, "utterances": 1092009}
VOX1_DEV = {"speakers": 1211, "utterances": 148642}
VOX1_TEST = {"speakers": 40, "utterances": 4874}
MUSAN = {"noise": 930, "music": 660, "speech": 426}
SIMULATED_RIRS = 60000

# The test speakers of VoxCeleb1.
VOX1_TEST_SPEAKERS = {f"id{n}" for n in range(10270, 10310)}

# Our name: the file's name at the source, and the number of trials.
TRIAL_LISTS = {
    "vox1_O": ("veri_test.txt", 37720),
    "vox1_O_cleaned": ("veri_test2.txt", 37611),
    "vox1_E": ("list_test_all.txt", 581480),
    "vox1_E_cleaned": ("list_test_all2.txt", 579818),
    "vox1_H": ("list_test_hard.txt", 552536),
    "vox1_H_cleaned": ("list_test_hard2.txt", 550894),
}

# A file that takes ffmpeg longer than this (seconds) has hung it.
FFMPEG_TIMEOUT = 300


def prepare_voxceleb(
    data_folder,
    save_folder,
    vox2_folder=None,
    vox1_folder=None,
    musan_folder=None,
    rirs_folder=None,
    wav_folder=None,
    min_duration=1.0,
    check="header",
    num_workers=None,
    skip_prep=False,
):
    """Writes the manifests and trial lists of the VoxCeleb recipes.

    Arguments
    ---------
    data_folder : str
        Folder of the corpora; ``$data_root`` in the manifests stands for it.
    save_folder : str
        Where the outputs go.
    vox2_folder : str, optional
        VoxCeleb2, if it is not below ``data_folder`` under a usual name.
    vox1_folder : str, optional
        VoxCeleb1 and its trial lists, likewise.
    musan_folder : str, optional
        MUSAN, likewise.
    rirs_folder : str, optional
        RIRS_NOISES, likewise.
    wav_folder : str, optional
        Where wavs made from m4a files go. Beside the ``aac`` folder otherwise.
    min_duration : float
        VoxCeleb2 files shorter than this (seconds) are rejected.
    check : str
        ``"header"`` reads headers; ``"decode"`` reads all audio and also finds
        silent and damaged files.
    num_workers : int, optional
        Processes that read or convert; one per core otherwise.
    skip_prep : bool
        Does nothing.

    Returns
    -------
    dict
        ``utterances``, ``hours``, ``rejected`` (number by reason), ``counts``
        (found and published, by corpus), ``missing`` (in words) and ``trials``
        (trials, published number and utterances, by list). Empty with
        ``skip_prep``.

    Raises
    ------
    UserError
        If VoxCeleb2 or a folder that was named is not found, or if there are
        m4a files to convert and there is no ffmpeg.
    ManifestError
        If no file of VoxCeleb2 is usable, or if the training list overlaps the
        trials.
    TrialError
        If a trial list is malformed or names an absent or unusable file.
    """
    if skip_prep:
        return {}
    data_folder = os.path.abspath(data_folder)
    save_folder = pathlib.Path(save_folder)
    if not os.path.isdir(data_folder):
        raise UserError(
            f"there is no folder {data_folder}; give the folder of the corpora "
            "as data_folder"
        )
    places = _find_places(
        data_folder,
        vox2_folder,
        vox1_folder,
        musan_folder,
        rirs_folder,
        wav_folder,
    )
    arguments = {
        "data_folder": data_folder,
        "min_duration": min_duration,
        "check": check,
        **places,
    }
    before = completed(save_folder, arguments)
    if before is not None:
        return before
    work = _Work(data_folder, save_folder, check, num_workers)
    try:
        speakers = work.prepare_training(places, min_duration)
        work.prepare_trials(places, speakers)
        work.prepare_musan(places["musan"])
        work.prepare_rirs(places["rirs"])
    finally:
        # Also where a step has failed: the reason may be in there.
        rejected = work.write_rejected()
    work.summary["rejected"] = rejected
    for line in work.summary["missing"]:
        logger.warning("missing: %s", line)
    logger.info(
        "%d training utterances, %.1f hours; rejected: %s",
        work.summary["utterances"],
        work.summary["hours"],
        ", ".join(f"{n} {r}" for r, n in rejected.items()) or "none",
    )
    mark_completed(save_folder, arguments, work.outputs, work.summary)
    return work.summary


# ------------------------------------------------------------ finding the files


def _find_places(data_folder, vox2, vox1, musan, rirs, wav_folder):
    """Finds every corpus; all paths absolute, or None, or empty."""
    vox2_root = os.path.abspath(vox2 or data_folder)
    tried = [
        os.path.join(vox2_root, base, tree)
        for base in VOX2_BASES
        for tree in (*VOX2_WAV, *VOX2_AAC)
    ]
    wav = _first(vox2_root, VOX2_BASES, VOX2_WAV, VOX2_SPEAKER, ".wav")
    aac = _first(vox2_root, VOX2_BASES, VOX2_AAC, VOX2_SPEAKER, ".m4a")
    if wav_folder and (aac or wav is None):
        wav = os.path.abspath(wav_folder)
    elif wav is None and aac:
        wav = os.path.join(os.path.dirname(aac), "wav")
    if wav is None or not (aac or os.path.isdir(wav)):
        raise UserError(
            "VoxCeleb2 was not found: none of these holds speaker folders such "
            "as id00012: "
            + ", ".join(dict.fromkeys(map(_tidy, tried)))
            + "; give its folder as vox2_folder"
        )
    vox1_root = os.path.abspath(vox1 or data_folder)
    vox1_trees = _all(vox1_root, VOX1_BASES, VOX1_WAV, VOX1_SPEAKER)
    if vox1 and not vox1_trees:
        raise UserError(
            f"VoxCeleb1 was not found below {vox1_root}: no folder "
            f"{', '.join(t or '.' for t in VOX1_WAV)} in it holds speaker "
            "folders such as id10001; correct vox1_folder"
        )
    musan = _corpus(
        musan, data_folder, ("musan", "MUSAN"), MUSAN, "musan_folder"
    )
    rirs = _corpus(
        rirs,
        data_folder,
        ("RIRS_NOISES", "rirs_noises"),
        ("simulated_rirs", "real_rirs_isotropic_noises"),
        "rirs_folder",
    )
    folders = [
        os.path.join(root, base, below)
        for root in dict.fromkeys((vox1_root, data_folder))
        for base in VOX1_BASES
        for below in ("", "meta")
    ]
    lists = {}
    for name, (file_name, _) in TRIAL_LISTS.items():
        for folder in folders:
            path = os.path.join(folder, file_name)
            if os.path.isfile(path):
                lists[name] = _tidy(path)
                break
    meta = [data_folder, vox2_root]
    for tree in filter(None, (wav, aac)):
        meta += [str(p) for p in pathlib.Path(tree).parents[:3]]
    meta = [os.path.join(folder, "vox2_meta.csv") for folder in meta]
    return {
        "vox2_wav": wav,
        "vox2_aac": aac,
        "vox2_meta": next(filter(os.path.isfile, meta), None),
        "vox1": vox1_trees,
        "musan": musan,
        "rirs": rirs,
        "trials": lists,
    }


def _tidy(path):
    """A path without empty parts."""
    return os.path.normpath(path)


def _holds(folder, speaker, extension=None):
    """Whether a folder has speaker folders with files of the extension."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return False
    speakers = [name for name in names if speaker.match(name)]
    if extension is None:
        return bool(speakers)
    # The first speaker may be empty; a whole tree of m4a files is not searched.
    for name in speakers[:20]:
        for _, _, files in os.walk(os.path.join(folder, name)):
            for file_name in files:
                if file_name.lower().endswith(extension):
                    return True
    return False


def _first(root, bases, trees, speaker, extension):
    """The first of the usual places that holds the corpus, or None."""
    for base in bases:
        for tree in trees:
            path = _tidy(os.path.join(root, base, tree))
            if _holds(path, speaker, extension):
                return path
    return None


def _all(root, bases, trees, speaker):
    """All of the usual places that hold a part of the corpus."""
    found = {}
    for base in bases:
        for tree in trees:
            path = _tidy(os.path.join(root, base, tree))
            if _holds(path, speaker):
                # One folder may be reached by a link, or in either case.
                found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def _corpus(given, data_folder, names, parts, argument):
    """Folder of a corpus that is recognised by its subfolders, or None."""
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


# -------------------------------------------------------------------- the steps


class _Work:
    """The steps, and what they leave behind for the summary."""

    def __init__(self, data_folder, save_folder, check, num_workers):
        self.data_folder = data_folder
        self.save_folder = save_folder
        self.check = check
        self.num_workers = (
            default_workers() if num_workers is None else num_workers
        )
        self.rejected = []
        self.outputs = ["rejected.csv"]
        self.summary = {
            "utterances": 0,
            "hours": 0.0,
            "rejected": {},
            "counts": {},
            "missing": [],
            "trials": {},
        }

    def wav_root(self, folder):
        """How a folder is written in a manifest of VoxCeleb."""
        inner = os.path.relpath(folder, self.data_folder).replace(os.sep, "/")
        if inner == ".":
            return "$data_root"
        return str(folder) if inner.startswith("..") else f"$data_root/{inner}"

    def scan(self, root, files, name, **kwargs):
        """Scans, and keeps the rejected files for the common list."""
        found = scan(
            root,
            files,
            cache=self.save_folder / "scan_cache" / f"{name}.jsonl",
            check=self.check,
            sample_rate=SAMPLE_RATE,
            num_workers=self.num_workers,
            **kwargs,
        )
        self.reject(found.rejected.itertuples(index=False))
        return found

    def reject(self, rows):
        """Adds rows (wav, reason, detail) to the rejected files."""
        self.rejected.extend(rows)

    def write_rejected(self):
        """Writes ``rejected.csv`` and returns the number by reason."""
        table = rejected_table(self.rejected)
        write_rejected(self.save_folder / "rejected.csv", table)
        return reasons(table)

    def write(self, name, table):
        """Writes a manifest and notes it."""
        write_manifest(self.save_folder / name, table)
        self.outputs.append(name)

    def count(self, corpus, found, published):
        """Compares numbers with the published ones."""
        self.summary["counts"][corpus] = {
            what: [found[what], published[what]] for what in published
        }
        for what, number in published.items():
            if found[what] < number:
                self.summary["missing"].append(
                    f"{corpus}: {_spaced(found[what])} of {_spaced(number)} "
                    f"{what}"
                )
            elif found[what] > number:
                logger.warning(
                    "%s has %s %s, more than the published %s",
                    corpus,
                    _spaced(found[what]),
                    what,
                    _spaced(number),
                )

    # VoxCeleb2 --------------------------------------------------------------

    def prepare_training(self, places, min_duration):
        """Writes ``train.csv``; returns the speakers in it, for checking."""
        tree, meta = places["vox2_wav"], _read_meta(places["vox2_meta"])
        if places["vox2_aac"]:
            self.convert(places["vox2_aac"], tree)
        files = self.training_files(tree, meta)
        found = self.scan(
            tree,
            files,
            "train",
            wav_root=self.wav_root(tree),
            min_duration=min_duration,
        )
        if len(found.usable) == 0:
            raise ManifestError(
                f"no file of VoxCeleb2 below {tree} can be used; "
                f"{self.save_folder / 'rejected.csv'} says why"
            )
        self.write("train.csv", found.manifest())
        ids = found.usable["ID"]
        speakers = {i.split("/")[0] for i in ids}
        numbers = {
            "speakers": len(speakers),
            "videos": len({i.rsplit("/", 1)[0] for i in ids}),
            "utterances": len(ids),
        }
        self.count("VoxCeleb2 dev", numbers, VOX2_DEV)
        absent = sorted(
            s for s in meta if meta[s] == "dev" and s not in speakers
        )
        if absent:
            self.summary["missing"].append(
                f"VoxCeleb2 dev: {_spaced(len(absent))} speakers of "
                f"vox2_meta.csv have no usable utterance, the first {absent[0]}"
            )
        self.summary["utterances"] = len(ids)
        self.summary["hours"] = round(
            float(found.usable["duration"].sum()) / 3600, 4
        )
        return speakers

    def training_files(self, tree, meta):
        """Files of VoxCeleb2 dev in a tree that may hold more than that."""
        listing = list_files(tree, extensions=(".wav",))
        prefix = self.wav_root(tree)
        self.reject(
            (f"{prefix}/{n}", "folder not listed", m)
            for n, m in listing.unreadable
        )
        files, others = [], collections.Counter()
        for name in listing.files:
            speaker = name.split("/")[0]
            if VOX1_SPEAKER.match(speaker):
                others["VoxCeleb1"] += 1
            elif meta.get(speaker) == "test":
                others["the VoxCeleb2 test set"] += 1
            elif VOX2_SPEAKER.match(speaker) and UTTERANCE.match(name):
                files.append(name)
            else:
                detail = "not <speaker>/<video>/<utterance>.wav"
                self.reject([(f"{prefix}/{name}", "unexpected place", detail)])
        for corpus, number in others.items():
            logger.info("left out: %d files of %s", number, corpus)
        return files

    def convert(self, aac, tree):
        """Converts the m4a files that have no wav yet."""
        sources = list_files(aac, extensions=(".m4a",)).files
        done = set()
        if os.path.isdir(tree):
            done = {
                os.path.splitext(name)[0]
                for name in list_files(tree, extensions=(".wav",)).files
            }
        todo = [n for n in sources if os.path.splitext(n)[0] not in done]
        if not todo:
            return
        ffmpeg = shutil.which("ffmpeg")
        if ffmpeg is None:
            raise UserError(
                f"{_spaced(len(todo))} m4a files below {aac} have to be "
                "converted to wav, and there is no ffmpeg on the PATH; install "
                "it (apt-get install ffmpeg, conda install -c conda-forge "
                f"ffmpeg or brew install ffmpeg), or put wav files into {tree}"
            )
        logger.info("converting %d m4a files into %s", len(todo), tree)
        root = self.wav_root(aac)

        def convert_one(name):
            target = os.path.join(tree, os.path.splitext(name)[0] + ".wav")
            return _convert(ffmpeg, os.path.join(aac, name), target)

        # Threads suffice: the work is done in ffmpeg's processes. Slabs keep a
        # million of waiting tasks out of memory.
        pool = concurrent.futures.ThreadPoolExecutor(max(1, self.num_workers))
        try:
            with tqdm(total=len(todo), desc="convert", unit=" files") as bar:
                for begin in range(0, len(todo), 1024):
                    slab = todo[begin : begin + 1024]
                    for name, failure in zip(
                        slab, pool.map(convert_one, slab), strict=True
                    ):
                        if failure:
                            row = (f"{root}/{name}", "ffmpeg failed", failure)
                            self.reject([row])
                        bar.update()
        finally:
            pool.shutdown(cancel_futures=True)

    # VoxCeleb1 --------------------------------------------------------------

    def prepare_trials(self, places, train_speakers):
        """Checks and copies the trial lists, and writes ``vox1.csv``."""
        trees = places["vox1"]
        if not trees:
            self.summary["missing"].append(
                "VoxCeleb1: not found, so there are no trials to evaluate on; "
                "give vox1_folder"
            )
            return
        where = {}
        for tree in trees:
            for name in list_files(tree, extensions=(".wav",)).files:
                if VOX1_SPEAKER.match(name.split("/")[0]):
                    where.setdefault(name, tree)
        self.count_vox1(where)
        for name in sorted(set(TRIAL_LISTS) - set(places["trials"])):
            self.summary["missing"].append(
                f"{TRIAL_LISTS[name][0]}: not found beside VoxCeleb1, so there "
                f"is no list {name}"
            )
        named = {}
        for name, path in places["trials"].items():
            trials, lines = read_trials(path)
            _check_files(path, lines, where, trees)
            for file_name, line in lines.items():
                named.setdefault(file_name, (path, line))
            published = TRIAL_LISTS[name][1]
            self.summary["trials"][name] = {
                "trials": trials,
                "published": published,
                "utterances": len(lines),
            }
            if trials != published:
                logger.warning(
                    "%s has %s trials; %s were published",
                    path,
                    _spaced(trials),
                    _spaced(published),
                )
        self.check_overlap(train_speakers, named)
        if not named:
            return
        self.write_vox1(trees, where, named)
        for name, path in places["trials"].items():
            output = f"trials_{name}.txt"
            with atomic_write(self.save_folder / output, "wb") as stream:
                stream.write(pathlib.Path(path).read_bytes())
            self.outputs.append(output)

    def count_vox1(self, where):
        """Counts both parts of VoxCeleb1."""
        for part, published in (("dev", VOX1_DEV), ("test", VOX1_TEST)):
            speakers = [
                name.split("/")[0]
                for name in where
                if (name.split("/")[0] in VOX1_TEST_SPEAKERS)
                == (part == "test")
            ]
            numbers = {
                "speakers": len(set(speakers)),
                "utterances": len(speakers),
            }
            self.count(f"VoxCeleb1 {part}", numbers, published)

    def check_overlap(self, train_speakers, named):
        """Makes sure that no speaker of the trials is in training."""
        both = train_speakers & {name.split("/")[0] for name in named}
        both |= {s for s in train_speakers if VOX1_SPEAKER.match(s)}
        if both:
            raise ManifestError(
                f"{len(both)} speakers of VoxCeleb1 are in the training list, "
                f"the first {min(both)}; keep the VoxCeleb1 folders out of the "
                "VoxCeleb2 tree"
            )

    def write_vox1(self, trees, where, named):
        """Writes the manifest of the utterances that trials name."""
        tables = []
        for tree in trees:
            files = sorted(n for n in named if where[n] == tree)
            found = self.scan(tree, files, "vox1", wav_root=self.wav_root(tree))
            if len(found.rejected):
                wav, reason, detail = found.rejected.iloc[0]
                name = wav[len(self.wav_root(tree)) + 1 :]
                path, line = named[name]
                raise TrialError(
                    f"{path}, line {line}: {name} cannot be used ({reason}: "
                    f"{detail}); {len(found.rejected)} of the {len(files)} "
                    f"named files in {tree} cannot; copy them again"
                )
            tables.append(found.manifest())
        self.write("vox1.csv", pd.concat(tables).sort_values("ID"))

    # MUSAN and RIRS_NOISES --------------------------------------------------

    def prepare_musan(self, folder):
        """Writes ``noise.csv``, ``music.csv`` and ``speech.csv``."""
        if folder is None:
            self.summary["missing"].append(
                "MUSAN: not found; give musan_folder, or train without noise: "
                "--noise_csv=null --music_csv=null --speech_csv=null --noise=0 "
                "--both=0, and --clean such that the probabilities add up to 1"
            )
            return
        for part, published in MUSAN.items():
            files = self.list_parts(folder, [part])
            found = self.scan(folder, files, "musan", wav_root=folder)
            number = {"files": len(found.usable)}
            self.count(f"MUSAN {part}", number, {"files": published})
            if len(found.usable):
                self.write(f"{part}.csv", found.manifest())
            else:
                self.summary["missing"].append(
                    f"MUSAN {part}: nothing usable; complete MUSAN, or train "
                    f"without this kind of noise: --{part}_csv=null"
                )

    def prepare_rirs(self, folder):
        """Writes ``rirs.csv``: simulated and real room responses."""
        if folder is None:
            self.summary["missing"].append(
                "RIRS_NOISES: not found; give rirs_folder, or train without "
                "rooms: --rirs_csv=null --reverb=0 --both=0, and --clean such "
                "that the probabilities add up to 1"
            )
            return
        simulated = self.list_parts(folder, ["simulated_rirs"])
        # The real responses share their folder with recordings of noise.
        real = [
            name
            for name in self.list_parts(folder, ["real_rirs_isotropic_noises"])
            if "noise" not in name.rsplit("/", 1)[1]
        ]
        found = self.scan(folder, simulated + real, "rirs", wav_root=folder)
        number = found.usable["ID"].str.startswith("simulated_rirs/").sum()
        self.count(
            "RIRS_NOISES",
            {"simulated responses": int(number)},
            {"simulated responses": SIMULATED_RIRS},
        )
        if len(found.usable):
            self.write("rirs.csv", found.manifest())

    def list_parts(self, folder, parts):
        """Audio files in subfolders, relative to the folder."""
        files = []
        for part in parts:
            path = os.path.join(folder, part)
            if os.path.isdir(path):
                files += [f"{part}/{n}" for n in list_files(path).files]
        return files


def _spaced(number):
    """A number with its thousands apart."""
    return f"{number:,}".replace(",", " ")


def _read_meta(path):
    """Set (dev or test) by speaker from ``vox2_meta.csv``; empty if absent.

    The file is about in two forms, with tabs (and then commas in some names)
    and with commas, both with blanks around the fields.
    """
    if path is None:
        return {}
    with open(path, encoding="utf-8") as stream:
        text = stream.read()
    separator = "\t" if "\t" in text else ","
    rows = [
        [field.strip() for field in line.split(separator)]
        for line in text.splitlines()
    ]
    header = [name.lower() for name in rows[0]] if rows else []
    try:
        speaker, part = header.index("voxceleb2 id"), header.index("set")
    except ValueError as error:
        raise UserError(
            f"{path} has no columns 'VoxCeleb2 ID' and 'Set'; get the file "
            "again, or take it away to do without this check"
        ) from error
    width = max(speaker, part) + 1
    return {row[speaker]: row[part] for row in rows[1:] if len(row) >= width}


def _convert(ffmpeg, source, target):
    """Makes one wav; returns what went wrong, or an empty string."""
    folder, name = os.path.split(target)
    os.makedirs(folder, exist_ok=True)
    # Hidden, so that a file that was cut short is never taken for a wav.
    temporary = os.path.join(folder, f".{name}.part")
    command = [ffmpeg, "-nostdin", "-v", "error", "-y", "-threads", "1"]
    command += ["-i", source, "-vn", "-ac", "1", "-ar", str(SAMPLE_RATE)]
    command += ["-c:a", "pcm_s16le", "-f", "wav", temporary]
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=FFMPEG_TIMEOUT,
        )
        if result.returncode == 0 and os.path.isfile(temporary):
            os.replace(temporary, target)
            return ""
        lines = result.stderr.decode("utf-8", "replace").strip().splitlines()
        failure = lines[-1] if lines else f"exit status {result.returncode}"
    except subprocess.TimeoutExpired:
        failure = f"took longer than {FFMPEG_TIMEOUT} s"
    if os.path.exists(temporary):
        os.unlink(temporary)
    # On a full disk every file would fail, and be counted as damaged.
    if shutil.disk_usage(folder).free < 2**24:
        raise UserError(
            f"the disk of {folder} is full; make room or give another "
            "wav_folder, then prepare again: what is converted stays"
        )
    return failure


def read_trials(path):
    """Reads and checks a trial list.

    Arguments
    ---------
    path : str or pathlib.Path
        Lines of ``1 id10270/x6uYqmx31kE/00001.wav id10270/8jEA…/00008.wav``.

    Returns
    -------
    tuple
        The number of trials, and a dictionary from each file named to the first
        line that names it.

    Raises
    ------
    TrialError
        If the list is empty or no text, or if a line is malformed.
    """
    # A part of a list is checked as well as a whole one: either class may lack.
    trials = trial_lists.read_trials(path, require_both=False)
    lines = {}
    for line, left, right in zip(
        trials.lines.tolist(),
        trials.left.tolist(),
        trials.right.tolist(),
        strict=True,
    ):
        lines.setdefault(trials.names[left], line)
        lines.setdefault(trials.names[right], line)
    for name, line in lines.items():
        if not UTTERANCE.match(name):
            raise TrialError(
                f"{path}, line {line}: '{name[:120]}' is no utterance of "
                "VoxCeleb1, such as id10270/x6uYqmx31kE/00001.wav; get the "
                "list again"
            )
    return len(trials), lines


def _check_files(path, lines, where, trees):
    """Raises if a file that the list names is absent."""
    absent = [name for name in lines if name not in where]
    if absent:
        raise TrialError(
            f"{path}, line {lines[absent[0]]}: there is no {absent[0]} in "
            f"{', '.join(trees)}; {_spaced(len(absent))} of the "
            f"{_spaced(len(lines))} files that it names are absent; complete "
            "VoxCeleb1, or take the list away"
        )


def main(argv=None):
    """Runs the preparation from the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--data_folder", required=True, help="Folder of the corpora."
    )
    parser.add_argument(
        "--save_folder", required=True, help="Folder for the manifests."
    )
    for name, text in (
        ("vox2", "Folder of VoxCeleb2"),
        ("vox1", "Folder of VoxCeleb1 and its trial lists"),
        ("musan", "Folder of MUSAN"),
        ("rirs", "Folder of RIRS_NOISES"),
    ):
        parser.add_argument(
            f"--{name}_folder",
            help=f"{text} (default: looked for in the data folder).",
        )
    parser.add_argument(
        "--wav_folder",
        help="Folder for converted m4a files (default: beside aac).",
    )
    parser.add_argument(
        "--min_duration",
        type=float,
        default=1.0,
        help="Reject training files shorter than this many seconds "
        "(default 1.0).",
    )
    parser.add_argument(
        "--check",
        choices=CHECKS,
        default="header",
        help="Read headers only, or decode all audio to find damaged files.",
    )
    parser.add_argument(
        "--num_workers",
        type=int,
        help="Number of processes (default: one per core).",
    )
    return run_parsed(prepare_voxceleb, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
