"""The encoder contract, checked for every encoder of the catalogue."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from encoder_cases import CASES, Case, built, checkpoint, reference
from project import with_project

from cache.errors import MmfuseError
from cache.fingerprints import fingerprint
from pipelines import catalog
from pipelines.contracts.encoder import CHECKS, COSINE, EncoderUnderTest, building_is_light, cosine
from pipelines.contracts.sample_payloads import sample_payloads
from pipelines.encoding.encoder import Encoder, FittedEncoder, build_encoder

WITH_WEIGHTS = [case for case in CASES if "weights" in case.options]  # others have one dtype
HALF = 0.999  # in half precision
# Whether building is light is tested below for all of them in one process.
ENGINE = [check for check in CHECKS if check is not building_is_light]


@pytest.fixture(params=CASES, ids=lambda case: case.label)
def case(request) -> Case:
    """Each way to build an encoder."""
    return request.param


@pytest.fixture
def encoder(case, top) -> Encoder:
    """The encoder of the case, fitted where it learns something."""
    return _fitted(built(case, top))


def _fitted(encoder):
    if isinstance(encoder, FittedEncoder):
        kind = next(iter(encoder.kinds))
        encoder.fit(kind, sample_payloads(kind))
    return encoder


def _kinds(encoder) -> list[str]:
    return [kind for kind in encoder.kinds if kind != "video"]


def _encode(encoder, kind, inputs):
    return encoder.encode(kind, [encoder.prepare(kind, payload)[0] for payload in inputs])


def test_every_encoder_of_the_catalogue_has_a_case():
    """A new encoder without a case here is an error, so nobody forgets the contract."""
    assert {case.name for case in CASES} == set(catalog.entries("encoders"))


@pytest.mark.parametrize("check", ENGINE, ids=lambda check: check.__name__)
def test_every_check_passes(check, case, top):
    """Each of our encoders passes every check of `mmfuse check`."""
    check(EncoderUnderTest(case.word, lambda: built(case, top)))


def test_the_stored_dtype_follows_from_where_the_weights_come_from(encoder):
    """Weight-free encoders store float32, pretrained ones float16."""
    assert encoder.storage == ("float32" if encoder.weights == "weight-free" else "float16")


def test_another_stored_dtype_is_another_stream_of_the_same_vectors(case, encoder, top):
    """Every encoder can be stored in either dtype, which does not change what it computes."""
    other = "float16" if encoder.storage == "float32" else "float32"
    chosen = _fitted(built(case, top, storage=other))
    assert chosen.storage == other
    assert built(case, top, storage="auto").storage == encoder.storage
    kind = _kinds(encoder)[0]
    found = [_encode(each, kind, sample_payloads(kind)) for each in (encoder, chosen)]
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))
    with pytest.raises(MmfuseError, match=r"bfloat16 cannot be stored.*--storage float32"):
        built(case, top, storage="bfloat16")


@pytest.mark.parametrize("case", WITH_WEIGHTS, ids=lambda case: case.label)
@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float16", marks=pytest.mark.slow)])
def test_half_precision_keeps_the_bound_that_it_can_keep(case, top, dtype):
    """A row alone and in a mixed batch, and half precision and float32, agree to 0.999."""
    half, whole = built(case, top, dtype=dtype), built(case, top, dtype="float32")
    for kind in _kinds(half):
        mixed = _encode(half, kind, sample_payloads(kind))
        exact = _encode(whole, kind, sample_payloads(kind))
        for payload, a, b in zip(sample_payloads(kind), mixed, exact, strict=True):
            assert cosine(a, b) >= HALF
            assert cosine(a, _encode(half, kind, [payload])[0]) >= HALF


def test_vectors_agree_with_the_bare_library_call(case, encoder, top):
    """Each vector has a cosine of at least 0.99999 with what the library itself gives, and length.

    Encoders without a reference here are formulas of ours, tested against naive loops elsewhere.
    """
    bare = reference(case, top)
    if bare is None:
        assert case.name in {"tabular", "series"}
        return
    for kind in _kinds(encoder):
        for payload, found in zip(
            sample_payloads(kind), _encode(encoder, kind, sample_payloads(kind)), strict=True
        ):
            expected = bare(kind, payload)
            assert found.shape == expected.shape
            assert cosine(found, expected) >= COSINE
            norms = np.linalg.norm(found), np.linalg.norm(expected)
            assert norms[0] == pytest.approx(norms[1], rel=1e-3, abs=1e-6)


def test_fields_are_json_and_hold_no_path_device_or_date(encoder, top):
    """What identifies a stream is JSON and does not name where anything lies or ran."""
    for kind in _kinds(encoder):
        text = json.dumps(encoder.fields(kind))
        assert str(top) not in text
        assert "cpu" not in text
        assert json.loads(json.dumps(encoder.provenance())) is not None


def test_every_field_counts_and_their_order_does_not(encoder):
    """Another value of any one field, however deep, is another fingerprint; another order is not.

    So is a field more or less.
    """
    for kind in _kinds(encoder):
        fields = encoder.fields(kind)
        turned = json.loads(json.dumps(fields), object_pairs_hook=lambda pairs: dict(pairs[::-1]))
        assert fingerprint(turned) == fingerprint(fields)
        changed = [fingerprint(other) for other in _neighbours(json.loads(json.dumps(fields)))]
        assert len({fingerprint(fields), *changed}) == len(changed) + 1


def _neighbours(node):
    """The same JSON with one value changed, or one entry taken away, at any depth."""
    if isinstance(node, dict | list):
        places = list(node) if isinstance(node, dict) else range(len(node))
        for place in places:
            for other in _neighbours(node[place]):
                copy = node.copy()
                copy[place] = other
                yield copy
            if isinstance(node, dict):
                yield {name: value for name, value in node.items() if name != place}
    else:
        yield f"{node} changed"


def test_the_fingerprint_changes_with_what_makes_the_vectors(case, top):
    """Other weights, preprocessing, options or compute dtype each give another fingerprint."""
    built_ = [built(case, top), *(built(case, top, **other) for other in case.others)]
    kind = _kinds(built_[0])[0]
    found = [fingerprint(encoder.fields(kind)) for encoder in built_]
    assert len(set(found)) == len(found)


def test_the_fingerprint_changes_with_nothing_else(case, encoder, top, tmp_path, monkeypatch):
    """Not with the weights' path, the working directory, the device, use, or a second building."""
    expected = {kind: fingerprint(encoder.fields(kind)) for kind in _kinds(encoder)}
    _encode(encoder, _kinds(encoder)[0], sample_payloads(_kinds(encoder)[0]))
    others = [encoder, built(case, top)]
    if "weights" in case.options:
        moved = tmp_path / "elsewhere"
        shutil.copytree(checkpoint(case.options["weights"], top), moved)
        others.append(_at(case, moved))
        others.append(built(case, top, device="cuda:3"))
    monkeypatch.chdir(tmp_path)
    others.append(built(case, top))
    for other in others:
        assert {kind: fingerprint(other.fields(kind)) for kind in expected} == expected


def _at(case, place):
    return build_encoder(case.word, **{**case.options, "weights": str(place)})


_SUBPROCESS = """
import json, sys
from pathlib import Path
from encoder_cases import CASES, built
from cache.fingerprints import fingerprint
found = []
for case in CASES:
    encoder = built(case, Path({top!r}))
    found.append([case.label, encoder.weights,
                  {{kind: fingerprint(encoder.fields(kind)) for kind in encoder.kinds}}])
heavy = [m for m in ("torch", "transformers", "open_clip", "timm", "sklearn", "librosa", "skimage")
         if m in sys.modules]
print(json.dumps([heavy, found]))
"""


def test_building_and_fields_import_nothing_heavy_and_agree_across_processes(top):
    """Without torch or any model library, in a fresh process with another hash seed."""
    expected = []
    for case in CASES:
        encoder = built(case, top)
        prints = {kind: fingerprint(encoder.fields(kind)) for kind in encoder.kinds}
        expected.append([case.label, encoder.weights, prints])
    code = _SUBPROCESS.format(top=str(top))
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=with_project(PYTHONHASHSEED="7"),
    )
    heavy, found = json.loads(done.stdout)
    assert heavy == []
    assert found == expected
