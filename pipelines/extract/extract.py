"""Extraction: plan → read and prepare → batch → encode → write, each leg timed; stage 1."""

from collections.abc import Sequence

from cache.layout import Home
from pipelines.data import origins
from pipelines.data.dataset import Dataset
from pipelines.encoding.encoder import Encoder
from pipelines.extract.estimate import Estimate, estimate
from pipelines.extract.plan import StreamPlan, plan, unserved
from pipelines.extract.report import StreamReport
from pipelines.extract.session import ExtractOptions, Session
from pipelines.progress import Track, untracked

__all__ = [
    "Estimate",
    "ExtractOptions",
    "StreamPlan",
    "StreamReport",
    "estimate",
    "extract",
    "plan",
    "unserved",
]


def extract(
    dataset: Dataset,
    encoders: Sequence[Encoder],
    *,
    home: Home,
    options: ExtractOptions | None = None,
    track: Track | None = None,
) -> list[StreamReport]:
    """Fill the store with every encoder's features of every modality that it serves.

    Only inputs that no store under this home holds are encoded. Ctrl-C finishes the batch in hand,
    keeps what was done, and ends the list with a report that says `interrupted`; the next call
    goes on by itself. A second Ctrl-C does not wait for the batch.

    Args:
        dataset: the rows.
        encoders: built ones, such as `build_encoder("pixels")`.
        home: where the store is.
        options: how to go about it.
        track: progress, called as `track(items, label, total)`.

    Returns:
        One report a stream, in the order of the modalities.

    Raises:
        MmfuseError: what the person at the keyboard can mend; what was done before it is kept.
    """
    options, track = options or ExtractOptions(), track or untracked
    origins.keep(home, dataset)
    plans = plan(
        dataset,
        encoders,
        home=home,
        retry_failed=options.retry_failed,
        rehash=options.rehash,
        track=track,
    )
    skipped, samples = unserved(dataset, encoders), dataset.samples()
    reports: list[StreamReport] = []
    with Session(home, options, track, samples) as session:
        for one in plans:
            reports.append(session.extract(one, skipped))
            if reports[-1].interrupted:
                break
    return reports
