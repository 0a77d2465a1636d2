"""Write the page on which a person hears groups of files and names them."""

import json
import os
import pathlib
import urllib.parse

import numpy as np

from speechbrain_ssl.embedding.rows import unit_or_zero, unit_rows
from speechbrain_ssl.report.blocks import escape, section, write_page
from speechbrain_ssl.report.embedding_map import MAX_POINTS, lay_out

#: Files of each kind, typical and doubtful, on the card of a group.
SHOWN = 3
#: Groups that have a card: the largest ones.
CARDS = 500
_COLOURS = ("blue", "red", "green", "purple", "orange", "sky")

_STYLE = """<style>
.cards{display:grid;gap:1rem;
grid-template-columns:repeat(auto-fill,minmax(min(100%,20rem),1fr))}
.card{background:var(--card);border:1px solid var(--line);border-radius:.6rem;
padding:.8rem;min-width:0}
.card input{font:inherit;width:100%;padding:.3rem .5rem;margin:.2rem 0 .5rem;
border:1px solid var(--line);border-radius:.3rem;background:var(--paper);
color:var(--ink)}
.card h4{font-size:.85rem;color:var(--muted);margin:.6rem 0 .2rem;
font-weight:600}
button{font:inherit;color:var(--ink);background:var(--soft);cursor:pointer;
border:1px solid var(--line);border-radius:.3rem;padding:.25rem .6rem}
button[data-file]{display:block;width:100%;text-align:left;font-size:.88rem;
margin:.15rem 0;overflow-wrap:anywhere}
[data-file].playing{outline:2px solid var(--blue)}
circle{cursor:pointer}
circle.playing{stroke:var(--ink);stroke-width:3}
.bar{position:sticky;bottom:0;background:var(--card);padding:.6rem;
border:1px solid var(--line);border-radius:.6rem;margin-top:1.5rem}
.bar audio{width:100%;display:block}
.bar div{overflow-wrap:anywhere;margin-bottom:.3rem;font-size:.9rem}
</style>
"""

_SCRIPT = """<script>
const data = JSON.parse(document.getElementById("data").textContent);
const player = document.querySelector("audio");
const said = document.getElementById("said");
let unsaved = false;
function play(i) {
  document.querySelectorAll(".playing").forEach(
    e => e.classList.remove("playing"));
  document.querySelectorAll(`[data-file="${i}"]`).forEach(
    e => e.classList.add("playing"));
  said.textContent = `${data.names[i]} (speaker ${data.speakers[i]})`;
  player.src = data.sources[i];
  player.play().catch(() => {});
}
player.addEventListener("error", () => {
  said.textContent += ": the browser cannot play it. Was it moved, " +
    "or is it of a format that browsers do not play?";
});
document.addEventListener("click", event => {
  const place = event.target.closest("[data-file]");
  if (place) play(Number(place.dataset.file));
});
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
    folder = pathlib.Path(path).resolve().parent
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
    data = {
        "names": list(names),
        "speakers": np.asarray(speakers).tolist(),
        "sources": [_reference(source, folder) for source in paths],
    }
    # A name with "</script>" must not end the element.
    text = json.dumps(data).replace("<", "\\u003c")
    write_page(
        path,
        f"{len(names)} files, {len(numbers)} groups",
        [
            _STYLE,
            "<p>Each group should be one speaker. Click a file or a point to "
            "hear it, type the names, and save them. Give two groups the same "
            "name if they are one speaker. Nothing leaves this computer.</p>",
            '<p><button id="save" type="button">Save names as CSV</button></p>',
            section("Map", _map(rows, names, speakers)),
            section(
                "Groups",
                f'{left_out}<div class="cards">{"".join(cards)}</div>',
            ),
            '<div class="bar"><div id="said">Nothing is playing.</div>'
            '<audio controls preload="none"></audio></div>',
            f'<script type="application/json" id="data">{text}</script>',
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
    files = "1 file" if len(members) == 1 else f"{len(members)} files"
    worst = more = ""
    if len(doubtful):
        worst = f"<h4>Most doubtful</h4>{_buttons(doubtful, names)}"
    others = rest[~np.isin(rest, doubtful)]
    if len(others):
        more = (
            f"<details><summary>{len(others)} more</summary>"
            f"{_buttons(others, names)}</details>"
        )
    return (
        f'<div class="card"><h3>Speaker {number}: {files}</h3>'
        f'<input data-speaker="{number}" placeholder="name" '
        f'aria-label="Name of speaker {number}">'
        f"<h4>Most typical</h4>{_buttons(typical, names)}"
        + f"{worst}{more}</div>"
    )


def _buttons(files, names):
    return "".join(
        f'<button type="button" data-file="{i}">\u25b6 {escape(names[i])}'
        "</button>"
        for i in files
    )


def _map(rows, names, speakers):
    """Draw the files in the plane; a point can be heard and has a name."""
    chosen = np.arange(len(rows))
    if len(chosen) > MAX_POINTS:
        rng = np.random.default_rng(0)
        chosen = np.sort(rng.choice(chosen, MAX_POINTS, replace=False))
    places, _ = lay_out(rows[chosen], seed=0)
    low = places.min(axis=0)
    span = max(float(np.ptp(places, axis=0).max()), 1e-9)
    places = 20 + 960 * (places - low) / span
    points = "".join(
        f'<circle cx="{x:.0f}" cy="{y:.0f}" r="8" data-file="{i}" '
        f'fill="var(--{_COLOURS[speakers[i] % len(_COLOURS)]})">'
        f"<title>{escape(names[i])}, speaker {speakers[i]}</title></circle>"
        for i, (x, y) in zip(chosen, places, strict=True)
    )
    height = 40 + np.ptp(places[:, 1])
    shown = ""
    if len(chosen) < len(rows):
        shown = f" {len(chosen)} of {len(rows)} files, drawn at random."
    return (
        f'<figure><svg viewBox="0 0 1000 {height:.0f}" role="img" '
        f'aria-label="Map of the files">{points}</svg>'
        "<figcaption>Neighbours in the plane are similar voices (t-SNE); "
        "distances between islands mean nothing. Six colours are shared by all "
        f"groups.{shown}</figcaption></figure>"
    )


def _reference(path, folder):
    """Return the URL of a file, relative to the folder of the page."""
    try:
        path = os.path.relpath(path, folder)
    except ValueError:  # another drive on Windows
        return pathlib.Path(path).resolve().as_uri()
    return urllib.parse.quote(os.fsencode(path.replace(os.sep, "/")))
