#!/usr/bin/env python3
"""Give every utterance of a corpus one of four recording conditions.

    python make_conditions.py --manifest=/path/to/ravdess/manifest.csv \\
        --data_folder=/path/to/ravdess --noise_csv=/path/to/noise/manifest.csv \\
        --rirs_csv=/path/to/rooms/manifest.csv --output_folder=/path/to/conditions

Each condition gets a quarter of the utterances, whoever speaks and whatever is said:
as recorded (`clean`), in a simulated `room`, with `noise` at 5 to 15 dB, or through
the `band-pass` of a telephone, 300 to 3400 Hz. All are brought to the same level, so
that loudness does not give the condition away. Writes the audio, which stays outside
of the project, and `utterances.csv` with the column `condition`.
"""

import argparse
import pathlib

import numpy as np
import pandas as pd
import scipy.signal
import soundfile
import torch

from speechbrain_ssl.data.audio import AudioFile
from speechbrain_ssl.data.augmentation import Augmentation
from speechbrain_ssl.data.banks import NoiseBank, ResponseBank
from speechbrain_ssl.data.draws import permutation
from speechbrain_ssl.downstream.task import read_task, write_labelled

CONDITIONS = ("clean", "room", "noise", "band-pass")
RATE = 16000
LEVEL = 0.03  # root mean square; even a sharp peak is then below 1
SEED = 0


def main():
    """Read, change and write every utterance."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in "manifest data_folder noise_csv rirs_csv output_folder".split():
        parser.add_argument(f"--{name}", required=True)
    given = parser.parse_args()
    rooms = Augmentation(
        {"reverb": 1.0}, responses=ResponseBank(given.rirs_csv)
    )
    noises = Augmentation(
        {"noise": 1.0}, noises={"noise": NoiseBank(given.noise_csv, [5, 15])}
    )
    rooms.load()
    noises.load()
    band = scipy.signal.butter(
        4, [300, 3400], "bandpass", fs=RATE, output="sos"
    )
    # Only the speakers are needed, so any label will do.
    task = read_task(given.manifest, "spk_id", given.data_folder)
    which = permutation(len(task), SEED, "condition") % len(CONDITIONS)
    folder = pathlib.Path(given.output_folder).resolve()
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    rows = []
    for i, path in enumerate(task.paths(range(len(task)))):
        with AudioFile(path, RATE) as audio:
            wave = audio.read()
        condition = CONDITIONS[which[i]]
        if condition == "band-pass":
            wave = scipy.signal.sosfilt(band, wave)
        elif condition != "clean":
            augment = rooms if condition == "room" else noises
            address = (SEED, 0, task.manifest.keys[[i]])
            wave = augment(torch.from_numpy(wave)[None, None], address)
            wave = wave[0, 0].numpy()
        wave = wave * (LEVEL / np.sqrt(np.mean(np.square(wave))))
        name = f"audio/{i:05d}.flac"
        soundfile.write(folder / name, wave, RATE, subtype="PCM_16")
        rows.append(
            {
                "ID": task.manifest.ids[i],
                "duration": len(wave) / RATE,
                "wav": name,
                "spk_id": task.speakers[i],
                "condition": condition,
            }
        )
    write_labelled(folder / "utterances.csv", pd.DataFrame(rows))


if __name__ == "__main__":
    main()
