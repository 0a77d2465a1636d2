"""Build a page as HTML: figures, tables, sections, and the page itself.

Figures are inline SVG whose colours are CSS variables, so that they adapt to
dark mode. A page needs no other file.
"""

import html
import io
import re
import zlib

import matplotlib

from speechbrain_ssl.files import atomic_write
from speechbrain_ssl.report import style

# Light colour, its name in the style sheet, its counterpart in dark mode.
_COLOURS = (
    (style.INK, "--ink", "#e8ecf1"),
    (style.MUTED, "--muted", "#9aa6b4"),
    (style.GRID, "--grid", "#2b333e"),
    (style.SERIES[0], "--blue", "#4aa3e6"),
    (style.SERIES[1], "--red", "#f0824a"),
    (style.SERIES[2], "--green", "#2fc79b"),
    (style.SERIES[3], "--purple", "#e39bc8"),
    (style.SERIES[4], "--orange", "#f2b93b"),
    (style.SERIES[5], "--sky", "#9adcff"),
)

_STYLE = """
:root{color-scheme:light dark;--paper:#fff;--card:#fff;--line:#dfe4ea;
--soft:#f4f6f8;LIGHT}
@media (prefers-color-scheme:dark){:root{--paper:#12161c;--card:#181d25;
--line:#2b333e;--soft:#1e242d;DARK}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",
Arial,sans-serif}
main{max-width:72rem;margin:0 auto;padding:2.2rem 1.2rem 4rem}
h1,h2,h3{overflow-wrap:anywhere}
h1{font-size:1.75rem;line-height:1.2;margin:0 0 1.4rem;letter-spacing:-.01em}
h2{font-size:1.2rem;margin:2.8rem 0 .9rem;padding-top:1rem;
border-top:1px solid var(--line)}
h3{font-size:1rem;line-height:1.35;margin:.1rem 0 .6rem;font-weight:600}
p{margin:.4rem 0;max-width:46rem}
.tiles{display:grid;gap:.8rem;
grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr))}
.tile{background:var(--soft);border-radius:.6rem;padding:.8rem 1rem}
.tile b{display:block;font-size:1.65rem;line-height:1.25;
font-variant-numeric:tabular-nums}
.tile span{display:block;color:var(--muted);font-size:.85rem}
.warning{border-left:.3rem solid var(--red);background:var(--soft);
padding:.6rem 1rem;margin:1rem 0;border-radius:.2rem}
.figures{display:grid;gap:1.2rem;
grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr))}
figure{margin:0;background:var(--card);border:1px solid var(--line);
border-radius:.6rem;padding:.9rem;min-width:0}
figure svg{display:block;width:100%;height:auto;max-width:38rem;margin:auto}
figure:only-child{max-width:42rem}
figure.wide{grid-column:1/-1;max-width:none!important}
figure.wide .scroll svg{max-width:none;min-width:40rem}
figure text{font-family:inherit!important}
figcaption{color:var(--muted);font-size:.88rem;line-height:1.5;
margin-top:.6rem;max-width:46rem}
.reader{display:inline-block;border:1px solid var(--line);
border-radius:1rem;padding:0 .6rem;font-size:.8rem;color:var(--muted)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.92rem;width:100%}
th,td{text-align:left;vertical-align:top;padding:.35rem .8rem .35rem 0;
border-bottom:1px solid var(--line)}
th{font-weight:600;white-space:nowrap}
table.facts th{width:16rem;font-weight:400;color:var(--muted)}
td{font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
td.code,pre{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;
font-size:.83rem}
pre{background:var(--soft);border-radius:.6rem;padding:1rem;overflow:auto;
max-height:36rem;margin:.6rem 0}
summary{cursor:pointer;font-weight:600}
details{margin:.6rem 0}
@media (max-width:36rem){main{padding:1.2rem .8rem 3rem}
table.facts th{width:auto;white-space:normal}figure{padding:.6rem}}
@media print{figure,.tile{break-inside:avoid}pre{max-height:none}}
"""


