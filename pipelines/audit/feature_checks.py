"""Leaks visible in features: near-duplicates across splits, label-aware features, equal streams."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.samples import Samples
from pipelines.audit.finding import Finding, StreamArrays, Verdict, judge
from pipelines.device import threads_for

NEAR = 0.98  # cosine of standardised features from which two rows count as near-duplicates
FEW_DIMENSIONS = 16.0  # effective ones; below, unrelated rows are near at random: compare equality
DIFFERENT = 0.9  # share of train rows that must differ for equality to be informative
BLOCK = 2048  # rows of one side in a block of cosines
MOST = 5000  # rows that a probe is fitted on
FOLDS = 5
GAP = 0.10  # difference in accuracy of train and held-out rows that is suspect
PERFECT = 0.98  # held-out accuracy from which a table's columns are too good to be features
OTHERS = 10  # least held-out rows outside the most frequent class to judge that


def near_duplicates(name: str, seen: StreamArrays, samples: Samples) -> Finding:
    """Held-out rows that have a near-duplicate in train, by cosine of standardised features.

    Each column is standardised over the present rows, so that a large common part (a bias that all
    embeddings of a model share) does not make all rows near-duplicates. Features of few effective
    dimensions are near at random; there only equal rows count, and not even those where rows of
    train are often equal to one another.
    """
    train = np.flatnonzero(seen.present & (samples.splits == "train"))
    held = np.flatnonzero(seen.present & np.isin(samples.splits, ("val", "test")))
    if not len(train) or not len(held):
        return Finding("near-duplicates", name, "not checked", "nothing to compare")
    values = _standardised(seen.values[np.concatenate([train, held])])
    unit = _unit(values)
    dimensions = _effective_dimensions(unit)
    many = dimensions >= FEW_DIMENSIONS
    if not many and len(np.unique(values[: len(train)], axis=0)) < DIFFERENT * len(train):
        few = "few distinct values a row, and often the same: equal rows prove nothing"
        return Finding("near-duplicates", name, "not checked", few, {"dimensions": dimensions})
    compare = _nearest if many else _equal
    best, twin = compare(*np.split(unit if many else values, [len(train)])[::-1])
    close = best >= NEAR
    targets = samples.targets.reshape(len(samples), -1)  # (N, 1) or (N, C) of labels
    same = np.asarray((targets[held] == targets[train[twin]]).all(axis=1))
    count, share = int(close.sum()), float(close.mean())
    order = np.argsort(-best)[: min(10, count)]
    pairs = tuple((str(samples.ids[held[i]]), str(samples.ids[train[twin[i]]])) for i in order)
    agreeing = float(same[close].mean()) if count else 0.0
    what = f"have a near-duplicate in train (cosine ≥ {NEAR})" if many else "equal a train row"
    sentence = f"{count} of {len(held)} held-out rows {what}"
    if count:
        sentence += f"; {agreeing:.0%} of those pairs have the same target"
    verdict = judge(share, leak=0.05)
    numbers = {"count": count, "share": share, "dimensions": dimensions, "same target": agreeing}
    return Finding("near-duplicates", name, verdict, sentence, numbers, pairs)


def label_aware_features(
    name: str, seen: StreamArrays, samples: Samples, seed: int = 0, *, table: bool = False
) -> Finding:
    """Accuracy of a linear probe cross-validated on train rows, compared with held-out rows.

    Features whose extractor was trained on the labels of the train rows, and rows that repeat
    across folds, score far better on train than on held-out rows. Groups stay whole in the folds,
    so that a new speaker is as new there as in the held-out split. Columns of a
    table (`table`) that predict held-out rows almost without error, and with at most a tenth of the
    errors of the most frequent class, may be the target in another form; images or texts of an
    easy task may rightly be that good.
    """
    classes = _as_classes(samples)
    train = _subsample(seen.present & (samples.splits == "train"), seed)
    held = _subsample(seen.present & np.isin(samples.splits, ("val", "test")), seed)
    if len(train) < 50 or len(held) < 20 or len(np.unique(classes[train])) < 2:
        return Finding("probe", name, "not checked", "too few rows to judge")
    groups = None if samples.groups is None else samples.groups[train].astype(str)
    values = seen.values.astype(np.float64)
    among, model = _fit_probe(values[train], classes[train], groups, seed)
    score = float(model.score(values[held], classes[held]))
    gap = among - score
    error = np.sqrt(among * (1 - among) / len(train) + score * (1 - score) / len(held) + 1e-9)
    sentence = (
        f"a linear probe scores {among:.3f} cross-validated on train rows, and {score:.3f} on "
        f"held-out rows"
    )
    verdict: Verdict = "clear"
    if gap > GAP and gap > 4 * error:
        verdict = "leak" if gap > 2 * GAP else "suspect"
        sentence += (
            ": the feature extractor was probably trained on the train labels, or the held-out "
            "rows differ in distribution; never take validation rows from train"
        )
    if table and verdict == "clear" and _almost_perfect(score, classes[train], classes[held]):
        verdict = "suspect"
        sentence += (
            "; it predicts the target almost perfectly by itself: check whether one of its columns "
            "is the target in another form"
        )
    return Finding(
        "probe",
        name,
        verdict,
        sentence,
        {"train": among, "held out": score, "gap": gap},
    )


def identical_streams(streams: Mapping[str, StreamArrays]) -> Finding:
    """Streams with exactly the same vectors: one was written in the wrong place, or twice."""
    seen: dict[str, list[str]] = {}
    for name, stream in streams.items():
        values = np.where(stream.present[:, None], stream.values, 0)
        if not (values != values[:1]).any():
            continue  # constant streams are often equal
        known = hashlib.blake2b(values.tobytes(), digest_size=16).hexdigest()
        seen.setdefault(f"{values.shape} {known}", []).append(name)
    groups = [tuple(names) for names in seen.values() if len(names) > 1]
    sentence = "; ".join(f"{' and '.join(names)} hold the same vectors" for names in groups)
    summary = sentence or "no two streams hold the same vectors"
    verdict: Verdict = "suspect" if groups else "clear"
    return Finding("same-vectors", "", verdict, summary, {"groups": len(groups)}, tuple(groups))


def _standardised(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """(N, D) standardised by column; constant columns become 0."""
    values = values.astype(np.float32)
    values -= values.mean(axis=0)
    std = values.std(axis=0)
    values /= np.where(std > 1e-6 * max(float(std.max()), 1e-12), std, np.inf)
    return values


def _unit(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, D) with rows of norm 1."""
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.maximum(norms, 1e-12), np.float32)


