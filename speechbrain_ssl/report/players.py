"""The parts of pages on which a person hears audio files.

A page refers to the files and holds no copy of them. All buttons and points
share the player at the foot of the page.
"""

import json
import os
import pathlib
import urllib.parse

from speechbrain_ssl.report.blocks import escape

STYLE = """<style>
.cards{display:grid;gap:1rem;
grid-template-columns:repeat(auto-fill,minmax(min(100%,20rem),1fr))}
.card{background:var(--card);border:1px solid var(--line);border-radius:.6rem;
padding:.8rem;min-width:0}
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
function play(i) {
  document.querySelectorAll(".playing").forEach(
    e => e.classList.remove("playing"));
  document.querySelectorAll(`[data-file="${i}"]`).forEach(
    e => e.classList.add("playing"));
  const speaker = data.speakers ? ` (speaker ${data.speakers[i]})` : "";
  said.textContent = data.names[i] + speaker;
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
</script>
"""


def buttons(files, names):
    """Format buttons that play files.

    Arguments
    ---------
    files : iterable of int
        Positions in ``names``.
    names : list of str
        What the buttons show.

    Returns
    -------
    str

    Example
    -------
    >>> buttons([1], ["a.wav", "b.wav"])
    '<button type="button" data-file="1">▶ b.wav</button>'
    """
    return "".join(
        f'<button type="button" data-file="{i}">\u25b6 {escape(names[i])}'
        "</button>"
        for i in files
    )


def player(page, names, paths, **further):
    """Format the player at the foot of a page, with the files it can play.

    Arguments
    ---------
    page : str or pathlib.Path
        The HTML file.
    names : list of str
        ``N`` names of files.
    paths : list of str
        Their paths.
    **further : dict
        Further entries of the page's ``data``; ``speakers`` are shown beside
        the names.

    Returns
    -------
    str
        HTML, to be the last part of the page.
    """
    folder = pathlib.Path(page).resolve().parent
    sources = [_reference(path, folder) for path in paths]
    data = {"names": list(names), "sources": sources, **further}
    # A name with "</script>" must not end the element.
    text = json.dumps(data).replace("<", "\\u003c")
    return (
        '<div class="bar"><div id="said">Nothing is playing.</div>'
        '<audio controls preload="none"></audio></div>'
        f'<script type="application/json" id="data">{text}</script>{_SCRIPT}'
    )


def _reference(path, folder):
    """Return the URL of a file, relative to the folder of the page."""
    try:
        path = os.path.relpath(path, folder)
    except ValueError:  # another drive on Windows
        return pathlib.Path(path).resolve().as_uri()
    return urllib.parse.quote(os.fsencode(path.replace(os.sep, "/")))
