"""Build some keys of a configuration, and nothing else."""

import io
import re

import ruamel.yaml
from hyperpyyaml import load_hyperpyyaml

from speechbrain_ssl.config_base import merge


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
