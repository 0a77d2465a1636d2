"""The page on which a person hears groups of files and names them."""

import csv
import html
import io
import json
import re
import urllib.parse

import browser
import numpy as np
import pytest
import soundfile

from speechbrain_ssl.report.listening import (
    SHOWN,
    agreement,
    write_listening_page,
)

NAMES = ["a b.wav", '<i>"x",y</i>.wav', "</script>.wav", "d.wav", "e.wav"]


def voices(numbers, spread=0.2, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(numbers.max() + 1, 8))
    rows = centres[numbers] + spread * rng.normal(size=(len(numbers), 8))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def data_of(page):
    text = re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1]
    return json.loads(text)


def test_agreement_is_a_difference_of_cosines():
    speakers = np.array([4, 4, 7, 7, 7, 9])
    rows = voices(speakers)
    own, margins = agreement(rows, speakers)
    means = {s: rows[speakers == s].mean(axis=0) for s in (4, 7, 9)}

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    for i, s in enumerate(speakers):
        found = {t: cosine(rows[i], mean) for t, mean in means.items()}
        assert own[i] == pytest.approx(found[s])
        best = max(value for t, value in found.items() if t != s)
        assert margins[i] == pytest.approx(found[s] - best)


def test_blocks_do_not_matter():
    speakers = np.arange(9000) % 3
    rows = voices(speakers)
    order = np.random.default_rng(1).permutation(9000)
    for one, other in zip(
        agreement(rows, speakers),
        agreement(rows[order], speakers[order]),
        strict=True,
    ):
        assert np.allclose(one[order], other)


def test_every_file_is_on_the_page_once(tmp_path):
    """Names are text, never markup, and all files keep their speaker."""
    speakers = np.array([1, 1, 1, 2, 2])
    paths = [tmp_path / "audio" / "ü %" / str(i) for i in range(5)]
    page = tmp_path / "page.html"
    write_listening_page(page, NAMES, paths, voices(speakers), speakers)
    text = page.read_text(encoding="utf-8")
    data = data_of(text)
    assert data["names"] == NAMES and data["speakers"] == [1, 1, 1, 2, 2]
    assert [
        tmp_path / urllib.parse.unquote(source) for source in data["sources"]
    ] == paths
    buttons = re.findall(r'<button[^>]*data-file="(\d)">▶ (.*?)</', text)
    assert sorted((int(i), html.unescape(n)) for i, n in buttons) == list(
        enumerate(NAMES)
    )
    assert "<i>" not in text and text.count("<circle") == 5
    assert len(re.findall('<input data-speaker="[12]"', text)) == 2
    assert "http" not in text.replace("http-equiv", "")


def test_the_doubtful_file_is_the_one_nearest_to_another_group(tmp_path):
    speakers = np.repeat([1, 2], 10)
    rows = voices(speakers, 0.05)
    rows[3] = 0.55 * rows[0] + 0.45 * rows[15]
    names = [f"{i}.wav" for i in range(20)]
    page = tmp_path / "page.html"
    write_listening_page(page, names, names, rows, speakers)
    card = page.read_text(encoding="utf-8").split("Speaker 1: 10 files")[1]
    doubtful = card.split("Most doubtful")[1]
    assert re.search(r'data-file="(\d+)"', doubtful)[1] == "3"
    assert f"{10 - 2 * SHOWN} more" in card


@pytest.mark.parametrize("count", [1, 2, 6])
def test_equal_recordings_in_one_group(tmp_path, count):
    names = [f"{i}.wav" for i in range(count)]
    page = tmp_path / "page.html"
    write_listening_page(
        page, names, names, np.ones((count, 4)), np.ones(count, int)
    )
    text = page.read_text(encoding="utf-8")
    assert text.count("<circle") == count and "nan" not in text.lower()


DRIVE = """
  document.querySelectorAll("button[data-file]")[1].click();
  const player = document.querySelector("audio");
  await until(() => player.duration > 0);
  const heard = player.duration;
  const said = document.getElementById("said").textContent;
  document.querySelector('circle[data-file="0"]').dispatchEvent(
    new window.MouseEvent("click", {bubbles: true}));
  const point = document.getElementById("said").textContent;
  document.querySelector('input[data-speaker="1"]').value = 'Ann "A", B';
  let saved;
  window.URL.createObjectURL = blob => { saved = blob; return "#"; };
  document.getElementById("save").click();
  const csv = await saved.text();
  const hover = document.querySelector("circle title").textContent;
  return {heard, said, point, csv, hover};
"""


def test_in_a_browser(tmp_path):
    """Players, hover, naming and saving work in a real browser."""
    speakers = np.array([1, 1, 1, 2, 2])
    names = [*NAMES[:4], "a_very_" * 12 + "long_name.wav"]
    paths = [tmp_path / f"ü {i}%.wav" for i in range(5)]
    for path in paths:
        soundfile.write(path, np.zeros(8000), 16000)
    page = tmp_path / "page.html"
    write_listening_page(page, names, paths, voices(speakers), speakers)
    for found in browser.drive(page, DRIVE):
        assert found["heard"] == pytest.approx(0.5)
        assert "(speaker 1)" in found["said"] and "cannot" not in found["said"]
        assert found["point"] == "a b.wav (speaker 1)"
        assert found["hover"] == "a b.wav, speaker 1"
        rows = list(csv.DictReader(io.StringIO(found["csv"])))
        assert [row["file"] for row in rows] == names
        assert [row["name"] for row in rows] == ['Ann "A", B'] * 3 + [""] * 2
        assert found["overflow"] <= 0
        assert found["seen_dark"] == found["dark"]
