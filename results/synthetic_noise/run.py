#!/usr/bin/env python3
"""Train with synthetic and with recorded noises and rooms, one run after another.

    python run.py --output_folder=/path/to/runs --train_manifest=… --noise_csv=… \\
        --speech_csv=… --rirs_csv=… --trials=… --trials_folder=… --trials_speaker_component=1

The options are those of recipes/UnlabeledFolder/SSL/train.py; the runs with
synthetic sounds replace the three manifests of noises, voices and rooms.
"""

import pathlib
import subprocess
import sys

from speechbrain_ssl.minivox.background import write_background
from speechbrain_ssl.prepare.scan import write_folder_manifest

RECIPE = pathlib.Path(__file__).resolve().parents[2] / (
    "recipes/UnlabeledFolder/SSL"
)
SYSTEM = (
    "hparams/simclr_ecapa_mini.yaml --number_of_epochs=8 --warmup_epochs=1 "
    "--prepare=null --data_folder=unused --num_workers=0"
).split()


def synthetic(folder):
    """Write the sounds and their manifests; return the options."""
    write_background(folder)
    options = {"speech_csv": "null"}
    for key, name in (("noise_csv", "noise"), ("rirs_csv", "rooms")):
        manifest = folder / f"{name}.csv"
        write_folder_manifest(folder / name, manifest)
        options[key] = manifest
    return options


def main():
    """Run two systems with two seeds; skip what is finished."""
    given = dict(a.removeprefix("--").split("=", 1) for a in sys.argv[1:])
    output = pathlib.Path(given.pop("output_folder")).resolve()
    sounds = {"recorded": {}, "synthetic": synthetic(output / "background")}
    for seed in (1, 2):
        for system, options in sounds.items():
            run = output / f"{system}_{seed}"
            if (run / "results.json").is_file():
                continue
            keys = {**given, **options, "seed": seed, "output_folder": run}
            command = [sys.executable, "train.py", *SYSTEM]
            command += [f"--{key}={value}" for key, value in keys.items()]
            subprocess.run(command, cwd=RECIPE, check=True)


if __name__ == "__main__":
    main()
