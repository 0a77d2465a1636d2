"""MiniVox: a corpus of synthetic speech that is written, not downloaded.

It is a demonstration and a test bed, never a benchmark: it shows that a
pipeline runs and learns, on any machine, without a licence or a network.

Three layers, each with a key of its own, make an utterance:

* the **voice** (key: seed, speaker) is a source and a filter. Vocal-tract
  length, formant offsets, pitch, spectral tilt, breathiness, jitter and rhythm
  belong to the speaker; the phone string is random (``voice.py``).
* the **channel** (key: seed, speaker, video) is a room, a microphone and a
  noise. All utterances of a video share it, and no two videos do. That makes
  it the shortcut which a self-supervised system takes when both of its crops
  come from one utterance, as in real recordings (``channel.py``).
* the **utterance** (key: seed, speaker, video, utterance) is what is said.

As every draw is keyed (``draws.py``), a file depends on nothing but its own
name and the seed: not on the number of processes, nor on which files were there
before. ``corpus.py`` writes the files.
"""
