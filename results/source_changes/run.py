#!/usr/bin/env python3
"""Train all systems of this study, two at a time, on one thread each.

    python run.py --output_folder=/path/to/runs --train_manifest=… --noise_csv=… \\
        --speech_csv=… --rirs_csv=… --trials=… --trials_folder=… --trials_speaker_component=1

The options are those of recipes/UnlabeledFolder/SSL/train.py. What is finished is not
run again, and what was interrupted goes on.
"""

import concurrent.futures
import os
import pathlib
import shlex
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
RECIPES = HERE.parents[1] / "recipes"
FOLDER = "UnlabeledFolder/SSL"
SIMCLR = "hparams/simclr_ecapa_mini.yaml --number_of_epochs=8 --warmup_epochs=1"
DINO = (
    "hparams/dino_ecapa_mini.yaml --number_of_epochs=6 --lr=0.0005 "
    "--teacher_momentum=0.99 --teacher_momentum_end=0.998"
)
ROUND = "hparams/dlg_lc_ecapa_mini.yaml --rounds=1"
SWAV = (
    "--number_of_epochs={epochs} --lr=0.0005 --prototypes=500 --clusters=400 "
    "--neighbours=0 --positive_queue=2048 --reference_seconds=3 "
    "--speaker_count=null --ssps_start_epoch={start}"
)
BEGIN = SWAV.format(epochs=4, start=5)
GO_ON = (
    SWAV.format(epochs=3, start=2)
    + " --freeze_last_layer_epochs=0 --warmup_epochs=1"
)
NORM = " --encoder_block='{embedding_batch_norm: True}'"
#: Name of a system: recipe folder, arguments, and the system that it begins
#: with, as `initial_model` or `initial_checkpoint`.
SYSTEMS = {
    "simclr": (FOLDER, SIMCLR, None),
    "simclr-norm": (FOLDER, SIMCLR + NORM, None),
    "round": ("UnlabeledFolder/PseudoLabels", ROUND, "simclr"),
    "round-correction-0.1-0.5": (
        "UnlabeledFolder/PseudoLabels",
        ROUND + " --correction_temperature=0.1 --correction_threshold=0.5",
        "simclr",
    ),
    "swav": (
        "MiniVox/SSL",
        "hparams/swav_ssps_ecapa_mini.yaml --music_csv=null " + BEGIN,
        "simclr",
    ),
    "dino": (FOLDER, DINO, "simclr"),
    "dino-prototypes-wide": (
        FOLDER,
        DINO + " --dino='{prototype_std: null}'",
        "simclr",
    ),
    "dino-norm": (FOLDER, DINO + NORM, "simclr-norm"),
    "swav-ssps": (
        "MiniVox/SSL",
        "hparams/swav_ssps_ecapa_mini.yaml --music_csv=null " + GO_ON,
        "swav",
    ),
    "swav-ssps-both": (
        "MiniVox/SSL",
        shlex.quote(f"{HERE}/swav_both_replaced.yaml")
        + " --music_csv=null "
        + GO_ON,
        "swav",
    ),
    "round-least-kept-0": (
        "UnlabeledFolder/PseudoLabels",
        ROUND + " --least_kept=0",
        "simclr",
    ),
}


def train(system, seed, output, options):
    """Run one system with one seed, unless it has been run."""
    folder, arguments, start = SYSTEMS[system]
    run = output / f"{system}_{seed}"
    if list(run.glob("**/results.json")):
        return
    key = "checkpoint" if system.startswith("swav-") else "model"
    command = [sys.executable, "train.py", *shlex.split(arguments)]
    command.append(f"--seed={seed}")
    command += [f"--output_folder={run}", "--prepare=null", *options]
    command += ["--data_folder=unused", "--num_workers=0"]
    if start:
        command.append(f"--initial_{key}={output}/{start}_{seed}")
    run.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
        "PYTHONPATH": f"{HERE}:{os.environ.get('PYTHONPATH', '')}",
    }
    with open(run / "stdout.txt", "a", encoding="utf-8") as log:
        done = subprocess.run(
            command,
            cwd=RECIPES / folder,
            env=environment,
            stdout=log,
            stderr=log,
        )
    print(system, seed, "exit", done.returncode, flush=True)


def main():
    """Run the systems in order of what they begin with."""
    output = next(
        pathlib.Path(argument.partition("=")[2]).resolve()
        for argument in sys.argv
        if argument.startswith("--output_folder=")
    )
    options = [
        argument
        for argument in sys.argv[1:]
        if not argument.startswith("--output_folder=")
    ]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        running = {}
        for system, (_, _, start) in SYSTEMS.items():
            for seed in (1, 2, 3):
                if start:
                    running[start, seed].result()
                running[system, seed] = pool.submit(
                    train, system, seed, output, options
                )


if __name__ == "__main__":
    main()
