"""Train a linear classifier on frozen embeddings.

Embeddings of utterances are standardised by mean and deviation of the training
side and classified by a logistic regression. Its one setting, the inverse
strength C of the L2 penalty, is chosen by micro-F1 over the inner folds, so
that no test utterance influences it.
"""

import logging
import pathlib
import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from speechbrain.utils.distributed import infer_device

from speechbrain_ssl.embedding.cache import embed_cached
from speechbrain_ssl.embedding.crops import CropGrid
from speechbrain_ssl.errors import ConfigError

logger = logging.getLogger(__name__)


class Probe:
    """Logistic regression on frozen embeddings.

    Arguments
    ---------
    strengths : list of float
        Candidates for C; small is strong regularisation.
    chunk_seconds : float, optional
        Length of the chunks whose unit embeddings are averaged, on either side
        of a fold; a shorter utterance is repeated. By default utterances are
        embedded whole.
    chunks : int
        Number of chunks, evenly spread over an utterance.
    max_iterations : int
        Maximum number of iterations of the solver (L-BFGS).

    Raises
    ------
    ConfigError
        If there is no candidate or one is not above 0, or if the number or
        length of chunks is too small.
    """

    def __init__(
        self, strengths, chunk_seconds=None, chunks=4, max_iterations=1000
    ):
        if not strengths or not all(float(c) > 0 for c in strengths):
            raise ConfigError(
                f"`strengths` must be numbers above 0, got {strengths}"
            )
        self.strengths = sorted(float(c) for c in strengths)
        self.grid = None
        if chunk_seconds is not None:
            self.grid = CropGrid(chunks, chunk_seconds)
        self.max_iterations = max_iterations

    def labels_seen(self, label, system):
        """Return which labels had a part in the predictions."""
        return (
            f"{label}, by the classifier; {system.labels_seen} by the encoder"
        )

    def __call__(self, task, folds, system, hparams, run_opts):
        """Predict the test side of every fold.

        Arguments
        ---------
        task : speechbrain_ssl.downstream.task.Task
            The task.
        folds : list of speechbrain_ssl.downstream.folds.Fold
            The folds of the task.
        system : speechbrain_ssl.publishing.systems.System
            The encoder.
        hparams : dict
            ``output_folder``, ``embeddings`` (a file to cache them in),
            ``batch_seconds`` and ``num_workers`` are read.
        run_opts : dict
            ``device`` is read.

        Yields
        ------
        tuple
            For each fold the predicted classes ``[test]`` and a dict of the
            chosen settings.
        """
        keep = hparams["embeddings"]
        if keep is None:
            keep = pathlib.Path(hparams["output_folder"]) / "embeddings.npz"
        embeddings, _ = embed_cached(
            keep,
            system.encoder,
            system.features,
            task.paths(range(len(task))),
            task.manifest.durations.tolist(),
            grid=self.grid,
            device=run_opts["device"] or infer_device(),
            batch_seconds=hparams["batch_seconds"],
            num_workers=hparams["num_workers"],
        )
        check_finite(embeddings, task.manifest.ids)
        for fold in folds:
            predicted, strength = self.fold(embeddings, task.labels, fold)
            yield predicted, {"C": strength}

    def fold(self, embeddings, labels, fold):
        """Train on one fold and predict its test side.

        Arguments
        ---------
        embeddings : numpy.ndarray
            ``[N, size]`` of all utterances.
        labels : numpy.ndarray
            ``[N]``.
        fold : speechbrain_ssl.downstream.folds.Fold
            The fold.

        Returns
        -------
        tuple
            Predicted classes of its test side, and the C chosen.
        """
        strength = self.choose(embeddings, labels, fold.inner)
        model = self._fit(embeddings[fold.train], labels[fold.train], strength)
        return model.predict(embeddings[fold.test]), strength

    def choose(self, embeddings, labels, inner):
        """Choose the C with most hits over the inner folds (least of ties)."""
        if len(self.strengths) == 1:
            return self.strengths[0]
        if not inner:
            raise ConfigError(
                "there are no inner folds to choose C by; set `inner_folds` "
                "to 2 or more, or give one number as `strengths`"
            )
        hits = [
            sum(
                np.count_nonzero(
                    self._fit(embeddings[train], labels[train], c).predict(
                        embeddings[test]
                    )
                    == labels[test]
                )
                for train, test in inner
            )
            for c in self.strengths
        ]
        return self.strengths[int(np.argmax(hits))]

    def _fit(self, rows, labels, strength):
        model = make_pipeline(
            StandardScaler(),
            LogisticRegression(C=strength, max_iter=self.max_iterations),
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            # Double precision, which the line search of the solver needs.
            model.fit(rows.astype(np.float64), labels)
        if any(issubclass(w.category, ConvergenceWarning) for w in caught):
            logger.warning(
                "logistic regression with C = %g has not converged in %d "
                "iterations",
                strength,
                self.max_iterations,
            )
        return model


def check_finite(embeddings, ids):
    """Raise if an embedding is not finite.

    Arguments
    ---------
    embeddings : numpy.ndarray
        ``[N, size]``.
    ids : sequence of str
        Names of the utterances.

    Raises
    ------
    ConfigError
        Names the first utterance whose embedding is not finite.
    """
    bad = np.flatnonzero(~np.isfinite(embeddings).all(1))
    if len(bad):
        raise ConfigError(
            f"the embeddings of {len(bad)} utterances are not finite, the "
            f"first that of {ids[bad[0]]}; the model is broken, "
            "or the audio (prepare again with --check=decode)"
        )
