"""A model's weights: of a plain file, matched tensor by tensor, or random from a fixed seed."""

import pickle
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.errors import MmfuseError

if TYPE_CHECKING:
    import torch

    Tensors = Mapping[str, torch.Tensor]

SEED = 0  # of random weights
RANDOM = "random"  # the tag after a model's name
_SHOWN = 3  # names of tensors that a message shows
_PREFIXES = 4  # candidates for a prefix that are tried, besides none
# Where training scripts put a model's tensors in their checkpoints, in order of preference.
_PARTS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "encoder")
_DEPTH = 3  # of parts inside parts
# Buffers that models write today and did not before, or did before and do not today.
_BUFFERS = ("num_batches_tracked", "position_ids", "token_type_ids", "inv_freq", "attn_mask")
# Names of old checkpoints → names of today.
_RENAMED = (
    (re.compile(r"(LayerNorm|layer_norm)\.gamma$"), r"\1.weight"),
    (re.compile(r"(LayerNorm|layer_norm)\.beta$"), r"\1.bias"),
    (re.compile(r"\.weight_g$"), ".parametrizations.weight.original0"),
    (re.compile(r"\.weight_v$"), ".parametrizations.weight.original1"),
)


def split_random(model: str | None) -> tuple[str | None, bool]:
    """A model without the tag `random`, and whether it had it: `18/random` → `18`, True.

    The path of a folder that is called `random` stays whole.
    """
    if model is None or (is_path(model) and Path(model).expanduser().exists()):
        return model, False
    if model == RANDOM:
        return None, True
    named = model.removesuffix(f"/{RANDOM}")
    return named, named != model


def is_path(model: str) -> bool:
    """Whether a model is named by a path, not by a repository or an architecture."""
    return model.startswith((".", "/", "~"))


def check_plain(encoder: str, path: Path) -> None:
    """Check by its first bytes that a file may hold weights.

    Raises:
        MmfuseError: for a file of something else, or one of the shards of a model.
    """
    with path.open("rb") as file:
        start = file.read(9)
    if not (start.startswith((b"PK", b"\x80")) or start[8:] == b"{"):
        raise MmfuseError(
            f"{encoder}: {path} is a file, but not of weights: it has to be a .safetensors file, "
            "or a .pth, .pt or .bin file that torch saved; or give the folder of a model"
        )
    if re.search(r"-\d+-of-\d+\.", path.name):
        raise MmfuseError(
            f"{encoder}: {path} holds only some of its model's tensors; give the folder of all"
        )


