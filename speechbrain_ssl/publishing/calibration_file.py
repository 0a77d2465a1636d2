"""Read the calibration of a model folder: ``calibration.json``.

``{"scale": a, "offset": b, "trials": name}``: the log-likelihood ratio of a
cosine ``s`` is ``a * s + b``, learnt on the trials of that name. Further keys,
such as those that ``evaluate.py`` writes for its other scorings, are ignored.
"""

import dataclasses
import pathlib

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.publishing.description import read_json
from speechbrain_ssl.verification.calibration import bayes_threshold

FILE_NAME = "calibration.json"


@dataclasses.dataclass
class CosineCalibration:
    """Maps cosines to log-likelihood ratios.

    Arguments
    ---------
    scale, offset : float
        The ratio is ``scale * cosine + offset``, in nats; ``scale`` is
        positive.
    trials : str
        Name of the trials that it was learnt on.

    Example
    -------
    >>> calibration = CosineCalibration(10.0, -3.0, "some_trials")
    >>> calibration(0.5), calibration.threshold(0.5)
    (2.0, 0.3)
    """

    scale: float
    offset: float
    trials: str

    def __call__(self, cosine):
        """Map a cosine, or an array of them, to log-likelihood ratios."""
        return self.scale * cosine + self.offset

    def threshold(self, p_target):
        """Find the cosine above which to accept, at a prior and equal costs."""
        return (bayes_threshold(p_target) - self.offset) / self.scale


def read_calibration(path):
    """Read ``calibration.json``.

    Arguments
    ---------
    path : str or pathlib.Path
        The file, or the model folder that may hold it.

    Returns
    -------
    CosineCalibration or None
        None where a folder holds none.

    Raises
    ------
    ConfigError
        If the file is not a valid calibration.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        path = path / FILE_NAME
        if not path.is_file():
            return None
    found = read_json(path)
    scale, offset = found.get("scale"), found.get("offset")
    for value in (scale, offset):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            break
        if not -1e9 < value < 1e9:  # nor NaN, nor a number of 400 digits
            break
    else:
        if scale > 0:
            return CosineCalibration(
                float(scale), float(offset), str(found.get("trials", "unknown"))
            )
    raise ConfigError(
        f"{path} is not a calibration: it must hold a positive `scale` and "
        f"a number `offset`, not {scale!r} and {offset!r}"
    )
