"""Speaker verification without labels: a recipe extension for SpeechBrain.

This module imports next to nothing, so that a script can call
``speechbrain_ssl.runtime.set_up_process`` before torch is imported. Where to
start reading: the training loops are in ``speechbrain_ssl.brains``, the losses
in ``speechbrain_ssl.objectives``.
"""

import importlib

__version__ = "0.1.0"


def load_model(model, revision=None, device=None, trust=False):
    """Load a model to embed, verify, cluster, enrol and identify with.

    Arguments
    ---------
    model : str
        A model folder, the output folder of a training run, or
        ``hf:owner/model`` for a model on the hub.
    revision : str, optional
        A branch, a tag or a commit of a model on the hub.
    device : str, optional
        ``cpu`` or ``cuda``; by default a GPU if there is one.
    trust : bool
        Whether a ``hyperparams.yaml`` that cannot be parsed safely may be
        executed. It can do whatever you can.

    Returns
    -------
    speechbrain_ssl.speakers.model.Model

    Raises
    ------
    ConfigError
        If there is no such model or device.
    """
    # By name: this package lies below all others, and torch is imported here.
    module = importlib.import_module("speechbrain_ssl.speakers.model")
    return module.Model(model, revision, device, trust)
