"""Write ``report.html``, a single page on a run that needs no other file.

Figures are inline SVG whose colours are CSS variables, so that they adapt to
dark mode. A section whose file is missing is left out.
"""

import json
import pathlib

from speechbrain_ssl.config_base import read_hyperparams
from speechbrain_ssl.errors import TrialError
from speechbrain_ssl.report import figures, gate, logbook, results
from speechbrain_ssl.report.blocks import (
    escape,
    facts,
    grid,
    has,
    picture,
    section,
    warning,
    write_page,
)
from speechbrain_ssl.report.embedding_map import embedding_map
from speechbrain_ssl.report.headline import (
    duration,
    headline,
    name_of,
    run_name,
)
from speechbrain_ssl.report.held_out import held_out_figures
from speechbrain_ssl.report.preparation import (
    listed_files,
    preparation_tiles,
    read_preparation,
)
from speechbrain_ssl.report.trial_figures import det_curves, score_histogram
from speechbrain_ssl.report.validation import validation_figures
from speechbrain_ssl.verification.metrics import det_points

FILE_NAME = "report.html"


def build_report(
    output_folder,
    title=None,
    schedules=None,
    trials=None,
    embeddings=None,
    held_out=None,
    extra_sections=(),
):
    """Write ``report.html`` from the files in the folder of a run.

    ``results.json``, ``metrics.jsonl``, ``bad_audio.csv``,
    ``hyperparams.yaml`` and ``env.log`` are read, each if it exists, and what
    the preparation of the audio has recorded.

    Arguments
    ---------
    output_folder : str or pathlib.Path
        The folder of the run.
    title : str, optional
        Heading of the page; by default the name of the run and what it is.
    schedules : dict, optional
        Maps names to arrays ``[steps]``.
    trials : dict, optional
        Maps names to dicts of ``scores`` (``[N]``), ``labels`` (``[N]``, true
        for same-speaker trials) and, if there is one, ``threshold``.
    embeddings : dict, optional
        ``embeddings`` (``[N, D]``), their ``names`` and, if there are any,
        ``groups`` (``[N]``) and ``group_name``.
    held_out : dict, optional
        Arguments of ``held_out_figures``: ``names``, ``halves`` and
        ``threshold``.
    extra_sections : list of str
        HTML from ``blocks.section``, inserted after the results.

    Returns
    -------
    pathlib.Path
        The page.

    Raises
    ------
    UserError
        If ``metrics.jsonl`` is broken before its end.

    Example
    -------
    >>> import tempfile
    >>> from speechbrain_ssl.report.logbook import Logbook
    >>> folder = tempfile.mkdtemp()
    >>> Logbook(folder).log("train", epoch=1, step=1, loss=9.0)
    >>> build_report(folder).name
    'report.html'
    """
    folder = pathlib.Path(output_folder)
    final = _read_json(folder / results.FILE_NAME)
    metrics = []
    if (folder / logbook.FILE_NAME).is_file():
        metrics = logbook.read_metrics(folder / logbook.FILE_NAME)
    hparams = read_hyperparams(folder)
    summary, rejected = read_preparation(hparams.get("train_manifest"))
    if title is None:
        title = f"{run_name(folder)}: speaker verification without labels"
    tiles = _pseudo_eer_tile(metrics) + preparation_tiles(summary)
    _, minutes = figures.series(metrics, "minutes")
    if "minutes" not in final and len(minutes):
        tiles.append(("Wall time so far", duration(minutes[-1]), ""))
    sections = [
        headline(final, tiles),
        _warnings(metrics),
        *extra_sections,
        section("Training", _training(metrics)),
        section(
            "Validation without labels", validation_figures(metrics, hparams)
        ),
        section("Held-out utterances", _held_out(held_out)),
        section("Loss gate", gate.body(folder / gate.FOLDER, metrics)),
        section("Verification trials", _verification(metrics, trials or {})),
        section("Embeddings", _embeddings(embeddings)),
        section("Schedules", _schedules(schedules)),
        listed_files(
            "Files rejected", rejected, "were rejected before training"
        ),
        listed_files(
            "Bad audio files",
            folder / "bad_audio.csv",
            "could not be used and were left out",
        ),
        _text_file("Configuration", folder / "hyperparams.yaml"),
        _environment(final.get("machine"), folder / "env.log"),
    ]
    path = folder / FILE_NAME
    write_page(path, title, sections)
    return path


