"""Speaker verification without labels: a recipe extension for SpeechBrain.

This module imports nothing, so that a script can call
``speechbrain_ssl.runtime.set_up_process`` before torch is imported. Where to
start reading: the training loops are in ``speechbrain_ssl.brains``, the losses
in ``speechbrain_ssl.objectives``.
"""

__version__ = "0.1.0"
