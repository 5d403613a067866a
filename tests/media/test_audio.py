"""Audio: one channel of many, the sound of films, cut files, and clips that would be huge."""

import io

import av
import numpy as np
import pytest
import soundfile

from pipelines.encoding.encoder import build_encoder
from pipelines.media import audio, cells
from pipelines.media.payloads import Unreadable, Waveform

RATE = 8000


def tone(seconds=1.0, pitch=330):
    """A tone that swells, (T,) float32."""
    time = np.arange(int(RATE * seconds)) / RATE
    return (0.6 * time / seconds * np.sin(2 * np.pi * pitch * time)).astype(np.float32)


def encoded(samples, rate=RATE, kind="WAV", subtype="FLOAT"):
    """An audio file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def by_ffmpeg(samples, codec, container, *, picture=False):
    """An audio file, or the sound of a film, by PyAV."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(codec, rate=RATE, layout="mono")
        stream.bit_rate = 24_000
        if picture:
            shown = file.add_stream("mpeg4", rate=5)
            shown.width = shown.height = 32
            shown.pix_fmt = "yuv420p"
            for _ in range(3):
                file.mux(shown.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
            file.mux(shown.encode())
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.rate = RATE
        resampled = av.AudioResampler(stream.format, "mono", RATE, stream.frame_size or None)
        for part in (*resampled.resample(frame), *resampled.resample(None)):
            file.mux(stream.encode(part))
        file.mux(stream.encode())
    return buffer.getvalue()


def why(data):
    """The reason an audio file cannot be read."""
    with pytest.raises(Unreadable) as caught:
        cells.read("audio", data, None)
    return caught.value


@pytest.mark.parametrize("channels", [2, 4, 6])
@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
def test_channels_that_cancel_each_other_are_a_reason(channels, kind):
    """Half of the channels inverted: the mean would be silence, whatever is heard in each."""
    subtype = "FLOAT" if kind == "WAV" else "PCM_16"
    signs = [(-1) ** place for place in range(channels)]
    fault = why(encoded(np.outer(tone(), signs), kind=kind, subtype=subtype))
    assert fault.reason == "cancelled-phase"
    assert f"the mean of the {channels} channels" in fault.detail


@pytest.mark.parametrize(
    ("other", "fine"), [(-0.85, False), (-0.7, True), (0.0, True), (1.0, True)]
)
def test_twenty_decibels_are_the_limit(other, fine):
    """A second channel of -0.85 times the first leaves 22 dB less than both, one of -0.7 15 dB."""
    data = encoded(np.stack([tone(), other * tone()], axis=1))
    if fine:
        assert np.allclose(cells.decode("audio", data).samples, (1 + other) / 2 * tone(), atol=1e-5)
    else:
        assert why(data).reason == "cancelled-phase"


def test_silence_is_no_cancelling():
    """Two silent channels are silence."""
    assert not cells.decode("audio", encoded(np.zeros((100, 2)))).samples.any()


def test_a_clip_read_in_blocks_equals_one_read_at_once(monkeypatch):
    """Blocks of any size give the same samples to the last bit."""
    random = np.random.default_rng(1).uniform(-1, 1, (10_001, 3)).astype(np.float32)
    for block in (3, 1000, 1 << 20):
        monkeypatch.setattr(audio, "_BLOCK", block)
        assert np.array_equal(
            cells.decode("audio", encoded(random)).samples, random.mean(1, dtype=np.float32)
        )


@pytest.mark.parametrize(
    ("codec", "container", "picture"),
    [("aac", "mp4", False), ("aac", "mp4", True), ("aac", "matroska", True),
     ("aac", "adts", False), ("wmav2", "asf", False)],
)  # fmt: skip
def test_other_formats_and_the_sound_of_films_are_audio(codec, container, picture):
    """M4A, bare AAC, WMA and films: the tone is there, at its rate, for its time."""
    wave = cells.decode("audio", by_ffmpeg(tone(2.0), codec, container, picture=picture))
    assert wave.rate == RATE
    assert abs(len(wave.samples) - 2 * RATE) < 0.3 * RATE
    spectrum = np.abs(np.fft.rfft(wave.samples))
    assert abs(np.argmax(spectrum) * RATE / len(wave.samples) - 330) < 3


def test_what_has_no_sound_has_its_reason():
    """A film without sound, and an image, are no audio."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (20, 20)).save(buffer, "PNG")
    assert why(buffer.getvalue()).reason == "wrong-type"
    silent = io.BytesIO()
    with av.open(silent, "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 32
        file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
        file.mux(stream.encode())
    assert "no audio stream" in why(silent.getvalue()).detail


@pytest.mark.parametrize("form", ["m4a", "film", "ogg", "opus"])
@pytest.mark.parametrize("share", [0.4, 0.9])
def test_a_cut_clip_is_truncated(form, share):
    """Formats whose decoders stop in silence at the cut: their structure tells."""
    samples = np.random.default_rng(2).uniform(-0.5, 0.5, 5 * RATE).astype(np.float32)
    data = {
        "m4a": lambda: by_ffmpeg(samples, "aac", "mp4"),
        "film": lambda: by_ffmpeg(samples, "aac", "matroska", picture=True),
        "ogg": lambda: encoded(samples, kind="OGG", subtype="VORBIS"),
        "opus": lambda: encoded(samples, kind="OGG", subtype="OPUS"),
    }[form]()
    assert len(cells.decode("audio", data).samples) > 4 * RATE
    assert why(data[: int(share * len(data))]).reason == "truncated"


@pytest.mark.parametrize(("samples", "sequence"), [(6000, True), (400_000, True), (400_000, False)])
@pytest.mark.parametrize("rate", [1, 2])
def test_a_clip_that_resampling_would_make_huge_is_refused_before(samples, rate, sequence):
    """At 1 or 2 samples a second, a clip of seconds becomes one of hours at the encoder's rate."""
    clip = Waveform(np.zeros(samples, np.float32), rate)
    with pytest.raises(Unreadable) as caught:
        build_encoder("mfcc", sequence=sequence).prepare("audio", clip)
    assert caught.value.reason == "too-large"
    assert f"at {rate} Hz" in caught.value.detail


@pytest.mark.parametrize("rate", [3, 4000, 16000, 44100])
def test_statistics_of_a_long_clip_are_those_of_a_short_one(monkeypatch, rate):
    """Gathered in blocks, in two passes, without the whole clip at the encoder's rate."""
    random = np.random.default_rng(0)
    samples = random.normal(size=300 if rate == 3 else 50_000).astype(np.float32)
    clip = Waveform(samples * np.linspace(0.001, 0.5, len(samples), dtype=np.float32), rate)
    encoder = build_encoder("mfcc")
    whole, _ = encoder.prepare("audio", clip)
    for block in (1 << 20, 5003):
        monkeypatch.setattr("pipelines.encoders.mfcc.FREE_SAMPLES", 512)
        monkeypatch.setattr(audio, "_BLOCK", block)
        found, _ = encoder.prepare("audio", clip)
        assert np.allclose(found, whole, atol=2e-3)
        assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("rate", "wanted"), [(16000, 16000), (8000, 16000), (44100, 16000), (1, 7)]
)
def test_a_clip_resampled_in_chunks_is_as_long_and_the_same(monkeypatch, rate, wanted):
    """Chunk by chunk or at once: ceil(T × wanted / rate) samples, equal but for rounding."""
    samples = np.random.default_rng(0).normal(size=9001).astype(np.float32)
    at_once = np.concatenate(list(audio.resampled(samples, rate, wanted)))
    monkeypatch.setattr(audio, "_BLOCK", 1000)
    chunks = list(audio.resampled(samples, rate, wanted))
    assert len(chunks) > 3
    assert len(at_once) == -(-9001 * wanted // rate)
    assert np.allclose(np.concatenate(chunks), at_once, atol=1e-4)


def test_usual_rates_are_resampled():
    """From 4 to 192 kHz, an hour of sound may be resampled to 16 kHz, and telephone to 48."""
    for rate in (4000, 8000, 11025, 44100, 192000):
        audio.check_resampling(3600 * rate, rate, 16000)
    audio.check_resampling(3600 * 8000, 8000, 48000)


def test_few_bytes_of_long_sound_are_refused(monkeypatch):
    """A FLAC of silence takes a few kB a million samples; so long a clip needs a larger file."""
    monkeypatch.setattr(audio, "FREE_SAMPLES", 1 << 16)
    data = encoded(np.zeros(1 << 20), kind="FLAC", subtype="PCM_16")
    assert len(data) < 8_000
    assert why(data).reason == "too-large"
    assert len(cells.decode("audio", encoded(tone(20.0))).samples) == 20 * RATE


def test_a_rate_that_no_sound_has_is_damage():
    """A header may state any number of hertz."""
    data = io.BytesIO()
    soundfile.write(data, np.ones(100) / 2, 2**31 - 1, format="WAV")
    with pytest.raises(Unreadable, match=r"damaged: the audio states a rate of 2,147,483,647 Hz"):
        audio.decode_audio(data.getvalue())
