"""Stems against the library's own layers, and what absent frames may not do to them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made import copy_recurrent
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from cache.errors import MmfuseError
from pipelines.contracts import synthetic
from pipelines.fusion import stems
from pipelines.fusion.head import Inputs, Stream
from pipelines.fusion.layers import Tokens
from pipelines.fusion.stems import STEMS, stems_of

FRAMES = Stream(4, "audio", sequence=True)
ORDERED = ["gru", "bilstm", "cnn1d", "cnn2d"]


def stem(word: str, width: int = 6, stream: Stream = FRAMES, seed: int = 0) -> nn.Module:
    """A stem in double precision."""
    torch.manual_seed(seed)
    return STEMS[word](stream, width).double().eval()


def sequences(lengths: list[int], longest: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Values (B, T, 4) with zeros behind each end, and which frames are present."""
    numbers = torch.Generator().manual_seed(seed)
    x = torch.randn(len(lengths), longest, 4, generator=numbers).double()
    there = torch.arange(longest) < torch.tensor(lengths)[:, None]
    return torch.where(there[..., None], x, 0), there


@given(seed=st.integers(0, 10_000), lengths=st.lists(st.integers(1, 7), min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_gru_equals_the_library_s_on_packed_sequences(seed, lengths):
    """Last states equal `torch.nn.GRU` over each sequence's own length."""
    ours = stem("gru", seed=seed)
    library = nn.GRU(4, 6, batch_first=True).double()
    copy_recurrent(ours, library)
    x, there = sequences(lengths, 7, seed)
    packed = pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    torch.testing.assert_close(ours(x, there), library(packed)[1][0], rtol=0, atol=1e-10)


@given(seed=st.integers(0, 10_000), lengths=st.lists(st.integers(1, 7), min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_bilstm_equals_the_library_s_on_packed_sequences(seed, lengths):
    """Both last states equal `torch.nn.LSTM(bidirectional=True)`, then one linear map."""
    ours = stem("bilstm", seed=seed)
    library = nn.LSTM(4, 6, batch_first=True, bidirectional=True).double()
    copy_recurrent(ours.ahead, library)
    copy_recurrent(ours.back, library, "_reverse")
    x, there = sequences(lengths, 7, seed)
    packed = pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    states = library(packed)[1][0]
    want = ours.out(torch.cat([states[0], states[1]], -1))
    torch.testing.assert_close(ours(x, there), want, rtol=0, atol=1e-10)


@pytest.mark.parametrize("word", ["linear", "gru", "bilstm"])
def test_absent_frames_inside_a_sequence_are_as_if_they_were_not_there(word):
    """Absent frames leave the state as it is: frames 1, 3, 4 of five equal three frames."""
    ours = stem(word)
    x, _ = sequences([5], 5)
    there = torch.tensor([[True, False, True, True, False]])
    gaps = ours(torch.where(there[..., None], x, 0), there)
    dense = ours(x[:, there[0]], torch.ones(1, 3).bool())
    torch.testing.assert_close(gaps, dense, rtol=0, atol=1e-12)


@pytest.mark.parametrize("word", ["linear", *ORDERED])
def test_padding_a_sequence_changes_nothing(word):
    """Absent frames behind the end are no information: T = 5 and T = 9 agree."""
    ours = stem(word)
    short, there = sequences([5, 3], 5)
    long = torch.cat([short, torch.zeros(2, 4, 4).double()], 1)
    more = torch.cat([there, torch.zeros(2, 4).bool()], 1)
    torch.testing.assert_close(ours(long, more), ours(short, there), rtol=0, atol=1e-12)


@pytest.mark.parametrize("word", ORDERED)
def test_the_order_of_frames_matters(word):
    """Shuffled frames give another vector: these stems see time."""
    ours = stem(word)
    x, there = sequences([6], 6)
    assert float((ours(x.flip(1), there) - ours(x, there)).detach().abs().max()) > 1e-4


@pytest.mark.parametrize("word", ["linear", "gru", "bilstm", "cnn1d", "cnn2d"])
def test_a_sequence_without_a_frame_is_finite(word):
    """Nothing present: a constant, never NaN."""
    ours = stem(word)
    x, _ = sequences([3, 3], 3)
    out = ours(torch.zeros_like(x), torch.zeros(2, 3).bool())
    assert out.isfinite().all()


def test_cnn1d_equals_plain_convolutions_on_a_full_sequence():
    """Three convolutions of five frames with ReLU, mean over time, one linear map."""
    ours = stem("cnn1d")
    x, there = sequences([8, 8], 8)
    want = x.mT
    for layer in ours.layers:
        want = torch.relu(nn.functional.conv1d(want, layer.weight, layer.bias, padding=2))
    torch.testing.assert_close(ours(x, there), ours.out(want.mean(-1)))


@pytest.mark.parametrize(("values", "channels", "side"), [(64, 1, 8), (192, 3, 8), (1, 1, 1)])
def test_cnn2d_reads_a_pooled_stream_as_an_image(values, channels, side):
    """Width s² is grey, 3 s² is RGB; three convolutions, halved twice, mean."""
    ours = stem("cnn2d", stream=Stream(values, "image"))
    x = torch.randn(3, values, generator=torch.Generator().manual_seed(0)).double()
    want = x.reshape(3, channels, side, side)
    for number, layer in enumerate(ours.layers):
        want = torch.relu(nn.functional.conv2d(want, layer.weight, layer.bias, padding=1))
        want = stems.halved(want) if number < 2 else want
    torch.testing.assert_close(ours(x, None), ours.out(want.mean((-2, -1))))


@pytest.mark.parametrize("word", ["gru", "bilstm", "cnn1d", "cnn2d"])
def test_stems_run_under_vmap_with_gradients(word):
    """Three replicas stacked equal three alone, values and gradients."""
    made = [stem(word, seed=seed) for seed in range(3)]
    x, there = sequences([4, 2], 4)
    parameters, _ = torch.func.stack_module_state(made)

    def loss(state: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(made[0], state, (x, there)).square().sum()

    stacked = torch.vmap(torch.func.grad(loss))(parameters)
    for number, one in enumerate(made):
        alone = torch.func.grad(loss)({n: p.detach() for n, p in one.named_parameters()})
        for name, gradient in alone.items():
            torch.testing.assert_close(stacked[name][number], gradient)


def inputs() -> Inputs:
    """Two series of one width, one of another, and a pooled stream."""
    return Inputs(
        {
            "s/a": Stream(4, "a", sequence=True),
            "s/b": Stream(4, "b", sequence=True),
            "s/c": Stream(5, "c", sequence=True),
            "s/d": Stream(4, "d"),
        },
        synthetic.CLASSES,
    )


def test_words_choose_stems_for_all_or_by_modality():
    """One word is for all, with linear where there are no frames; others are named."""
    made = inputs()
    all_gru, named = stems_of(made, "gru"), stems_of(made, "a=bilstm,d=cnn2d")
    kinds = [type(all_gru(s, 6)).__name__ for s in made.streams.values()]
    assert kinds == ["Gru", "Gru", "Gru", "LinearStem"]
    kinds = [type(named(s, 6)).__name__ for s in made.streams.values()]
    assert kinds == ["BiLstm", "LinearStem", "LinearStem", "Cnn2d"]


def test_streams_of_one_width_can_share_a_stem():
    """One stem for many series: its parameters exist once."""
    made = inputs()
    shared = Tokens(made, 6, stem=stems_of(made, "gru", share=True))
    apart = Tokens(made, 6, stem=stems_of(made, "gru"))
    assert shared.stems["s/b"].owner[0] is shared.stems["s/a"]
    assert not list(shared.stems["s/b"].parameters())
    assert list(shared.stems["s/c"].parameters())
    gru = sum(p.numel() for p in shared.stems["s/a"].parameters())
    counts = [sum(p.numel() for p in tokens.parameters()) for tokens in (shared, apart)]
    assert counts[1] - counts[0] == gru


def test_shared_stems_train_side_by_side_like_any_head():
    """Parameters that several streams share are one under vmap too."""
    made = inputs()
    data = synthetic.batch(made, 5)
    heads = []
    for seed in range(2):
        torch.manual_seed(seed)
        heads.append(Tokens(made, 6, stem=stems_of(made, "gru", share=True)))
    parameters, _ = torch.func.stack_module_state(heads)

    def call(state: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(heads[0], state, (data,))

    stacked = torch.vmap(call)(parameters)
    for number, head in enumerate(heads):
        torch.testing.assert_close(stacked[number], head(data))


def test_wrong_words_say_what_is_known():
    """Unknown stems and modalities, frames that are not there, images that are not square."""
    made = inputs()
    with pytest.raises(MmfuseError, match="no stem named 'grue'; did you mean gru"):
        stems_of(made, "grue")
    with pytest.raises(MmfuseError, match="no modality named 'e'"):
        stems_of(made, "e=gru")
    with pytest.raises(MmfuseError, match="d has no frames; extract it with --sequence"):
        stems_of(made, "d=gru")
    with pytest.raises(MmfuseError, match="width 7, which is not a square image"):
        STEMS["cnn2d"](Stream(7, "image"), 6)
    with pytest.raises(MmfuseError, match="keeps the width of audio, 4"):
        STEMS["mean"](FRAMES, 6)
    assert STEMS["mean"](FRAMES, 4)(*sequences([2], 2)).shape == (1, 4)
