"""Log the scalars of a run to ``metrics.jsonl``, a JSON object in each line.

A run only appends to the file. A kill can therefore truncate only the last
line, and a run that resumes from a checkpoint finds lines of steps that it is
about to repeat. ``rewind`` repairs both.
"""

import json
import math
import numbers
import os
import pathlib

from speechbrain_ssl.errors import UserError, full_disk
from speechbrain_ssl.files import atomic_write

FILE_NAME = "metrics.jsonl"


class Logbook:
    """Writes ``metrics.jsonl``.

    The file is not opened before the first ``log`` or ``rewind``. Only the main
    process may call these two.

    Arguments
    ---------
    output_folder : str or pathlib.Path
        The folder of the run.

    Example
    -------
    >>> import tempfile
    >>> logbook = Logbook(tempfile.mkdtemp())
    >>> logbook.log("train", epoch=1, step=10, loss=9.0, kl=float("nan"))
    >>> logbook.log("train", epoch=1, step=20, loss=8.5)
    >>> logbook.rewind(step=10)
    >>> read_metrics(logbook.path)
    [{'stage': 'train', 'epoch': 1, 'step': 10, 'loss': 9.0, 'kl': None}]
    """

    def __init__(self, output_folder):
        self.path = pathlib.Path(output_folder) / FILE_NAME
        self._mended = False

    def log(self, stage, epoch, step, **scalars):
        """Append a line and flush it.

        Arguments
        ---------
        stage : str
            ``"train"``, ``"valid"``, ``"trials"``, ...; ``"start"`` is before
            training.
        epoch : int
            The epoch, counted from 1; 0 before training.
        step : int
            Optimiser steps taken so far.
        **scalars : dict
            Numbers, or numpy or torch tensors of one element. A value that is
            not finite is written as ``null``: the key is kept, so that the gap
            can be seen.

        Raises
        ------
        UserError
            If the disk is full.
        TypeError
            If a value is not a scalar.
        """
        line = {"stage": str(stage), "epoch": int(epoch), "step": int(step)}
        line.update({key: plain(value) for key, value in scalars.items()})
        data = (json.dumps(line) + "\n").encode("ascii")
        if not self._mended:
            # A killed run that starts again appends to its truncated last line.
            self._keep(lambda line: True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        end = self.path.stat().st_size if self.path.exists() else 0
        try:
            with open(self.path, "ab") as stream:
                stream.write(data)
                stream.flush()
        except OSError as error:
            if self.path.exists():
                os.truncate(self.path, end)
            raise _explained(error, self.path) from error

    def rewind(self, step):
        """Remove the lines that a resumed run will write again.

        These are the lines of later steps, and a last line that a kill has
        truncated. The file is replaced atomically.

        Arguments
        ---------
        step : int
            Optimiser steps taken at the checkpoint that the run resumes from.

        Raises
        ------
        UserError
            If the disk is full, or if the file is broken before its end.
        """
        self._keep(lambda line: line["step"] <= step)

    def _keep(self, wanted):
        """Rewrite the file with the complete lines that are kept."""
        self._mended = True
        if not self.path.is_file():
            return
        before = self.path.read_bytes()
        after = b"".join(
            raw + b"\n" for raw, line in _lines(self.path) if wanted(line)
        )
        if after == before:
            return
        try:
            with atomic_write(self.path, "wb") as stream:
                stream.write(after)
        except OSError as error:
            raise _explained(error, self.path) from error


def read_metrics(path):
    """Read ``metrics.jsonl``, without a truncated last line.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    list of dict

    Raises
    ------
    UserError
        If a line other than the last is not a JSON object.
    """
    return [line for _, line in _lines(pathlib.Path(path))]


def plain(value):
    """Convert a number to a type that JSON can represent.

    Arguments
    ---------
    value : bool, number, str, None, numpy scalar or torch.Tensor
        The number; a tensor must have one element.

    Returns
    -------
    bool, int, float, str or None
        ``None`` for a number that is not finite.

    Raises
    ------
    TypeError
        If the value is none of these.

    Example
    -------
    >>> import numpy as np
    >>> plain(np.float32(0.5)), plain(np.int64(3)), plain(float("inf"))
    (0.5, 3, None)
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if hasattr(value, "item"):
        try:
            value = value.item()
        except (ValueError, RuntimeError) as error:
            raise TypeError(
                "a scalar is needed; got a tensor of shape "
                f"{tuple(value.shape)}"
            ) from error
        if isinstance(value, (bool, str)):
            return value
    if isinstance(value, numbers.Integral):
        return int(value)
    try:
        value = float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"a scalar is needed; got {type(value).__name__}"
        ) from error
    return value if math.isfinite(value) else None


def _lines(path):
    """Yield the bytes and the object of each line but a truncated last one."""
    pieces = path.read_bytes().split(b"\n")
    while pieces and not pieces[-1].strip():
        pieces.pop()
    lines = []
    for number, raw in enumerate(pieces, start=1):
        try:
            line = json.loads(raw.decode("utf-8"))
            if not isinstance(line, dict) or "step" not in line:
                raise ValueError("no object with a step")
        except ValueError as error:
            # A truncated object never parses as one, so a line that parses is
            # complete even if its newline is missing.
            if number == len(pieces):
                break
            raise UserError(
                f"{path}, line {number} is not a line of metrics ({error}); "
                "remove it, or start the run in a new output_folder"
            ) from error
        lines.append((raw, line))
    return lines


def _explained(error, path):
    """Return the error to raise in place of an ``OSError``."""
    explanation = full_disk(error)
    return UserError(f"{path}: {explanation}") if explanation else error
