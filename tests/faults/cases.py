"""The faults. Each function takes a ``World`` and a number of tries, and returns
rows of the table."""

import collections
import shutil
import signal
import time
from unittest import mock

import hostile
import pandas as pd
import soundfile
import tiny
import torch
from collapses import FORCED, alarmed
from damages import DAMAGES
from groups import elastic_restart, fewer_processes, ranks
from jobs import at_step, expected, refused, strike
from table import Row

from speechbrain_ssl.brains.ssl_brain import SSLBrain
from speechbrain_ssl.report.logbook import read_metrics

WHERE = {
    "training": ["epoch 1", "epoch 2", "export and report"],
    "rounds": [
        "embed 1",
        "cluster 1",
        "train 1",
        "embed 2",
        "cluster 2",
        "train 2",
        "report",
    ],
    "preparation": ["anywhere"],
    "publishing": ["anywhere"],
}


def sudden(world, tries, number, job):
    """Send a signal at random moments of every stage; then go on to the end."""
    world.measure(job)
    where = WHERE[job.name]
    struck, wrong = [], []
    while len(struck) < tries:
        folder, found = world.new(), []
        count = min(len(where), tries - len(struck))
        for place in sorted(world.draws.sample(range(len(where)), count)):
            found.append(strike(job, folder, place, number, world.draws))
        found = [s for s in found if s is not None]
        struck += found
        for each in found:
            clean = "Traceback" not in each.output
            last = each.place == len(where) - 1
            if not (expected(each.code, number, last) and clean):
                wrong.append(f"exit code {each.code}: {each.output[-900:]}")
        wrong += filter(None, [job.completes(folder)])
        shutil.rmtree(folder)
    counts = collections.Counter(where[s.place] for s in struck)
    codes = collections.Counter(s.code for s in struck)
    ends = "killed" if number == signal.SIGKILL else _codes(codes)
    yield Row(
        signal.Signals(number).name,
        f"{job.name}: " + ", ".join(f"{counts[w]} {w}" for w in where),
        len(struck),
        f"{ends}; the same command ends with the same result",
        len(wrong),
        max(s.seconds for s in struck) if number != signal.SIGKILL else None,
        max((s.resumed for s in struck if s.resumed), default=None),
        wrong,
    )


def _codes(codes):
    return ", ".join(f"{n} exit code {code}" for code, n in codes.items())


def kills(world, tries):
    """Kill every kind of run with SIGKILL."""
    for job in (world.ssl, world.rounds, world.preparation, world.publishing):
        yield from sudden(world, tries, signal.SIGKILL, job)


def signals(world, tries):
    """Ask every kind of run to stop."""
    for name in ("SIGTERM", "SIGINT", "SIGUSR1"):
        for job in (world.ssl, world.rounds):
            yield from sudden(world, tries, getattr(signal, name), job)
    for job in (world.preparation, world.publishing):
        yield from sudden(world, tries, signal.SIGTERM, job)


def command_line(world, tries):
    """SIGTERM, and the same command, in new interpreters."""
    job, wrong, exits, steps = world.ssl, [], [], []
    for _ in range(tries):
        folder = world.new()
        process = job.start(folder, cold=True)
        process.wait_for(lambda f=folder: at_step(4)(f))
        sent = time.monotonic()
        process.send(signal.SIGTERM)
        code = process.wait()
        exits.append(time.monotonic() - sent)
        size = (folder / "metrics.jsonl").stat().st_size
        again = job.start(folder, cold=True)
        again.wait_for(
            lambda f=folder, s=size: (f / "metrics.jsonl").stat().st_size > s
        )
        steps.append(time.monotonic() - again.started)
        again.wait()
        if code != 75:
            wrong.append(f"exit code {code}: {process.output[-900:]}")
        wrong += filter(None, [job.completes(folder)])
    yield Row(
        "SIGTERM",
        "training, each start a new Python",
        tries,
        "exit code 75; the same command ends with the same result",
        len(wrong),
        max(exits),
        max(steps),
        wrong,
    )


