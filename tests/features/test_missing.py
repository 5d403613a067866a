"""Missing patterns: by name, at random, by frame."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made import made_table

from cache.errors import MmfuseError
from pipelines import counter_rng
from pipelines.features.hiding import (
    by_modality,
    drop_modalities,
    hashed_uniform,
    hide,
    keep_one_present,
)
from pipelines.features.missing import MissingPattern


def test_a_name_hides_every_stream_of_the_modality_even_a_samples_last() -> None:
    """After hiding audio no stream of audio is present, and the others are as they were."""
    table = made_table(40, names=("lens/image", "ear/audio"))
    hidden = hide(table, MissingPattern.named("audio")).table
    assert not hidden.present[:, 1].any()
    assert torch.equal(hidden.present[:, 0], table.present[:, 0])
    assert (~hidden.present.any(1)).any()


@given(share=st.floats(0, 1), more=st.floats(0, 1), seed=st.integers(0, 3))
def test_patterns_nest_across_rates_and_leave_one(share: float, more: float, seed: int) -> None:
    """What is hidden at a rate is hidden at a larger one, and no sample loses its last modality."""
    low, high = sorted((share, more))
    table = made_table(50)
    little = hide(table, MissingPattern.rate(low, seed)).table.present
    much = hide(table, MissingPattern.rate(high, seed)).table.present
    assert not (much & ~little).any()
    assert (little <= table.present).all()
    assert torch.equal(much.any(1), table.present.any(1))


def test_chance_depends_on_the_samples_id_alone() -> None:
    """A sample's fate is the same in any order, subset or batch."""
    table = made_table(80)
    order = np.random.default_rng(0).permutation(80)[:33]
    whole = hide(table, MissingPattern.rate(0.4, 3)).table.take(order)
    part = hide(table.take(order), MissingPattern.rate(0.4, 3)).table
    assert torch.equal(whole.present, part.present)


@pytest.mark.parametrize("modalities", [2, 3, 4])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_realised_rate_is_what_the_guard_leaves(modalities: int, share: float) -> None:
    """Of complete samples a share r - r^M / M of the cells is hidden."""
    ids = [f"s{i}" for i in range(20_000)]
    u = hashed_uniform(ids, [f"m{k}" for k in range(modalities)], 0)
    keep = keep_one_present(u, torch.ones_like(u, dtype=torch.bool), share)
    expected = share - share**modalities / modalities
    assert abs(1 - float(keep.double().mean()) - expected) < 0.006


def test_a_rate_that_cannot_be_reached_is_said() -> None:
    """A note gives the realised rate where the last modalities had to stay."""
    hidden = hide(made_table(400, absent=0.0), MissingPattern.rate(0.9))
    (message,) = hidden.remarks()
    assert f"hides {hidden.realised():.3f} of the cells of all rows" in message
    assert 0.6 < hidden.realised() < 0.67
    (message,) = hidden.remarks("test")
    assert f"hides {hidden.realised('test'):.3f} of the cells of test rows" in message
    assert not hide(made_table(400, absent=0.0), MissingPattern.rate(0.0)).remarks()


def test_the_exact_protocol_hides_an_exact_number_of_cells() -> None:
    """G7: 4 samples of 3 modalities at rate 0.5 keep exactly 6 cells; at 0.7 one a sample."""
    table = made_table(4, absent=0.0)
    half = hide(table, MissingPattern.rate(0.5, protocol="cpm_exact"))
    assert int(half.table.present.sum()) == 6
    assert half.table.present.any(1).all()
    most = hide(table, MissingPattern.rate(0.7, protocol="cpm_exact"))
    assert (most.table.present.sum(1) == 1).all()
    assert abs(most.realised() - 2 / 3) < 1e-9
    assert most.remarks()


def test_bernoulli_may_take_everything() -> None:
    """Without the guard some samples lose all modalities, a share r^M of them."""
    table = made_table(2000, absent=0.0)
    hidden = hide(table, MissingPattern.rate(0.5, protocol="bernoulli")).table
    assert abs(float((~hidden.present.any(1)).double().mean()) - 0.125) < 0.03


def test_streams_of_one_modality_share_its_fate() -> None:
    """Chance hides modalities, so two streams of one modality are hidden together."""
    table = made_table(60, absent=0.0)
    twins = type(table)(
        {"a/x": table.features["lens/image"], "b/x": table.features["ear/audio"],
         "c/y": table.features["eye/text"]},
        {}, table.present, ("x", "x", "y"), table.samples, table.rows,
    )  # fmt: skip
    hidden = hide(twins, MissingPattern.rate(0.5)).table.present
    assert torch.equal(hidden[:, 0], hidden[:, 1])
    assert not hidden[:, 0].all()


