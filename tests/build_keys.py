"""Build some keys of a configuration, and nothing else."""

import io
import re

import ruamel.yaml
from hyperpyyaml import load_hyperpyyaml

from speechbrain_ssl.config_base import merge
from speechbrain_ssl.encoders.pretrained import PretrainedFrontEnd


def build_keys(path, *keys, **overrides):
    """Return the values of the keys; only what they refer to is built."""
    merged = merge(path)
    plain, needed, waiting = merged.plain(), set(), set(keys)
    while waiting:
        key = waiting.pop()
        needed.add(key)
        waiting |= set(re.findall(r"<(\w+)", str(plain[key]))) - needed
    parser, text = ruamel.yaml.YAML(), io.StringIO()
    tree = parser.load(merged.text)
    for key in plain.keys() - needed:
        del tree[key]
    parser.dump(tree, text)
    made = load_hyperpyyaml(
        merged._replace(text=text.getvalue()).open(), overrides
    )
    return [made[key] for key in keys]


def without_pretrained_weights(monkeypatch):
    """Let every pre-trained model be one layer of random weights.

    Returns a dictionary that will hold the arguments it is loaded with.
    """
    used = {}

    def load(source, **options):
        used.update(source=source, **options)
        kind = "wav2vec2-bert" if "w2v" in source else "wavlm"
        about = {"model_type": kind, "num_hidden_layers": 1}
        return PretrainedFrontEnd.described(about, **options)

    monkeypatch.setattr(PretrainedFrontEnd, "load", load)
    return used
