"""Encoded audio for tests, written by PyAV's own encoders."""

import av
import numpy as np

#: File name, encoder, sample rate, channels and the least correlation of what
#: is decoded with what was encoded.
KINDS = [
    ("a.m4a", "aac", 44100, 2, 0.99),
    ("a.mp4", "aac", 48000, 1, 0.99),
    ("a.aac", "aac", 16000, 1, 0.99),
    ("a.webm", "libopus", 48000, 1, 0.98),
    ("a.wma", "wmav2", 16000, 1, 0.97),
    ("a.ac3", "ac3", 48000, 2, 0.99),
    ("a.mp2", "mp2", 44100, 1, 0.99),
    ("a.mka", "aac", 16000, 1, 0.99),
    ("alac.m4a", "alac", 22050, 1, 0.9999),
    ("a.amr", "libopencore_amrnb", 8000, 1, 0.5),
]


def voice(rate, seconds=3.0, seed=0):
    """Bursts of noise around 600 Hz, float32 ``[samples]``."""
    count = int(seconds * rate)
    # The same sound at each rate.
    spectrum = np.random.default_rng(seed).normal(size=(int(seconds * 1500), 2))
    whole = np.zeros(count // 2 + 1, dtype=complex)
    whole[: len(spectrum)] = spectrum @ [1, 1j]
    hertz = np.fft.rfftfreq(count, 1 / rate)
    wave = np.fft.irfft(whole * np.exp(-(((hertz - 600) / 300) ** 2)), count)
    wave *= np.sin(2 * np.pi * 1.3 * np.arange(count) / rate) > -0.3
    return (0.3 * wave / np.abs(wave).max()).astype(np.float32)


def encode(
    path,
    codec,
    rate,
    channels=1,
    wave=None,
    seconds=3.0,
    video=False,
    options=None,
):
    """Write an audio file, with a video stream before the audio if asked."""
    wave = voice(rate, seconds) if wave is None else wave
    layout = "mono" if channels == 1 else "stereo"
    with av.open(str(path), "w", options=options or {}) as container:
        if video:
            images = _add_video(container)
        stream = container.add_stream(codec, rate=rate, layout=layout)
        if codec == "wmav2":
            stream.bit_rate = 32000
        # Once all streams are there, which the first packet settles.
        if video:
            _show(container, images)
        if wave.ndim == 1:
            wave = np.tile(wave, (channels, 1))
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(wave), format="fltp", layout=layout
        )
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return path


def video_only(path):
    """Write a video without sound."""
    with av.open(str(path), "w") as container:
        _show(container, _add_video(container))
    return path


def _add_video(container):
    stream = container.add_stream("mpeg4", rate=25)
    stream.width = stream.height = 64
    stream.pix_fmt = "yuv420p"
    return stream


def _show(container, stream):
    for level in range(10):
        image = np.full((64, 64, 3), 20 * level, dtype=np.uint8)
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        for packet in stream.encode(frame):
            container.mux(packet)
    for packet in stream.encode(None):
        container.mux(packet)


def has_encoder(codec):
    """Return whether PyAV was built with an encoder."""
    try:
        av.Codec(codec, "w")
    except ValueError:
        return False
    return True
