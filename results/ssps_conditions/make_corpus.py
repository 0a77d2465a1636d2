#!/usr/bin/env python3
"""Give every utterance of a corpus a recording condition of its own.

    python make_corpus.py --data_folder=/path/to/corpora \\
        --noise_csv=/path/to/esc50/manifest.csv \\
        --rirs_csv=/path/to/rooms/manifest.csv --output_folder=/path/to/conditions

``data_folder`` holds ``speechocean762`` (``train.csv``, ``dev.csv``),
``librispeech_mini`` (``train.csv``, ``test.csv``) and ``ravdess`` (``test.csv``).
The condition depends on the identifier of the utterance, not on its speaker. It
consists of a room (for the share ``--rooms`` of the utterances), a noise at a level
drawn from ``--snr`` dB, an equaliser (a smooth curve with a standard deviation of
``--equaliser`` dB at the centres of its bands), and one of three codecs (none,
mu-law, Opus). Training utterances, trials and the augmentation of training do not
share any room or clip of noise.

Writes, outside of the project, the training audio with ``train.csv``; the audio of
the trials in ``dev``, ``ravdess`` and ``librispeech`` with their lists; the manifests
``noise.csv`` and ``rirs.csv`` of what is left to the augmentation; and a probe with
``probe.csv``: utterances of the held-out speakers of speechocean762, each under
``--probe_views`` of ``--probe_conditions`` conditions that speakers share. Needs
soundfile 0.13.
"""

import argparse
import io
import pathlib

import numpy as np
import pandas as pd
import scipy.signal
import soundfile

from speechbrain_ssl.data.audio import AudioFile
from speechbrain_ssl.data.draws import permutation, uniform
from speechbrain_ssl.data.manifest import Manifest, write_manifest

RATE = 16000
LEVEL = 0.03  # root mean square; even a sharp peak is then below 1
# Centres of the equaliser's bands, in Hz: a third of a decade apart.
BANDS = np.geomspace(60, 8000, 8)
# Of libsndfile: 0 is the best quality, 1 the smallest file.
COMPRESSION = 0.5
CODECS = (None, "mu-law", "opus")
# Held-out speakers: corpus, manifest, output folder, and lists with their new names.
HELD_OUT = (
    (
        "speechocean762",
        "dev.csv",
        "dev",
        {name: name for name in ("dev_trials_H.txt", "dev_trials_O.txt")},
    ),
    (
        "ravdess",
        "test.csv",
        "ravdess",
        {"trials_cross_statement.txt": "ravdess_trials.txt"},
    ),
    (
        "librispeech_mini",
        "test.csv",
        "librispeech",
        {"trials_testother_all_pairs.txt": "librispeech_trials.txt"},
    ),
)
# The three users of rooms and noises; each gets a part of its own.
AUGMENTATION, TRAIN, TRIALS = 0, 1, 2


def wave_of(manifest, i):
    """Return the samples of an utterance, ``[samples]``."""
    with AudioFile(manifest.path(i), RATE) as audio:
        return np.asarray(audio.read(), dtype=np.float64)


