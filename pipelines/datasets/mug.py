"""MuG: classify game cards, monsters and skins by image, text and table; eight tasks.

J. Lu et al., "MuG: A Multimodal Classification Benchmark on Game Data with Tabular, Textual, and
Visual Fields" (2023), https://arxiv.org/abs/2302.02978. A task is a folder with `info.json`,
`train.csv`, `dev.csv`, `test.csv` and the images in `train_images.zip` … or `train_images/` …;
other data in this layout is read as well.

`info.json` must name the `label`; it may name `id_col`, `image_col`, `text_cols`,
`categorical_cols`, `numerical_cols` and `classes`. Where it names no columns, their kinds
are guessed from their cells in all three files (never from the label): every cell a number,
numeric; more than one value in a hundred distinct and three words or more a value, or most values
distinct, textual; else categorical. The id, the label, images, columns with one value, and numbers
that number the rows are left out. Empty cells are missing; `None` is a word (a class of pkm_t2).

Text is the textual and categorical cells joined by spaces in column order, as in the paper, missing
ones skipped; table is the numeric and categorical ones. A `splits.csv` in the task's folder or
above it (id, group, and columns of splits) gives groups and other splits (`--split group_split`).
"""

import json
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from cache.errors import MmfuseError, unknown
from cache.samples import Kind, Modality, Task
from pipelines.data import splits
from pipelines.data.dataset import Dataset

NEEDS_DATA = True
SOURCE = (
    "figshare, https://doi.org/10.6084/m9.figshare.21454413: unzip it so that "
    "Pokemon-primary_type/info.json and its neighbours lie there"
)
LOOKS_FOR = ("*/info.json", "*/*/info.json")

SHORT = {
    "Pokemon-primary_type": "pkm_t1",
    "Pokemon-secondary_type": "pkm_t2",
    "Hearthstone-All-cardClass": "hs_ac",
    "Hearthstone-All-set": "hs_as",
    "Hearthstone-Minion-race": "hs_mr",
    "Hearthstone-Spell-spellSchool": "hs_ss",
    "LeagueOfLegends-Skin-category": "lol_sc",
    "CSGO-Skin-quality": "csgo_sq",
}
MODALITIES: dict[str, Kind] = {"image": "image", "text": "text", "table": "tabular"}
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")


def build(root: Path, *, task: str | None = None, split: str | None = None) -> list[Dataset]:
    """Every task below `root`, or one.

    Args:
        root: folder with one folder a task, or with folders of those.
        task: a folder's name or its short name, such as `pkm_t1`.
        split: a column of `splits.csv` to use in place of the three files.

    Raises:
        MmfuseError: for an unknown task, or a folder in another layout.
    """
    found = tasks(root)
    if task is None:
        return [read(folder, f"mug/{name}", split=split) for name, folder in found.items()]
    names = {word.lower(): name for name, path in found.items() for word in (name, path.name)}
    if task.lower() not in names:
        absent = [word for pair in SHORT.items() if task in pair for word in pair]
        if absent:
            raise MmfuseError(f"{root} holds no {absent[0]} ({absent[1]}); {_zipped(root)}{SOURCE}")
        raise unknown(f"task of mug in {root}", task, found)
    name = names[task.lower()]
    return [read(found[name], f"mug/{name}", split=split)]


def tasks(root: Path) -> dict[str, Path]:
    """Short name, or else folder name → folder, for every task below `root`, sorted."""
    folders = sorted({path.parent for pattern in LOOKS_FOR for path in root.glob(pattern)})
    if not folders:
        raise MmfuseError(
            f"{root} holds no task (a folder with info.json); {_zipped(root)}{SOURCE}"
        )
    found: dict[str, Path] = {}
    for folder in folders:
        name = SHORT.get(folder.name, folder.name)
        if name in found:
            raise MmfuseError(f"mug has {name} twice: {found[name]} and {folder}; move one away")
        found[name] = folder
    return found


