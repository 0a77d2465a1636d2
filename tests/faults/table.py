"""The table of outcomes: a CSV file, and a copy in the README beside it."""

import csv
import dataclasses

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


@dataclasses.dataclass
class Row:
    """What became of all tries of a fault.

    Arguments
    ---------
    fault, where : str
        What was done, and to what.
    tried : int
        Number of tries.
    outcome : str
        What followed.
    lost : int
        Number of tries after which the same command did not lead to the
        result of an undisturbed run, or that were not refused as they should.
    to_exit, to_step : float, optional
        The longest time from the fault to the end of the process, and from the
        next start to its first step (seconds).
    details : list of str
        What was wrong.
    """

    fault: str
    where: str
    tried: int
    outcome: str
    lost: int = 0
    to_exit: float | None = None
    to_step: float | None = None
    details: list = dataclasses.field(default_factory=list)

    def cells(self):
        """Return the cells of its line."""
        times = [
            "" if s is None else f"{s:.1f}"
            for s in (self.to_exit, self.to_step)
        ]
        first = [self.fault, self.where, str(self.tried), self.outcome]
        return [*first, str(self.lost), *times]


HEADER = [
    "fault",
    "where",
    "tried",
    "outcome",
    "lost",
    "seconds to exit",
    "seconds to step",
]


def write(folder, rows):
    """Write ``table.csv``, and the table in ``README.md`` where there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "table.csv", "w", encoding="utf-8", newline="") as out:
        csv.writer(out, lineterminator="\n").writerows(
            [HEADER, *(row.cells() for row in rows)]
        )
    readme = folder / "README.md"
    if readme.is_file():
        text = readme.read_text(encoding="utf-8")
        before, rest = text.split(BEGIN)
        after = rest.split(END)[1]
        readme.write_text(
            f"{before}{BEGIN}\n{markdown(rows)}{END}{after}", encoding="utf-8"
        )


def markdown(rows):
    """Return the table as Markdown."""
    lines = [HEADER, ["---"] * len(HEADER), *(row.cells() for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
