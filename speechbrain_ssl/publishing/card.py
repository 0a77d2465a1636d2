"""Write the model card: what a user must know before using a model."""

import dataclasses
import html
import re

from huggingface_hub import EvalResult, ModelCardData

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.publishing.hub import HUB_PREFIX
from speechbrain_ssl.verification.label_free_threshold import (
    RULE as LABEL_FREE,
)

# Papers of the methods here; any other arXiv number may be cited too.
_PAPERS = {
    "2304.05754": (
        "Bing Han and Zhengyang Chen and Yanmin Qian",
        "Self-Supervised Learning with Cluster-Aware-DINO for High-Performance "
        "Robust Speaker Verification",
    ),
    "2505.14561": (
        "Theo Lepage and Reda Dehak",
        "SSPS: Self-Supervised Positive Sampling for Robust Self-Supervised "
        "Speaker Verification",
    ),
    "2208.05445": (
        "Jaejin Cho and Jes{\\'u}s Villalba and Laureano Moro-Velazquez and "
        "Najim Dehak",
        "Non-Contrastive Self-Supervised Learning for Utterance-Level "
        "Information Extraction from Speech",
    ),
}
_SPEECHBRAIN = "2106.04624"
_PAPERS[_SPEECHBRAIN] = (
    "Mirco Ravanelli and others",
    "SpeechBrain: A General-Purpose Speech Toolkit",
)


@dataclasses.dataclass
class About:
    """Facts for the card that cannot be read from the files of the model.

    Arguments
    ---------
    name : str
        Title of the card.
    data : str
        What it was trained on, in a sentence.
    licence : str
        Licence of the weights, as one of the hub's identifiers.
    datasets : list of str
        Names of those training sets that are on the hub.
    languages : list of str
        Codes of the languages in the training data.
    papers : list of str
        arXiv numbers of the methods.
    hub_id : str, optional
        ``owner/model``, if the model goes to the hub.
    """

    name: str
    data: str
    licence: str = "apache-2.0"
    datasets: list = dataclasses.field(default_factory=list)
    languages: list = dataclasses.field(default_factory=list)
    papers: list = dataclasses.field(default_factory=list)
    hub_id: str = None


def evaluations(results):
    """Return the evaluations that a ``results.json`` holds.

    Arguments
    ---------
    results : dict
        Written by a training run or by ``evaluate.py``.

    Returns
    -------
    list of dict
        ``list``, ``scoring``, ``eer_percent``, ``ci_low``, ``ci_high``, and,
        where they are known, ``min_dcf_0.01``, ``min_dcf_0.05``, ``trials``
        and ``speakers``.

    Example
    -------
    >>> evaluations({"eer": 5.0, "ci_low": 4.0, "ci_high": 6.0})[0]["list"]
    'trials of the training run'
    """
    if results.get("evaluations"):
        return list(results["evaluations"])
    if results.get("eer") is None:
        return []
    return [
        {
            "list": "trials of the training run",
            "scoring": "cosine",
            "eer_percent": results["eer"],
            **{
                key: results.get(key)
                for key in (
                    "ci_low",
                    "ci_high",
                    "min_dcf_0.01",
                    "min_dcf_0.05",
                    "trials",
                    "speakers",
                )
            },
        }
    ]


def make_card(
    about, description, results, threshold=None, why=None, onnx=False
):
    """Write the text of ``README.md``.

    Arguments
    ---------
    about : About
        Facts that the author states.
    description : dict
        From ``speechbrain_ssl.publishing.description.describe``.
    results : dict
        ``results.json``; empty if there is none.
    threshold : float, optional
        The cosine above which two recordings are taken for one speaker.
    why : str, optional
        Where the threshold is from.
    onnx : bool
        Whether ``model.onnx`` is part of the model.

    Returns
    -------
    str
        YAML front matter that the hub understands, and Markdown.

    Raises
    ------
    ConfigError
        If the training data is not stated.
    """
    if not about.data.strip():
        raise ConfigError(
            "a model card must say what the model was trained on; state it with "
            "--data"
        )
    found = evaluations(results)
    head = ModelCardData(
        language=about.languages or None,
        license=about.licence,
        library_name="speechbrain",
        tags=[
            "speechbrain",
            "speaker-verification",
            "speaker-embeddings",
            "self-supervised",
            description["encoder"]["class"],
        ],
        datasets=about.datasets or None,
        metrics=["eer"] if found else None,
        model_name=about.name,
        eval_results=[_eval_result(row) for row in found] or None,
    )
    labels = str(results.get("labels_seen", "unknown"))
    sections = [
        f"---\n{head.to_yaml()}\n---\n",
        f"# {_escaped(about.name)}\n",
        _summary(description, labels),
        f"## Training data\n\n{about.data.strip()}\n\n"
        f"Speaker labels seen in training: **{_escaped(labels)}**.\n",
        _metrics(found),
        _loading(about.hub_id, description, threshold, why),
        _ONNX if onnx else "",
        _LIMITS,
        f"## Licence\n\nThe weights: {about.licence}. The corpora it was "
        "trained on have licences and terms of their own.\n",
        _how_made(results),
        _citation(about.papers),
    ]
    return "\n".join(section for section in sections if section)


