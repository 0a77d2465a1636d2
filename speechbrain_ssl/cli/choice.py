"""Choose a configuration for ``train`` from the hours of audio."""

from speechbrain_ssl.errors import ConfigError, counted
from speechbrain_ssl.prepare.lists import audio_of
from speechbrain_ssl.prepare.probe import probe

#: Configuration for a few hours or a CPU, the one for more, and from how many
#: hours. The rule is ours; no measurement has shown where the limit is.
SMALL, LARGE, HOURS = "simclr_ecapa_mini", "dino_ecapa", 20

#: Files whose length is measured, to estimate that of all.
_SAMPLE = 200


def choose(options):
    """Choose a configuration, and explain the choice.

    Arguments
    ---------
    options : argparse.Namespace
        ``folder`` (or a list of files), ``quiet``, and ``keys``, where
        ``device=cpu`` may be.

    Returns
    -------
    tuple
        Name of the configuration, and two lines for a reader.

    Raises
    ------
    AudioError, ManifestError
        If there is no audio file, or a list is malformed.
    ConfigError
        If there is one file only.
    """
    _, paths, _ = audio_of(options.folder, options)
    if len(paths) == 1:
        raise ConfigError(
            f"{options.folder} has one recording only, and training compares "
            "many: cut it into utterances, one file each, or add others"
        )
    hours = _estimate(paths)
    gpu = not any(key.endswith("device=cpu") for key in options.keys)
    if gpu:
        # Not before the other checks: it takes seconds.
        import torch

        gpu = torch.cuda.is_available()
    name = LARGE if gpu and hours >= HOURS else SMALL
    return name, [
        f"{counted(len(paths), 'file')}, about {hours:.1f} hours, "
        f"{'a' if gpu else 'no'} GPU: configuration {name}. Name another by "
        "--config=NAME; `speechbrain-ssl config` lists them.",
        f"The rule is ours and not measured: {LARGE} from {HOURS} hours on a "
        f"GPU, otherwise {SMALL}.",
    ]


def _estimate(paths):
    """Return the hours of audio, from the headers of some files."""
    outcomes = [probe(p) for p in paths[:: -(-len(paths) // _SAMPLE)]]
    seconds = [o.frames / o.sample_rate for o in outcomes if o.frames]
    return sum(seconds) / max(1, len(seconds)) * len(paths) / 3600
