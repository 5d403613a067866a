"""CLARGA: graph attention over streams, with a contrastive loss that aligns them.

    h_m   = projection of stream m, or a learned mask token where it is absent      (B, M, H)
    A     = mean over heads of softmax over sources i of ⟨Q h_i, K h_j⟩ / √d_k       (B, M, M)
    h_j  ← LayerNorm(h_j + W [h_j ‖ Σ_i A_ij h_i] + c), L times
    z     = Σ_j β_j h_j, β = softmax_j ⟨q, h_j⟩ / √H;   logits = MLP(dropout(z))
    loss  = task loss + contrast · InfoNCE(projections, z)

Paper: "CLARGA: Multimodal Graph Representation Learning over Arbitrary Sets of Modalities" (WACV),
sections 3.2 and 4.3. Its formulas are not in the text that is available and no code is public, so
every formula here is a reconstruction from the prose:
- "diagonal scores and rows corresponding to masked inputs are set to −∞": rows are read as sources.
  An absent stream sends nothing but still receives, so it is imputed from its neighbours; were rows
  destinations, its softmax would be all −∞, NaN. A node without sources gets no message.
- Attention is computed once, from the projections, and used by every layer (`attn_per_layer`).
- The read-out covers absent nodes too (`readout_missing`): otherwise the mask token has no effect.
- All constants are unknown: width, heads, layers, temperature, `contrast`, depth of the last
  network and the 1/√H in the read-out are ours.
- With nothing absent in training the mask token stays at its random initial value: train with a
  drop rate before hiding modalities. With two streams each has one neighbour, of weight 1.
The paper's "sub-quadratic in the number of modalities" does not hold: the graph is complete. Cost
is O(Σ D_m H + (2 + 2L) M H² + (1 + L) M² H); `uniform` and `mean` alone are linear in M.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Literal

import torch
from torch import Tensor, nn

from cache.errors import MmfuseError
from pipelines.counter_rng import dropout as drop
from pipelines.features.table import Batch
from pipelines.fusion.head import Fused, FusionHead, Inputs, Norm
from pipelines.fusion.layers import Tokens
from pipelines.fusion.losses import info_nce, masked_softmax
from pipelines.fusion.stems import stems_of

Ablation = Literal["none", "uniform", "no_residual", "no_contrast", "mean"]


@dataclass(frozen=True)
class Graph:
    """Options of the fusion block; see `build`."""

    width: int
    heads: int
    layers: int
    ablation: Ablation
    score: Literal["dot", "gat"]
    attn_per_layer: bool
    activation: Literal["identity", "relu", "gelu"]
    layer_dropout: float


@dataclass(frozen=True)
class Contrast:
    """Options of the InfoNCE loss; see `build`."""

    share: float
    temperature: float
    weighting: Literal["stream", "flat"]
    both_ways: bool
    exclude_same_label: bool


class Attention(nn.Module):
    """Attention from each present node to every other: (B, M, H), (B, M) → (B, M, M)."""

    def __init__(self, width: int, heads: int, score: Literal["dot", "gat"]) -> None:
        super().__init__()
        self.heads, self.score = heads, score
        self.source = nn.Linear(width, width, bias=False)
        self.destination = nn.Linear(width, width, bias=False)
        if score == "gat":
            self.weight_pair = nn.Parameter(torch.randn(2, heads, width // heads) * 0.1)

    def forward(self, nodes: Tensor, present: Tensor) -> Tensor:
        """(B, source, destination): columns sum to 1, or to 0 where no other node is present."""
        sends = self.source(nodes).unflatten(-1, (self.heads, -1))  # (B, M, heads, d_k)
        takes = self.destination(nodes).unflatten(-1, (self.heads, -1))  # (B, M, heads, d_k)
        if self.score == "dot":
            scores = torch.einsum("bihc,bjhc->bhij", sends, takes) / sqrt(sends.shape[-1])
        else:
            first = (sends * self.weight_pair[0]).sum(-1).mT  # (B, heads, M)
            second = (takes * self.weight_pair[1]).sum(-1).mT
            pairs = first.unsqueeze(-1) + second.unsqueeze(-2)
            scores = nn.functional.leaky_relu(pairs, 0.2)  # (B, heads, M, M)
        return masked_softmax(scores, may_send(present).unsqueeze(-3), dim=-2).mean(-3)


class Layer(nn.Module):
    """One message-passing layer: concatenate, transform, residual, LayerNorm."""

    def __init__(self, graph: Graph, number: int) -> None:
        super().__init__()
        self.graph = graph
        self.place = f"clarga.layer{number}"
        self.mix = nn.Linear(2 * graph.width, graph.width)
        self.norm = nn.LayerNorm(graph.width)

    def forward(self, nodes: Tensor, messages: Tensor, numbers: Tensor) -> Tensor:
        """(B, M, H), (B, M, H) → (B, M, H)."""
        mixed = self.mix(torch.cat([nodes, messages], -1))
        if self.graph.activation != "identity":
            mixed = getattr(nn.functional, self.graph.activation)(mixed)
        mixed = drop(mixed, self.graph.layer_dropout, numbers, self.place, training=self.training)
        base = 0 if self.graph.ablation == "no_residual" else nodes
        return torch.as_tensor(self.norm(base + mixed))


class Block(nn.Module):
    """The fusion block: L message-passing layers over a graph of streams per sample."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.uniform = graph.ablation == "uniform"
        count = 0 if self.uniform else graph.layers if graph.attn_per_layer else 1
        each = (Attention(graph.width, graph.heads, graph.score) for _ in range(count))
        self.attention = nn.ModuleList(each)
        self.layers = nn.ModuleList(Layer(graph, number) for number in range(graph.layers))

    def forward(self, nodes: Tensor, present: Tensor, numbers: Tensor) -> Tensor:
        """(B, M, H) projections or mask tokens, (B, M) → (B, M, H); permutation equivariant."""
        weights = None
        for number, layer in enumerate(self.layers):
            if self.uniform:
                messages = mean_of_others(nodes, present)
            else:
                if number < len(self.attention):
                    weights = self.attention[number](nodes, present)  # (B, M, M)
                messages = torch.as_tensor(weights).mT @ nodes  # (B, M, H)
            nodes = layer(nodes, messages, numbers)
        return nodes


