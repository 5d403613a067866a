"""Resolving: which streams the words of a command mean, and what to do where they mean none."""

from collections import defaultdict
from collections.abc import Sequence

from cache.errors import MmfuseError
from cache.format.streams import StreamInfo


def resolve(
    dataset: str, streams: Sequence[StreamInfo], words: Sequence[str] | None
) -> list[StreamInfo]:
    """The complete streams that the words mean, in their order, each once; commas part words.

    Raises:
        MmfuseError: for a word that means none, or several fingerprints of one name, or streams
            whose rows belong to different samples.
    """
    if words is None:
        found = [info for info in streams if info.complete]
        if not found:
            raise _none(dataset, streams, None)
        _refuse_several_fingerprints(dataset, found)
    else:
        found = []
        for word in (part for listed in words for part in listed.split(",") if part):
            means = [i for i in streams if i.complete and _matches(word, i)]
            if not means:
                raise _none(dataset, streams, word)
            _refuse_several_fingerprints(dataset, means)
            found += [info for info in means if info not in found]
    _refuse_several_snapshots(dataset, found)
    return found


def names(infos: Sequence[StreamInfo]) -> list[str]:
    """What to call each of some streams: `clip/image`, or its label where several are called so."""
    plain = [info.key.name for info in infos]
    return [
        name if plain.count(name) == 1 else info.key.label
        for info, name in zip(infos, plain, strict=True)
    ]


def _matches(word: str, info: StreamInfo) -> bool:
    encoder, _, modality = word.partition("/")
    key = info.key
    return encoder in {key.encoder, key.label.partition("/")[0]} and modality in {"", key.modality}


def _none(dataset: str, streams: Sequence[StreamInfo], word: str | None) -> MmfuseError:
    half = [i for i in streams if not i.complete and (word is None or _matches(word, i))]
    if half:
        info = half[0]
        what = f"{info.key.label} of {dataset} is not complete"
        done = info.rows - info.counts["pending"]
        command = f"mmfuse extract --dataset {dataset} --encoder {info.key.encoder}"
        return MmfuseError(f"{what} ({done} of {info.rows} rows); to go on, run: {command}")
    encoder = "ENCODER" if word is None else word.partition("/")[0].partition("-")[0]
    command = f"mmfuse extract --dataset {dataset} --encoder {encoder}"
    known = sorted(i.key.name for i in streams if i.complete)
    there = f" (there are: {', '.join(known)})" if known else ""
    asked = "" if word is None else f" for {word}"
    return MmfuseError(f"no features of {dataset}{asked}{there}; run: {command}")


def _refuse_several_fingerprints(dataset: str, found: Sequence[StreamInfo]) -> None:
    named = defaultdict(list)
    for info in found:
        named[info.key.name].append(info)
    for name, several in named.items():
        if len(several) > 1:
            lines = "".join(f"\n  {i.key.label}{_differing(i, several)}" for i in several)
            raise MmfuseError(
                f"{dataset} has {len(several)} streams {name}; name one of them with "
                f"--features:{lines}"
            )


def _differing(info: StreamInfo, several: Sequence[StreamInfo]) -> str:
    words = [
        f"{field}={value}"
        for field, value in sorted(info.fields.items())
        if any(other.fields.get(field) != value for other in several)
    ]
    return f"  ({', '.join(words)})" if words else ""


def _refuse_several_snapshots(dataset: str, found: Sequence[StreamInfo]) -> None:
    if len({info.snapshot for info in found}) < 2:
        return
    lines = "".join(f"\n  {i.key.label}: {i.rows} rows, samples {i.snapshot[:8]}" for i in found)
    encoders = " ".join(f"--encoder {e}" for e in sorted({i.key.encoder for i in found}))
    alike = ",".join(i.key.name for i in found if i.snapshot == found[-1].snapshot)
    raise MmfuseError(
        f"these streams of {dataset} belong to different samples, so their rows do not match:"
        f"{lines}\nrun: mmfuse extract --dataset {dataset} {encoders}, or name some of the same "
        f"samples: --features {alike}"
    )
