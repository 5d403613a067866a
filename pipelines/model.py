"""fit(): extract, train and evaluate on a data frame in one call; the Model that it returns."""

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from cache.errors import MmfuseError
from cache.layout import Home
from cache.runs import RunRecord
from cache.samples import Kind
from cache.storage.objects import put
from pipelines.data.columns import parse_modality
from pipelines.data.dataset import Dataset
from pipelines.data.sources import open_dataset
from pipelines.data.tables import TableOptions, assemble
from pipelines.data.values.mixed_cells import column_of
from pipelines.encoding.encoder import Encoder, build_encoder
from pipelines.evaluation.evaluate import evaluate
from pipelines.evaluation.predict import Predictions, predict
from pipelines.evaluation.result import Evaluation
from pipelines.extract.extract import extract
from pipelines.extract.options import ExtractOptions
from pipelines.extract.plan import serving_encoders
from pipelines.features.missing import MissingPattern
from pipelines.reports.html import report
from pipelines.reports.runs import train_table
from pipelines.reports.table import Table
from pipelines.training.train import train

WEIGHT_FREE: dict[Kind, str] = {
    "image": "pixels",
    "text": "hashing",
    "code": "hashing",
    "audio": "mfcc",
    "tabular": "tabular",
    "series": "series",
}
"""The encoder of each kind of modality where `fit` is given none."""
_DOUBLE = 8  # bytes of the longest number that polars has
Note = Callable[[str], None]


@dataclass(frozen=True)
class Model:
    """A trained fusion head with the encoders of its features.

    Attributes:
        run: the record of the run, with its scores.
        home: where features and runs are.
        notes: what was guessed about the data, and which cells failed.
        encoders: those that were given or chosen.
        root: folder that paths in cells are relative to.
    """

    run: RunRecord
    home: Home
    notes: tuple[str, ...]
    encoders: tuple[Encoder, ...]
    root: Path | None

    def predict(self, data: object) -> Predictions:
        """Predict new samples; any modality may be absent.

        Args:
            data: a data frame (polars or pandas) or a dict of columns, as in `fit`; or of the cells
                of one sample.

        Raises:
            MmfuseError: where it has none of the run's modalities.
        """
        said: list[str] = []
        frame = as_frame(data, said.append)
        found = predict(self.home, self.run, frame, root=self.root, encoders=self.encoders)
        return replace(found, notes=(*said, *found.notes))

    def evaluate(self, missing: str | Sequence[str] | None = None) -> Evaluation:
        """Score the test rows with modalities hidden, beside complete data and baselines.

        Args:
            missing: as `--missing` of the command line: a modality, several joined by commas, or
                `all` for every set of them; several such words; None: each modality in turn.

        Raises:
            MmfuseError: for an unknown modality.
        """
        names = self.run.modalities
        if missing is None:
            patterns = [MissingPattern.named(name) for name in names] if len(names) > 1 else []
        else:
            words = [missing] if isinstance(missing, str) else missing
            patterns = [one for word in words for one in MissingPattern.parse(word, names)]
        return evaluate(self.home, self.run, patterns)

    def report(self, path: str | Path = "report.html") -> Path:
        """Write one HTML page about the run; it loads nothing from elsewhere.

        Args:
            path: the file, or a folder for `report.html`.

        Raises:
            MmfuseError: where the file cannot be written.
        """
        place = Path(path).expanduser()
        place = place / "report.html" if place.is_dir() else place
        try:
            put(place, report(self.home, [self.run]).encode())
        except OSError as error:
            raise MmfuseError(f"{place} cannot be written: {error.strerror}") from error
        return place

    def table(self) -> Table:
        """Scores of the run on validation and test rows, beside the baselines."""
        return train_table([self.run])

    def _repr_html_(self) -> str:
        return self.table().to_html()

    def __repr__(self) -> str:
        test = next(scores for scores in self.run.scores if scores.split == "test")
        name, values = next(iter(test.metrics.items()))
        score = f"test {name} {sum(values) / len(values):.3f} over {len(values)} seeds"
        streams = ", ".join(stream.name for stream in self.run.streams)
        return f"Model({self.run.method} on {self.run.dataset}: {score}; {streams})"


def fit(
    data: object,
    target: str | None = None,
    *,
    home: Home,
    encoders: Sequence[str | Encoder] | None = None,
    modalities: Sequence[str] | None = None,
    method: str = "concat",
    root: str | Path | None = None,
    table: TableOptions | None = None,
    options: Mapping[str, object] | None = None,
    device: str = "auto",
) -> Model:
    """Extract features, train a head and score it: what three commands do, on a data frame.

    Args:
        data: a data frame of polars or pandas, a dict of columns, or what `open_dataset` takes: a
            file, a folder, `digits`.
        target: the column to predict; else one named target, label, class or y.
        home: where features and runs go; ./artifacts if left out.
        encoders: words such as `pixels` or `clip:ViT-B-32`, or built ones; None: one without
            weights for each modality.
        modalities: words such as `poster=image` or `stats=tabular:height,weight`; None: guessed.
        method: name, or path of a file with `build`.
        root: folder that paths in cells are relative to; else the working folder, or the file's.
        table: how to read the data otherwise: splits, ids, groups, the task, a name.
        options: settings of training or of the method, as in `train`.
        device: auto, cpu, cuda.

    Returns:
        The model; its `notes` say what was guessed.

    Raises:
        MmfuseError: for what is wrong with the data, or an encoder that none of it can use.
    """
    notes: list[str] = []
    asked = table or TableOptions()
    if target is not None:
        asked = replace(asked, target=str(target))  # pandas may name columns by numbers
    if modalities is not None:
        asked = replace(asked, modalities=tuple(map(parse_modality, modalities)))
    dataset = _dataset(data, asked, None if root is None else Path(root), home, notes)
    words = _default_encoders(dataset) if encoders is None else encoders
    built = tuple(
        build_encoder(word, device=device, memory=home.weights) if isinstance(word, str) else word
        for word in words
    )
    serving = serving_encoders([dataset], built)[dataset.name]
    reports = extract(dataset, serving, home=home, options=ExtractOptions())
    for each in reports:
        if each.failures:
            why = ", ".join(f"{count} {reason}" for reason, count in each.failed.items())
            notes.append(f"{each.key.name}: {each.failures} of {each.rows} rows failed: {why}")
    streams = [each.key.label for each in reports if each.complete and each.ok]
    run = train(method, dataset.name, home=home, features=streams, options=options, device=device)
    return Model(run, home, tuple(notes), built, dataset.root)


