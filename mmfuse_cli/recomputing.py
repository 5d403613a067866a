"""mmfuse cache verify --recompute: random rows encoded once more, as a table."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmfuse_cli import words

if TYPE_CHECKING:
    from pipelines.reports.table import Table


def again(
    asked: words.Settings,
    dataset: str | None,
    encoders: Sequence[str],
    weights: str | None,
    count: int,
) -> "Table":
    """A row a stream: how many rows were encoded again, the worst cosine, how many differ.

    Raises:
        MmfuseError: without --encoder, or for a stream that these words did not make.
    """
    import mmfuse
    from pipelines.extract.recompute import complete, recompute
    from pipelines.reports.table import Table

    if not encoders:
        raise mmfuse.MmfuseError("--recompute needs --encoder, the same words as extract was told")
    found = []
    for name in words.stored(asked, dataset):
        (raw,) = mmfuse.open_dataset(name, roots=asked.roots, home=asked.layout)
        built = [mmfuse.build_encoder(word, weights=weights) for word in encoders]
        plans = complete(raw, built, home=asked.layout)
        for each in recompute(name, plans, home=asked.layout, count=count):
            line = (name, each.key.label, len(each.rows), f"{each.worst:.6f}", len(each.differing))
            found.append(line)
    columns = ("dataset", "stream", "encoded again", "worst cosine", "differ")
    return Table("recomputed", columns, tuple(found))
