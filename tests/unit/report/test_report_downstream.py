"""The confusion picture and its page."""

import re
import xml.etree.ElementTree as ET

import numpy as np

from speechbrain_ssl.report.downstream import (
    build_downstream_report,
    confusion_figure,
    write_confusion,
)
from speechbrain_ssl.report.results import write_results

COUNTS = [[6, 2, 2], [0, 5, 0], [9, 0, 1]]
CLASSES = ["angry", "calm & <quiet>", "sad"]


def texts(figure):
    return [t.get_text() for t in figure.axes[0].texts]


def test_shares_and_counts():
    figure = confusion_figure(COUNTS, CLASSES)
    found = texts(figure)
    # Share of the row, then the count.
    assert found[:6] == ["60", "6", "20", "2", "20", "2"]
    assert figure.axes[0].get_title(loc="left") == (
        "sad is taken for angry in 90 %, the most frequent mistake"
    )


def test_strength_of_colour_follows_the_share():
    patches = confusion_figure(COUNTS, CLASSES).axes[0].patches
    alphas = np.array([p.get_alpha() for p in patches]).reshape(3, 3)
    assert alphas[2, 0] > alphas[0, 0] > alphas[0, 1] > alphas[1, 0]


def test_no_mistake_and_no_utterance():
    figure = confusion_figure(np.eye(2) * 3, ["a", "b"])
    assert figure.axes[0].get_title(loc="left") == "No mistake at all"
    assert texts(confusion_figure(np.zeros((2, 2)), ["a", "b"]))[0] == "0"


def test_file_is_the_same_from_the_same_numbers(tmp_path):
    for name in ("a.svg", "b.svg"):
        write_confusion(tmp_path / name, COUNTS, CLASSES)
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    ET.fromstring(text)


def test_page(tmp_path):
    write_results(tmp_path, {"micro_f1": 48.0}, 1, 1.0)
    page = build_downstream_report(tmp_path, "emotion < x", COUNTS, CLASSES)
    text = page.read_text()
    assert text.count("What is taken for what") == 1
    assert text.index("<h2>Results") < text.index("taken for what</h2>")
    assert "emotion &lt; x" in text and "Micro-F1 (%)" in text
    (drawing,) = re.findall(r"<figure>.*?(<svg.*?</svg>)", text, re.DOTALL)
    ET.fromstring(re.sub(r"&#?\w+;", "", drawing))
    assert "var(--ink)" in drawing and "calm" in drawing
    assert (tmp_path / "confusion.svg").is_file()