def _pseudo_eer_tile(metrics):
    """Return the tile of the last pseudo-EER and the first, if there is one."""
    _, eers = figures.series(metrics, "pseudo_eer")
    if not len(eers):
        return []
    # Runs of earlier versions have not logged it.
    measured = any(line["stage"] == "start" for line in metrics)
    first = "before training" if measured else "after the first epoch"
    note = f"{first} {eers[0]:.2f} %; lower is better"
    return [("Pseudo-EER", f"{eers[-1]:.2f} %", note)]


def _warnings(metrics):
    """Warn of losses that are not finite and of signs of collapse."""
    texts = []
    _, loss = figures.series(metrics, "loss", "train")
    broken = int((loss != loss).sum())
    if broken:
        texts.append(
            f"The loss was not finite in {broken} of {len(loss)} logs."
        )
    _, entropy = figures.series(metrics, "teacher_entropy")
    _, largest = figures.series(metrics, "log_prototypes")
    if len(entropy) and len(largest) and largest[-1] > 0:
        share = entropy[-1] / largest[-1]
        if share > 0.98:
            texts.append(
                "The teacher is as good as uniform over the prototypes at the "
                "end (entropy at ln K): it no longer tells utterances apart."
            )
        elif share < 0.02:
            texts.append(
                "The teacher chooses a single prototype at the end (entropy "
                "near 0). If it is the same for all, this is collapse."
            )
    return "".join(warning(text) for text in texts)


# --- Figures -----------------------------------------------------------------


def _training(metrics):
    return grid(_loss(metrics) + _teacher(metrics))


def _loss(metrics):
    """Draw the loss of the steps, or of the epochs if it is all there is."""
    if has(metrics, "loss", "train"):
        stage = "train"
        caption = (
            "Where points are many, the line is a running mean and the band "
            "holds eight in ten. It should leave its starting level within "
            "the first epochs and fall slowly after. Bad signs: a fall to "
            "zero in a few steps, a line that never leaves its start, or "
            "crosses at the foot (values that are not finite)."
        )
    elif has(metrics, "loss"):
        stage = None
        caption = "It should fall, fast at first and slowly after."
    else:
        return []
    figure = figures.curves(
        metrics, {"loss": "Loss"}, stage, ylabel="loss (nats)"
    )
    return [picture(figure, caption)]


_TEACHER = {
    "teacher_entropy": "teacher entropy",
    "held_out_teacher_entropy": "the same, held-out utterances",
    "kl": "KL, teacher to student",
}


def _teacher(metrics):
    """Draw the entropy of the teacher beside that of a uniform choice."""
    keys = {key: name for key, name in _TEACHER.items() if has(metrics, key)}
    if not keys:
        return []
    references = None
    title = "How sharp the teacher is, how far the student"
    _, largest = figures.series(metrics, "log_prototypes")
    largest = largest[largest == largest]
    if len(largest):
        references = {f"ln K = {largest[-1]:.2f}": float(largest[-1])}
        _, entropy = figures.series(metrics, "teacher_entropy")
        entropy = entropy[entropy == entropy]
        if len(entropy):
            share = 100 * entropy[-1] / largest[-1]
            title = f"Teacher entropy ends at {share:.0f} % of ln K"
    figure = figures.curves(
        metrics,
        keys,
        title=title,
        ylabel="nats",
        references=references,
        from_zero=True,
    )
    caption = (
        "The entropy should settle between the floor and the dashed line, and "
        "the KL be above zero. Bad signs: entropy at ln K, the teacher is "
        "uniform over its prototypes (collapse); entropy at 0, one prototype "
        "takes all; KL at 0, the student has nothing left to learn from the "
        "teacher."
    )
    return [picture(figure, caption)]


