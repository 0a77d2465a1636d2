"""Format the head of a page: tiles of the main results, a table of all."""

import re

from speechbrain_ssl.report.blocks import escape, facts, section

# Shown after the metrics, in this order.
_LAST = ("minutes", "labels_seen", "seed", "git_revision", "command")

_NAMES = {
    "eer": "EER (%)",
    "eer_percent": "EER (%)",
    "eer_untrained": "EER of the untrained encoder (%)",
    "eer_statistics": "EER of feature statistics (%)",
    "micro_f1": "Micro-F1 (%)",
    "uar": "Unweighted average recall (%)",
    "macro_f1": "Macro-F1 (%)",
    "majority": "Most frequent class (%)",
    "label_free_threshold": "Threshold made without labels (cosine)",
    "label_free_median": "Median score of two held-out utterances",
    "label_free_decile": "Score that a tenth of their pairs exceed",
    "minutes": "Wall time (minutes)",
    "labels_seen": "Labels seen",
    "seed": "Seed",
    "git_revision": "Revision",
    "command": "Command",
}


def headline(final, first=()):
    """Format the main results as tiles, and all results as a table.

    Arguments
    ---------
    final : dict
        Content of ``results.json``; only scalars are shown.
    first : sequence of tuple
        Name, value and note of further tiles, in front of the others.

    Returns
    -------
    str
        HTML, empty where there are no results.

    Example
    -------
    >>> html = headline({"eer": 7.251, "ci_low": 6.0, "ci_high": 8.5})
    >>> "EER (%)" in html, "7.25 [6.0, 8.50]" in html
    (True, True)
    """
    tiles, rows = list(first), []
    for key, value in final.items():
        scalar = value is None or isinstance(value, (bool, int, float, str))
        if not scalar or key in _LAST or key.endswith(("ci_low", "ci_high")):
            continue
        text, note = _number(value), ""
        interval = _interval(final, key)
        if interval is not None:
            low, high = map(_number, interval)
            note = f"95 % interval {low} to {high}"
        main = key in ("eer", "eer_percent", "micro_f1") or _is_dcf(key)
        if main and value is not None:
            tiles.append((name_of(key), text, note))
        if interval is not None:
            text = f"{text} [{low}, {high}]"
        rows.append((name_of(key), text))
    if final.get("minutes") is not None:
        tiles.append(("Wall time", duration(final["minutes"]), ""))
    # A longer text is shown only in the table.
    if "labels_seen" in final and _labels(final) in ("yes", "none"):
        tiles.append((_NAMES["labels_seen"], _labels(final), ""))
    rows += [(name_of(k), _closing(final, k)) for k in _LAST if k in final]
    return format_tiles(tiles) + section("Results", facts(rows))


def format_tiles(tiles):
    """Format tiles of a name, a value and a note (which may be empty)."""
    shown = "".join(
        f'<div class="tile"><span>{escape(name)}</span>'
        f"<b>{escape(value)}</b>"
        + (f"<span>{escape(note)}</span>" if note else "")
        + "</div>"
        for name, value, note in tiles
    )
    return f'<div class="tiles">{shown}</div>\n' if shown else ""


def run_name(folder):
    """Name a run by its folder and the one above.

    Example
    -------
    >>> import pathlib
    >>> run_name(pathlib.Path("/home/me/results/simclr_ecapa/1"))
    'simclr_ecapa/1'
    """
    return "/".join(folder.resolve().parts[-2:])


def name_of(key):
    """Return the name of a metric on the page.

    Example
    -------
    >>> name_of("min_dcf_0.01"), name_of("eer_vox1_O")
    ('minDCF (0.01)', 'EER, vox1 O (%)')
    """
    if key in _NAMES:
        return _NAMES[key]
    if _is_dcf(key):
        rest = re.sub("^min_?dcf_?", "", key).replace("_", " ")
        rest = re.sub(r"^p ?(?=\d)", "", rest)
        rest = re.sub(r"^0(\d+)$", r"0.\1", rest)
        return f"minDCF ({rest})" if rest else "minDCF"
    if key.startswith("eer_"):
        return f"EER, {key[4:].replace('_', ' ')} (%)"
    text = key.replace("_", " ")
    return text[:1].upper() + text[1:]


def _is_dcf(key):
    return re.match("min_?dcf", key) is not None and not key.endswith(
        ("_low", "_high")
    )


def _interval(final, key):
    """Return the bounds of a metric's interval, or None."""
    prefixes = [f"{key}_"]
    if key in ("eer", "eer_percent"):
        prefixes.append("")
    for prefix in prefixes:
        low = final.get(f"{prefix}ci_low")
        high = final.get(f"{prefix}ci_high")
        if low is not None and high is not None:
            return low, high
    return None


def _closing(final, key):
    """Return the text of a row that follows the metrics."""
    if key == "labels_seen":
        return _labels(final)
    if key == "git_revision" and final[key] is None:
        return "not from a git checkout"
    return _number(final[key])


def _labels(final):
    """Describe in words whether labels were seen."""
    seen = final["labels_seen"]
    return {True: "yes", False: "none", None: "none"}.get(seen, str(seen))


def _number(value):
    # Files of other programs may hold NaN, which Python's JSON reads.
    if value is None or value != value:
        return "n/a"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, float):
        return str(value)
    if abs(value) < 1e9 and value == int(value):
        return str(int(value)) if abs(value) >= 100 else f"{value:.1f}"
    if abs(value) >= 1:
        return f"{value:.2f}"
    return f"{value:.3g}"


def duration(minutes):
    """Format a wall time.

    Example
    -------
    >>> duration(0.5), duration(90.0), duration(600.0)
    ('30 s', '90.0 min', '10.0 h')
    """
    if minutes < 1:
        return f"{60 * minutes:.0f} s"
    if minutes < 120:
        return f"{minutes:.1f} min"
    return f"{minutes / 60:.1f} h"
