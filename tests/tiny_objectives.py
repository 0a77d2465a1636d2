"""Every objective in the tiny configuration, made from its building block."""

import dataclasses

import tiny


@dataclasses.dataclass(frozen=True)
class Case:
    """An objective, small enough for runs of seconds.

    Attributes
    ----------
    block : str
        Its file in ``hparams/objectives``.
    values : dict
        Keys of the block that are set.
    crops : str
        ``"global"`` (two global crops), ``"both"`` (two local ones in addition),
        or ``"disjoint"`` (the student sees only the local ones).
    schedules : tuple of str
        Its schedules in addition to learning rate and weight decay.
    """

    block: str
    values: dict
    crops: str = "global"
    schedules: tuple = ()

    @property
    def momentum(self):
        """Whether the objective has a momentum teacher."""
        return "momentum" in self.schedules

    @property
    def parts(self):
        """Parts of a checkpoint that are compared; SimCLR has no state."""
        head = () if self.block == "simclr" else ("objective",)
        teacher = ("teacher",) if self.momentum else ()
        return ("encoder", *head, "optimizer", *teacher)


_TEACHER = ("momentum",)
_DINO = ("momentum", "teacher_temperature", "cosine_weight")
_HEAD = {"embedding_size": 192, "hidden": 16, "output_size": 8}
_DINO_HEAD = {
    "embedding_size": 192,
    "hidden": 16,
    "prototypes": 16,
    "bottleneck": 8,
}

#: Name -> case. A queue of 32 is two batches of 16.
CASES = {
    "simclr": Case("simclr", {"margin": 0.1}),
    "moco": Case(
        "moco",
        {
            "embedding_size": 192,
            "queue": 32,
            "margin": 0.1,
            "margin_kind": "arcface",
            "teacher_momentum": 0.9,
        },
        schedules=_TEACHER,
    ),
    "swav": Case(
        "swav",
        {**_HEAD, "prototypes": 8, "queue": 32, "queue_start_epoch": 2},
        "both",
    ),
    "deepcluster": Case("deepcluster", {**_HEAD, "prototypes": [4, 5]}, "both"),
    "vicreg": Case("vicreg", _HEAD),
    "vibcreg": Case("vibcreg", {**_HEAD, "groups": 2}),
    "barlow": Case("barlow", _HEAD),
    "wmse": Case("wmse", {**_HEAD, "output_size": 3, "whitening_size": 8}),
    "byol": Case(
        "byol",
        {**_HEAD, "predictor_hidden": 8, "teacher_momentum": 0.9},
        "both",
        _TEACHER,
    ),
    "simsiam": Case("simsiam", {**_HEAD, "predictor_hidden": 4}, "both"),
    "cpc": Case(
        "cpc", {"embedding_size": 192, "frame_channels": 48, "hidden": 8}
    ),
    "lim": Case("lim", {"embedding_size": 192, "discriminator_hidden": 8}),
    "dino": Case("dino", _DINO_HEAD, "both", _DINO),
    "rdino": Case(
        "dino",
        {
            **_DINO_HEAD,
            "wide": 12,
            "variance_weight": 1.0,
            "covariance_weight": 0.1,
            "koleo_weight": 0.1,
            "centering": "sinkhorn",
        },
        "both",
        (*_DINO, "penalty_weight"),
    ),
    "sdpn": Case("sdpn", _DINO_HEAD, "disjoint", _TEACHER),
}

#: Blocks of pseudo-positives that start in the second epoch.
POSITIVES = {
    "ssps": (
        "ssps.yaml",
        "positives",
        {
            "clusters": 4,
            "neighbours": 1,
            "queue": 32,
            "start_epoch": 2,
            "reference_seconds": 0.6,
        },
    ),
    "cluster_aware": (
        "cluster_aware.yaml",
        "positives",
        {"clusters": [8, 6], "start_epoch": 2, "every": 1},
    ),
    "face_clusters": ("face_clusters.yaml", "positives", {"start_epoch": 2}),
}

#: Steps in an epoch, with a batch of 16.
STEPS = 3


def _include(name, path, values):
    lines = [f"{name}: !include:{tiny.ROOT}/hparams/{path}"]
    lines += [f"    {key}: {value}" for key, value in values.items()]
    return lines


def configuration(corpus, name, positives=None, **changes):
    """Write a tiny configuration.

    Arguments
    ---------
    corpus : tiny.Corpus
        The configuration is written beside its YAML.
    name : str
        Name of the objective in ``CASES``.
    positives : str, optional
        Name of the kind of pseudo-positives in ``POSITIVES``.
    **changes
        Other values for the block of pseudo-positives or, without one, for that
        of the objective.

    Returns
    -------
    pathlib.Path
    """
    case = CASES[name]
    text = corpus.yaml.read_text()
    for line in ("global_pairs: True\n", "prototypes: 32\n"):
        text = text.replace(line, "", 1)
    before, _ = text.split("positives: null\n")
    _, after = text.split("crops: !new")
    values = case.values if positives else {**case.values, **changes}
    lines = _include("block", f"objectives/{case.block}.yaml", values)
    lines += ["objective: !ref <block[objective]>"]
    if positives is None:
        lines += ["positives: null"]
    else:
        file, key, values = POSITIVES[positives]
        values = {**values, **changes}
        lines += _include("sampling", f"positives/{file}", values)
        lines += [f"positives: !ref <sampling[{key}]>"]
    lines += ["crops: !new" + after]
    text = before + "\n".join(lines)
    # Replace DINO's schedules by those of the objective.
    start = text.index("    momentum: !new")
    end = text.index("epoch_counter:")
    blocks = {
        "momentum": "block[momentum_schedule]",
        "teacher_temperature": "block[temperature_schedule]",
        "cosine_weight": "block[cosine_schedule]",
        "penalty_weight": "block[penalty_schedule]",
    }
    wanted = [f"    {key}: !ref <{blocks[key]}>\n" for key in case.schedules]
    text = text[:start] + "".join(wanted) + text[end:]
    if case.crops == "global":
        text = text.replace("    local_crops: 2\n", "")
    if case.crops == "disjoint":
        local = "    local_crops: 2\n"
        text = text.replace(local, local + "    disjoint: True\n")
    suffix = "" if positives is None else f"_{positives}"
    path = corpus.yaml.with_name(f"{name}{suffix}.yaml")
    path.write_text(text)
    return path


def argv(corpus, path, output, **overrides):
    """Return a command line for a configuration."""
    options = {"batch_size": 16, "trials_every": 0, **overrides}
    return [str(path), *corpus.argv(output, **options)[1:]]
