"""Write the page on which a person hears groups of files and names them."""

import numpy as np

from speechbrain_ssl.embedding.rows import unit_or_zero, unit_rows
from speechbrain_ssl.errors import counted
from speechbrain_ssl.report.blocks import section, write_page
from speechbrain_ssl.report.embedding_map import embedding_map
from speechbrain_ssl.report.players import STYLE, buttons, player

#: Files of each kind, typical and doubtful, on the card of a group.
SHOWN = 3
#: Groups that have a card: the largest ones.
CARDS = 500

_STYLE = """<style>
.card input{font:inherit;width:100%;padding:.3rem .5rem;margin:.2rem 0 .5rem;
border:1px solid var(--line);border-radius:.3rem;background:var(--paper);
color:var(--ink)}
</style>
"""

_SCRIPT = """<script>
let unsaved = false;
function table() {
  const quote = text => `"${String(text).replaceAll('"', '""')}"`;
  const named = {};
  document.querySelectorAll("input[data-speaker]").forEach(
    field => named[field.dataset.speaker] = field.value.trim());
  const rows = data.names.map((name, i) => [
    name, data.speakers[i], named[data.speakers[i]] || ""]);
  return [["file", "speaker", "name"], ...rows].map(
    row => row.map(quote).join(",") + "\\r\\n").join("");
}
document.addEventListener("input", () => { unsaved = true; });
window.addEventListener("beforeunload", event => {
  if (unsaved) event.preventDefault();
});
document.getElementById("save").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([table()], {type: "text/csv"}));
  link.download = "names.csv";
  link.click();
  unsaved = false;
});
</script>
"""


def write_listening_page(path, names, paths, embeddings, speakers):
    """Write a page with a card for each group of files.

    A card has the files that are nearest to the mean of their group, and the
    doubtful ones: those that are nearest to another group, compared with their
    own. The page refers to the audio files and holds no copy of them.

    Arguments
    ---------
    path : str or pathlib.Path
        The HTML file.
    names : list of str
        ``N`` names of files.
    paths : list of str
        Their paths. The page refers to them relative to its own folder.
    embeddings : numpy.ndarray
        ``[N, size]``.
    speakers : numpy.ndarray
        int ``[N]``, the number of each file's speaker, from 1.
    """
    rows = unit_rows(embeddings)
    own, margins = agreement(rows, speakers)
    numbers, counts = np.unique(speakers, return_counts=True)
    largest = np.argsort(-counts, kind="stable")[:CARDS]
    cards = [
        _card(number, np.flatnonzero(speakers == number), names, own, margins)
        for number in numbers[largest]
    ]
    left_out = ""
    if len(numbers) > CARDS:
        left_out = (
            f"<p>The {CARDS} largest of {len(numbers)} groups have a card. The "
            "others keep their number in the saved file.</p>"
        )
    write_page(
        path,
        f"{counted(len(names), 'file')}, {counted(len(numbers), 'group')}",
        [
            STYLE,
            _STYLE,
            "<p>Each group should be one speaker. Click a file or a point to "
            "hear it, type the names, and save them. Give two groups the same "
            "name if they are one speaker. Nothing leaves this computer.</p>",
            '<p><button id="save" type="button">Save names as CSV</button></p>',
            section("Map", embedding_map(rows, names, speakers, "speaker")),
            section(
                "Groups",
                f'{left_out}<div class="cards">{"".join(cards)}</div>',
            ),
            player(path, names, paths, speakers=speakers.tolist()),
            _SCRIPT,
        ],
    )


def agreement(rows, speakers):
    """Compare files with the means of their own and of other groups.

    Arguments
    ---------
    rows : numpy.ndarray
        ``[N, size]``, of length one.
    speakers : numpy.ndarray
        int ``[N]``.

    Returns
    -------
    tuple of numpy.ndarray
        The cosine of each file and the mean of its group, ``[N]``, and by how
        much it is higher than that of the nearest other group, ``[N]``
        (infinite if there is no other).

    Example
    -------
    >>> rows = np.eye(2)[[0, 0, 1]]
    >>> own, margins = agreement(rows, np.array([1, 1, 2]))
    >>> own.tolist(), margins.tolist()
    ([1.0, 1.0, 1.0], [1.0, 1.0, 1.0])
    """
    numbers, group = np.unique(speakers, return_inverse=True)
    sums = np.zeros((len(numbers), rows.shape[1]))
    np.add.at(sums, group, rows)
    means = unit_or_zero(sums)
    own, others = np.empty(len(rows)), np.empty(len(rows))
    # In blocks: a hundred thousand files times ten thousand groups are 8 GB.
    for start in range(0, len(rows), 4096):
        part = slice(start, start + 4096)
        cosines = rows[part] @ means.T
        at = np.arange(len(cosines)), group[part]
        own[part] = cosines[at]
        cosines[at] = -np.inf
        others[part] = cosines.max(axis=1)
    return own, own - others


def _card(number, members, names, own, margins):
    """Format the card of a group."""
    typical = members[np.argsort(-own[members], kind="stable")][:SHOWN]
    rest = members[~np.isin(members, typical)]
    doubtful = rest[np.argsort(margins[rest], kind="stable")][:SHOWN]
    files = counted(len(members), "file")
    worst = more = ""
    if len(doubtful):
        worst = f"<h4>Most doubtful</h4>{buttons(doubtful, names)}"
    others = rest[~np.isin(rest, doubtful)]
    if len(others):
        more = (
            f"<details><summary>{len(others)} more</summary>"
            f"{buttons(others, names)}</details>"
        )
    return (
        f'<div class="card"><h3>Speaker {number}: {files}</h3>'
        f'<input data-speaker="{number}" placeholder="name" '
        f'aria-label="Name of speaker {number}">'
        f"<h4>Most typical</h4>{buttons(typical, names)}"
        + f"{worst}{more}</div>"
    )