def _eval_result(row):
    metric = "EER %"
    if row.get("ci_low") is not None:
        metric += f" [{row['ci_low']:.2f}, {row['ci_high']:.2f}]"
    scoring = row["scoring"].replace("_", " ")
    return EvalResult(
        task_type="speaker-verification",
        task_name="Speaker verification",
        dataset_type=row["list"],
        dataset_name=f"{row['list']}, {scoring}",
        metric_type="eer",
        metric_name=metric,
        metric_value=round(row["eer_percent"], 4),
    )


def _summary(description, labels):
    encoder, features = description["encoder"], description["features"]
    how = (
        "trained from audio alone, without speaker labels, "
        if labels == "none"
        else ""
    )
    if "front_end" in encoder["arguments"]:
        kind = encoder["arguments"]["front_end"]["architecture"]["model_type"]
        inputs = (
            f"the hidden states of a {kind} model, from mono audio of 16000 Hz"
        )
    else:
        variance = " and unit variance"
        if features["normalize"] != "mean_variance":
            variance = ""
        inputs = (
            f"{features['n_mels']} log-mel energies of "
            f"{features['sample_rate']} Hz mono audio, normalised to zero "
            f"mean{variance} for every utterance"
        )
    return (
        f"Speaker embeddings of {encoder['arguments']['lin_neurons']} "
        f"dimensions, {how}with speechbrain-ssl on "
        "[SpeechBrain](https://speechbrain.github.io). "
        f"{encoder['class']} on {inputs}. Two recordings are compared by the "
        "cosine of their embeddings.\n"
    )


def _metrics(found):
    if not found:
        return "## Evaluation\n\nNot evaluated on labelled trials.\n"
    about = (
        "Equal error rate in percent with its 95 % interval over speakers "
        "(bootstrap), and minDCF at target priors of 0.01 and 0.05."
    )
    columns = {"min_dcf_0.01": "minDCF 0.01", "min_dcf_0.05": "minDCF 0.05"}
    if any("cllr" in row for row in found):
        about += (
            " Cllr (bits) of log-likelihood ratios that were calibrated on "
            "other trials."
        )
        columns |= {"cllr": "Cllr", "min_cllr": "least Cllr"}
    header = ["trials", "scoring", "number", "speakers", "EER %"]
    header += columns.values()
    lines = [
        f"## Evaluation\n\n{about}\n",
        f"| {' | '.join(header)} |",
        "|---" * len(header) + "|",
    ]
    for row in found:
        rate = f"{row['eer_percent']:.2f}"
        if row.get("ci_low") is not None:
            rate += f" [{row['ci_low']:.2f}, {row['ci_high']:.2f}]"
        cells = [
            _escaped(row["list"]),
            _escaped(row["scoring"].replace("_", " ")),
        ]
        cells += [_shown(row.get("trials")), _shown(row.get("speakers")), rate]
        cells += [_shown(row.get(key), ".3f") for key in columns]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _escaped(text):
    """Return a text as one line of Markdown without any markup."""
    text = html.escape(" ".join(str(text).split()), quote=False)
    return re.sub(r"([\\`*\[\]|!#~])", r"\\\1", text)


def _as_code(value):
    """Return a value as a line of code in Markdown; a number as it is."""
    if isinstance(value, (int, float)):
        return str(value)
    return "`" + " ".join(str(value).replace("`", "'").split()) + "`"


def _shown(value, form=""):
    return "" if value is None else format(value, form)


