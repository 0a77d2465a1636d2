"""Scoring and error rates, and SpeechBrain's own, side by side in one run.

    python tests/benchmarks/scoring_against_speechbrain.py --csv scoring.csv

Invented embeddings of speakers (192 dimensions) and an invented list of as many
trials as the original Vox1-E has. Every measurement runs in a process of its
own, one after the other, so that its peak of memory is its own (Python and
torch alone take half a GiB of it). Seconds are those of the CPU on one thread:
other work on the machine does not count.

SpeechBrain cannot bear the full sizes: its EER is quadratic in the trials and
its minDCF fills a matrix of thresholds and trials. So both are measured at sizes
that it can bear, ours at the full size as well. The s-norm of SpeechBrain's
VoxCeleb recipe is a script and not a function; the part of a trial is written
here with the same calls (a cosine of torch over the cohort repeated for each
side, `topk`, mean and std), and timed over some trials.
"""

import argparse
import csv
import multiprocessing
import resource
import time

import numpy as np

SIZE, COHORT, TOP = 192, 20_000, 300
TRIALS = 581_480


def embeddings(count, seed):
    """Rows of speakers of 30 utterances each, float32."""
    rng = np.random.default_rng(seed)
    speakers = rng.standard_normal((count // 30 + 1, SIZE), dtype=np.float32)
    rows = rng.standard_normal((count, SIZE), dtype=np.float32)
    rows += 0.8 * speakers[np.arange(count) // 30]
    return rows


def trial_list(count, utterances):
    """Half targets; no name is needed but a number."""
    from speechbrain_ssl.verification.trials import Trials

    rng = np.random.default_rng(1)
    left = rng.integers(utterances, size=count)
    other = rng.integers(utterances, size=count)
    near = np.minimum(left // 30 * 30 + other % 30, utterances - 1)
    right = np.where(np.arange(count) % 2 == 0, near, other)
    names = [f"{u // 30}/{u}" for u in range(utterances)]
    return Trials(left // 30 == right // 30, left, right, names)


def some_scores(count):
    """Overlapping scores without ties."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 2 == 0
    return rng.normal(size=count) + 3.5 * labels, labels


def our_eer(count):
    from speechbrain_ssl.verification.metrics import eer

    scores, labels = some_scores(count)
    return timed(lambda: eer(scores, labels)[0])


def their_eer(count):
    import torch
    from speechbrain.utils.metric_stats import EER

    scores, labels = some_scores(count)
    sides = [torch.from_numpy(scores[keep]) for keep in (labels, ~labels)]
    return timed(lambda: EER(*sides)[0])


def our_min_dcf(count):
    from speechbrain_ssl.verification.metrics import min_dcf

    scores, labels = some_scores(count)
    return timed(lambda: min_dcf(scores, labels))


def their_min_dcf(count):
    import torch
    from speechbrain.utils.metric_stats import minDCF

    scores, labels = some_scores(count)
    sides = [torch.from_numpy(scores[keep]) for keep in (labels, ~labels)]
    # Not normalised there: divided by the prior it is what others report.
    return timed(lambda: minDCF(*sides)[0] / 0.01)


def our_cosine(count, utterances):
    from speechbrain_ssl.verification.scoring import cosine_scores

    rows, trials = embeddings(utterances, 0), trial_list(count, utterances)
    return timed(lambda: cosine_scores(rows, trials)[0])


def our_as_norm(count, utterances):
    from speechbrain_ssl.verification.backends import NormalisedCosine

    backend = NormalisedCosine(top=TOP).fit(embeddings(COHORT, 9))
    backend.mean = np.zeros(SIZE)  # As the other side does it.
    backend.cohort = unit(embeddings(COHORT, 9))
    rows, trials = embeddings(utterances, 0), trial_list(count, utterances)
    return timed(lambda: float(backend.score(rows, trials)[0]))


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def their_as_norm(count, utterances):
    """A trial at a time, cohort and all, as the recipe does."""
    import torch

    rows = torch.from_numpy(embeddings(utterances, 0))
    cohort = torch.from_numpy(embeddings(COHORT, 9))
    trials = trial_list(count, utterances)
    similarity = torch.nn.CosineSimilarity(dim=-1, eps=1e-6)

    def side(row):
        scores = similarity(row[None].repeat(COHORT, 1), cohort)
        return torch.topk(scores, k=TOP, dim=0)[0]

    def score():
        found = []
        for a, b in zip(trials.left, trials.right, strict=True):
            plain = similarity(rows[a], rows[b])
            one, two = side(rows[a]), side(rows[b])
            found.append(
                0.5 * (plain - one.mean()) / one.std()
                + 0.5 * (plain - two.mean()) / two.std()
            )
        return float(found[0])

    return timed(score)


def our_plda(count, utterances):
    from speechbrain_ssl.verification.plda import PLDA

    model = PLDA(150).fit(embeddings(30_000, 9), np.arange(30_000) // 30)
    rows, trials = embeddings(utterances, 0), trial_list(count, utterances)
    return timed(lambda: float(model.score(rows, trials)[0]))


def our_plda_training(count):
    from speechbrain_ssl.verification.plda import PLDA

    rows = embeddings(count, 9)
    return timed(
        lambda: (
            PLDA(iterations=10).fit(rows, np.arange(count) // 30).between[-1]
        )
    )


def their_plda_training(count):
    from speechbrain.processing.PLDA_LDA import PLDA, StatObject_SB

    rows = embeddings(count, 9).astype(np.float64)
    names = np.array([f"{i // 30}" for i in range(count)], dtype=object)
    segments = np.array([f"s{i}" for i in range(count)], dtype=object)
    none = np.array([None] * count)

    def train():
        packed = StatObject_SB(
            names, segments, none, none, np.ones((count, 1)), rows
        )
        model = PLDA(rank_f=100, nb_iter=10)
        model.plda(packed)
        return float(np.linalg.norm(model.F))

    return timed(train)


def timed(call):
    """Seconds of this process on its core, and what came out.

    What takes less than a second is done five times; the median counts.
    """
    spent = []
    while not spent or (spent[0] < 1 and len(spent) < 5):
        start = time.process_time()
        found = float(call())
        spent.append(time.process_time() - start)
    return float(np.median(spent)), found


def work(function, arguments, pipe):
    """One measurement, in a process of its own."""
    import torch

    torch.set_num_threads(1)
    pipe.send(
        (
            *function(*arguments),
            # Kilobytes on Linux.
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        )
    )


def measure(function, *arguments):
    """CPU seconds, result and peak memory (GiB) of one call."""
    # A fresh interpreter: a fork would begin with the parent's memory.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(function, arguments, theirs))
    process.start()
    # Else a dead child would leave the pipe open, and this one waiting.
    theirs.close()
    seconds, result, peak = ours.recv()
    process.join()
    return {"cpu_seconds": seconds, "result": result, "peak_gib": peak}


# What, trials, utterances, ours, SpeechBrain's; None: it cannot bear that.
PLAN = (
    ("EER", 20_000, None, our_eer, their_eer),
    ("EER", TRIALS, None, our_eer, None),
    ("minDCF", 8_000, None, our_min_dcf, their_min_dcf),
    ("minDCF", TRIALS, None, our_min_dcf, None),
    ("AS-norm", 100, 4_874, our_as_norm, their_as_norm),
    ("AS-norm", TRIALS, 4_874, our_as_norm, None),
    ("AS-norm", TRIALS, 150_000, our_as_norm, None),
    ("cosine", TRIALS, 150_000, our_cosine, None),
    ("PLDA scores", TRIALS, 150_000, our_plda, None),
    ("PLDA training", 30_000, None, our_plda_training, their_plda_training),
)
COLUMNS = "what trials embeddings system cpu_seconds peak_gib result".split()


def rows(plan=PLAN):
    """All measurements, ours and theirs in turns."""
    for what, trials, utterances, ours, theirs in plan:
        arguments = [trials] if utterances is None else [trials, utterances]
        for system, function in (("ours", ours), ("SpeechBrain", theirs)):
            if function is not None:
                row = {
                    "what": what,
                    "trials": trials,
                    "embeddings": utterances,
                    "system": system,
                    **measure(function, *arguments),
                }
                print(
                    f"{what:14} {trials:7} {utterances or '':>7} {system:12} "
                    f"{row['cpu_seconds']:9.4f} s {row['peak_gib']:6.2f} GiB "
                    f"{row['result']:.6f}",
                    flush=True,
                )
                yield row


def main(argv=None):
    """Reads the command line, measures, writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--csv", help="where to write the table")
    options = parser.parse_args(argv)
    found = list(rows())
    if options.csv:
        with open(options.csv, "w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, COLUMNS)
            writer.writeheader()
            for row in found:
                for key in ("cpu_seconds", "peak_gib", "result"):
                    row[key] = f"{row[key]:.6g}"
                writer.writerow(row)
    return found


if __name__ == "__main__":
    main()
