"""Encoded media in memory, and the reason why a cell cannot be read."""

import io

import av
import numpy as np
import pytest
import soundfile

from pipelines.media import cells
from pipelines.media.payloads import Unreadable


def image_bytes(image, kind="PNG", **options):
    """An encoded image."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def sound_bytes(samples, rate=8000, kind="WAV", subtype=None):
    """An encoded audio clip."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def film_bytes(count=7):
    """A video of `count` grey frames, each 30 lighter than the one before."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        for number in range(count):
            grey = np.full((32, 32, 3), 30 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def why(kind, cell, root=None):
    """The reason a cell cannot be read."""
    with pytest.raises(Unreadable) as caught:
        cells.read(kind, cell, root)
    return caught.value.reason
