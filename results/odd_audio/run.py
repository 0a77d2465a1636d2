#!/usr/bin/env python3
"""Send each kind of odd audio file through all that reads audio.

    OMP_NUM_THREADS=1 python run.py WORK [--kinds "cut short" names]

For each kind of make_files.py, a process of its own makes the files beside twelve
ordinary ones and then

    prepare     writes manifests, with --check=header and with --check=decode
    read        reads each file of the first manifest, whole and in parts, and
                compares them
    embed       runs `speechbrain-ssl embed` with a small untrained encoder
    train       trains that encoder for one epoch (SimCLR)

Between prepare and read, files change if the kind says so. Writes table.csv (a row
for each kind) and outcomes.csv (a row for each file) beside this file. A kind whose
result is in WORK already is not run again, unless it is named.
"""

import argparse
import collections
import contextlib
import csv
import importlib.util
import io
import json
import logging
import multiprocessing
import os
import pathlib
import resource
import shutil
import sys
import time
import traceback

import make_files
import numpy as np
import pandas as pd
import torch

from speechbrain_ssl.cli.main import main as command_line
from speechbrain_ssl.data.audio import AudioFile
from speechbrain_ssl.data.decoder import UnusableAudio
from speechbrain_ssl.data.manifest import Manifest
from speechbrain_ssl.encoders.ecapa import FastECAPA
from speechbrain_ssl.encoders.features import LogMel
from speechbrain_ssl.errors import UserError
from speechbrain_ssl.publishing.export import export_encoder

HERE = pathlib.Path(__file__).resolve().parent
RECIPE = HERE.parents[1] / "recipes" / "UnlabeledFolder"
CHECKS = ("header", "decode")
ORDINARY = "ordinary"

#: A kind that takes longer has hung.
MOST_SECONDS = 180

#: Parts that are compared with the whole: start and length, in seconds.
PARTS = ((0, 0.01), (0.7, 0.5), (1.9, 2.0), (0.30001, 1.2))


def load(path):
    """Import a script of a recipe."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sys.path.insert(0, str(RECIPE))
prepare = load(RECIPE / "unlabeled_prepare.py").prepare_unlabeled
train = load(RECIPE / "SSL" / "train.py")


def name_of(wav):
    """Return the name of a file in its folder, in ASCII."""
    return ascii(pathlib.PurePath(wav).name)[1:-1]


def source_of(wav, data, work):
    """Return the path of the file that an entry of a table stands for."""
    wav = wav.replace("$data_root", str(data))
    for check in CHECKS:
        for decoded in (f"{work / check}/decoded/train/", "decoded/train/"):
            if wav.startswith(decoded):
                return f"{data}/{wav[len(decoded) : -len('.flac')]}"
    return wav


def prepare_both(data, work):
    """Prepare with both checks; return file -> check -> words."""
    found = collections.defaultdict(dict)
    for check in CHECKS:
        save = work / check
        prepare(data, save, min_duration=0.1, check=check, num_workers=0)
        manifest = Manifest.read(save / "train.csv", data)
        for i in range(len(manifest)):
            path = source_of(manifest.path(i), data, work)
            found[path][check] = "accepted"
        rejected = pd.read_csv(save / "rejected.csv", keep_default_na=False)
        for wav, reason, detail in rejected.itertuples(index=False):
            path = source_of(wav, data, work)
            found[path][check] = f"{reason}: {detail}".strip(": ")
        notes = pd.read_csv(save / "notes.csv", keep_default_na=False)
        for wav, note, _ in notes.itertuples(index=False):
            path = source_of(wav, data, work)
            found[path][check] += f", {note}"
    return found


def read_parts(path, seconds):
    """Read a file whole and in parts; return the outcome in words."""
    try:
        with AudioFile(path, make_files.RATE, seconds) as audio:
            whole = audio.read()
            worst = 0.0
            for begin, length in PARTS:
                start = int(begin * make_files.RATE)
                wanted = whole[start : start + int(length * make_files.RATE)]
                if len(wanted):
                    part = audio.read(start, len(wanted))
                    worst = max(worst, float(np.abs(part - wanted).max()))
    except UnusableAudio as error:
        return f"{error.reason}: {error.detail}"
    if worst > 1e-4:
        return f"PARTS DIFFER by {worst:.2g}"
    return "read"


def embed(data, model, work):
    """Embed the folder; return number embedded and unusable, or the error."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["embed", str(data), f"--model={model}", "--json", "--quiet"]
    argv += [f"--output={work / 'embeddings.npz'}", "--device=cpu"]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = command_line(argv)
    if status and not out.getvalue():
        return err.getvalue().strip()
    found = json.loads(out.getvalue())
    return f"{found['embedded']} embedded, {len(found['unusable'])} named"


def train_one_epoch(work, data):
    """Train on the manifest of the header check; return the outcome."""
    output = work / "train"
    train.main(
        [
            str(RECIPE / "SSL" / "hparams" / "simclr_ecapa_mini.yaml"),
            f"--data_folder={data}",
            "--prepare=null",
            f"--train_manifest={work / 'header' / 'train.csv'}",
            f"--output_folder={output}",
            *"--noise_csv=null --rirs_csv=null --clean=1 --reverb=0 --noise=0".split(),
            *"--number_of_epochs=1 --batch_size=8 --valid_utterances=4".split(),
            *"--channels=16 --pooled_channels=48 --device=cpu".split(),
            *"--precision=fp32 --warmup_epochs=0.5 --noprogressbar".split(),
        ]
    )
    bad = output / "bad_audio.csv"
    return f"{len(pd.read_csv(bad)) if bad.is_file() else 0} files replaced"