class Clarga(FusionHead):
    """Projections, fusion block, read-out and classifier; `mean` averages projections instead."""

    def __init__(
        self, inputs: Inputs, tokens: Tokens, graph: Graph, contrast: Contrast,
        *, dropout: float, readout_missing: bool,
    ) -> None:  # fmt: skip
        super().__init__(inputs)
        self.contrast, self.dropout, self.readout_missing = contrast, dropout, readout_missing
        self.tokens = tokens
        self.block: Block | None = None
        if graph.ablation != "mean":
            self.block = Block(graph)
            self.query = nn.Parameter(torch.randn(graph.width) / sqrt(graph.width))
        self.decide = nn.Sequential(
            nn.Linear(graph.width, graph.width), nn.ReLU(), nn.Linear(graph.width, inputs.outputs)
        )
        self.frozen = self._frozen()

    def forward(self, batch: Batch) -> Fused:
        """Logits, projections as tokens, and the read-out's weights β."""
        tokens: Tensor = self.tokens(batch)  # (B, M, H)
        nodes = tokens if self.block is None else self.block(tokens, batch.present, batch.numbers)
        weights = self._readout(nodes, batch.present)  # (B, M)
        fused = (weights.unsqueeze(-1) * nodes).sum(1)  # (B, H)
        shown = drop(fused, self.dropout, batch.numbers, "clarga", training=self.training)
        logits = self.decide(shown)
        return Fused(logits, tokens=tokens, weights=weights, extras={"fused": fused})

    def loss(self, batch: Batch, fused: Fused, step: str) -> Tensor:
        """Task loss plus the share of InfoNCE; absent streams are never anchors."""
        total = self.task_loss(batch, fused.logits)
        if self.contrast.share == 0 or fused.tokens is None:
            return total
        return total + self.contrast.share * info_nce(
            fused.tokens,
            fused.extras["fused"],
            batch.present,
            temperature=self.contrast.temperature,
            weighting=self.contrast.weighting,
            both_ways=self.contrast.both_ways,
            negatives=differ(batch.targets) if self.contrast.exclude_same_label else None,
        )

    def _readout(self, nodes: Tensor, present: Tensor) -> Tensor:
        read = torch.ones_like(present) if self.readout_missing else present
        if self.block is None:
            return read / read.sum(-1, keepdim=True).clamp(min=1).to(nodes.dtype)
        return masked_softmax(nodes @ self.query / sqrt(nodes.shape[-1]), read)

    def _frozen(self) -> dict[str, str]:
        frozen = {}
        if not self.readout_missing:
            frozen["tokens.placeholder"] = "the read-out leaves absent streams out"
        if len(self.inputs.streams) <= 2:
            frozen["block.attention."] = "a node with one neighbour gives it weight 1"
        if len(self.inputs.streams) == 1:
            frozen["query"] = "a single node has read-out weight 1"
        return frozen