def read(folder: Path, name: str, *, split: str | None = None) -> Dataset:
    """One task's folder as a dataset called `name`."""
    info = _info(folder)
    label = str(info["label"])
    cells = _rows(folder)
    if label not in cells.columns:
        raise MmfuseError(f"{folder}: no column for the label {label!r} in train.csv")
    ids, _, image, kinds = _layout(info, cells)
    value = str(info.get("task", "")).startswith("regress")
    table = pl.DataFrame(
        {"id": ids, "split": splits.parse_split_words(cells["split of"], str(folder))}
    )
    target, task = _target(cells[label], info, folder, value=value)
    modalities = _modalities(cells, image, kinds)
    table = table.with_columns(target, *modalities)
    return Dataset(
        name=name,
        table=_regrouped(table, folder, split),
        modalities=tuple(Modality(column.name, MODALITIES[column.name]) for column in modalities),
        task=task,
        root=folder,
        licence=f"as its source says: {SOURCE.split(':')[0]}" if folder.name in SHORT else "",
    )


def new_rows(folder: Path, rows: pl.DataFrame) -> pl.DataFrame:
    """New samples in columns of the task's own files as its modalities; other columns stay.

    Raises:
        MmfuseError: for a folder in another layout, or words where numbers belong.
    """
    info = _info(folder)
    _, named, image, kinds = _layout(info, _rows(folder))
    own = [column for column in (*kinds, image) if column in rows.columns]
    cells = rows.select(_blank_to_null(rows[column].cast(pl.String)) for column in own)
    there = {column: kind for column, kind in kinds.items() if column in own}
    made = _modalities(cells, image if image in own else None, there)
    names = rows[named].alias("id") if named in rows.columns else None
    rest = rows.drop(own, *([named] if names is not None else []))
    return rest.with_columns(*made, *([] if names is None else [names]))


def _layout(
    info: Mapping[str, object], cells: pl.DataFrame
) -> tuple[pl.Series, str, str | None, dict[str, str]]:
    """Ids, the column they come from, the column of images, and the kinds of the others."""
    image = _image_column(info, cells)
    ids, named = _ids(info, cells)
    return ids, named, image, _kinds(info, cells, {str(info["label"]), image or "", named})


def _modalities(
    cells: pl.DataFrame, image: str | None, kinds: Mapping[str, str]
) -> list[pl.Series]:
    """One column per modality, named after it, for those that have columns."""
    made = [cells[image].alias("image")] if image else []
    words = [column for column, kind in kinds.items() if kind != "numeric"]
    if words:
        joined = cells.select(pl.concat_str(words, separator=" ", ignore_nulls=True)).to_series()
        made.append(_blank_to_null(joined.alias("text")))
    record = _record(cells, kinds)
    return made if record is None else [*made, record]


def _info(folder: Path) -> Mapping[str, object]:
    path = folder / "info.json"
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise MmfuseError(f"{path} is not JSON: {error}") from error
    if not isinstance(info, dict) or "label" not in info:
        raise MmfuseError(f"{path} does not name the label's column ('label')")
    return info


def _rows(folder: Path) -> pl.DataFrame:
    """The three files concatenated: strings or null, and their origin (`split of`, `row of`)."""
    parts = []
    for word in ("train", "dev", "test"):
        path = folder / f"{word}.csv"
        if not path.is_file():
            raise MmfuseError(f"{folder} lacks {word}.csv")
        try:
            part = pl.read_csv(path, infer_schema=False)
        except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
            raise MmfuseError(f"{path} is not a table: {error}") from error
        part = part.with_columns(_blank_to_null(column) for column in part)
        parts.append(part.with_columns(pl.lit(word).alias("split of")).with_row_index("row of"))
    return pl.concat(parts, how="diagonal")


def _blank_to_null(column: pl.Series) -> pl.Series:
    return column.set(column.str.strip_chars() == "", None)


def _columns(info: Mapping[str, object], key: str) -> list[str]:
    names = info.get(key)
    return [str(name) for name in names] if isinstance(names, list) else []


def _image_column(info: Mapping[str, object], cells: pl.DataFrame) -> str | None:
    named = info.get("image_col")
    if isinstance(named, str) and named in cells.columns:
        return named
    for column in cells.drop("row of", "split of"):
        values = column.drop_nulls().str.to_lowercase()
        if len(values) and all(value.endswith(_PICTURES) for value in values):
            return column.name
    return None


def _ids(info: Mapping[str, object], cells: pl.DataFrame) -> tuple[pl.Series, str]:
    """The ids and the column they come from; rows are numbered by file where there is none."""
    named = str(info.get("id_col", ""))
    for name in (named, *(column for column in cells.columns if column.lower() == "id")):
        if name in cells.columns:
            column = cells[name]
            if name == named or not (column.null_count() or column.is_duplicated().any()):
                return column.alias("id"), name
    numbered = pl.format("{}-{}", "split of", pl.col("row of").cast(pl.String).str.zfill(5))
    return cells.select(numbered.alias("id")).to_series(), ""