def _effective_dimensions(values: NDArray[np.float32]) -> float:
    """The participation ratio of the spectrum: (Σλ)² / Σλ²."""
    sample = values[:: max(1, len(values) // 4096)].astype(np.float64)
    gram = sample.T @ sample if sample.shape[0] > sample.shape[1] else sample @ sample.T
    return float(np.trace(gram) ** 2 / max(float((gram**2).sum()), 1e-12))


def _nearest(
    rows: NDArray[np.float32], others: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Highest cosine of each row with the others, and the index of that one; by blocks."""
    best = np.full(len(rows), -1, np.float32)
    twin = np.zeros(len(rows), np.int64)
    for top in range(0, len(rows), BLOCK):
        part = slice(top, top + BLOCK)
        for left in range(0, len(others), BLOCK):
            cosine = rows[part] @ others[left : left + BLOCK].T  # (BLOCK, BLOCK)
            place = cosine.argmax(axis=1)
            value = cosine[np.arange(len(cosine)), place]
            better = value > best[part]
            best[part] = np.where(better, value, best[part])
            twin[part] = np.where(better, place + left, twin[part])
    return best, twin


def _equal(
    rows: NDArray[np.float32], others: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """1 for each row that equals one of the others, else 0, and the index of that one."""
    known = {other.tobytes(): place for place, other in reversed(list(enumerate(others)))}
    places = [known.get(row.tobytes(), -1) for row in rows]
    found = np.array(places, np.int64)
    return (found >= 0).astype(np.float32), np.maximum(found, 0)


def _fit_probe(
    values: NDArray[np.float64],
    classes: NDArray[np.int64],
    groups: NDArray[np.str_] | None,
    seed: int,
) -> tuple[float, Any]:
    """Cross-validated accuracy of the probe on train rows, and the probe fitted on all of them."""
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.model_selection import GroupKFold, KFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), RidgeClassifierCV(np.logspace(-1, 5, 7)))
    count = 0 if groups is None else len(np.unique(groups))
    whole = count > 1
    folds = (
        GroupKFold(min(FOLDS, count)) if whole else KFold(FOLDS, shuffle=True, random_state=seed)
    )
    with threads_for(float(values.size) * min(values.shape)):  # of a decomposition
        groups = groups if whole else None
        scores = cross_val_score(model, values, classes, groups=groups, cv=folds)
        return float(scores.mean()), model.fit(values, classes)


def _as_classes(samples: Samples) -> NDArray[np.int64]:
    """(N,) classes: as they are, the most balanced label, or above and below the train median."""
    if samples.task.kind == "classes":
        return np.asarray(samples.targets, np.int64)
    if samples.task.kind == "labels":
        balance = np.abs(samples.targets.mean(axis=0) - 0.5)
        return np.asarray(samples.targets[:, int(balance.argmin())], np.int64)
    middle = np.median(samples.targets[samples.splits == "train"])
    return np.asarray(samples.targets > middle, np.int64)


def _almost_perfect(score: float, train: NDArray[np.int64], held: NDArray[np.int64]) -> bool:
    """Whether held-out accuracy is near 1 by more than the most frequent class explains."""
    others = held != np.bincount(train).argmax()
    return score >= PERFECT and others.sum() >= OTHERS and 1 - score <= 0.1 * others.mean()


def _subsample(wanted: NDArray[np.bool_], seed: int) -> NDArray[np.int64]:
    rows = np.flatnonzero(wanted)
    if len(rows) <= MOST:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, MOST, replace=False))