def full_disk(world, tries):
    """Let the disk fill up; make room; go on."""
    world.measure(world.rounds, world.preparation, world.publishing)
    places = {
        "a checkpoint": (world.ssl, at_step(3)),
        "a report": (world.ssl, lambda f: world.ssl.stage(f) == 2),
        "a shard": (world.rounds, lambda f: (f / "round_1").is_dir()),
        "labels": (world.rounds, lambda f: world.rounds.stage(f) == 1),
        "a checkpoint of round 2": (
            world.rounds,
            lambda f: world.rounds.stage(f) == 5,
        ),
        "a manifest": (world.preparation, lambda f: True),
        "a published model": (world.publishing, lambda f: True),
    }
    for name, (job, reached) in places.items():
        wrong, seconds = [], []
        for _ in range(tries):
            folder = world.new()
            process = job.start(folder)
            process.wait_for(lambda f=folder, r=reached: r(f))
            process.fill_disk()
            begin = time.monotonic()
            wrong += filter(None, [refused(process, "no space is left")])
            seconds.append(time.monotonic() - begin)
            wrong += filter(None, [job.completes(folder)])
        yield Row(
            "disk full",
            name,
            tries,
            "says so; with room, the same result",
            len(wrong),
            max(seconds),
            details=wrong,
        )


def damaged_files(world, tries):
    """Damage each file that a stopped run continues from."""
    job, stopped = world.ssl, world.new()
    process = job.start(stopped)
    process.wait_for(lambda: at_step(9)(stopped))
    process.send(signal.SIGTERM)
    process.wait()
    newest = tiny.newest_checkpoint(stopped).path
    names = [p.relative_to(stopped) for p in sorted(newest.iterdir())]
    for damage, harm in DAMAGES.items():
        wrong = []
        chosen = world.draws.sample(names, min(len(names), tries))
        for name in chosen:
            folder = world.new()
            shutil.copytree(stopped, folder, dirs_exist_ok=True)
            harm(folder / name)
            problem = job.completes(folder)
            if problem:
                wrong.append(f"{name}: {problem}")
        yield Row(
            f"file {damage}",
            "each file of a checkpoint",
            len(chosen),
            "goes on from the checkpoint before; the same result",
            len(wrong),
            details=wrong,
        )


def together(world, tries):
    """Start a second run in the folder of a running one."""
    world.measure(world.rounds, world.preparation)
    for job in (world.ssl, world.rounds, world.preparation):
        wrong = []
        for _ in range(tries):
            folder = world.new()
            first = job.start(folder)
            first.wait_for(lambda f=folder: _locked(f))
            first.send(signal.SIGSTOP)
            second = job.start(folder)
            words = ("in use by another", f"process {first.pid} on")
            wrong += filter(None, [refused(second, *words)])
            first.send(signal.SIGCONT)
            if first.wait() != 0:
                wrong.append(f"the first ended: {first.output[-900:]}")
            wrong += filter(None, [job.completes(folder)])
        yield Row(
            "second start",
            f"the output folder of {job.name}",
            tries,
            "refused by name; the first one is not disturbed",
            len(wrong),
            details=wrong,
        )


def _locked(folder):
    return any("process" in p.read_text() for p in folder.rglob("lock"))


def changing_audio(world, tries):
    """Let the corpus vanish, or be cut, while a run reads it."""
    audio = world.corpus.audio / "wav"
    whole, cut, none = (audio.with_name(n) for n in ("whole", "cut", "none"))
    audio.rename(whole)
    audio.symlink_to(whole)
    _cut(whole, cut)
    for name, target in (("vanishes", none), ("is cut to a quarter", cut)):
        wrong = []
        for _ in range(tries):
            folder = world.new()
            process = world.ssl.start(folder)
            process.wait_for(lambda f=folder: at_step(3)(f))
            _point(audio, target)
            wrong += filter(None, [refused(process, "missing_audio.csv")])
            _point(audio, whole)
            table = folder / "missing_audio.csv"
            if not (table.is_file() and len(pd.read_csv(table)) > 0):
                wrong.append("no table of the files")
            wrong += filter(None, [world.ssl.completes(folder)])
        yield Row(
            "audio",
            f"the corpus {name} in training",
            tries,
            "refused with a table; once it is back, the same result",
            len(wrong),
            details=wrong,
        )


def _point(link, target):
    """Let a symbolic link point elsewhere, from one moment to the next."""
    new = link.with_name("new")
    new.symlink_to(target)
    new.replace(link)


