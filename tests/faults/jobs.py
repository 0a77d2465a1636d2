"""What the faults are done to: training, rounds, preparation, publishing.

A ``Job`` is a command with an undisturbed run of it. After any fault the same
command, started again, must leave what that run left, bit for bit.
"""

import dataclasses
import json
import pathlib
import signal
import time
from collections.abc import Callable

import test_rounds
import tiny
from processes import Process
from test_resume import assert_same_run

PREPARE = tiny.ROOT / "recipes" / "UnlabeledFolder" / "unlabeled_prepare.py"
PUBLISH = tiny.ROOT / "recipes" / "VoxCeleb" / "Verification" / "publish.py"


@dataclasses.dataclass
class Job:
    """A command, how far it has come, and what it must leave.

    Arguments
    ---------
    name : str
        For the table.
    argv : callable
        Output folder -> command line.
    stage : callable
        Output folder -> number of the stage that the command is in.
    assert_same : callable
        Takes two output folders; raises ``AssertionError`` if they differ.
    """

    name: str
    argv: Callable
    stage: Callable
    assert_same: Callable
    reference: pathlib.Path | None = None
    durations: list | None = None

    def measure(self, folder):
        """Run undisturbed; note how long each stage takes."""
        process = Process(self.argv(folder))
        changes, begin = [], time.monotonic()
        while process.poll() is None:
            if len(changes) < self.stage(folder):
                changes.append(time.monotonic())
            time.sleep(0.002)
        assert process.code == 0, process.output
        ends = [*changes, time.monotonic()]
        starts = [begin, *changes]
        self.durations = [e - s for s, e in zip(starts, ends, strict=True)]
        self.reference = folder

    def start(self, folder, **options):
        """Start the command."""
        return Process(self.argv(folder), **options)

    def with_options(self, **options):
        """Return the same job with further options on the command line."""
        more = [f"--{key}={value}" for key, value in options.items()]
        return dataclasses.replace(
            self, argv=lambda out: [*self.argv(out), *more]
        )

    def completes(self, folder):
        """Run the command to its end; return what is wrong with the result."""
        process = self.start(folder)
        if process.wait() != 0:
            return f"exit code {process.code}: {process.output[-900:]}"
        try:
            self.assert_same(folder, self.reference)
        except (AssertionError, OSError) as error:
            return f"not the same result: {error}"[:500]
        return None


def files(folder, *patterns):
    """Return the bytes of the files of a folder that match patterns."""
    return {
        path.relative_to(folder): path.read_bytes()
        for pattern in patterns
        for path in sorted(folder.glob(pattern))
    }


def epochs(folder):
    """Return the number of finished epochs of a run."""
    path = folder / "metrics.jsonl"
    return path.read_text().count('"valid"') if path.is_file() else 0


def stages(folder):
    """Return the number of finished stages of rounds."""
    path = folder / "rounds.json"
    return len(json.loads(path.read_text())) if path.is_file() else 0


def assert_same_rounds(left, right):
    """Assert that labels, weights, log lines and exports are equal."""
    for number in (1, 2):
        test_rounds.assert_same_round(left, right, number)
    assert test_rounds.exported(left) == test_rounds.exported(right)


def assert_same_files(*patterns):
    """Return a function that compares the files of two folders."""

    def check(left, right):
        ours, theirs = files(left, *patterns), files(right, *patterns)
        assert ours and ours.keys() == theirs.keys()
        assert not [name for name in ours if ours[name] != theirs[name]]

    return check


class World:
    """The tiny corpus and the jobs on it.

    Arguments
    ---------
    folder : pathlib.Path
        An empty folder.
    draws : random.Random
        Where the random moments come from.
    """

    def __init__(self, folder, draws):
        self.folder, self.draws, self.count = folder, draws, 0
        self.corpus = tiny.Corpus(self.new())
        self.ssl = Job(
            "training",
            lambda out: [
                tiny.TRAIN,
                *self.corpus.argv(out, ckpt_interval_steps=2),
            ],
            epochs,
            assert_same_run,
        )
        self.rounds = Job(
            "rounds",
            lambda out: [
                tiny.ROUNDS,
                *self.corpus.rounds_argv(
                    out, self.ssl.reference, ckpt_interval_steps=2
                ),
            ],
            stages,
            assert_same_rounds,
        )
        self.preparation = Job(
            "preparation",
            lambda out: [
                PREPARE,
                f"--data_folder={self.corpus.audio}",
                f"--save_folder={out}",
                "--check=decode",
                "--num_workers=2",
            ],
            lambda out: 0,
            assert_same_files("*.csv", "prepare.json"),
        )
        self.publishing = Job(
            "publishing",
            lambda out: [
                PUBLISH,
                f"--model={self.ssl.reference}",
                f"--output_folder={out}",
                "--data=synthetic speech",
                "--name=tiny",
            ],
            lambda out: 0,
            assert_same_files("*.ckpt", "*.yaml", "*.json", "*.md"),
        )

    def measure(self, *jobs):
        """Run jobs undisturbed, unless that was done before."""
        # Rounds and publishing begin with the model of the first.
        for job in (self.ssl, *jobs):
            if job.reference is None:
                job.measure(self.new())

    def new(self):
        """Return the path of a new folder."""
        self.count += 1
        folder = self.folder / f"{self.count:04d}"
        folder.mkdir()
        return folder


@dataclasses.dataclass
class Strike:
    """What became of a process that got a signal.

    ``code`` is its exit code, ``place`` the stage in which the signal came,
    ``seconds`` the time from the signal to the end, and ``resumed`` the time
    from its start to its first optimiser step, where it took one.
    """

    code: int | None
    place: int
    seconds: float
    resumed: float | None
    output: str


def strike(job, folder, place, number, draws, **options):
    """Send a signal at a random moment of a stage.

    Returns
    -------
    Strike or None
        None if the process had ended before.
    """

    def size():
        return sum(p.stat().st_size for p in folder.glob("**/metrics.jsonl"))

    before, resumed = size(), None
    process = job.start(folder, **options)

    def reached():
        # The lock of the folder comes first; before it nothing has begun.
        return job.stage(folder) >= place and any(folder.iterdir())

    if not process.wait_for(reached):
        return None
    due = time.monotonic() + draws.uniform(0, job.durations[place])
    while time.monotonic() < due and process.poll() is None:
        if resumed is None and size() > before:
            resumed = time.monotonic() - process.started
        time.sleep(0.002)
    if process.poll() is not None:
        return None
    # Halted, it cannot end between this look and the signal.
    if not process.halt():
        return None
    place, sent = job.stage(folder), time.monotonic()
    process.send(number)
    process.send(signal.SIGCONT)
    code = process.wait()
    seconds = time.monotonic() - sent
    return Strike(code, place, seconds, resumed, process.output)


def expected(code, number, last_stage):
    """Tell whether an exit code is right after a signal."""
    if number == signal.SIGKILL:
        return code == -signal.SIGKILL
    # The last moments of a process are too late to handle a signal, and where
    # the last stage is the only one, the first ones may be too early.
    return code == 75 or (code == -number and last_stage)


def at_step(step):
    """Return a condition: the run has logged an optimiser step."""

    def reached(folder):
        path = folder / "metrics.jsonl"
        return path.is_file() and f'"step": {step},' in path.read_text()

    return reached


def refused(process, *words):
    """Return what is wrong with how a process was refused, or None."""
    code = process.wait()
    text = process.output
    if code == 1 and "Traceback" not in text and all(w in text for w in words):
        return None
    return f"exit code {code}: {text[-900:]}"
