"""Embed the files and the halves that ``measure.py`` makes thresholds from.

    python embed.py --data_folder=/path/to/corpora --work=/path/to/scratch \\
        simclr=/path/to/run dino=/path/to/run

Writes ``MODEL_CORPUS.npz`` with ``whole`` ``[N, size]``, ``halves``
``[N, 2, size]`` and ``speakers`` ``[N]`` into the scratch folder; what is there
is kept. The model ``statistics``, means and deviations of log-mel energies, is
added to those named.
"""

import argparse
import pathlib

import numpy as np
import pandas as pd
import scipy.signal
import soundfile

from speechbrain_ssl.data.manifest import Manifest, StringColumn
from speechbrain_ssl.embedding.baselines import LogMelStatistics
from speechbrain_ssl.embedding.extract import embed_files
from speechbrain_ssl.embedding.halves import embed_halves
from speechbrain_ssl.encoders.features import LogMel
from speechbrain_ssl.publishing.export import load_encoder

#: Corpus -> manifest below the data folder, and every how many files are used.
CORPORA = {
    "speechocean762": ("speechocean762/dev.csv", 1),
    "librispeech": ("librispeech_mini/test.csv", 1),
    "ravdess": ("ravdess/test.csv", 2),
}
#: Corpora whose every file gets a room and a noise of its own.
CONDITIONS = ("speechocean762", "librispeech")
#: What the models were trained on; its held-out part makes the thresholds.
TRAINING = ("speechocean762/train.csv", "librispeech_mini/train.csv")
HELD_OUT = 200


def make_conditions(paths, data, folder):
    """Write a copy of each file in a recording condition of its own.

    A room of the simulated ones, a noise 5 to 20 dB below the speech, and a
    filter of one zero; drawn by the number of the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rooms = pd.read_csv(data / "rir_simulated/manifest.csv")["wav"]
    noises = pd.read_csv(data / "noise_esc50/manifest.csv")["wav"]
    made = []
    for number, path in enumerate(paths):
        made.append(str(folder / f"{number:05d}.wav"))
        if pathlib.Path(made[-1]).exists():
            continue
        draw = np.random.default_rng(number)
        speech, rate = soundfile.read(path)
        room, _ = soundfile.read(
            data / "rir_simulated" / draw.choice(rooms.to_numpy())
        )
        noise, _ = soundfile.read(
            data / "noise_esc50" / draw.choice(noises.to_numpy())
        )
        room = room[np.abs(room).argmax() :]
        wave = scipy.signal.fftconvolve(speech, room)[: len(speech)]
        noise = np.resize(noise, len(wave))
        ratio = 10 ** (-draw.uniform(5, 20) / 10)
        power = np.mean(wave**2) / max(np.mean(noise**2), 1e-9)
        wave = wave + np.sqrt(ratio * power) * noise
        wave[1:] += draw.uniform(-0.5, 0.5) * wave[:-1]
        soundfile.write(made[-1], 0.5 * wave / np.abs(wave).max(), rate)
    return made


def corpora(data, work):
    """Yield name, manifest and speakers of each set of files."""
    for name, (csv, step) in CORPORA.items():
        table = pd.read_csv(data / csv).iloc[::step]
        paths = [str((data / csv).parent / wav) for wav in table["wav"]]
        speakers = table["spk_id"].to_numpy(str)
        yield name, _manifest(table, paths), speakers
        if name in CONDITIONS:
            made = make_conditions(paths, data, work / f"{name}_conditions")
            yield f"{name}, conditions", _manifest(table, made), speakers
    every = Manifest.read([str(data / csv) for csv in TRAINING], str(data))
    held_out = every.hold_out(HELD_OUT, 4.0)[1]
    yield "training", held_out, np.full(HELD_OUT, "unknown")


def _manifest(table, paths):
    ids = StringColumn.from_strings(table["ID"].astype(str).tolist())
    wavs = StringColumn.from_strings(paths)
    return Manifest(ids, wavs, table["duration"].to_numpy())


def main():
    """Embed every corpus with every model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_folder", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("models", nargs="+", metavar="NAME=FOLDER")
    options = parser.parse_args()
    models = {
        name: load_encoder(folder)
        for name, folder in (text.split("=", 1) for text in options.models)
    }
    models["statistics"] = LogMelStatistics(), LogMel(normalize="none")
    for corpus, manifest, speakers in corpora(
        options.data_folder, options.work
    ):
        paths = [manifest.path(i) for i in range(len(manifest))]
        for name, (encoder, features) in models.items():
            path = options.work / f"{name}_{corpus}.npz"
            if path.exists():
                continue
            np.savez(
                path,
                whole=embed_files(encoder, features, paths, progress=False),
                halves=embed_halves(
                    encoder,
                    features,
                    paths,
                    manifest.durations,
                    progress=False,
                ),
                speakers=speakers,
            )
            print(path.name, len(paths), flush=True)


if __name__ == "__main__":
    main()
