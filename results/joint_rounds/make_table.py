#!/usr/bin/env python3
"""Make table.csv and the three tables beside it from ``runs/``.

python make_table.py
"""

import pathlib

from speechbrain_ssl.report.evaluations import write_rows
from speechbrain_ssl.report.studies import HEADLINE, read_json

HERE = pathlib.Path(__file__).resolve().parent
PARTS = ("minivox", "real", "damaged")
GATE = (
    "gate_kept",
    "gate_precision",
    "face_gate_kept",
    "face_gate_precision",
)
LABELS = ("labelled", "nmi", "nmi_with_face")
ERRORS = (*HEADLINE, "data", "damaged", "rounds", "scored_by")
#: Names of the systems in the tables.
NAMES = {
    "alone": "rounds of each alone",
    "joint_sum": "joint rounds (sum)",
    "joint_each": "joint rounds (each)",
    "joint_both": "joint rounds (both)",
    "audio_rounds": "rounds of voices",
    "face_rounds": "rounds of faces",
}


def shown(row, keys):
    """Return some entries of a row, rounded."""
    return {
        key: f"{row[key]:.3f}" if isinstance(row[key], float) else row[key]
        for key in keys
        if key in row
    }


def main():
    """Write the tables."""
    errors, labels, differences = [], [], []
    for part in PARTS:
        found = read_json(HERE / "runs" / f"{part}.json")
        for row in found["rows"]:
            known = shown(row, ("data", "damaged", "seed", "rounds"))
            system = NAMES[row.get("system", row.get("labels"))]
            for by, rates in row.get("eer", {}).items():
                rates = (f"{rate:.2f}" for rate in rates)
                columns = ("eer_percent", "ci_low", "ci_high")
                errors.append(
                    {
                        **known,
                        "trials": row["trials"],
                        **dict(zip(columns, rates, strict=True)),
                        "system": system,
                        "labels_seen": "none",
                        "minutes": f"{row['origin'][by][0]:.1f}",
                        "command": row["origin"][by][1],
                        "scored_by": by,
                    }
                )
            if "nmi" in row:
                figures = shown(row, (*LABELS, *GATE))
                labels.append({"system": system, **known, **figures})
        seeds = {row["seed"] for row in found["rows"]}
        for what, (points, low, high) in found["differences"].items():
            differences.append(
                {
                    "data": part,
                    "comparison": what,
                    "seeds": len(seeds),
                    "points": f"{points:.2f}",
                    "ci_low": f"{low:.2f}",
                    "ci_high": f"{high:.2f}",
                }
            )
    write_rows(HERE / "table.csv", ERRORS, errors)
    columns = ("system", "data", "damaged", "seed", "rounds", *LABELS, *GATE)
    write_rows(HERE / "labels.csv", columns, labels)
    columns = ("data", "comparison", "seeds", "points", "ci_low", "ci_high")
    write_rows(HERE / "differences.csv", columns, differences)
    columns = ("data", "seed", "weight", "nmi")
    weights = [
        row
        for data in ("minivox", "real")
        for row in read_json(HERE / "runs" / f"weights_{data}.json")
    ]
    write_rows(HERE / "weights.csv", columns, weights)


if __name__ == "__main__":
    main()
