"""Speaker verification without labels: a recipe extension for SpeechBrain.

The package imports nothing heavy by itself, so that
``speechbrain_ssl.runtime.set_up_process`` can act before torch is loaded.
"""

__version__ = "0.1.0"
