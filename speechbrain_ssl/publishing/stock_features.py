"""Write our features in classes that stock SpeechBrain and torch provide.

A stock ``Fbank`` has our filters, but always a Hamming window and always
SpeechBrain's lower bounds of the energies. Where a model needs others, parts of
the Fbank are replaced by stock modules with other arguments. The logarithm of
an energy plus a floor has no stock module; it is expressed by two, since ::

    log(x + floor) = log(floor) + softplus(log(x / floor))

and the constant falls out with the mean. So this package need not be installed
where the model is used.
"""

import math

from speechbrain_ssl.encoders.features import LEAST_DEVIATION
from speechbrain_ssl.errors import ConfigError

_FBANK = """\
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: {n_mels}
    sample_rate: {sample_rate}
    n_fft: {n_fft}
    f_min: {f_min}
    f_max: {f_max}
"""

_WINDOW = """
# Another window: Fbank has no argument for it.
spectrum: !new:speechbrain.processing.features.STFT
    sample_rate: {sample_rate}
    win_length: 25
    hop_length: 10
    n_fft: {n_fft}
    window_fn: !name:torch.{window}_window
replace_spectrum: !apply:torch.nn.Module.add_module
    - !ref <compute_features>
    - compute_STFT
    - !ref <spectrum>
"""

_FLOOR = """
# The logarithm of the energy plus {log_floor}: of its ratio to this floor, in
# dB and without another bound, and then a softplus.
ratio: !new:speechbrain.processing.features.Filterbank
    n_mels: {n_mels}
    sample_rate: {sample_rate}
    n_fft: {n_fft}
    f_min: {f_min}
    f_max: {f_max}
    amin: {amin}
    ref_value: {log_floor}
    top_db: .inf
softplus: !new:torch.nn.Softplus
    beta: {beta}
energies: !new:torch.nn.Sequential
    - !ref <ratio>
    - !ref <softplus>
replace_energies: !apply:torch.nn.Module.add_module
    - !ref <compute_features>
    - compute_fbanks
    - !ref <energies>
"""

_NORM = """
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: {std_norm}
"""


def stock_features(features):
    """Write features as ``compute_features`` and ``mean_var_norm``.

    Arguments
    ---------
    features : speechbrain_ssl.encoders.features.LogMel
        The features.

    Returns
    -------
    str
        HyperPyYAML.

    Raises
    ------
    ConfigError
        If they are not normalised.

    Example
    -------
    >>> from speechbrain_ssl.encoders.features import LogMel
    >>> print(stock_features(LogMel()).splitlines()[0])
    compute_features: !new:speechbrain.lobes.features.Fbank
    """
    settings = features.settings
    if settings["normalize"] == "none":
        raise ConfigError(
            "an encoder of features without normalisation cannot be exported: "
            "stock SpeechBrain always normalises; set `normalize` of the "
            "features to mean or mean_variance"
        )
    text = _FBANK.format(**settings)
    if settings["window"] != "hamming":
        text += _WINDOW.format(**settings)
    if settings["log_floor"] is not None:
        floor = settings["log_floor"]
        text += _FLOOR.format(
            **{**settings, "log_floor": _plain(floor)},
            # A bound of Filterbank's that must not be felt.
            amin=_plain(floor * 1e-9),
            # dB times this are nats.
            beta=math.log(10) / 10,
        )
    divides = settings["normalize"] == "mean_variance"
    text += _NORM.format(std_norm=divides)
    if divides:
        text += f"    epsilon: {LEAST_DEVIATION}\n"
    return text.rstrip()


def _plain(value):
    """Write a float so that YAML reads a number: without a point it would not."""
    text = repr(value)
    return text if "." in text else text.replace("e", ".0e")