def as_frame(data: object, tell: Note | None = None) -> pl.DataFrame:
    """A data frame of polars or pandas, or a dict of columns, as a polars data frame.

    Args:
        data: of cells of any type; a dict may also have one cell a column, and is then one row.
        tell: called with a sentence on cells that count as missing, or as words.

    Raises:
        MmfuseError: for anything else, columns of one name or different lengths, and objects that
            cannot be cells.
    """
    said = tell or (lambda _: None)
    if isinstance(data, pl.DataFrame):
        objects = [column for column in data if column.dtype == pl.Object]
        return data.with_columns(_column(each.name, each, said) for each in objects)
    if isinstance(data, Mapping):
        return _of_columns(list(data.items()), said)
    frame: Any = data
    if type(frame).__module__.partition(".")[0] == "pandas" and hasattr(frame, "columns"):
        cells = frame.astype(object)
        columns = [(name, cells.iloc[:, at].tolist()) for at, name in enumerate(cells.columns)]
        return _of_columns(columns, said)
    raise MmfuseError(f"expected a data frame of polars or pandas, or a dict, not {type(data)}")


def _of_columns(columns: Sequence[tuple[Any, Any]], tell: Note) -> pl.DataFrame:
    """A data frame that keeps the type of every cell, where those of a column differ."""
    names = [str(name) for name, _ in columns]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise MmfuseError(f"two columns are named {twice[0]!r}; rename one of them")
    single = [str(name) for name, cells in columns if not _is_column(cells)]
    if single and len(single) < len(columns):
        raise MmfuseError(
            f"column {single[0]!r} is one cell, beside columns that are lists; give a list of cells"
        )
    given = ((name, [cells] if single else cells) for name, cells in columns)
    found = [_column(str(name), cells, tell) for name, cells in given]
    if len({len(column) for column in found}) > 1:
        first = found[0]
        other = next(column for column in found if len(column) != len(first))
        raise MmfuseError(
            f"columns have different lengths: {first.name!r} has {len(first)} cells, "
            f"{other.name!r} has {len(other)}"
        )
    return pl.DataFrame(found)


def _is_column(cells: object) -> bool:
    """Whether a value of a dict is several cells: not a word, a path, a mapping or an image."""
    if isinstance(cells, str | bytes | bytearray | Mapping):
        return False
    return hasattr(cells, "__iter__") and getattr(cells, "ndim", 1) > 0


def _column(name: str, cells: Any, tell: Note) -> pl.Series:  # noqa: ANN401 - whatever was given
    """A column of cells of any type.

    Raises:
        MmfuseError: for a set, whose cells have no order.
    """
    if isinstance(cells, set | frozenset):
        raise MmfuseError(f"column {name!r} is a set, which has no order; give a list of cells")
    if isinstance(cells, pl.Series) and cells.dtype != pl.Object:
        return cells.alias(name)
    if isinstance(cells, np.ndarray) and cells.dtype.kind in "iufb" and cells.itemsize <= _DOUBLE:
        return pl.Series(name, cells)
    return column_of(name, list(cells), tell)


def _dataset(
    data: object, asked: TableOptions, root: Path | None, home: Home, notes: list[str]
) -> Dataset:
    if isinstance(data, str | Path):
        if root is not None:
            asked = replace(asked, root=str(root))
        opened = open_dataset(str(data), table=asked, note=notes.append, home=home)
        if len(opened) > 1:
            names = ", ".join(dataset.name for dataset in opened)
            raise MmfuseError(f"{data} is several datasets; name one of them: {names}")
        return opened[0]
    frame = as_frame(data, notes.append)
    if asked.name is None:
        asked = replace(asked, name=f"frame-{_digest(frame, asked)}")
    place = (root or Path()).expanduser().absolute()
    return assemble(frame, Path("the data frame"), place, asked, notes.append)


def _digest(frame: pl.DataFrame, asked: TableOptions) -> str:
    """Eight hex digits of the cells and of how they are read."""
    state = hashlib.blake2b(repr(asked).encode(), digest_size=4)
    for column in frame:
        buffer = io.BytesIO()
        column.to_frame().write_ipc(buffer)
        state.update(buffer.getbuffer())
    return state.hexdigest()


def _default_encoders(dataset: Dataset) -> list[str]:
    """Encoders without weights for the dataset's modalities.

    Raises:
        MmfuseError: where it has none that one of them encodes.
    """
    kinds = dict.fromkeys(modality.kind for modality in dataset.modalities)
    words = dict.fromkeys(WEIGHT_FREE[kind] for kind in kinds if kind in WEIGHT_FREE)
    if not words:
        raise MmfuseError(f"no encoder without weights for {', '.join(kinds)}; name encoders")
    return list(words)
