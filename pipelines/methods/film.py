"""FiLM: one stream scales and shifts the features of the others (feature-wise modulation).

    [γ, β] = W_c x + b_c,   logits = W (γ ⊙ y + β) + b      x: the condition's projection

Paper: Perez et al., "FiLM: Visual Reasoning with a General Conditioning Layer" (arXiv 1709.07871);
the form is that of the MLA family's code (`fusion_modules.py`, FiLM: γ without 1 added, which
`plus_one` adds, as other codes do). Ours: x and y are projections of one width (the code's split
breaks where widths differ); with more than two streams y is the mean of all others; absent streams
are learned placeholders. The order matters: `condition` names x.
"""

from torch import Tensor, nn

from pipelines.counter_rng import dropout as drop
from pipelines.features.table import Batch
from pipelines.fusion.head import Fused, FusionHead, Inputs, Norm
from pipelines.fusion.layers import Tokens
from pipelines.fusion.stems import stems_of
from pipelines.fusion.two_streams import chosen_and_others, stream_number


class Film(FusionHead):
    """x → γ, β; γ y + β → C."""

    def __init__(
        self, inputs: Inputs, tokens: Tokens, condition: int, *, width: int, plus_one: bool,
        dropout: float,
    ) -> None:  # fmt: skip
        super().__init__(inputs)
        self.tokens, self.condition = tokens, condition
        self.plus_one, self.dropout = plus_one, dropout
        self.modulate = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, inputs.outputs)

    def forward(self, batch: Batch) -> Fused:
        """Logits and the tokens they were made from."""
        tokens: Tensor = self.tokens(batch)  # (B, M, H)
        x, y = chosen_and_others(tokens, self.condition)
        scale, shift = self.modulate(x).chunk(2, -1)
        made = (scale + 1 if self.plus_one else scale) * y + shift
        made = drop(made, self.dropout, batch.numbers, "film", training=self.training)
        return Fused(self.out(made), tokens=tokens)


def build(
    inputs: Inputs,
    *,
    condition: str = "",
    plus_one: bool = False,
    width: int = 128,
    dropout: float = 0.1,
    stem: str = "linear",
    share_stems: bool = False,
    input_norm: Norm = "zscore",
) -> FusionHead:
    """Build the head; with one stream, it conditions itself.

    Args:
        inputs: streams and task.
        condition: the stream or modality that modulates the others; the first if not named.
        plus_one: 1 + γ instead of γ.
        width: H.
        dropout: dropout probability of modulated features.
        stem: front end of the streams, one word or by modality: audio=gru,image=cnn2d.
        share_stems: streams of one width share theirs.
        input_norm: none, l2, or zscore by the train rows.

    Raises:
        MmfuseError: for a condition that is not among them.
    """
    number = stream_number(inputs, condition)
    made = stems_of(inputs, stem, share=share_stems)
    return Film(
        inputs,
        Tokens(inputs, width, norm=input_norm, stem=made),
        number,
        width=width,
        plus_one=plus_one,
        dropout=dropout,
    )
