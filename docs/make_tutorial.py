"""Run the commands of tutorial.md and put what they print, and pictures, into it.

    python docs/make_tutorial.py SCRATCH

``SCRATCH`` is an empty folder, in which the commands run. The page is its own
template: below each line of a console block that begins with ``$`` stands what
the command prints, and is replaced. Needs chromium and Pillow.
"""

import collections
import csv
import html
import os
import pathlib
import re
import subprocess
import sys

import PIL.Image

HERE = pathlib.Path(__file__).resolve().parent
PAGE = HERE / "tutorial.md"
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
#: How many of the first and of the last lines are kept of a longer output.
FIRST, LAST = 10, 7
#: What the tutorial calls the speakers of MiniVox, in the order of their folders.
NAMES = "Anna Ben Carla David Eva Felix Gina Hugo Ida Jan Kim Leo".split()

# Types a name into each card, as a person does, and shows the file that the
# page would save.
TYPE = """<script>
const typed = %s;
document.querySelectorAll("input[data-speaker]").forEach(
  field => field.value = typed[field.dataset.speaker]);
</script>"""
# The headless browser does not scroll: hide what is above the cards.
BELOW_THE_MAP = (
    "<style>section:has(figure),main>p,p:has(#save){display:none}</style>"
)
SAVE = """<script>document.body.textContent = table();</script>"""


def run(command, folder):
    """Run a command; return it and what it prints, long outputs abridged."""
    print(f"$ {command}", flush=True)
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    # Without a terminal a progress bar is printed line by line.
    lines = [x for x in done.stdout.splitlines() if " elapsed" not in x]
    if done.returncode:
        raise SystemExit("\n".join(lines))
    if len(lines) > FIRST + LAST + 1:
        lines[FIRST:-LAST] = ["…"]
    return "\n".join([f"$ {command}", *lines])


def browser(page, *options):
    """Open a page in a headless browser and return what that prints."""
    return subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu"]
        + ["--hide-scrollbars", "--virtual-time-budget=3000", *options]
        + [page.as_uri()],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def type_names(page):
    """Name the groups of a listening page, save the names, take pictures."""
    with open(page.with_suffix(".csv"), newline="") as stream:
        rows = list(csv.DictReader(stream))
    folders = sorted({row["file"].split("/")[0] for row in rows})
    of_folder = dict(zip(folders, NAMES, strict=True))
    heard = collections.defaultdict(collections.Counter)
    for row in rows:
        heard[row["speaker"]][of_folder[row["file"].split("/")[0]]] += 1
    names = {s: found.most_common(1)[0][0] for s, found in heard.items()}
    text = page.read_text(encoding="utf-8") + TYPE % names
    typed = page.with_name("typed.html")
    for name, further in (("map", ""), ("cards", BELOW_THE_MAP)):
        typed.write_text(text + further, encoding="utf-8")
        shot = HERE / "images" / f"tutorial_{name}.png"
        browser(typed, f"--screenshot={shot}", "--window-size=1000,960")
        with PIL.Image.open(shot) as picture:
            small = picture.convert("RGB").quantize(64)
        small.save(shot, optimize=True)
    typed.write_text(text + SAVE, encoding="utf-8")
    body = re.search(r"<body>(.*)</body>", browser(typed, "--dump-dom"), re.S)
    saved = html.unescape(body[1]).strip() + "\n"
    page.with_name("names.csv").write_text(saved, encoding="utf-8")
    typed.unlink()


def main(scratch):
    """Run the commands in their order and rewrite the page."""
    scratch = pathlib.Path(scratch).resolve()
    os.environ["PATH"] = (
        f"{pathlib.Path(sys.executable).parent}:" + os.environ["PATH"]
    )

    def block(match):
        commands = re.findall(r"^\$ (.*)$", match[1], re.MULTILINE)
        printed = []
        for command in commands:
            printed.append(run(command, scratch))
            if "--page=speakers.html" in command:
                type_names(scratch / "speakers.html")
        return "```console\n" + "\n".join(printed) + "\n```"

    text = BLOCK.sub(block, PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