def write_page(path, title, sections):
    """Write a page of some sections.

    Arguments
    ---------
    path : str or pathlib.Path
        The HTML file.
    title : str
        Heading of the page.
    sections : list of str
        HTML from ``section``; empty ones are left out.
    """
    light = ";".join(f"{name}:{colour}" for colour, name, _ in _COLOURS)
    dark = ";".join(f"{name}:{colour}" for _, name, colour in _COLOURS)
    css = _STYLE.replace("LIGHT", light).replace("DARK", dark)
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{css}</style>\n</head>\n"
        f"<body>\n<main>\n<h1>{escape(title)}</h1>\n"
        + "\n".join(part for part in sections if part)
        + "\n</main>\n</body>\n</html>\n"
    )
    with atomic_write(path) as stream:
        stream.write(page)


def has(metrics, key, stage=None):
    return any(
        key in line and stage in (None, line.get("stage")) for line in metrics
    )


def picture(figure, caption, badge=None, wide=False, heading=None):
    """Format a figure with a caption that says how to read it."""
    title = ""
    if len(figure.axes) == 1:
        # The title is text of the page, so that it wraps on a narrow screen.
        title = figure.axes[0].get_title(loc="left")
        figure.axes[0].set_title("", loc="left")
    name = " / ".join(ax.get_title(loc="left") for ax in figure.axes)
    if heading:
        title = f"{heading}: {title[:1].lower()}{title[1:]}"
    drawing = _svg(figure, title or name)
    # Keep a number and its unit on one line.
    title = title.replace(" %", "\u00a0%")
    title = f"<h3>{escape(title)}</h3>" if title else ""
    badge = f'<span class="reader">{escape(badge)}</span> ' if badge else ""
    opening = "<figure>"
    if wide:
        opening = '<figure class="wide">'
        drawing = f'<div class="scroll">{drawing}</div>'
    return (
        f"{opening}{title}{drawing}"
        f"<figcaption>{badge}{escape(caption)}</figcaption></figure>"
    )


def _svg(figure, name):
    """Convert a figure to inline SVG in the colours of the page."""
    stream = io.StringIO()
    # With a fixed salt the same numbers give the same page, byte by byte.
    with matplotlib.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": "speechbrain_ssl"}
    ):
        figure.savefig(
            stream,
            format="svg",
            metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")),
        )
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    box = re.search(r'viewBox="[^"]+"', text).group()
    text = re.sub(
        r"<svg[^>]*>",
        lambda _: f'<svg {box} role="img" aria-label="{escape(name)}">',
        text,
        count=1,
    )
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = text.replace("xlink:href", "href")
    # Drop the IDs of plain groups, and make those that are referred to unique
    # on the page.
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    prefix = f"f{zlib.crc32(text.encode('utf-8')):x}-"
    text = re.sub(
        r' id="([^"]+)"',
        lambda m: f' id="{prefix}{m[1]}"' if m[1] in used else "",
        text,
    )
    text = re.sub(r'(href="|url\()#', rf"\g<1>#{prefix}", text)
    variables = {colour: name for colour, name, _ in _COLOURS}
    return re.sub(
        r"(fill|stroke): (#[0-9a-f]{6})",
        lambda m: (
            f"{m[1]}: var({variables[m[2]]})" if m[2] in variables else m[0]
        ),
        text,
    )


def warning(text):
    return f'<p class="warning">{escape(text)}</p>\n'


def facts(rows):
    body = "".join(
        f"<tr><th>{escape(name)}</th>"
        f"<td{_CODE if name in ('Command', 'Revision') else ''}>"
        f"{escape(value)}</td></tr>"
        for name, value in rows
    )
    return (
        '<div class="scroll"><table class="facts"><tbody>'
        f"{body}</tbody></table></div>"
        if body
        else ""
    )


_CODE = ' class="code"'


def table(header, rows, attributes=""):
    """Format a table that scrolls where the screen is narrow.

    Arguments
    ---------
    header : iterable
        One cell for each column.
    rows : iterable of iterable
        The cells of each row; everything is escaped.
    attributes : str
        Further HTML attributes of the surrounding element.

    Returns
    -------
    str

    Example
    -------
    >>> table(["a"], [["<b>"]]).partition("<table>")[2].partition("</td>")[0]
    '<thead><tr><th>a</th></tr></thead><tbody><tr><td>&lt;b&gt;'
    """
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"{attributes}><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def grid(parts):
    return f'<div class="figures">{"".join(parts)}</div>' if parts else ""


def section(heading, body):
    """Put a heading above a body; return "" if the body is empty."""
    if not body:
        return ""
    return f"<section><h2>{escape(heading)}</h2>\n{body}</section>"


def escape(value):
    return html.escape(str(value), quote=True)
