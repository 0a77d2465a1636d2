"""Evaluations of trial lists, as text, as scalars and as a table in a file.

An evaluation is what ``evaluate_scores`` returns, with ``list`` and ``scoring``.
"""

import csv

from speechbrain_ssl.files import atomic_write

# Those of the tables in `results/`, and further ones after them.
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


def evaluations_text(evaluations):
    """The evaluations as lines of text.

    Arguments
    ---------
    evaluations : list of dict
        The evaluations.

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
    header = ["list", "scoring", "trials", "EER % [95 % interval]"]
    header += ["minDCF 0.01", "minDCF 0.05"]
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
            found["scoring"].replace("_", " "),
            str(found["trials"]),
            rate,
            f"{found['min_dcf_0.01']:.3f}",
            f"{found['min_dcf_0.05']:.3f}",
        ]
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
    """The evaluations as scalars for ``results.json``.

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


def write_table(path, evaluations, about, record):
    """Writes a CSV file with a row for every list and scoring.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.
    evaluations : list of dict
        The evaluations.
    about : dict
        ``system``, ``seed`` and ``labels_seen``.
    record : dict
        What ``results.json`` holds; ``minutes`` and ``command`` are taken.
    """
    calibrated = any("cllr" in found for found in evaluations)
    columns = COLUMNS + (CALIBRATED if calibrated else ())
    rows = []
    for found in evaluations:
        system = about["system"]
        if found["scoring"] != "cosine":
            system += f", {found['scoring'].replace('_', ' ')}"
        given = {
            "system": system,
            "trials": found["list"],
            "minutes": record["minutes"],
            "command": record["command"],
        }
        rows.append({**found, **about, **given})
    write_rows(path, columns, rows)


def write_rows(path, columns, rows):
    """Writes a CSV file; other keys of the rows are left out.

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
