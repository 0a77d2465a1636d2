"""Format evaluations of several lists and scorings, and write them to files.

An evaluation is a dict from ``evaluate_scores``, with ``list`` and ``scoring``.
"""

import csv
import pathlib

from speechbrain_ssl.files import atomic_write
from speechbrain_ssl.verification.breakdown import breakdown

# The columns of the tables in `results/`, and further ones after them.
COLUMNS = (
    "system",
    "seed",
    "trials",
    "eer_percent",
    "ci_low",
    "ci_high",
    "labels_seen",
    "minutes",
    "command",
    "min_dcf_0.01",
    "min_dcf_0.05",
)
CALIBRATED = ("cllr", "min_cllr", "act_dcf_0.01", "act_dcf_0.05")
BREAKDOWN = (
    "list",
    "scoring",
    "group",
    "value",
    "speakers",
    "targets",
    "nontargets",
    "eer_percent",
    "ci_low",
    "ci_high",
)


def write_breakdown(folder, lists, scores, table, replicates=1000, seed=0):
    """Write ``breakdown.csv``: error rates by gender and nationality.

    Arguments
    ---------
    folder : str or pathlib.Path
        The folder to write into.
    lists, scores, replicates, seed
        As in ``speechbrain_ssl.verification.evaluation.evaluate_lists``.
    table : dict
        From ``read_speaker_table``.
    """
    rows = []
    for name, (trials, _) in lists.items():
        for scoring, found in scores[name].items():
            groups = breakdown(
                found, trials, table, replicates=replicates, seed=seed
            )
            rows += [{"list": name, "scoring": scoring, **g} for g in groups]
    write_rows(pathlib.Path(folder) / "breakdown.csv", BREAKDOWN, rows)


def difference_text(found):
    """Format how a system differs from the first one.

    Arguments
    ---------
    found : dict
        From ``speechbrain_ssl.report.comparison.compare``.

    Returns
    -------
    str
        Empty for the first system.

    Example
    -------
    >>> row = {"difference": -0.5, "difference_low": -1.25}
    >>> row |= {"difference_high": 0.5, "verdict": "not distinguishable"}
    >>> difference_text(row)
    '-0.50 [-1.25, +0.50], not distinguishable'
    """
    if "difference" not in found:
        return ""
    text = f"{found['difference']:+.2f}"
    if found["verdict"] is None:
        return text
    low, high = found["difference_low"], found["difference_high"]
    return f"{text} [{low:+.2f}, {high:+.2f}], {found['verdict']}"


def evaluations_text(evaluations):
    """Format the evaluations as lines of text.

    Arguments
    ---------
    evaluations : list of dict
        The evaluations; those of several systems have ``system`` instead of
        ``scoring``.

    Returns
    -------
    str

    Example
    -------
    >>> row = {"list": "O", "scoring": "cosine", "trials": 9, "ci_low": None}
    >>> row |= {"eer_percent": 5.0, "min_dcf_0.01": 0.5, "min_dcf_0.05": 0.25}
    >>> print(evaluations_text([row]))
    list  scoring  trials  EER % [95 % interval]  minDCF 0.01  minDCF 0.05
    O     cosine   9       5.00                   0.500        0.250
    """
    kind = "system" if "system" in evaluations[0] else "scoring"
    header = ["list", kind, "trials", "EER % [95 % interval]"]
    header += ["minDCF 0.01", "minDCF 0.05"]
    compared = any("difference" in found for found in evaluations)
    if compared:
        header.append("EER less the first's")
    calibrated = any("cllr" in found for found in evaluations)
    if calibrated:
        header += ["Cllr (min)", "actDCF 0.01", "actDCF 0.05"]
    cells = [header]
    for found in evaluations:
        rate = f"{found['eer_percent']:.2f}"
        if found["ci_low"] is not None:
            rate += f" [{found['ci_low']:.2f}, {found['ci_high']:.2f}]"
        row = [
            found["list"],
            found["system"]
            if kind == "system"
            else found["scoring"].replace("_", " "),
            str(found["trials"]),
            rate,
            f"{found['min_dcf_0.01']:.3f}",
            f"{found['min_dcf_0.05']:.3f}",
        ]
        if compared:
            row.append(difference_text(found))
        if calibrated and "cllr" in found:
            row += [
                f"{found['cllr']:.3f} ({found['min_cllr']:.3f})",
                f"{found['act_dcf_0.01']:.3f}",
                f"{found['act_dcf_0.05']:.3f}",
            ]
        cells.append(row + [""] * (len(header) - len(row)))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in cells
    )


def flat_figures(evaluations):
    """Flatten the evaluations to scalars for ``results.json``.

    Arguments
    ---------
    evaluations : list of dict
        The evaluations; the first one is the headline.

    Returns
    -------
    dict

    Example
    -------
    >>> row = {"list": "O", "scoring": "cosine", "eer_percent": 5.0}
    >>> row |= dict.fromkeys(("ci_low", "ci_high", "min_dcf_0.01"))
    >>> row["min_dcf_0.05"] = 0.25
    >>> flat_figures([row])["eer"]
    5.0
    """
    flat = {}
    for number, found in enumerate(evaluations):
        name = found["list"]
        if found["scoring"] != "cosine":
            name += f"_{found['scoring']}"
        if number == 0:
            flat["eer"] = found["eer_percent"]
            for key in ("ci_low", "ci_high", "min_dcf_0.01", "min_dcf_0.05"):
                flat[key] = found[key]
        if len(evaluations) > 1:
            flat[f"eer_{name}"] = found["eer_percent"]
            flat[f"eer_{name}_ci_low"] = found["ci_low"]
            flat[f"eer_{name}_ci_high"] = found["ci_high"]
    return flat


def write_table(path, evaluations, system, record):
    """Write a CSV file with a row for every list and scoring.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.
    evaluations : list of dict
        The evaluations.
    system : speechbrain_ssl.publishing.systems.System
        Its ``name``, ``seed`` and ``labels_seen`` are written.
    record : dict
        Contents of ``results.json``; ``minutes`` and ``command`` are written.
    """
    calibrated = any("cllr" in found for found in evaluations)
    columns = COLUMNS + (CALIBRATED if calibrated else ())
    rows = []
    for found in evaluations:
        name = system.name
        if found["scoring"] != "cosine":
            name += f", {found['scoring'].replace('_', ' ')}"
        given = {
            "system": name,
            "seed": system.seed,
            "labels_seen": system.labels_seen,
            "trials": found["list"],
            "minutes": record["minutes"],
            "command": record["command"],
        }
        rows.append({**found, **given})
    write_rows(path, columns, rows)


def write_rows(path, columns, rows):
    """Write a CSV file, without the keys that are not columns.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.
    columns : sequence of str
        The header.
    rows : iterable of dict
        Floats are rounded to four places, None is an empty cell.
    """
    with atomic_write(path, newline="") as stream:
        writer = csv.DictWriter(stream, columns, extrasaction="ignore")
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {
                    key: round(value, 4) if isinstance(value, float) else value
                    for key, value in row.items()
                }
            )