def may_send(present: Tensor) -> Tensor:
    """Mask of messages (B, M) → (B, source, destination): source present, and not to itself."""
    itself = torch.eye(present.shape[-1], dtype=torch.bool, device=present.device)
    return present.unsqueeze(-1) & ~itself


def mean_of_others(nodes: Tensor, present: Tensor) -> Tensor:
    """Message of uniform attention in O(M H): mean of the other present nodes, or zeros."""
    sent = torch.where(present.unsqueeze(-1), nodes, 0)
    others = present.sum(-1, keepdim=True) - present.to(torch.int64)  # (B, M)
    return (sent.sum(-2, keepdim=True) - sent) / others.clamp(min=1).unsqueeze(-1)


def differ(targets: Tensor) -> Tensor:
    """(B, B) bool: pairs of rows that share no class or label."""
    if targets.ndim == 1:
        return targets.unsqueeze(-1) != targets
    return targets @ targets.mT == 0


def build(
    inputs: Inputs,
    *,
    width: int = 128,
    heads: int = 4,
    layers: int = 2,
    dropout: float = 0.1,
    contrast: float = 0.1,
    temperature: float = 0.1,
    ablation: Ablation = "none",
    readout_missing: bool = True,
    mask_token: Literal["shared", "each"] = "shared",
    attn_per_layer: bool = False,
    score: Literal["dot", "gat"] = "dot",
    activation: Literal["identity", "relu", "gelu"] = "identity",
    layer_dropout: float = 0.0,
    weighting: Literal["stream", "flat"] = "stream",
    both_ways: bool = False,
    exclude_same_label: bool = False,
    stem: str = "linear",
    share_stems: bool = False,
    input_norm: Norm = "zscore",
) -> FusionHead:
    """Build the head.

    Args:
        inputs: streams and task.
        width: H of nodes and fused vector.
        heads: attention heads; divide `width`.
        layers: L, number of message-passing layers.
        dropout: dropout probability of the fused vector.
        contrast: weight of InfoNCE.
        temperature: of InfoNCE.
        ablation: of section 4.3: `uniform` attention, `no_residual`, `no_contrast`, or `mean` of
            the projections without a graph.
        readout_missing: whether the read-out includes absent nodes (and `mean` averages them).
        mask_token: one vector for all streams, or one each.
        attn_per_layer: new attention in every layer, with its own projections.
        score: scaled dot product, or the additive score of graph attention networks.
        activation: after the transform of a layer.
        layer_dropout: dropout probability of the transform of a layer.
        weighting: InfoNCE as a mean over streams, or over all pairs.
        both_ways: InfoNCE from the fused vector to the streams too.
        exclude_same_label: rows of the same class or label are no negatives.
        stem: front end of the streams, one word or by modality: audio=gru,image=cnn2d.
        share_stems: streams of one width share theirs.
        input_norm: none, l2, or zscore by the train rows.

    Raises:
        MmfuseError: for settings that exclude each other.
    """
    if width % heads:
        raise MmfuseError(f"clarga: width {width} is not a multiple of heads {heads}")
    if layers < 1:
        raise MmfuseError("clarga: layers must be at least 1; ablation=mean is without a graph")
    if exclude_same_label and inputs.task.kind == "value":
        raise MmfuseError("clarga: exclude_same_label needs classes or labels, not a value")
    share = 0.0 if ablation == "no_contrast" else contrast
    made = stems_of(inputs, stem, share=share_stems)
    return Clarga(
        inputs,
        Tokens(inputs, width, placeholder=mask_token, norm=input_norm, stem=made),
        Graph(width, heads, layers, ablation, score, attn_per_layer, activation, layer_dropout),
        Contrast(share, temperature, weighting, both_ways, exclude_same_label),
        dropout=dropout,
        readout_missing=readout_missing,
    )