@contextmanager
def seeded() -> Iterator[None]:
    """Models built inside have the same weights every time; global random state stays as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED)  # not those of GPUs, as manual_seed would
        yield


def load_weights(
    encoder: str,
    path: Path,
    model: "torch.nn.Module",
    architecture: str,
    *,
    heads: Iterable[str] = (),
    optional: Iterable[str] = (),
    convert: "Callable[[Tensors], Tensors] | None" = None,
    hint: str = "",
) -> str:
    """Load a plain file's tensors into a model, every one of which has to be there.

    Args:
        encoder: its name, for messages.
        path: .safetensors, or what torch saved: plain tensors by name, or a dict that holds them.
        model: with any weights.
        architecture: its name, for messages.
        heads: modules of a classifier, which the file may hold and the model does not.
        optional: words; tensors whose names hold one of them may be missing.
        convert: gives tensors of other programs the model's own names, where it can.
        hint: what to do about tensors of another model, for messages.

    Returns:
        A sentence on where the tensors lay in the file, what was stripped and left out; or "".

    Raises:
        MmfuseError: for a file that holds more than tensors, or tensors that do not fit.
    """
    parts = list(_parts(_read(encoder, path)))
    if not parts:
        raise MmfuseError(f"{encoder}: {path} holds no tensors by name")
    if convert is not None:
        parts += [(part, convert(tensors)) for part, tensors in parts]
    wanted = _Wanted.of(model, heads, optional)
    tried = [match for part, tensors in parts for match in _matches(part, tensors, wanted)]
    fitting = [match for match in tried if match.fits]
    if not fitting:
        best = max(tried, key=lambda match: match.found)
        raise MmfuseError(
            f"{encoder}: {path} does not fit {architecture}: {best.differences()}"
            f"{'; ' * bool(hint)}{hint}"
        )
    match = fitting[0]
    rivals = [m for m in fitting if m.part == match.part and m.prefix != match.prefix]
    if match.prefix and rivals:
        raise MmfuseError(
            f"{encoder}: {path} holds several models that fit {architecture}: the tensors of "
            f"{' and those of '.join(m.prefix.rstrip('.') for m in (match, *rivals))}; save one of "
            "them in a file of its own"
        )
    model.load_state_dict(match.tensors, strict=False)
    others = dict.fromkeys(m.part for m in fitting if m.part != match.part)
    return match.remark(others)


@dataclass(frozen=True)
class _Wanted:
    """A model's tensors by the names of today, and what may be missing from a file or extra."""

    tensors: "Tensors"
    names: Mapping[str, str]  # the name of today → the model's own
    tied: Mapping[str, Sequence[str]]  # name → all names of the same tensor
    modules: frozenset[str]  # at the top
    heads: tuple[str, ...]
    optional: tuple[str, ...]

    @classmethod
    def of(
        cls, model: "torch.nn.Module", heads: Iterable[str], optional: Iterable[str]
    ) -> "_Wanted":
        own = model.state_dict()
        names = {_name_today(name): name for name in own}
        places: dict[int, list[str]] = {}
        for today, name in names.items():
            if own[name].numel():
                places.setdefault(own[name].data_ptr(), []).append(today)
        tied = {name: same for same in places.values() for name in same}
        return cls(
            {today: own[name] for today, name in names.items()},
            names,
            tied,
            frozenset(name.partition(".")[0] for name in names),
            tuple(f"{head}." for head in heads),
            (*_BUFFERS, *optional),
        )

    def missing_from(self, found: "Tensors") -> list[str]:
        """Names of tensors that a file lacks; one of those that are tied is enough."""
        return [
            name
            for name in self.tensors
            if not any(same in found for same in self.tied.get(name, (name,)))
            and not any(word in name for word in self.optional)
        ]

    def is_inside(self, name: str) -> bool:
        """Whether a tensor that the model does not have would lie in one of its modules."""
        inside = name.partition(".")[0] in self.modules
        return inside and not name.startswith(self.heads) and not name.endswith(_BUFFERS)


@dataclass(frozen=True)
class _Match:
    """How a file's tensors fit a model if those under one prefix are taken.

    Attributes:
        part: names of the dicts around the tensors; "" for none.
        prefix: before the model's own names, with its dot.
        tensors: by the model's own names.
        missing: names that the file lacks.
        unexpected: names inside the model's modules that it does not have.
        misshapen: name, shape or dtype in the file, and in the model.
        outside: modules of the file that are not of the model.
        found: number of the file's tensors that the model has.
    """

    part: str
    prefix: str
    tensors: "Tensors"
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[tuple[str, str, str], ...]
    outside: tuple[str, ...]
    found: int

    @property
    def fits(self) -> bool:
        """Whether every tensor of the model is there, in its shape, and none besides."""
        return not (self.missing or self.unexpected or self.misshapen)

    def differences(self) -> str:
        """What does not fit: how many tensors, and the first of them."""
        if not self.found:
            return f"none of its tensors is known; they are {_listed([*self.outside])}"
        words = []
        if self.missing:
            words.append(f"{len(self.missing)} missing ({_listed(self.missing)})")
        if self.unexpected:
            words.append(f"{len(self.unexpected)} unexpected ({_listed(self.unexpected)})")
        if self.misshapen:
            each = [f"{name} {there}, not {here}" for name, there, here in self.misshapen]
            words.append(f"{len(each)} of another shape or dtype ({_listed(each)})")
        where = [f"under {self.part}"] if self.part else []
        where += [f"without their prefix {self.prefix}"] if self.prefix else []
        return f"{'; '.join(words)}{' (tensors ' * bool(where)}{' '.join(where)}{')' * bool(where)}"

    def remark(self, others: Iterable[str]) -> str:
        """Where the tensors lay, what was stripped, and what was left out; or ""."""
        words = [f"tensors under {self.part}"] if self.part else []
        words += [f"{other}, which fits too, was not used" for other in others]
        if self.prefix:
            words.append(f"prefix {self.prefix} stripped")
        if self.outside:
            words.append(f"left out: {_listed(self.outside)}")
        return ", ".join(words)