def _loading(hub_id, description, threshold, why):
    needs = "stock SpeechBrain 1.1.2 or newer; nothing else has to be installed"
    if "front_end" in description["encoder"]["arguments"]:
        needs = (
            "SpeechBrain 1.1.2 or newer, and the classes of this encoder: "
            '`pip install "speechbrain-ssl[hf]"`'
        )
    source = hub_id or "path/to/this/folder"
    model = f"{HUB_PREFIX}{hub_id}" if hub_id else source
    verify = "score, _ = verifier.verify_batch(first, second)"
    note = (
        "The model comes without a threshold; SpeechBrain's own, 0.25, was "
        "made for a supervised model and decides nothing here.\n"
    )
    if threshold is not None:
        verify = (
            "threshold = verifier.hparams.verification_threshold\n"
            "score, same = verifier.verify_batch(\n"
            "    first, second, threshold=threshold\n)"
        )
        note = (
            f"The threshold is {threshold:.4f} ({_escaped(why)}). `verify_files` and a "
            "call without `threshold` use SpeechBrain's own, 0.25, which was "
            "made for a supervised model.\n"
        )
        if why == LABEL_FREE:
            note += (
                "On recordings unlike those of the training it can be far off; "
                "check it on some pairs whose speakers you know.\n"
            )
    return f"""\
## How to use it

With {needs}:

```python
from speechbrain.inference.speaker import SpeakerRecognition

verifier = SpeakerRecognition.from_hparams("{source}")
first = verifier.load_audio("first.wav").unsqueeze(0)
second = verifier.load_audio("second.wav").unsqueeze(0)
embedding = verifier.encode_batch(first)  # [1, 1, size]
{verify}
```

{note}
`model.safetensors` and `config.json` are for speechbrain-ssl, which loads them
without executing anything:
`speechbrain-ssl verify first.wav second.wav --model={model}`.
Stock SpeechBrain executes `hyperparams.yaml`; read it first if you do not know
its author. It embeds a recording as a whole, which takes much memory beyond a few
minutes; speechbrain-ssl embeds a long one in windows.
"""


_ONNX = """\
Without torch, with onnxruntime; the waveform is mono at 16 kHz:

```python
import onnxruntime, soundfile

wave, rate = soundfile.read("first.wav", dtype="float32")
session = onnxruntime.InferenceSession("model.onnx")
embedding = session.run(None, {"waveforms": wave[None]})[0]  # [1, size]
```
"""

_LIMITS = """\
## Intended use and limits

For research on speaker verification, for grouping recordings by voice, and as a
start for training on one's own data.

* The figures hold for the trials they were measured on. Other languages,
  microphones, rooms, ages or shorter recordings can be far worse; so can single
  groups of speakers within one list.
* A threshold and a calibration hold for data like that they were made on.
* Without labels nothing in training tells a voice from its recording: two files
  of one session look more alike than they should.
* A score is no proof of identity. The model does not detect synthetic, edited or
  replayed speech. It is not for surveillance, nor for identifying people who
  have not agreed to it.
"""


def _how_made(results):
    training = results.get("training")
    parts = []
    for record, title in (
        (training or {}, "Training"),
        (results, "Evaluation" if training else "Training and evaluation"),
    ):
        lines = [
            f"* {name}: {_as_code(record[key])}"
            for key, name in (
                ("command", "command"),
                ("git_revision", "revision of the code"),
                ("seed", "seed"),
                ("epochs", "epochs"),
                ("effective_batch", "effective batch"),
            )
            if record.get(key) is not None
        ]
        if lines:
            parts += [f"{title}:\n", *lines, ""]
    if not parts:
        return ""
    return (
        "## How it was made\n\n"
        + "\n".join(parts)
        + "\nEverything else is in `results.json`.\n"
    )


def _citation(papers):
    entries = []
    for number in dict.fromkeys([*papers, _SPEECHBRAIN]):
        author, title = _PAPERS.get(number, (None, None))
        fields = [f"  eprint = {{{number}}}", "  archivePrefix = {arXiv}"]
        if title is None:
            fields.append(f"  url = {{https://arxiv.org/abs/{number}}}")
        else:
            fields = [
                f"  author = {{{author}}}",
                f"  title = {{{title}}}",
                *fields,
            ]
        entries.append(
            f"@misc{{arxiv{number.replace('.', '_')},\n"
            + ",\n".join(fields)
            + "\n}"
        )
    return "## Citation\n\n```bibtex\n" + "\n".join(entries) + "\n```\n"
