"""Faults in one of several processes that train together."""

import os
import pathlib
import signal
import socket
import time

import tiny
from jobs import at_step
from processes import Process
from table import Row

from speechbrain_ssl import heartbeat


def ranks(world, tries):
    """Kill, stop and signal one of two processes, in training and outside."""
    training = world.ssl.with_options(
        batch_size=4, distributed_backend="gloo", number_of_epochs=1
    )
    rounds = world.rounds.with_options(
        batch_size=4, distributed_backend="gloo", rounds=1, number_of_epochs=1
    )
    world.measure()
    before = heartbeat.INTERVAL, heartbeat.PATIENCE
    # The processes are forks of this one; two minutes would be long here.
    heartbeat.INTERVAL, heartbeat.PATIENCE = 0.5, 5.0
    for job, begun in (
        (training, at_step(2)),
        (rounds, lambda f: (f / "round_1").is_dir()),
    ):
        for number, code, words in (
            (signal.SIGKILL, 1, "process 1 on"),
            (signal.SIGSTOP, 1, "process 1 on"),
            (signal.SIGTERM, 75, "Stopped by"),
        ):
            wrong, seconds = [], []
            for _ in range(tries):
                folder = world.new()
                first, second = _pair(job, folder)
                first.wait_for(lambda f=folder, b=begun: b(f))
                second.send(number)
                begin = time.monotonic()
                found = first.wait()
                seconds.append(time.monotonic() - begin)
                second.send(signal.SIGKILL)
                second.wait()
                text = first.output
                if found != code or words not in text or "Traceback" in text:
                    wrong.append(f"exit code {found}: {text[-900:]}")
                again = _pair(job, folder)
                if [p.wait() for p in again] != [0, 0]:
                    wrong.append(f"not to the end: {again[0].output[-900:]}")
            yield Row(
                f"{signal.Signals(number).name} to one of two processes",
                job.name,
                tries,
                f"the other one names it, exit code {code}; both go on",
                len(wrong),
                max(seconds),
                details=wrong,
            )
    heartbeat.INTERVAL, heartbeat.PATIENCE = before


def fewer_processes(world, tries):
    """Kill two processes, and go on with one, by the same command."""
    options = {"number_of_epochs": 1, "ckpt_interval_steps": 1}
    job = world.ssl.with_options(
        batch_size=4, distributed_backend="gloo", **options
    )
    whole = world.new()
    world.ssl.with_options(**options).start(whole).wait()
    wrong = []
    for _ in range(tries):
        folder = world.new()
        pair = _pair(job, folder)
        pair[0].wait_for(lambda f=folder: at_step(3)(f))
        for process in pair:
            process.send(signal.SIGKILL)
            process.wait()
        alone = job.start(folder)
        if alone.wait() != 0:
            wrong.append(f"exit code {alone.code}: {alone.output[-900:]}")
            continue
        wrong += _other_losses(folder, whole)
    yield Row(
        "SIGKILL to both of two processes",
        "training",
        tries,
        "one process goes on with the batch of both, and their losses",
        len(wrong),
        details=wrong,
    )


def _other_losses(folder, whole):
    """Compare the losses of a run of two processes with those of one."""
    return [
        f"{mine}, but {other} in one process"
        for mine, other in zip(
            tiny.lines(folder), tiny.lines(whole), strict=True
        )
        if abs(mine["loss"] / other["loss"] - 1) > 0.02
    ]


def elastic_restart(world, tries):
    """Kill one of two processes of torchrun, which starts both again."""
    options = {"number_of_epochs": 1, "ckpt_interval_steps": 1}
    whole = world.new()
    world.ssl.with_options(**options).start(whole).wait()
    job = world.ssl.with_options(
        batch_size=4, distributed_backend="gloo", **options
    )
    launcher = ["-m", "torch.distributed.run", "--standalone"]
    launcher += ["--nproc_per_node=2", "--max_restarts=1"]
    wrong, seconds = [], []
    for number in range(tries):
        folder, rank = world.new(), number % 2
        process = Process([*launcher, *job.argv(folder)], cold=True)
        process.wait_for(lambda f=folder: at_step(2)(f))
        os.kill(_worker(process.pid, rank), signal.SIGKILL)
        begin, size = (
            time.monotonic(),
            (folder / "metrics.jsonl").stat().st_size,
        )
        process.wait_for(
            lambda f=folder, s=size: (f / "metrics.jsonl").stat().st_size > s
        )
        seconds.append(time.monotonic() - begin)
        if process.wait() != 0 or "Resuming after" not in process.output:
            wrong.append(f"exit code {process.code}: {process.output[-900:]}")
            continue
        wrong += _other_losses(folder, whole)
    yield Row(
        "SIGKILL to one of torchrun's two processes",
        "training",
        tries,
        "torchrun starts both again, and they go on from the checkpoint",
        len(wrong),
        to_step=max(seconds),
        details=wrong,
    )


def _worker(launcher, rank):
    """Return the process number of a rank that torchrun has started."""
    children = pathlib.Path(f"/proc/{launcher}/task/{launcher}/children")
    for pid in children.read_text().split():
        variables = pathlib.Path(f"/proc/{pid}/environ").read_bytes()
        if f"RANK={rank}".encode() in variables.split(b"\0"):
            return int(pid)
    raise AssertionError(f"torchrun has no process of rank {rank}")


def _pair(job, folder):
    """Start a job in two processes; return them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    sizes = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    return [
        job.start(
            folder,
            environment={
                **place,
                **sizes,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
            },
        )
        for rank in (0, 1)
    ]
