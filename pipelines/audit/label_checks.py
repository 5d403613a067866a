"""Label leaks outside the features: groups across splits, class names in texts, absence."""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cache.samples import Samples
from pipelines.audit.finding import Finding, Verdict, judge

RARE = 0.01  # p-value, divided by the number of tests made


def groups_on_both_sides(samples: Samples) -> Finding:
    """Groups (families, speakers, videos) with rows in train and in a held-out split."""
    if samples.groups is None:
        return Finding(
            "groups", "", "not checked", "the dataset has no groups; name them with --group COLUMN"
        )
    sides: dict[str, set[str]] = {}
    for group, split in zip(samples.groups, samples.splits, strict=True):
        if group is not None and split:
            sides.setdefault(str(group), set()).add("train" if split == "train" else "held out")
    both = sorted(group for group, found in sides.items() if len(found) == 2)
    torn = np.isin(samples.groups.astype(str), both)
    held = np.isin(samples.splits, ("val", "test"))
    count = int((torn & held).sum())
    share = count / max(1, int(held.sum()))
    sentence = (
        f"{len(both)} of {len(sides)} groups are in train and in a held-out split, "
        f"with {count} held-out rows ({share:.0%})"
    )
    numbers = {"groups": len(both), "rows": count, "share": share}
    rows = tuple((group,) for group in both[:10])
    return Finding("groups", "", judge(share, leak=0.05), sentence, numbers, rows)


def label_words(name: str, texts: Sequence[str | None], samples: Samples) -> Finding:
    """Texts that contain the name of their own class, and how often a named class is right."""
    if samples.task.kind != "classes":
        return Finding("label-words", name, "not checked", "only a task of classes has class names")
    patterns = [_pattern(word) for word in samples.task.names]
    if not any(patterns):
        return Finding("label-words", name, "not checked", "the class names are not words")
    named = np.zeros((len(texts), len(patterns)), bool)
    for row, text in enumerate(texts):
        for label, pattern in enumerate(patterns):
            named[row, label] = bool(text and pattern and pattern.search(text))
    targets = np.asarray(samples.targets, np.int64)
    own = named[np.arange(len(texts)), targets]
    any_named = named.any(axis=1)
    share = float(own.mean())
    trust = float(own[any_named].mean()) if any_named.any() else 0.0
    base = float(np.bincount(targets).max() / len(targets))
    sentence = (
        f"{int(own.sum())} of {len(texts)} texts ({share:.0%}) contain the name of their own "
        f"class; of the {int(any_named.sum())} that name any class, {trust:.0%} name the right one"
    )
    verdict: Verdict = "clear"
    if share >= 0.01 and trust > base:
        verdict = "leak" if share >= 0.5 and trust >= 0.9 else "suspect"
    rows = tuple((str(samples.ids[row]),) for row in np.flatnonzero(own)[:10])
    return Finding("label-words", name, verdict, sentence, {"share": share, "trust": trust}, rows)


def label_in_ids(samples: Samples) -> Finding:
    """Ids that contain the name of their own class, as a word or the name of a folder.

    Ids are not features; the finding warns against using them as text.
    """
    return _in_names("label-in-ids", "ids", [str(name) for name in samples.ids], samples)


def label_in_files(name: str, paths: Sequence[str | None], samples: Samples) -> Finding:
    """Names of files or folders that contain the name of their own class.

    Their contents are the features, not their names; the finding warns against using the names.

    Args:
        name: the modality.
        paths: (N,) its cells.
        samples: the rows.
    """
    found = _in_names("label-in-files", "names of files", paths, samples)
    return replace(found, about=name)


def _in_names(check: str, what: str, names: Sequence[str | None], samples: Samples) -> Finding:
    plain = [re.sub(r"[\W\d_]+", " ", name or "") for name in names]  # `tree_0.png` has a tree
    found = label_words("", plain, samples)
    if found.verdict in ("clear", "not checked") and samples.task.kind == "classes":
        found = _own_folder(names, samples)
    if found.verdict in ("clear", "not checked"):
        return replace(found, check=check)
    sentence = found.sentence.replace("texts", what) + "; never use ids or paths as features"
    return replace(found, check=check, verdict="suspect", sentence=sentence)


def _own_folder(names: Sequence[str | None], samples: Samples) -> Finding:
    """Whether most names lie in a folder that is called as their class, such as `7/a.png`."""
    classes = samples.task.names
    own = [
        classes[int(target)] in re.split(r"[\\/]", name or "")[:-1]
        for name, target in zip(names, samples.targets, strict=True)
    ]
    share = sum(own) / max(1, len(own))
    sentence = f"{sum(own)} of {len(own)} texts ({share:.0%}) name their own class as a folder"
    verdict: Verdict = "suspect" if share >= 0.5 else "clear"
    return Finding("", "", verdict, sentence, {"share": share})


def informative_absence(
    name: str, present: NDArray[np.bool_], samples: Samples, tests: int = 1
) -> Finding:
    """Whether a modality's absence is associated with the target: χ², or ranks for values.

    Args:
        name: the modality.
        present: (N,) whether each row has it.
        samples: the rows.
        tests: how many such tests are made; the p-value has to be that much smaller.
    """
    from scipy import stats

    missing = int((~present).sum())
    if missing < 5 or present.sum() < 5:
        return Finding("absence", name, "not checked", f"{missing} rows lack it; too few to judge")
    if samples.task.kind == "value":
        ranks = stats.mannwhitneyu(samples.targets[present], samples.targets[~present])
        p = float(ranks.pvalue)
        effect = abs(2 * float(ranks.statistic) / (missing * int(present.sum())) - 1)
        strength = f"rank-biserial correlation {effect:.2f}"
    else:
        labels = _columns_of_classes(samples)
        found = [_cramer(present, column) for column in labels]
        p = min(1.0, min(p for p, _ in found) * len(found))
        effect = max(effect for _, effect in found)
        strength = f"Cramér's V {effect:.2f}"
    verdict: Verdict = "clear"
    if p < RARE / tests:
        verdict = "leak" if effect > 0.5 else "suspect"
    how = "is" if verdict != "clear" else "is not"
    sentence = (
        f"{missing} rows lack it, and that {how} associated with the target "
        f"(p = {p:.2g}, {strength})"
    )
    return Finding("absence", name, verdict, sentence, {"p": p, "effect": effect, "rows": missing})


def _pattern(name: str) -> re.Pattern[str] | None:
    """Pattern of a class name as whole words, however joined; None for numbers and letters."""
    words = re.findall(r"[A-Za-zÀ-ÿ]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name))
    if len("".join(words)) < 2:
        return None
    return re.compile(r"\b" + r"[\W_]+".join(map(re.escape, words)) + r"\b", re.IGNORECASE)


def _columns_of_classes(samples: Samples) -> list[NDArray[np.int64]]:
    """One column of classes, or one of zeros and ones a label."""
    if samples.task.kind == "classes":
        return [np.asarray(samples.targets, np.int64)]
    return list(np.asarray(samples.targets, np.int64).T)


def _cramer(present: NDArray[np.bool_], classes: NDArray[np.int64]) -> tuple[float, float]:
    """p-value of χ² between absence and class, and Cramér's V."""
    from scipy import stats

    table = np.zeros((2, int(classes.max()) + 1))
    np.add.at(table, (present.astype(int), classes), 1)
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return 1.0, 0.0
    found = stats.chi2_contingency(table, correction=False)
    return float(found.pvalue), float(np.sqrt(found.statistic / table.sum()))