def test_every_names_each_set_that_stays_once() -> None:
    """Three modalities have seven patterns, the complete one first; twenty are sampled."""
    found = MissingPattern.every(["a", "b", "c"])
    assert found[0] == MissingPattern()
    assert len(set(found)) == 7
    many = MissingPattern.every([f"m{i}" for i in range(20)])
    assert len(set(many)) == 1024
    assert MissingPattern.named("m3") in many


def test_frames_are_hidden_one_by_one_and_a_rows_last_stays() -> None:
    """About half of the present frames go, none appears, and no row loses them all."""
    table = made_table(300, frames=8)
    before = table.frame_present["eye/text"]
    hidden = hide(table, MissingPattern.of_frames("text", 0.5))
    after = hidden.table.frame_present["eye/text"]
    assert (after <= before).all()
    assert after.any(1).all()
    assert 0.4 < float(after.sum() / before.sum()) < 0.6
    assert hidden.realised() == pytest.approx(1 - float(after.sum() / before.sum()))
    test = table.split("test")
    share = 1 - float(after[test].sum() / before[test].sum())
    assert hidden.realised("test") == pytest.approx(share)
    (message,) = hidden.remarks("test")
    assert message.startswith(f"frames text=0.5 hides {share:.3f} of the frames of test rows")
    assert not hide(table, MissingPattern.of_frames("text", 0.0)).remarks()


MODALITIES = ("image", "audio", "text")


def test_words_become_patterns() -> None:
    """A name, names together, or all: every set of modalities in turn."""
    assert MissingPattern.parse("audio", MODALITIES) == [MissingPattern.named("audio")]
    assert MissingPattern.parse("text,audio", MODALITIES) == [MissingPattern.named("audio", "text")]
    assert MissingPattern.parse("all", MODALITIES) == MissingPattern.every(MODALITIES)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("smell", "no modality 'smell' .*there is: image, audio, text"),
        ("audio,smell", "no modality 'smell'"),
        ("image,audio,text", "keep at least one"),
        ("all,text", "--missing all,text: all stands alone"),
    ],
)
def test_words_that_are_no_pattern_are_refused(word: str, message: str) -> None:
    """Unknown modalities, all of them, and `all` beside a name; the error says what there is."""
    with pytest.raises(MmfuseError, match=message):
        MissingPattern.parse(word, MODALITIES)


def test_unknown_modalities_are_refused_with_what_there_is() -> None:
    """The error names the modalities that have features."""
    with pytest.raises(MmfuseError, match="there is: image, audio, text"):
        MissingPattern.named("smell").check(MODALITIES)
    with pytest.raises(MmfuseError, match="keep at least one"):
        MissingPattern.named("image", "audio", "text").check(MODALITIES)
    with pytest.raises(MmfuseError, match="--sequence"):
        MissingPattern.of_frames("text", 0.5).check(MODALITIES)
    with pytest.raises(MmfuseError, match="from 0 to 1"):
        MissingPattern.rate(1.5)


def test_labels_tell_patterns_apart() -> None:
    """Files and tables are keyed by labels, so different patterns have different ones."""
    patterns = [
        MissingPattern(),
        MissingPattern.named("a"),
        MissingPattern.named("a", "b"),
        MissingPattern.rate(0.3),
        MissingPattern.rate(0.3, 1),
        MissingPattern.rate(0.3, 0, "cpm_exact"),
        MissingPattern.of_frames("a", 0.3),
    ]
    assert len({p.label for p in patterns}) == len(patterns)
    assert patterns[1].label == "without a"


def test_modality_dropout_drops_the_share_and_never_the_last() -> None:
    """Fresh at every key, at the guarded share, from what is present alone."""
    table = made_table(500, absent=0.3)
    share = torch.tensor(0.4)
    first = drop_modalities(table.present, table.owners, share, counter_rng.key(0, 1))
    second = drop_modalities(table.present, table.owners, share, counter_rng.key(0, 2))
    assert not torch.equal(first, second)
    assert (first <= table.present).all()
    assert torch.equal(first.any(1), table.present.any(1))
    assert (
        not drop_modalities(table.present, table.owners, torch.tensor(0.0), counter_rng.key(0, 1))
        .ne(table.present)
        .any()
    )


def test_a_modality_is_present_where_any_of_its_streams_is() -> None:
    """(M) streams become (K) modalities by any()."""
    present = torch.tensor([[True, False, False], [False, False, True]])
    assert by_modality(present, (0, 0, 1)).tolist() == [[True, False], [False, True]]