def _kinds(info: Mapping[str, object], cells: pl.DataFrame, taken: set[str]) -> dict[str, str]:
    """Column → numeric, categorical or textual, in column order; as named, or else by its cells."""
    keys = {"text_cols": "textual", "categorical_cols": "categorical", "numerical_cols": "numeric"}
    if any(key in info for key in keys):
        named = {column: kind for key, kind in keys.items() for column in _columns(info, key)}
        return {column: named[column] for column in cells.columns if column in named}
    rest = [column for column in cells.drop("row of", "split of") if column.name not in taken]
    kinds = {column.name: _kind(column) for column in rest}
    return {column: kind for column, kind in kinds.items() if kind}


def _kind(column: pl.Series) -> str | None:
    values = column.drop_nulls()
    distinct = values.unique()
    if len(distinct) < 2:
        return None
    if values.cast(pl.Float64, strict=False).null_count() == 0:
        numbering = len(distinct) == len(column) and column.name.lower().endswith("id")
        return None if numbering else "numeric"
    share = len(distinct) / len(values)
    words = float(distinct.str.count_matches(r"\S+").mean() or 0)  # type: ignore[arg-type]
    return "textual" if (share > 0.01 and words >= 3) or share > 0.5 else "categorical"


def _target(
    column: pl.Series, info: Mapping[str, object], folder: Path, *, value: bool
) -> tuple[pl.Series, Task]:
    if column.null_count():
        raise MmfuseError(f"{folder}: {column.null_count()} rows have no {column.name}")
    if value:
        return column.cast(pl.Float64).alias("target"), Task("value", (column.name,))
    found = column.unique()
    whole = found.cast(pl.Int64, strict=False)
    order = found.sort() if whole.null_count() else found.gather(whole.arg_sort())
    names = _columns(info, "classes") or order.to_list()
    strange = sorted(set(found) - set(names))
    if strange:
        raise MmfuseError(f"{folder / 'info.json'}: classes lacks {strange[:5]}")
    numbers = column.replace_strict({name: number for number, name in enumerate(names)})
    return numbers.cast(pl.Int64).alias("target"), Task("classes", tuple(names))


def _record(cells: pl.DataFrame, kinds: Mapping[str, str]) -> pl.Series | None:
    fields = []
    for column, kind in kinds.items():
        if kind == "numeric":
            fields.append(_numbers(cells[column]))
        elif kind == "categorical":
            fields.append(cells[column])
    if not fields:
        return None
    frame = pl.DataFrame(fields)
    some = pl.any_horizontal(pl.all().is_not_null())
    return frame.select(pl.when(some).then(pl.struct(pl.all())).alias("table")).to_series()


def _numbers(column: pl.Series) -> pl.Series:
    numbers = column.cast(pl.Float64, strict=False)
    wrong = column.filter(numbers.is_null() & column.is_not_null())
    if len(wrong):
        raise MmfuseError(f"column {column.name!r} is listed as numeric but holds {wrong[0]!r}")
    return numbers.set(numbers.is_nan(), None)


def _regrouped(table: pl.DataFrame, folder: Path, split: str | None) -> pl.DataFrame:
    """The table with groups, and with another split if requested."""
    path = next(
        (p for p in (folder / "splits.csv", folder.parent / "splits.csv") if p.is_file()), None
    )
    if path is None:
        if split:
            raise MmfuseError(f"{folder} has no splits.csv with a column {split!r}")
        return table
    other = pl.read_csv(path, infer_schema=False)
    if split and split not in other.columns:
        raise unknown(f"split in {path}", split, set(other.columns) - {"id", "group"})
    if (
        not {"id", "group"} <= set(other.columns)
        or not table["id"].is_in(other["id"].implode()).all()
    ):
        if split:
            raise MmfuseError(f"{path} does not hold every id of {folder}")
        return table
    other = other.unique("id", keep="first")
    joined = table.join(other, on="id", how="left", maintain_order="left", suffix=" of splits")
    if split:
        column = "split of splits" if split == "split" else split
        table = table.with_columns(splits.parse_split_words(joined[column], str(path)))
    return table.with_columns(joined["group"])


def _zipped(root: Path) -> str:
    names = [path.name for path in root.glob("*.zip") if path.stem in SHORT]
    return f"unzip {', '.join(sorted(names))}; " if names else ""