def _cut(source, target):
    """Copy wav files, cut to a quarter of their length."""
    for path in source.rglob("*.wav"):
        wave, rate = soundfile.read(path, dtype="int16")
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(copy, wave[: len(wave) // 4], rate)


def output_folder(world, tries):
    """Delete the output folder of a run."""
    world.measure(world.rounds)
    for job, reached in (
        (world.ssl, at_step(3)),
        (world.rounds, lambda f: world.rounds.stage(f) == 2),
    ):
        wrong, seconds = [], []
        for _ in range(tries):
            folder = world.new()
            process = job.start(folder)
            process.wait_for(lambda f=folder, r=reached: r(f))
            shutil.rmtree(folder)
            begin = time.monotonic()
            wrong += filter(None, [refused(process, "was deleted")])
            seconds.append(time.monotonic() - begin)
            shutil.rmtree(folder, ignore_errors=True)
            wrong += filter(None, [job.completes(folder)])
        yield Row(
            "output folder deleted",
            job.name,
            tries,
            "says so; from the beginning, the same result",
            len(wrong),
            max(seconds),
            details=wrong,
        )


def divergence(world, tries):
    """Train with a learning rate at which the weights leave all bounds."""
    wrong, tries = [], min(tries, 3)
    for power in range(tries):
        folder, rate = world.new(), 10.0 ** (20 + power)
        job = world.ssl.with_options(lr=rate)
        words = ("diverged", "learning rate")
        wrong += filter(None, [refused(job.start(folder), *words)])
        for path in (folder / "save").rglob("*.ckpt"):
            if path.stem in ("encoder", "objective"):
                state = torch.load(path, weights_only=True).values()
                if not all(torch.isfinite(t).all() for t in state):
                    wrong.append(f"{path} is not finite")
    yield Row(
        "divergence",
        "training, learning rates of 1e20 and more",
        tries,
        "names step, rate and remedy; nothing is saved that is not finite",
        len(wrong),
        details=wrong,
    )


def collapse(world, tries):
    """Force collapses on runs with eight held-out utterances; judge good ones."""
    wrong, job = [], world.ssl.with_options(number_of_epochs=5)
    original = SSLBrain.after_step
    for name, (force, sign) in FORCED.items():

        def forced(brain, force=force):
            original(brain)
            force(brain)

        # The process is a fork of this one.
        with mock.patch.object(SSLBrain, "after_step", forced):
            process = job.start(world.new())
        problem = refused(process, "collapsed", "now epoch 4", sign)
        wrong += [f"{name}: {problem}"] if problem else []
    yield Row(
        "collapse",
        ", ".join(FORCED),
        len(FORCED),
        "stopped after three epochs, with a remedy",
        len(wrong),
        details=wrong,
    )
    paths = sorted((tiny.ROOT / "results").glob("*/runs/*/metrics.jsonl"))
    wrong = [str(p) for p in paths if alarmed(read_metrics(p))]
    yield Row(
        "no collapse",
        "the runs in results, judged as with 8, 40 and 200 held-out utterances",
        len(paths),
        "no alarm",
        len(wrong),
        details=wrong,
    )


def hostile_folders(world, tries):
    """Load model folders of a stranger, each once."""
    wrong, costs = [], []
    for name, attack in hostile.ATTACKS.items():
        folder = world.new()
        shutil.copytree(
            world.ssl.reference / "model", folder, dirs_exist_ok=True
        )
        attack(folder)
        outcome, *cost = hostile.attempt(folder)
        costs.append(cost)
        # The wall time is that of a machine which others use, too.
        _, cpu, used = cost
        if not outcome.startswith("refused") or cpu > 2 or used > 300:
            wrong.append(f"{name}: {outcome} ({cpu:.1f} s, {used:.0f} MB)")
        if (folder / "ran").exists():
            wrong.append(f"{name}: has run code")
    yield Row(
        "hostile model folder",
        ", ".join(hostile.ATTACKS),
        len(hostile.ATTACKS),
        "refused within {:.1f} s, {:.1f} s of CPU and {:.0f} MB".format(
            *map(max, zip(*costs, strict=True))
        ),
        len(wrong),
        details=wrong,
    )


#: Name -> cases.
CASES = {
    function.__name__: function
    for function in (
        kills,
        signals,
        command_line,
        full_disk,
        damaged_files,
        together,
        changing_audio,
        output_folder,
        ranks,
        fewer_processes,
        elastic_restart,
        divergence,
        collapse,
        hostile_folders,
    )
}
