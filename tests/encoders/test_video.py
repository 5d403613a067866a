"""Videos: which images are taken of them, and how their vectors are pooled or stored."""

import io

import av
import numpy as np
import pytest
from PIL import Image

from pipelines.encoding import pretrained
from pipelines.encoding.encoder import build_encoder
from pipelines.media.decode import decode_image
from pipelines.media.video import decode_frames, decode_video

WORDS = {"clip": "clip", "resnet": "resnet", "hf": "dino"}


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """40 images of a square that moves and changes colour, as an MP4."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(40):
            values = np.zeros((48, 64, 3), np.uint8)
            values[10:30, number : number + 20] = (6 * number, 255 - 6 * number, 90)
            for packet in stream.encode(av.VideoFrame.from_ndarray(values, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return decode_video(path.read_bytes())


@pytest.mark.parametrize("word", sorted(WORDS))
def test_a_video_is_the_maximum_over_its_images_vectors(word, place, film):
    """Each number of a video's vector is the largest among its 15 frames as images."""
    encoder = build_encoder(word, weights=str(place(WORDS[word])))
    kept = build_encoder(word, weights=str(place(WORDS[word])), sequence=True)
    item, cost = encoder.prepare("video", film)
    assert cost == 15
    shown = [encoder.prepare("image", one)[0] for one in decode_frames(film, 15)]
    expected = np.stack(encoder.encode("image", shown))
    (pooled,) = encoder.encode("video", [item])
    assert pooled.shape == (encoder.kinds["video"],)
    assert np.allclose(pooled, expected.max(axis=0), atol=1e-5)
    (whole,) = kept.encode("video", [kept.prepare("video", film)[0]])
    assert np.allclose(whole, expected, atol=1e-5)


@pytest.mark.parametrize("word", sorted(WORDS))
def test_videos_in_one_batch_do_not_mix(word, place, film):
    """Videos of different lengths keep their own images, in order."""
    encoder = build_encoder(word, weights=str(place(WORDS[word])), frames=4)
    other = build_encoder(word, weights=str(place(WORDS[word])), frames=9)
    items = [encoder.prepare("video", film)[0], other.prepare("video", film)[0]]
    together = encoder.encode("video", items)
    alone = [encoder.encode("video", [item])[0] for item in items]
    assert np.allclose(together, alone, atol=1e-5)
    assert not np.allclose(together[0], together[1], atol=1e-3)


def test_the_number_of_images_is_in_the_fingerprint_of_videos_alone(place):
    """`frames` makes another stream of video and not of images."""
    one, two = (build_encoder("clip", weights=str(place("clip")), frames=f) for f in (15, 8))
    assert one.fields("video") != two.fields("video")
    assert one.fields("image") == two.fields("image")


@pytest.mark.parametrize("word", sorted(WORDS))
def test_another_decoder_makes_another_stream_of_video_alone(word, place, monkeypatch):
    """The version of the video decoder is in the fingerprint of videos and of nothing else."""
    encoder = build_encoder(word, weights=str(place(WORDS[word])))
    before = {kind: encoder.fields(kind) for kind in ("video", "image")}
    monkeypatch.setattr(pretrained, "version", lambda library: f"0.1 of {library}")
    assert encoder.fields("video")["decoder"] == "pyav 0.1 of av"
    assert encoder.fields("video") != before["video"]
    assert encoder.fields("image") == before["image"]


@pytest.mark.parametrize("word", sorted(WORDS))
def test_encoders_with_weights_see_the_colours_without_alpha(word, place):
    """A transparent image is prepared as Pillow's `convert("RGB")` of it, all colours included."""
    random = np.random.default_rng(4)
    image = Image.fromarray(random.integers(0, 256, (40, 50, 4), np.uint8))
    file = io.BytesIO()
    image.save(file, "PNG")
    encoder = build_encoder(word, weights=str(place(WORDS[word])))
    found, expected = (
        encoder.prepare("image", one)[0]
        for one in (decode_image(file.getvalue()), image.convert("RGB"))
    )
    pixels = {"clip": lambda item: item[0], "hf": lambda item: item.values}
    take = pixels.get(word, np.asarray)
    assert np.array_equal(take(found), take(expected))


def test_images_are_cropped_bit_for_bit_as_torchvision_does():
    """Every mode equals the transforms of open_clip and timm for PIL images, to the last bit."""
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from timm.data import create_transform

    from pipelines.media.images import Preprocess, resize_and_crop

    random = np.random.default_rng(0)
    shapes = [(30, 50), (50, 30), (33, 32), (1, 9), (300, 8), (64, 64)]
    shown = [Image.fromarray(random.integers(0, 256, (*s, 3), np.uint8)) for s in shapes]
    one = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    for mode in ("shortest", "squash", "longest"):
        for size in ((32, 32), (24, 32)):
            cfg = PreprocessCfg(size=size, resize_mode=mode, interpolation="bicubic", **one)
            bare = image_transform_v2(cfg, is_train=False)
            ours = Preprocess(size, mode, size, "bicubic", **one)
            for picture in shown:
                expected = (bare(picture).permute(1, 2, 0) * 255).round().numpy()
                assert np.array_equal(resize_and_crop(picture, ours), expected)
    words = {"center": "shortest", "border": "longest", "squash": "squash"}
    for mode, ours_ in words.items():
        bare = create_transform(
            (3, 32, 32), interpolation="bilinear", crop_pct=0.9, crop_mode=mode, **one
        )
        ours = Preprocess((32, 32), ours_, (35, 35), "bilinear", **one)
        for picture in shown:
            expected = (bare(picture).permute(1, 2, 0) * 255).round().numpy()
            assert np.array_equal(resize_and_crop(picture, ours), expected)
