"""Write one page on all rounds of pseudo-labels."""

import json
import pathlib

import matplotlib.ticker

from speechbrain_ssl.report import style
from speechbrain_ssl.report.blocks import (
    escape,
    facts,
    grid,
    picture,
    section,
    table,
    write_page,
)
from speechbrain_ssl.report.headline import duration, format_tiles, run_name

# Metrics of a stage of training and of the model that it is compared with.
_SIDE_BY_SIDE = {
    "pseudo_eer": "Pseudo-EER (%): before, after",
    "lidar": "LiDAR: before, after",
    "rankme": "RankMe: before, after",
}

# The same by modality, where voices and faces are trained together.
_BY_MODALITY = {
    "pseudo_eer_face": "Pseudo-EER by face (%): before, after",
    "pseudo_eer_both": "Pseudo-EER by both (%): before, after",
}

_COLUMNS = {
    "round": "Round",
    "minutes": "Minutes",
    **_SIDE_BY_SIDE,
    **_BY_MODALITY,
    "verdict": "Against its start",
    "clusters": "Clusters",
    "sizes": "Smallest, median and largest cluster",
    "labelled": "Labelled",
    "silhouette": "Silhouette",
    "agreement_nmi": "NMI with the previous round",
    "gate_kept": "Kept by the gate",
    "eer": "EER (%)",
    "face_eer": "EER by face (%)",
    "both_eer": "EER by both (%)",
    "monitor_nmi": "NMI with speakers*",
    "monitor_purity": "Purity*",
}


def build_rounds_report(folder):
    """Write ``report.html`` of all rounds.

    Arguments
    ---------
    folder : str or pathlib.Path
        The output folder, with ``results.json``.

    Returns
    -------
    pathlib.Path
        The page.
    """
    folder = pathlib.Path(folder)
    results = json.loads((folder / "results.json").read_text("utf-8"))
    stages = results["stages"]
    path = folder / "report.html"
    write_page(
        path,
        f"{run_name(folder)}: rounds of pseudo-labels",
        [
            format_tiles(_tiles(results)),
            section("Results", facts(_headline(results))),
            section("From round to round", _curves(results)),
            section("Rounds", _table(stages)),
            section("Pages of the stages", _links(folder)),
        ],
    )
    return path


def _tiles(results):
    """Return the tiles: what each stage has gained, and the time taken."""
    tiles = [
        (
            f"Pseudo-EER, round {name}",
            f"{record['pseudo_eer']:.2f} %",
            f"was {record['start_pseudo_eer']:.2f} %: {_verdict(record)}",
        )
        for name, record in _rows(results["stages"]).items()
        if "verdict" in record
    ]
    return [*tiles, ("Wall time", duration(results["minutes"]), "")]


def _verdict(record):
    """Return the verdict on a stage, and by what, if not by all modalities."""
    verdict, by = record["verdict"], record.get("by", {})
    same = [name for name, one in by.items() if one["verdict"] == verdict]
    if len(same) == len(by):
        return verdict
    return f"by {' and '.join(same)} {verdict}"


def _headline(results):
    """List the main results as rows of a table."""
    rows = [("Rounds trained", results["rounds"])]
    rows.append(("Ended because", results["stopped"]))
    rows.append(("Model from", results["model_from"]))
    rows.append(("Because", results["why"]))
    for value, name in (
        (_initial_eer(results["stages"]), "EER of the initial model (%)"),
        (results.get("eer"), "EER of the kept model (%)"),
    ):
        if value is not None:
            rows.append((name, f"{value:.2f}"))
    rows.append(("Speaker labels seen", results["labels_seen"]))
    rows.append(("Minutes", results["minutes"]))
    rows.append(("Command", results.get("command", "unknown")))
    return rows


def _initial_eer(stages):
    """Find the EER of the model that the first training started from."""
    return next((r.get("eer_initial") for r in stages if "eer" in r), None)


