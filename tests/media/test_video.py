"""Videos: which frames are taken, as players show them; cut and huge ones have a reason."""

import io
from fractions import Fraction

import numpy as np
import pytest

from pipelines.media import cells
from pipelines.media.payloads import Unreadable
from pipelines.media.video import _oriented, decode_frames

av = pytest.importorskip("av")

ONE = 1 << 16  # in the fixed-point numbers of a display matrix
MATRICES = {  # (a, b, c, d) → what a player does to the stored image
    (1, 0, 0, 1): lambda v: v,
    (-1, 0, 0, 1): lambda v: v[:, ::-1],
    (1, 0, 0, -1): lambda v: v[::-1],
    (-1, 0, 0, -1): lambda v: v[::-1, ::-1],
    (0, 1, -1, 0): lambda v: np.rot90(v, -1),
    (0, -1, 1, 0): lambda v: np.rot90(v, 1),
    (0, 1, 1, 0): lambda v: v.swapaxes(0, 1),
    (0, -1, -1, 0): lambda v: np.rot90(v, 2).swapaxes(0, 1),
}


def film(
    shown, times=None, *, container="mp4", codec="mpeg4", matrix=None, ratio=None, options=None
):
    """An encoded video of images, at times in milliseconds or ten a second."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(codec, rate=10, options=options or {})
        stream.height, stream.width = shown[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        stream.codec_context.time_base = Fraction(1, 1000)
        if ratio:
            stream.sample_aspect_ratio = ratio
        if matrix and not hasattr(stream, "set_display_matrix"):
            pytest.skip("this PyAV writes no display matrix")
        if matrix:
            a, b, c, d = (number * ONE for number in matrix)
            stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        for place, values in enumerate(shown):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(values), format="rgb24")
            frame.pts = times[place] if times else 100 * place
            frame.time_base = Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return buffer.getvalue()


def greys(count):
    """Images of 32 × 32, each 8 lighter than the one before."""
    return [np.full((32, 32, 3), 8 * number, np.uint8) for number in range(count)]


def levels(data, wanted):
    """Numbers of the frames of `greys` that are taken of a film."""
    taken = decode_frames(cells.decode("video", data), wanted)
    return [round(np.asarray(image).mean() / 8) for image in taken]


def why(data):
    """The reason why a film fails, when it is read or when its frames are taken."""
    with pytest.raises(Unreadable) as caught:
        list(decode_frames(cells.read("video", data, None), 15))
    return caught.value.reason


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_films_are_turned_and_mirrored_as_players_do(matrix, container):
    """All eight orientations, for images that are not square and equal none of their turns."""
    stored = np.zeros((32, 48, 3), np.uint8)
    stored[:16, :16], stored[:16, 16:], stored[16:, :32] = 250, 60, 150
    data = film([stored] * 3, container=container, matrix=matrix)
    (first, *_) = decode_frames(cells.decode("video", data), 1)
    expected = MATRICES[matrix](stored).astype(int)
    assert np.asarray(first).shape == expected.shape
    assert np.abs(np.asarray(first).astype(int) - expected).mean() < 4


def test_a_matrix_that_is_not_straight_is_taken_as_the_nearest_that_is():
    """Scaled and slightly turned: the film is shown upright, on its side or upside down."""
    from PIL import Image

    stored = np.random.default_rng(3).integers(0, 255, (4, 6, 3), np.uint8)
    image = Image.fromarray(stored)
    for straight, change in MATRICES.items():
        a, b, c, d = (number * 3 * ONE // 2 for number in straight)
        odd = (a + ONE // 9, b - ONE // 9, c + ONE // 9, d + ONE // 9)
        assert np.array_equal(np.asarray(_oriented(image, odd)), change(stored))


@pytest.mark.parametrize(("ratio", "size"), [((2, 1), (64, 32)), ((3, 4), (32, 43))])
def test_frames_have_square_pixels(ratio, size):
    """A film whose pixels are wide is widened, one whose pixels are narrow is heightened."""
    data = film(greys(2), ratio=Fraction(*ratio))
    assert next(iter(decode_frames(cells.decode("video", data), 1))).size == size


def test_the_shape_of_pixels_comes_before_the_turn():
    """Wide pixels of a film that lies on its side are high when it is shown."""
    data = film(greys(2), ratio=Fraction(2, 1), matrix=(0, 1, -1, 0))
    assert next(iter(decode_frames(cells.decode("video", data), 1))).size == (32, 64)


@pytest.mark.parametrize("count", [1, 2, 7, 15, 16, 28])
@pytest.mark.parametrize("container", ["mp4", "matroska", "flv", "avi"])
def test_frames_of_a_constant_rate_are_evenly_spaced_by_number(count, container):
    """From the first frame on, each once, fifteen or all of them."""
    data = film(greys(count), container=container, codec={"flv": "flv1"}.get(container, "mpeg4"))
    assert levels(data, 15) == sorted({i * count // 15 for i in range(15)})


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_frames_of_a_variable_rate_are_evenly_spaced_in_time(container):
    """Twenty frames in the first second, then one for three: the last fills three quarters."""
    times = [50 * place for place in range(20)] + [1000, 3900]
    data = film(greys(22), times, container=container, codec="libx264", options={"bf": "2"})
    taken = levels(data, 8)  # every half second of four
    assert taken == [0, 10, 20]
    assert levels(data, 4) == [0, 20]


def test_a_film_without_times_is_sampled_by_number():
    """A bare H.264 stream says nothing of times: its frames count as equally long."""
    data = film(greys(12), container="h264", codec="libx264")
    assert levels(data, 4) == [0, 3, 6, 9]


@pytest.mark.parametrize(
    ("container", "codec"),
    [("mp4", "libx264"), ("matroska", "mpeg4"), ("webm", "libvpx"), ("avi", "mpeg4"),
     ("flv", "flv1"), ("asf", "wmv2"), ("mpegts", "libx264")],
)  # fmt: skip
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_film_cut_anywhere_is_truncated(container, codec, share):
    """Index at the end or none, any container that states its length: never taken as whole."""
    random = np.random.default_rng(5)
    shown = [random.integers(0, 255, (48, 48, 3), np.uint8) for _ in range(12)]
    data = film(shown, container=container, codec=codec)
    assert cells.decode("video", data).count >= 12
    cut = int(share * len(data))
    cut -= container == "mpegts" and cut % 188 == 0  # whole packets of 188 bytes show no cut
    assert why(data[:cut]) == "truncated"


def test_an_mp4_with_its_index_in_front_is_known_to_be_cut():
    """Made for streaming, a film opens and plays up to the cut; it fails all the same."""
    random = np.random.default_rng(6)
    shown = [random.integers(0, 255, (48, 48, 3), np.uint8) for _ in range(12)]
    data = film(shown)
    at = data.index(b"moov") - 4
    start = data.index(b"mdat") - 4
    assert why(data[:start] + data[at:] + data[start : start + 500]) == "truncated"


def test_damage_inside_a_film_is_a_reason():
    """A frame that no longer decodes costs the cell; frames before it are not all there is."""
    data = bytearray(film(greys(12), container="matroska"))
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(200)
    assert why(bytes(data)) == "damaged"


@pytest.mark.parametrize("container", ["mp4", "avi"])
def test_frames_of_monstrous_size_are_refused(container):
    """Less than half a megabyte that holds frames of 40 million pixels fails before decoding."""
    data = film([np.zeros((5000, 8000, 3), np.uint8)], container=container)
    assert len(data) < 500_000
    assert why(data) == "too-large"


def test_a_playlist_opens_nothing(tmp_path):
    """Bytes that name another file or address are no film; what they name is not read."""
    (tmp_path / "secret.mp4").write_bytes(film(greys(3)))
    for text in (
        f"ffconcat version 1.0\nfile {tmp_path}/secret.mp4\n",
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{tmp_path}/secret.mp4\n#EXT-X-ENDLIST\n",
    ):
        assert why(text.encode()) in {"wrong-type", "damaged", "empty"}
