"""Steps of sentence-transformers after pooling: dense layers and normalisation."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.errors import MmfuseError
from pipelines.encoding.weights import seeded

if TYPE_CHECKING:
    import torch

ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "Sigmoid", "SiLU")


@dataclass(frozen=True)
class Normalize:
    """L2 normalisation."""

    @property
    def width(self) -> None:
        """None: the width does not change."""
        return

    def fields(self) -> dict[str, object]:
        """The step as JSON, for the fingerprint."""
        return {"step": "normalise"}

    def apply(self, vectors: "torch.Tensor", folder: Path) -> "torch.Tensor":
        """(B, D) → (B, D)."""
        import torch

        return torch.nn.functional.normalize(vectors, dim=-1)


@dataclass(frozen=True)
class Dense:
    """A linear layer and its activation.

    Attributes:
        place: its subfolder of the model's.
        file: name of its weights file; "" for random weights.
        sha256: of the weights; `random` for random ones.
        inputs: width of the input.
        width: of the output.
        activation: a name in torch.nn.
    """

    place: str
    file: str
    sha256: str
    inputs: int
    width: int
    activation: str

    def fields(self) -> dict[str, object]:
        """The step as JSON, for the fingerprint."""
        own = {"sha256": self.sha256, "activation": self.activation, "width": self.width}
        return {"step": "dense", **own}

    def apply(self, vectors: "torch.Tensor", folder: Path) -> "torch.Tensor":
        """(B, D) → (B, width)."""
        if self.file:
            layer = _layer(folder / self.place / self.file, self.activation, vectors.device)
        else:
            layer = _random_layer(self.inputs, self.width, self.activation, vectors.device)
        found: torch.Tensor = layer(vectors)
        return found


def dense(place: str, config: Path, file: str, sha256: str) -> Dense:
    """A dense module as its config.json describes it.

    Raises:
        MmfuseError: for an activation other than those of `ACTIVATIONS`.
    """
    stated = json.loads(config.read_text(encoding="utf-8"))
    activation = str(stated.get("activation_function") or "Tanh").rpartition(".")[2]
    if activation not in ACTIVATIONS:
        raise MmfuseError(f"{config}: activation {activation} is none of {', '.join(ACTIVATIONS)}")
    inputs, width = int(stated.get("in_features") or 0), int(stated["out_features"])
    return Dense(place, file, sha256, inputs, width, activation)


@lru_cache(maxsize=8)
def _layer(file: Path, activation: str, device: "torch.device") -> Any:  # noqa: ANN401
    import torch

    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        tensors = load_file(file)
    else:
        tensors = torch.load(file, map_location="cpu", weights_only=True)
    weight = tensors["linear.weight"].to(torch.float32)
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias="linear.bias" in tensors)
    named = {name.removeprefix("linear."): values.float() for name, values in tensors.items()}
    linear.load_state_dict(named)
    return _with_activation(linear, activation, device)


@lru_cache(maxsize=8)
def _random_layer(inputs: int, width: int, activation: str, device: "torch.device") -> Any:  # noqa: ANN401
    import torch

    with seeded():
        linear = torch.nn.Linear(inputs, width)
    return _with_activation(linear, activation, device)


def _with_activation(linear: Any, activation: str, device: "torch.device") -> Any:  # noqa: ANN401
    import torch

    whole = torch.nn.Sequential(linear, getattr(torch.nn, activation)())
    return whole.to(device).eval().requires_grad_(requires_grad=False)
