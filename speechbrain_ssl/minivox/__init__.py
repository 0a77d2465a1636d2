"""MiniVox: a corpus of synthetic speech that is generated, not downloaded.

It is a demonstration and a test bed, never a benchmark: it shows that a
pipeline runs and learns, on any machine, without a licence or a network.

An utterance has three layers, each with its own key:

* the **voice** (key: seed, speaker) is a source and a filter. Vocal-tract
  length, formant offsets, pitch, spectral tilt, breathiness, jitter and rhythm
  belong to the speaker; the phone string is random (``voice.py``).
* the **channel** (key: seed, speaker, video) is a room, a microphone and a
  noise. All utterances of a video share it, and no two videos do. As in real
  recordings, it is therefore the shortcut that a self-supervised system takes
  when both of its crops come from one utterance (``channel.py``).
* the **utterance** (key: seed, speaker, video, utterance) is what is spoken.

Where faces are asked for, a picture has three layers of the same kind
(``face.py``).

As every draw is keyed (``draws.py``), a file depends only on its own name and
the seed, not on the number of processes or on the files that existed before.
``corpus.py`` writes the files.
"""
