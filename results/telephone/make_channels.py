#!/usr/bin/env python3
"""Write the files of a trial list as they are, by telephone and by Opus.

python make_channels.py TRIALS AUDIO_FOLDER OUTPUT_FOLDER

In OUTPUT_FOLDER there are then the folders ``clean``, ``telephone`` (a codec for
each file: G.711 with either law, or GSM) and ``opus`` (a codec that training
has not heard), and five trial lists that compare them.
"""

import pathlib
import sys

import numpy as np
import soundfile
import torch

from speechbrain_ssl.data.audio import AudioFile
from speechbrain_ssl.data.draws import uniform
from speechbrain_ssl.data.telephone import Telephone

CHANNELS = {
    "clean": None,
    "telephone": Telephone(1.0, ["mu_law", "a_law", "gsm"]),
    "opus": Telephone(1.0, ["opus"]),
}
#: The channel of the first file of a trial, and that of the second.
LISTS = (
    ("clean", "clean"),
    ("telephone", "telephone"),
    ("clean", "telephone"),
    ("opus", "opus"),
    ("clean", "opus"),
)


def main(trials, audio, output):
    """Write the folders and the lists."""
    rows = [line.split() for line in trials.read_text().splitlines()]
    for name in sorted({name for row in rows for name in row[1:]}):
        with AudioFile(audio / name, 16000) as file:
            wave = torch.from_numpy(file.read(0, file.num_samples))[None]
        draw = np.array([uniform(1, name, "codec")])
        for folder, channel in CHANNELS.items():
            path = output / folder / pathlib.Path(name).with_suffix(".wav")
            path.parent.mkdir(parents=True, exist_ok=True)
            heard = wave if channel is None else channel(wave, draw)
            soundfile.write(path, heard[0].numpy(), 16000, subtype="FLOAT")
    for first, second in LISTS:
        lines = []
        for label, a, b in rows:
            a = pathlib.Path(first, a).with_suffix(".wav").as_posix()
            b = pathlib.Path(second, b).with_suffix(".wav").as_posix()
            lines.append(f"{label} {a} {b}\n")
        (output / f"{first}_{second}.txt").write_text("".join(lines))


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:]))