def _curves(results):
    """Draw the error rate and the agreement of labels over the rounds."""
    stages, parts = results["stages"], []
    eers = [(r["round"], r["eer"]) for r in stages if r.get("eer") is not None]
    first = _initial_eer(stages)
    if first is not None:
        eers.insert(0, (0, first))
    if len(eers) > 1:
        # The final stage does not belong to a round.
        eers = [(i, value) for i, (_, value) in enumerate(eers)]
        parts.append(
            picture(
                _lines({"EER": eers}, "EER by stage of training", "EER (%)"),
                "0 is the self-supervised model that the first labels are "
                "made with. The trials decide nothing.",
                "for the reader",
            )
        )
    curves = {}
    for key, name in (
        ("agreement_nmi", "with the previous round"),
        ("monitor_nmi", "with speakers (for the reader)"),
    ):
        points = [(r["round"], r[key]) for r in stages if key in r]
        if points:
            curves[name] = points
    if curves:
        parts.append(
            picture(
                _lines(curves, "Agreement of the labels", "NMI"),
                "Normalised mutual information of the clusters. Where it no "
                "longer grows from round to round, another round changes "
                "little.",
            )
        )
    return grid(parts)


def _lines(curves, title, ylabel):
    """Draw curves of a few points over the rounds."""
    figure, ax = style.new_figure()
    for colour, (name, points) in zip(
        style.SERIES, curves.items(), strict=False
    ):
        ax.plot(
            *zip(*points, strict=True), marker="o", color=colour, label=name
        )
    if len(curves) > 1:
        style.legend(ax)
    # From the start of all rounds, and from zero: small gains look small.
    ax.set_xlim(left=-0.1)
    ax.set_ylim(0, 1.04 * ax.get_ylim()[1])
    ax.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    style.label(ax, title, "round", ylabel)
    return figure


def _rows(stages):
    """Merge the stages of each round; a final stage stays on its own."""
    rows = {}
    for record in stages:
        name = record["round"]
        if record["stage"] == "fine_tune":
            # Named after its round: a run extended by more rounds has several.
            name = f"{name}, fine-tuning"
            if record.get("place", 1) > 1:
                name = f"{name} {record['place']}"
        row = rows.setdefault(name, {})
        minutes = row.get("minutes", 0.0) + record["minutes"]
        row |= {**record, "minutes": minutes}
    return rows


def _readable(row):
    """Put figures that are read together into one cell."""
    row = dict(row)
    if "size_median" in row:
        sizes = (row[f"size_{name}"] for name in ("min", "median", "max"))
        row["sizes"] = ", ".join(f"{size:g}" for size in sizes)
    if "gate_kept" in row:
        row["gate_kept"] = f"{100 * row['gate_kept']:.0f} %"
    if "verdict" in row:
        for name in _SIDE_BY_SIDE:
            row[name] = f"{row[f'start_{name}']:.1f}, {row[name]:.1f}"
    for name in ("face", "both"):
        if one := row.get("by", {}).get(name):
            row[f"pseudo_eer_{name}"] = (
                f"{one['start_pseudo_eer']:.1f}, {one['pseudo_eer']:.1f}"
            )
    return row


def _table(stages):
    """Format a table with a row for each round."""
    stages = [
        {**_readable(row), "round": name} for name, row in _rows(stages).items()
    ]
    there = {
        k: name for k, name in _COLUMNS.items() if any(k in r for r in stages)
    }
    note = ""
    if any(k.startswith("monitor_") for k in there):
        note = (
            "<p>* against speaker labels, for the reader; they took no part "
            "in anything.</p>"
        )
    if "verdict" in there:
        note += (
            "<p>Before and after are measured on the same held-out utterances, "
            "with the same noise; the training had none of them. The page of a "
            "stage shows the pseudo-EER of its own validation, whose utterances "
            "are held out of those that have labels. The two therefore differ."
            "</p>"
        )
    rows = [[_show(record.get(key)) for key in there] for record in stages]
    return table(there.values(), rows) + note


def _show(value):
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _links(folder):
    """Link to the page of each training stage."""
    pages = sorted(folder.glob("*/report.html"))
    items = "".join(
        f'<li><a href="{escape(p.parent.name)}/report.html">'
        f"{escape(p.parent.name.replace('_', ' '))}</a></li>"
        for p in pages
    )
    return f"<ul>{items}</ul>" if items else ""