def _matches(part: str, found: "Tensors", wanted: _Wanted) -> Iterator[_Match]:
    """The ways to take a part of the file: as it is, or the tensors under one prefix."""
    today = {_name_today(name): values for name, values in found.items()}
    counts: Counter[str] = Counter()
    for name in today:
        words = name.split(".")
        for place in range(1, len(words)):
            if ".".join(words[place:]) in wanted.tensors:
                counts[".".join(words[:place]) + "."] += 1
    for prefix in ("", *(prefix for prefix, _ in counts.most_common(_PREFIXES))):
        yield _match(part, prefix, today, wanted)


def _match(part: str, prefix: str, found: "Tensors", wanted: _Wanted) -> _Match:
    inside = {n.removeprefix(prefix): v for n, v in found.items() if n.startswith(prefix)}
    have = {name: values for name, values in inside.items() if name in wanted.tensors}
    misshapen: list[tuple[str, str, str]] = []
    tensors: dict[str, torch.Tensor] = {}
    for name, values in have.items():
        here = wanted.tensors[name]
        scalar = values.numel() == here.numel() == 1
        fits_dtype = values.is_floating_point() or not here.is_floating_point()
        if (values.shape != here.shape and not scalar) or not fits_dtype:
            there, own = (f"{tuple(v.shape)}" for v in (values, here))
            if not fits_dtype:
                there, own = (str(v.dtype).removeprefix("torch.") for v in (values, here))
            misshapen.append((name, there, own))
            continue
        for same in wanted.tied.get(name, (name,)):
            tensors.setdefault(wanted.names[same], values.reshape(here.shape))
    extra = [name for name in inside if name not in wanted.tensors]
    unexpected = [name for name in extra if wanted.is_inside(name)]
    aside = [f"{prefix}{name}" for name in extra if name not in unexpected]
    aside += [name for name in found if not name.startswith(prefix)]
    return _Match(
        part, prefix, tensors, tuple(wanted.missing_from(have)), tuple(unexpected),
        tuple(misshapen), tuple(dict.fromkeys(_module(n) for n in aside)), len(have),
    )  # fmt: skip


def _module(name: str) -> str:
    """The module of a tensor, for messages."""
    return name.rpartition(".")[0] or name


def _name_today(name: str) -> str:
    for pattern, words in _RENAMED:
        name = pattern.sub(words, name)
    return name


def _listed(names: Sequence[str]) -> str:
    more = f", … {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _parts(found: Any, place: str = "") -> "Iterator[tuple[str, Tensors]]":  # noqa: ANN401
    """Dicts of tensors in what a file holds, by where they lie; the usual places first."""
    import torch

    if not isinstance(found, Mapping):
        return
    named = {key: value for key, value in found.items() if isinstance(key, str)}
    tensors = {key: value for key, value in named.items() if isinstance(value, torch.Tensor)}
    if tensors:
        yield place, tensors
    if place.count(".") + bool(place) < _DEPTH:
        order = sorted(named, key=lambda key: _PARTS.index(key) if key in _PARTS else len(_PARTS))
        for key in order:
            yield from _parts(named[key], f"{place}.{key}" if place else key)


def _read(encoder: str, path: Path) -> Any:  # noqa: ANN401 - whatever was saved
    """What a weights file holds, without running any code of it."""
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] == b"{" or path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise MmfuseError(f"{encoder}: {path} is cut or damaged: {error}") from error
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError, RuntimeError, ValueError, KeyError, TypeError, EOFError, OSError
    ) as error:  # fmt: skip
        code = re.search(r"GLOBAL ([\w.]+)|TorchScript", str(error))
        if code is None:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise MmfuseError(
                f"{encoder}: {path} cannot be read as weights ({first}); it has to be a "
                ".safetensors file, or a .pth, .pt or .bin file of tensors that torch saved"
            ) from error
        raise MmfuseError(
            f"{encoder}: {path} holds more than plain tensors ({code[1] or code[0]}), and code in "
            "weights files is never run; where it is trusted, save its tensors alone: "
            "torch.save(model.state_dict(), FILE)"
        ) from error
