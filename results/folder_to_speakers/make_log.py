"""Go from a folder to its speakers and log all that the commands print.

    python make_log.py DATA WORK

``DATA`` is the folder of the corpora, and ``WORK`` an empty folder, where
``recordings`` is made, in which every command runs, and which gets ``log.txt``.
Only the installed command ``speechbrain-ssl``, which has to be on the PATH, and
soundfile are used. Labels choose the recordings, and nothing else.
"""

import csv
import pathlib
import shlex
import subprocess
import sys

import scipy.signal
import soundfile

MODEL = "results/simclr_ecapa_mini/1"
#: Names that are given to the first three speakers of the folder.
NAMES = ("Anna", "Ben", "Carl")
ENROLLED = 5
STOCK = """\
from speechbrain.inference.speaker import SpeakerRecognition
model = SpeakerRecognition.from_hparams("published")
score, same = model.verify_files("{}", "{}")
print(float(score), bool(same), model.hparams.verification_threshold)
"""


def speakers_of(folder, name):
    """Map the speakers of a manifest to the paths of their recordings."""
    found = {}
    with open(folder / name, encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            found.setdefault(row["spk_id"], []).append(folder / row["wav"])
    return found


def write(path, source, kind):
    """Write a recording as another format."""
    wave, rate = soundfile.read(source)
    if kind == "44100":
        wave, rate = scipy.signal.resample_poly(wave, 441, 160), 44100
    path = path.with_suffix(".wav" if kind == "44100" else f".{kind}")
    soundfile.write(path, wave, rate)
    return path


def choose(data, folder):
    """Write about an hour of mixed audio; return the speakers' files."""
    ocean = speakers_of(data / "speechocean762", "train.csv")
    libri = speakers_of(data / "librispeech_mini", "train.csv")
    acted = speakers_of(data / "ravdess", "manifest.csv")
    chosen = [
        *list(ocean.values())[:36],
        *[files[:1] for files in list(libri.values())[:40]],
        *[files[::8] for files in list(acted.values())[:8]],
    ]
    folder.mkdir()
    kinds, made, seconds = ("ogg", "mp3", "flac", "44100"), [], 0
    for number, files in enumerate(chosen):
        made.append([])
        for take, source in enumerate(files):
            # Nothing in a name tells who speaks.
            path = folder / f"{number * 7919 % 1000:03}{take:02}"
            made[-1].append(write(path, source, kinds[take % len(kinds)]))
            seconds += soundfile.info(made[-1][-1]).duration
    stranger = list(speakers_of(data / "speechocean762", "dev.csv").values())[7]
    write(folder.parent / "stranger", stranger[0], "flac")
    print(sum(map(len, made)), "files", seconds / 3600, "hours", flush=True)
    return made


def main(data, work):
    """Make the folder, run the commands, and write the log."""
    data, work = pathlib.Path(data).resolve(), pathlib.Path(work).resolve()
    files = [
        [f"recordings/{path.name}" for path in speaker]
        for speaker in choose(data, work / "recordings")
    ]
    options = f"--model={MODEL} --database={MODEL}/speakers"
    (work / "two_lines.py").write_text(STOCK.format(*files[0][:2]))
    commands = [
        "speechbrain-ssl --version",
        "speechbrain-ssl train recordings number_of_epochs=30 device=cpu",
        f"speechbrain-ssl cluster recordings --model={MODEL} "
        f"--output={MODEL}/speakers.csv --page={MODEL}/speakers.html",
        *(
            f"speechbrain-ssl enrol {name} {shlex.join(speaker[:ENROLLED])} "
            + options
            for name, speaker in zip(NAMES, files, strict=False)
        ),
        *(
            f"speechbrain-ssl identify {file} {options}"
            for file in [speaker[ENROLLED] for speaker in files[: len(NAMES)]]
            + ["stranger.flac"]
        ),
        f"speechbrain-ssl threshold recordings --names={len(NAMES)} "
        f"--model={MODEL}",
        f"speechbrain-ssl publish {MODEL} output_folder=published "
        'data="An hour of unlabelled recordings"',
        "cat two_lines.py",
        "python two_lines.py",
    ]
    with open(work / "log.txt", "w", encoding="utf-8") as log:
        for command in commands:
            print(f"$ {command}", file=log, flush=True)
            done = subprocess.run(
                command, shell=True, cwd=work, stdout=log, stderr=log
            )
            print(f"(exit code {done.returncode})\n", file=log, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
