"""Late fusion, the mean and a stream alone, against loops over rows and streams."""

from pathlib import Path

import numpy as np
import pytest
import torch
from made import CLASSES, LABELS, VALUE, batch_of, fill_store, made_table

from cache.errors import MmfuseError
from cache.layout import Home
from cache.samples import Task
from pipelines.methods import late, mean, unimodal
from pipelines.training.run import inputs_of
from pipelines.training.train import train


def softmax(x: np.ndarray) -> np.ndarray:
    """Of one row."""
    return np.exp(x) / np.exp(x).sum()


@pytest.mark.parametrize("task", [CLASSES, LABELS, VALUE], ids=lambda t: t.kind)
@pytest.mark.parametrize("fusion", ["probabilities", "logits", "df"])
def test_late_fusion_by_a_loop(task: Task, fusion: late.Fusion) -> None:
    """The fused output of every row, from its present streams' own outputs."""
    if (task.kind, fusion) == ("value", "df"):
        with pytest.raises(MmfuseError, match="entropy"):
            late.build(inputs_of(made_table(9, task)), fusion=fusion)
        return
    table = made_table(30, task, absent=0.4)
    table.present[3] = False
    head = late.build(inputs_of(table), width=8, fusion=fusion).eval()
    fused = head(batch_of(table))
    assert fused.stream_logits is not None
    for row in range(30):
        own = [fused.stream_logits[row, m].detach().double().numpy()
               for m in range(3) if table.present[row, m]]  # fmt: skip
        found = fused.logits[row].detach().double().numpy()
        if not own:
            assert not found.any()
        elif fusion == "logits" or task.kind == "value":
            assert np.allclose(found, np.mean(own, 0), atol=1e-5)
        elif fusion == "probabilities" and task.kind == "classes":
            assert np.allclose(softmax(found), np.mean([softmax(o) for o in own], 0), atol=1e-5)
        elif fusion == "probabilities":
            wanted = np.mean([1 / (1 + np.exp(-o)) for o in own], 0)
            assert np.allclose(1 / (1 + np.exp(-found)), wanted, atol=1e-5)
        elif task.kind == "classes":
            entropies = [-(softmax(o) * np.log(softmax(o))).sum() for o in own]
            weights = softmax(-np.array(entropies))
            assert np.allclose(found, (weights[:, None] * np.array(own)).sum(0), atol=1e-5)


def test_each_stream_of_late_fusion_is_trained_on_its_own() -> None:
    """A stream's parameters get the same gradient whatever another stream holds."""
    gradients = []
    for scale in (1.0, 50.0):
        table = made_table(30)
        table.features["lens/image"].mul_(scale)
        torch.manual_seed(0)
        head = late.build(inputs_of(table), width=8, dropout=0.0, input_norm="none")
        batch = batch_of(table)
        head.loss(batch, head(batch), "joint").backward()
        named = dict(head.named_parameters())
        gradients.append({n: p.grad for n, p in named.items() if "ear" in n or "eye" in n})
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


def test_the_mean_counts_what_is_present() -> None:
    """One more absent stream changes no logit; two copies of a stream count as one."""
    table = made_table(20, absent=0.0)
    head = mean.build(inputs_of(table), width=8).eval()
    tokens = head(batch_of(table)).tokens
    assert tokens is not None
    table.present[:, 1] = False
    hidden = torch.relu(head.mix(tokens[:, [0, 2]].mean(1)))
    assert torch.allclose(head(batch_of(table)).logits, head.out(hidden), atol=1e-6)


def test_one_stream_alone_is_named_by_stream_or_modality(tmp_path: Path) -> None:
    """The others change nothing, and the error for an unknown name lists those there are."""
    table = made_table(40, absent=0.0)
    for word in ("ear/audio", "audio"):
        torch.manual_seed(0)
        head = unimodal.build(inputs_of(table), stream=word, width=8).eval()
        assert head.ignores == ("lens/image", "eye/text")
        before = head(batch_of(table)).logits
        other = made_table(40, absent=0.0)
        other.features["lens/image"].zero_()
        assert torch.equal(before, head(batch_of(other)).logits)
    with pytest.raises(MmfuseError, match="no stream named 'smell'"):
        unimodal.build(inputs_of(table), stream="smell")
    home = Home(tmp_path)
    fill_store(home, table)
    words = {"epochs": "2", "seeds": "0", "stream": "text"}
    named = train("unimodal", "made", home=home, options=words)
    assert (named.options["stream"], named.notes) == ("text", ())
    unnamed = train("unimodal", "made", home=home, options={**words, "stream": ""})
    assert unnamed.notes == (
        "unimodal without --set stream=NAME is of ear/audio, the first by name",
    )
    alone = train("unimodal", "made", home=home, options={"epochs": "2"}, features=["eye/text"])
    assert alone.notes == ()
