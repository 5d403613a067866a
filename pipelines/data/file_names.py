"""Recognise names of files and URLs among the cells of a column."""

import polars as pl

from cache.samples import Kind
from pipelines.data.values.column_types import MISSING_WORDS
from pipelines.media.file_kinds import SUFFIXES

URL = r"^([A-Za-z][A-Za-z0-9+.-]*://|www\.[^\s/]+\.|//[^\s/]+\.|data:[a-z]+/[\w.+-]+[;,])"
"""Pattern of a cell that is a URL; `file:` ones begin with it too, see `is_url`."""
# Endings of names: behind a folder any; without a folder some that no web address has, or one and
# the same unknown one in most cells.
_QUERY = r"[?#][^\s\\/]*$"
_PATH = r"^[^\n<>|*?]*[\\/][^\n<>|*?\\/]*\.([a-z][a-z0-9]{0,9})$"
_BARE_NAME = (
    r"^[^\n<>|*?\\/@]+\.(pdf|docx?|xlsx?|pptx?|txt|csv|tsv|json|xml|html?|zip|gz|tar|npy|npz|pt|"
    r"pth|dcm|nii|svg|eps|psd|raw|cr2|nef|dng|midi?|bin|dat|mat|h5|hdf5|parquet|pkl|pickle|mp2|"
    r"svs|ndpi|arrow|feather|nrrd|mha|obj|ply|stl|edf|fits?)$"
)
_OTHER_NAME = r"^[^\s\\/@]+\.([a-z][a-z0-9]{2,9})$"
_WITHOUT_ENDING = r"^[^\s<>|*?\"]*[^\s<>|*?\"\d.,:\\/-][^\s<>|*?\"]*[\\/][^\s<>|*?\"]+$"
_DOMAINS = ("com", "org", "net", "edu", "gov", "mil", "int", "info", "biz", "app", "dev", "xyz")
_MOST = 0.9  # share of the cells that decides what a column is
_DISTINCT = 0.5  # share of different words from which they are names rather than categories


def is_url(cells: pl.Series) -> pl.Series:
    """(N,) bool, cells that name something elsewhere, which is not fetched."""
    lowered = cells.str.strip_chars().str.to_lowercase()
    return lowered.str.contains(URL) & ~lowered.str.starts_with("file:")


def without_missing_words(cells: pl.Series) -> pl.Series:
    """(N,) String, null for words that say "no value", such as NA."""
    missing = cells.str.strip_chars().str.to_lowercase().is_in(MISSING_WORDS)
    return cells.set(missing, None) if missing.any() else cells


def kind_of_paths(cells: pl.Series) -> tuple[Kind | None, str] | None:
    """The kind that file names stand for and the reason; None for what are no names or URLs.

    Args:
        cells: (N,) words.
    """
    words = without_missing_words(cells).drop_nulls().str.strip_chars()
    if not len(words):
        return None
    urls = is_url(words)
    known = "|".join(ending[1:] for own in SUFFIXES.values() for ending in own)
    bare = words.set(urls, None).str.to_lowercase()
    bare = pl.select(
        pl.when(bare.str.contains(r"[\\/]")).then(bare.str.replace(_QUERY, "")).otherwise(bare)
    ).to_series()
    named = bare.str.extract(rf"\.({known})$").alias("ending")
    for other in (_PATH, _BARE_NAME):
        named = named.fill_null(bare.str.extract(other))
    if words.n_unique() > _DISTINCT * len(words):
        named = named.fill_null(_one_ending(bare))
        named = named.fill_null(
            bare.str.contains(_WITHOUT_ENDING).replace_strict(
                {True: "", False: None}, return_dtype=pl.String
            )
        )
    found = int(urls.sum()) + int(named.is_not_null().sum())
    if found <= _MOST * len(words):
        return None
    if 2 * urls.sum() > len(words):
        first = words.filter(urls)[0][:40]
        return None, f"URLs like {first!r}; they are not fetched: download the files first"
    endings = named.drop_nulls().value_counts(sort=True)["ending"].to_list()
    kinds: list[Kind] = [k for k, own in SUFFIXES.items() if any(f".{e}" in own for e in endings)]
    if len(kinds) == 1:
        return kinds[0], f"names of files like {words[0][-24:]!r}"
    hint = "say which kind they are: --modality NAME=KIND:COLUMN"
    shown = ", ".join(f".{ending}" for ending in endings[:4] if ending)
    if not shown:
        return None, f"names of files without an ending, like {words[0][-24:]!r}; {hint}"
    also = " and URLs, which are not fetched" if urls.any() else ""
    return None, f"names of files that end in {shown}{also}; {hint}"


def _one_ending(words: pl.Series) -> pl.Series:
    """(N,) the ending where most words have one and the same, which no web address has."""
    endings = words.str.extract(_OTHER_NAME).alias("ending")
    counts = endings.drop_nulls().value_counts(sort=True)
    most = len(counts) and counts["count"][0] * 2 > len(words)
    if not most or counts["ending"][0] in _DOMAINS:
        return pl.Series("ending", [None], pl.String).new_from_index(0, len(words))
    return endings