def run_kind(name, work, model):
    """Run one kind; write its result."""
    logging.disable(logging.WARNING)
    begin, memory = time.monotonic(), peak_megabytes()
    data = work / "data"
    place = make_files.make(data, name)
    (data / ORDINARY).mkdir()
    for speaker in range(1, 13):
        path = data / ORDINARY / f"{speaker}.wav"
        make_files.write(path, make_files.voice(4.0, speaker=speaker))
    row = {"kind": name, "files": len(list(place.iterdir()))}
    outcomes, unexplained = [], []

    def attempt(column, function, *arguments):
        try:
            return function(*arguments)
        except UserError as error:
            row[column] = f"stopped: {error}".replace(str(work), "WORK")
        except Exception:
            traceback.print_exc()
            unexplained.append(f"{column}: {traceback.format_exc(limit=-1)}")
        return None

    found = attempt("prepare", prepare_both, data, work) or {}
    make_files.AFTERWARDS.get(name, lambda place: None)(place)
    manifest = attempt(
        "manifest", Manifest.read, work / "header/train.csv", data
    )
    read_from = {}
    if manifest is not None:
        for i in range(len(manifest)):
            wav, seconds = manifest.path(i), float(manifest.durations[i])
            read_from[source_of(wav, data, work)] = wav, seconds
    for path, words in sorted(found.items()):
        read = ""
        if path in read_from:
            read = attempt("read", read_parts, *read_from[path])
        if pathlib.PurePath(path).parent.name != ORDINARY:
            outcomes.append(
                (name, name_of(path), *map(words.get, CHECKS), read)
            )
    row["embed"] = attempt("embed", embed, data, model, work)
    trained = attempt("train", train_one_epoch, work, data)
    row.setdefault("train", trained)
    for check, column in zip(CHECKS, (2, 3), strict=True):
        accepted = [o for o in outcomes if o[column].startswith("accepted")]
        row[f"accepted_{check}"] = len(accepted)
    row["words"] = words_of(outcomes)
    row["seconds"] = round(time.monotonic() - begin, 1)
    row["megabytes"] = round(peak_megabytes() - memory)
    row["unexplained"] = " | ".join(unexplained)
    result = {"row": row, "outcomes": outcomes}
    (work / "result.json").write_text(json.dumps(result), encoding="utf-8")


def words_of(outcomes):
    """Count the reasons, notes and errors that the files of a kind got."""
    words = collections.Counter()
    for _, _, header, decode, read in outcomes:
        if not decode.startswith("accepted"):
            words[decode.split(":")[0]] += 1
        for note in decode.split(", ")[1:] if "accepted" in decode else []:
            words[f"note: {note}"] += 1
        if read not in ("", "read") and header == decode == "accepted":
            words[f"later: {read.split(':')[0]}"] += 1
    return "; ".join(f"{n} {text}" for text, n in words.most_common())


def peak_megabytes():
    """Return the greatest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def make_model(folder):
    """Export a small encoder that has seen a few batches of voices."""
    torch.manual_seed(0)
    encoder = FastECAPA(80, channels=[16, 16, 16, 16, 48], lin_neurons=24)
    features = LogMel()
    waves = np.stack([make_files.voice(1.0, speaker=s) for s in range(1, 9)])
    for _ in range(30):
        encoder(features(torch.from_numpy(waves).float()))
    export_encoder(folder / "model", encoder.eval(), features)
    return folder


def write_csv(path, rows):
    """Write a table."""
    with open(path, "w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--kinds", nargs="+", choices=make_files.KINDS)
    options = parser.parse_args()
    model = make_model(options.work.resolve() / "encoder")
    results = []
    for name in make_files.KINDS:
        work = options.work.resolve() / name.replace(" ", "_")
        if name in (options.kinds or ()) or not (work / "result.json").exists():
            if options.kinds and name not in options.kinds:
                continue
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            # Forked, so that torch is imported once.
            process = multiprocessing.get_context("fork").Process(
                target=run_kind, args=(name, work, model)
            )
            process.start()
            process.join(MOST_SECONDS)
            if process.is_alive():
                process.kill()
                print(f"{name} HANGS: ended after {MOST_SECONDS} s")
            if not (work / "result.json").exists():
                print(f"{name}: no result, see above")
                continue
        results.append(json.loads((work / "result.json").read_text("utf-8")))
        print(json.dumps(results[-1]["row"]), flush=True)
    columns = ["kind", "files", "accepted_header", "accepted_decode", "words"]
    columns += ["embed", "train", "seconds", "megabytes", "unexplained"]
    rows = [[r["row"].get(c, "") for c in columns] for r in results]
    write_csv(HERE / "table.csv", [columns, *rows])
    columns = ["kind", "file", "header", "decode", "read"]
    rows = [outcome for r in results for outcome in r["outcomes"]]
    write_csv(HERE / "outcomes.csv", [columns, *rows])
    return int(any(r["row"]["unexplained"] for r in results))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
