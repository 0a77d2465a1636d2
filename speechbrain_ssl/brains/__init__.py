"""Training loops: everything that subclasses or serves a SpeechBrain ``Brain``.

No other package imports ``speechbrain.Brain``. Where to start reading:

* ``training_brain``: ``TrainingBrain``, the training loop that the next two
  share; ``hooks`` lists the methods that a subclass may override.
* ``ssl_brain``: ``SSLBrain``, self-supervised training with any objective;
  ``positives`` supplies pseudo-positives (SSPS, cluster-aware sampling, with
  ``embedded_halves`` for the start rule of SSPS) and ``initial`` loads the checkpoint of another run.
* ``pseudo_label_brain``: ``PseudoLabelBrain``, training on noisy pseudo-labels;
  ``rounds`` repeats embedding, clustering and training, and ``stages``
  implements these three. ``audio_visual_brain`` and ``audio_visual_rounds`` add
  faces, and ``face_trials`` evaluates them.
* ``emotion_brain``: ``EmotionBrain``, fine-tuning for emotions or any other
  label; it does not use ``TrainingBrain``.

The parts that ``TrainingBrain`` is made of: ``encoding`` (crops to embeddings and
projections), ``optimisation`` (schedules, clipping, the optimiser step),
``evaluation`` (trials while training, weight averaging), ``collapse`` (the
collapse alarm), ``bad_audio`` (unreadable files), ``run_log`` and ``means``
(logging), ``checkpointing`` and ``run_checkpoints`` (saving and resuming), and
``finish`` (export and report at the end).
"""