def _verification(metrics, trials):
    parts = []
    keys = [
        key
        for key in dict.fromkeys(key for line in metrics for key in line)
        if key.startswith("eer") and not key.endswith(("_low", "_high"))
        if has(metrics, key, "trials")
    ]
    if keys:
        names = {key: name_of(key).replace(" (%)", "") for key in keys}
        parts.append(
            picture(
                figures.curves(
                    metrics,
                    names,
                    "trials",
                    "epoch",
                    ylabel="EER (%)",
                    from_zero=True,
                ),
                "Equal error rate on labelled trials; it should fall. A bad "
                "sign is a rise here while the label-free criteria improve: "
                "they then measure something other than the speaker.",
                badge="for the reader; decides nothing",
            )
        )
    points, refused = _det_points(trials)
    if points:
        parts.append(
            picture(
                det_curves(points),
                "Each point is a threshold; nearer to the lower left corner "
                "is better, and the dot is where both errors are equal. The "
                "axes are stretched so that normally distributed scores give "
                "a straight line. A bad sign is a kink or a step: a few "
                "trials, or one recording condition, decide that end.",
            )
        )
    for name, trial in trials.items():
        parts.append(
            picture(
                score_histogram(
                    trial["scores"], trial["labels"], trial.get("threshold")
                ),
                "The two kinds should part. Bad signs: both heaped at the "
                "right end (embeddings all alike, collapse), or a second hump "
                "of different-speaker scores (something other than the "
                "speaker, such as the channel, is being matched).",
                heading=name,
            )
        )
    return refused + grid(parts)


def _det_points(trials):
    """Compute the curves of the lists; explain why a list has none."""
    points, refused = {}, ""
    for name, trial in trials.items():
        try:
            _, miss, alarm = det_points(trial["scores"], trial["labels"])
        except TrialError as error:
            refused += warning(f"{name} has no error rates: {error}.")
        else:
            points[name] = miss, alarm
    return points, refused


def _embeddings(embeddings):
    if embeddings is None:
        return ""
    caption = (
        "Bad signs: one even cloud (nothing is told apart) or a single point "
        "(collapse)."
    )
    groups = embeddings.get("groups")
    if groups is not None:
        caption += (
            " Points of one colour should lie together. The groups are for the "
            "reader; they decide nothing."
        )
    group_name = embeddings.get("group_name", "group")
    drawing = embedding_map(
        embeddings["embeddings"],
        embeddings["names"],
        groups,
        group_name,
        caption,
    )
    return grid([drawing]) if drawing else ""


def _held_out(held_out):
    return held_out_figures(**held_out) if held_out else ""


def _schedules(schedules):
    if not schedules:
        return ""
    return grid(
        [
            picture(
                figures.schedules(schedules),
                "The value set for each step, from the first to the last. A "
                "bad sign is a curve that stops before its end value: the "
                "run was planned longer than it was.",
                wide=len(schedules) > 2,
            )
        ]
    )


# --- Tables and text ---------------------------------------------------------


def _text_file(heading, path):
    if not path.is_file():
        return ""
    return section(heading, _collapsible(path))


def _environment(machine, path):
    body = ""
    if isinstance(machine, dict):
        body += facts(
            (_MACHINE.get(key, key), "none" if value is None else value)
            for key, value in machine.items()
        )
    if path.is_file():
        body += _collapsible(path)
    return section("Environment", body)


_MACHINE = {
    "cpu": "CPU",
    "cores": "CPU cores",
    "gpu": "GPU",
    "system": "System",
    "python": "Python",
    "torch": "PyTorch",
    "speechbrain": "SpeechBrain",
    "speechbrain_ssl": "speechbrain_ssl",
}


def _collapsible(path):
    text = path.read_text(encoding="utf-8", errors="replace")
    return (
        f"<details><summary>{escape(path.name)}</summary>"
        f"<pre>{escape(text)}</pre></details>"
    )


def _read_json(path):
    if not path.is_file():
        return {}
    with open(path, encoding="utf-8") as stream:
        return json.load(stream)