def share(count, who):
    """Return a user's rows: half for the augmentation, a quarter each for others."""
    order = permutation(count, 0, "conditions")
    cuts = [0, count // 2, 3 * count // 4, count]
    return np.sort(order[cuts[who] : cuts[who + 1]])


class Studio:
    """Draw a condition from an address and apply it.

    Arguments
    ---------
    rooms, noises : list of numpy.ndarray
        Impulse responses, and recordings of noise.
    given : argparse.Namespace
        ``rooms``, ``equaliser`` and ``snr``.
    """

    def __init__(self, rooms, noises, given):
        self.rooms, self.noises, self.given = rooms, noises, given

    def record(self, wave, *address):
        """Return the wave under the condition of this address."""
        draw = uniform(*address, "condition", size=16)
        if draw[8] < self.given.rooms:
            response = self.rooms[int(draw[9] * len(self.rooms))]
            wave = scipy.signal.fftconvolve(wave, response)[: len(wave)]
        noise = self.noises[int(draw[10] * len(self.noises))]
        first = int(draw[11] * len(noise))
        noise = np.resize(np.roll(noise, -first), len(wave))
        low, high = self.given.snr
        level = low + draw[12] * (high - low)
        noise = noise * rms(wave) / max(rms(noise), 1e-6) * 10 ** (-level / 20)
        # A microphone colours the noise as it does the voice.
        wave = self._equalised(wave + noise, draw[:8])
        wave = wave * (LEVEL / max(rms(wave), 1e-6))
        return coded(wave, CODECS[int(draw[13] * len(CODECS))])

    def _equalised(self, wave, draws):
        """Apply a smooth random curve over the logarithm of the frequency."""
        # A uniform draw has a standard deviation of 1 / sqrt(12).
        gains = (draws - 0.5) * np.sqrt(12) * self.given.equaliser
        spectrum = np.fft.rfft(wave)
        hertz = np.fft.rfftfreq(len(wave), 1 / RATE)
        curve = np.interp(
            np.log(np.maximum(hertz, BANDS[0])), np.log(BANDS), gains
        )
        return np.fft.irfft(spectrum * 10 ** (curve / 20), len(wave))


def rms(wave):
    """Return the root mean square."""
    return float(np.sqrt(np.mean(np.square(wave))))


def coded(wave, codec):
    """Return the wave after a codec, with its length unchanged."""
    if codec is None:
        return wave
    if codec == "mu-law":
        full = wave / np.abs(wave).max()
        steps = np.round(np.log1p(255 * np.abs(full)) / np.log(256) * 127)
        back = np.sign(full) * np.expm1(steps / 127 * np.log(256)) / 255
        return back * np.abs(wave).max()
    file = io.BytesIO()
    soundfile.write(
        file,
        wave,
        RATE,
        format="OGG",
        subtype="OPUS",
        compression_level=COMPRESSION,
    )
    file.seek(0)
    decoded, _ = soundfile.read(file)
    return np.resize(decoded, len(wave)) if len(decoded) else wave


def write(studio, manifest, i, path, *address):
    """Write an utterance under a condition to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = studio.record(wave_of(manifest, i), *address)
    # Rare peaks are clipped, as a recorder does.
    wave = np.clip(wave * (LEVEL / max(rms(wave), 1e-6)), -1, 1)
    soundfile.write(path, wave, RATE, subtype="PCM_16")


def main():
    """Read, change and write every utterance."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in "data_folder noise_csv rirs_csv output_folder".split():
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--rooms", type=float, default=0.3)
    parser.add_argument("--equaliser", type=float, default=6.0)
    parser.add_argument("--snr", type=float, nargs=2, default=[20, 40])
    parser.add_argument("--probe_conditions", type=int, default=40)
    parser.add_argument("--probe_views", type=int, default=8)
    given = parser.parse_args()
    data = pathlib.Path(given.data_folder)
    folder = pathlib.Path(given.output_folder)
    folder.mkdir(parents=True, exist_ok=True)
    studios = banks(given, folder)

    rows = []
    for corpus in ("speechocean762", "librispeech_mini"):
        manifest = Manifest.read(data / corpus / "train.csv", data / corpus)
        for i in range(len(manifest)):
            name = f"{corpus}/{manifest.ids[i]}.flac"
            write(
                studios[TRAIN],
                manifest,
                i,
                folder / name,
                manifest.keys[i],
            )
            rows.append((manifest.ids[i], manifest.durations[i], name))
    columns = ["ID", "duration", "wav"]
    write_manifest(folder / "train.csv", pd.DataFrame(rows, columns=columns))

    for corpus, table, name, lists in HELD_OUT:
        held_out(studios[TRIALS], data / corpus, table, folder / name, lists)
    probe(studios[TRIALS], data / "speechocean762", folder, given)


def held_out(studio, corpus, table, folder, lists):
    """Write the utterances of trials under their conditions, and the lists."""
    manifest = Manifest.read(corpus / table, corpus)
    for i in range(len(manifest)):
        path = pathlib.Path(manifest.path(i)).relative_to(corpus)
        path = folder / path.with_suffix(".flac")
        write(studio, manifest, i, path, manifest.keys[i])
    for name, here in lists.items():
        trials = (corpus / name).read_text()
        (folder.parent / here).write_text(trials.replace(".ogg", ".flac"))


def banks(given, folder):
    """Return the studios of training and trials; write what augmentation gets."""
    kept = {}
    for name in ("noise", "rirs"):
        path = getattr(given, f"{name}_csv")
        manifest = Manifest.read(path, pathlib.Path(path).parent)
        rows = share(len(manifest), AUGMENTATION)
        write_manifest(
            folder / f"{name}.csv",
            pd.DataFrame(
                {
                    "ID": [manifest.ids[i] for i in rows],
                    "duration": manifest.durations[rows],
                    "wav": [str(manifest.path(i)) for i in rows],
                }
            ),
        )
        for who in (TRAIN, TRIALS):
            kept[name, who] = [
                wave_of(manifest, i) for i in share(len(manifest), who)
            ]
    for who in (TRAIN, TRIALS):
        # A silent clip cannot be brought to a level.
        kept["noise", who] = [w for w in kept["noise", who] if rms(w) > 1e-3]
        # Begin with the direct sound, so that the speech is not delayed.
        kept["rirs", who] = [w[np.abs(w).argmax() :] for w in kept["rirs", who]]
    return {
        who: Studio(kept["rirs", who], kept["noise", who], given)
        for who in (TRAIN, TRIALS)
    }


def probe(studio, corpus, folder, given):
    """Write utterances of all held-out speakers under shared conditions."""
    manifest = Manifest.read(corpus / "dev.csv", corpus)
    table = pd.read_csv(corpus / "dev.csv", dtype=str)
    speakers = table.set_index("ID")["spk_id"]
    seen, rows = {}, []
    for i in permutation(len(manifest), 0, "probe"):
        speaker = speakers[manifest.ids[i]]
        seen[speaker] = seen.get(speaker, 0) + 1
        if seen[speaker] > 5:
            continue
        views = permutation(
            given.probe_conditions, 0, manifest.keys[i], "views"
        )
        for view in views[: given.probe_views]:
            name = f"probe/{manifest.ids[i]}_{view:02d}.flac"
            write(studio, manifest, i, folder / name, int(view), "shared")
            rows.append(
                (
                    f"{manifest.ids[i]}_{view:02d}",
                    manifest.durations[i],
                    name,
                    speaker,
                    f"condition_{view:02d}",
                )
            )
    columns = ["ID", "duration", "wav", "spk_id", "condition"]
    pd.DataFrame(rows, columns=columns).sort_values("ID").to_csv(
        folder / "probe.csv", index=False
    )


if __name__ == "__main__":
    main()
