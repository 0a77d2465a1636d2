"""Cut and generate the corpora of many speakers, or of many files a speaker.

Arguments: the folder of the corpora, with ``speechocean762`` and
``librispeech_mini``, and a folder to write to. For each corpus it writes
``NAME.csv``, which ``speechbrain-ssl embed`` takes, and ``NAME.spk``, one speaker
a line in the order of the list, which ``compare.py`` and
``many_speakers.py`` take.
"""

import csv
import pathlib
import sys

import soundfile

from speechbrain_ssl.minivox.corpus import write_corpus


def read(folder, name):
    """Yield path and speaker of each row of a manifest."""
    with open(folder / name, encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            yield folder / row["wav"], row["spk_id"]


def parts(rows, folder, seconds):
    """Cut files into parts of a length and yield their paths and speakers."""
    folder.mkdir(parents=True, exist_ok=True)
    for path, speaker in rows:
        wave, rate = soundfile.read(path)
        size = round(seconds * rate)
        for number in range(len(wave) // size):
            part = folder / f"{path.stem}_{number}.wav"
            soundfile.write(
                part, wave[number * size : (number + 1) * size], rate
            )
            yield part, speaker


def minivox(folder, speakers, **size):
    """Generate MiniVox and yield path and speaker of each utterance."""
    write_corpus(
        folder,
        num_train_speakers=speakers - 1,
        num_test_speakers=1,
        num_noises=0,
        num_rooms=0,
        **size,
    )
    for path in sorted((folder / "wav").rglob("*.wav")):
        yield path, path.parts[-3]


def main(data, work):
    """Write the four corpora."""
    data, work = pathlib.Path(data), pathlib.Path(work)
    libri, ocean = data / "librispeech_mini", data / "speechocean762"
    corpora = {
        "real_421": [
            *read(ocean, "train.csv"),
            *parts(read(libri, "train.csv"), work / "parts_3s", 3.0),
        ],
        "real_13": list(
            parts(
                (
                    row
                    for name in ("test.csv", "train.csv")
                    for row in read(libri, name)
                    if name == "test.csv"
                    or row[1] in ("ls_19", "ls_26", "ls_27")
                ),
                work / "parts_2s",
                2.0,
            )
        ),
        "minivox_400": list(
            minivox(
                work / "minivox_400",
                speakers=400,
                videos_per_speaker=2,
                utterances_per_video=5,
            )
        ),
        "minivox_8": list(
            minivox(
                work / "minivox_8",
                speakers=8,
                videos_per_speaker=4,
                utterances_per_video=50,
            )
        ),
    }
    for name, rows in corpora.items():
        with open(work / f"{name}.csv", "w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["wav"])
            writer.writerows([path] for path, _ in rows)
        speakers = "\n".join(speaker for _, speaker in rows)
        (work / f"{name}.spk").write_text(f"{speakers}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
