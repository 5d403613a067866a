"""Array files (.npy .npz .parquet .safetensors .h5 .pkl) → vectors by sample id.

A file is read as a tree of named arrays. The array is found by its name, at the top or in every
group (train, valid, test …), whose parts are concatenated; ids are beside it, see `ID_NAMES`. A
tree whose names are the ids themselves, each with its own vector, is read too. Vectors without ids
are in the order of the file, unless it has several groups or words that may be ids.
Nothing in a file is ever executed: pickles are read by an unpickler that allows numpy only.
"""

import io
import math
import pickle
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import MmfuseError

ID_NAMES = ("id", "ids", "sample_id", "sample_ids")  # in small or capital letters
_MAPPED = 1 << 24  # bytes from which an array is mapped where it lies, and not read
_MAX_DEFLATED = 1100  # times that deflating can shorten bytes, and a little more
NAMES_ARE_IDS = "."  # instead of an array's name
SUFFIXES = (".npy", ".npz", ".parquet", ".safetensors", ".h5", ".hdf5", ".pkl", ".pickle")
Tree = Mapping[str, Any]


@dataclass(frozen=True)
class LoadedArrays:
    """Vectors of a file, with their sample ids.

    Attributes:
        rows: (N, D), or N arrays (T_i, D).
        ids: N sample ids, or None where the file has none.
    """

    rows: NDArray[Any] | list[NDArray[Any]]
    ids: list[str] | None


def load_arrays(path: Path, array: str | None = None, id_name: str | None = None) -> LoadedArrays:
    """Read the vectors of a file.

    Args:
        path: the file; its suffix determines the format.
        array: name of the array, or of the group that holds one array an id; of a parquet file a
            column of lists, or names and patterns of number columns (`voice_*,age`); `.` where the
            names are the ids. None where there is only one candidate.
        id_name: of the ids, before those of `ID_NAMES`.

    Raises:
        MmfuseError: if the file cannot be read, holds other objects than numpy arrays, or has no or
            several candidates; if ids are missing where groups are joined, or may be in an array of
            another name.
    """
    if not path.is_file():
        raise MmfuseError(f"no such file: {path}")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise MmfuseError(
            f"{path}: cannot import {suffix or 'a file without suffix'}; one of "
            f"{' '.join(SUFFIXES)} can be"
        )
    try:
        if suffix == ".parquet":
            return _parquet(path, array, id_name)
        return _find(_tree(path, suffix), array, id_name, path)
    except (
        OSError, ValueError, KeyError, EOFError, MemoryError, pickle.UnpicklingError,
        zipfile.BadZipFile,
    ) as error:  # fmt: skip
        if "Object arrays" in str(error):  # numpy's message; reading one would run a pickle
            raise MmfuseError(
                f"{path} holds an array of Python objects, which is never opened; save ids as "
                "text, such as ids.astype(str), and vectors as numbers of one shape"
            ) from error
        raise MmfuseError(f"{path} cannot be read: {error}") from error


def _tree(path: Path, suffix: str) -> Tree:
    match suffix:
        case ".npy":
            return {"": np.load(path, mmap_mode="r", allow_pickle=False)}
        case ".npz":
            _check_members(path)
            with np.load(path, allow_pickle=False) as file, zipfile.ZipFile(path) as archive:
                return {name: _member(archive, path, name, file) for name in file.files}
        case ".safetensors":
            from safetensors.numpy import load_file

            return dict(load_file(path))
        case ".h5" | ".hdf5":
            import h5py

            with h5py.File(path, "r") as file:
                return _groups(file, path)
        case _:
            tree = unpickle(path.read_bytes())
            return tree if isinstance(tree, Mapping) else {"": tree}


def _check_members(path: Path) -> None:
    """Check that no array of an .npz file states more values than its bytes hold.

    numpy would ask for the memory first and read later.

    Raises:
        ValueError: naming the array.
    """
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{info.filename} is neither stored nor deflated")
            if info.file_size > _MAX_DEFLATED * info.compress_size:
                raise ValueError(f"{info.filename} states more bytes than its own can hold")
            if not info.filename.endswith(".npy"):
                continue
            with archive.open(info) as file:
                shape, _, dtype = _array_header(file)
            if math.prod(shape) * dtype.itemsize > info.file_size and not dtype.hasobject:
                raise ValueError(f"{info.filename} states more values than it holds")


def _member(archive: zipfile.ZipFile, path: Path, name: str, file: Tree) -> Any:  # noqa: ANN401
    """An array of an .npz file: a large one that is stored as it is, mapped; else read."""
    info = next((i for i in archive.infolist() if i.filename == f"{name}.npy"), None)
    if info is None or info.compress_type != zipfile.ZIP_STORED or info.file_size < _MAPPED:
        return file[name]
    with archive.open(info) as member:
        shape, fortran, dtype = _array_header(member)
        start = member.tell()
        while member.read(1 << 20):  # compares the checksum at the end
            pass
    if dtype.hasobject:
        return file[name]  # says why not
    with path.open("rb") as whole:
        whole.seek(info.header_offset + 26)
        lengths = np.frombuffer(whole.read(4), "<u2")  # of the name, and of the extra field
    at = info.header_offset + 30 + int(lengths.sum()) + start
    return np.memmap(path, dtype, "r", at, shape, "F" if fortran else "C")


def _array_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether columns come first, and dtype, of the header of an .npy file."""
    major, _ = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0
    if major > 1:
        read = np.lib.format.read_array_header_2_0
    found: tuple[tuple[int, ...], bool, np.dtype[Any]] = read(file)
    return found


def _groups(group: Any, path: Path) -> dict[str, Any]:  # noqa: ANN401 - h5py has no types
    return {
        name: _groups(node, path) if hasattr(node, "keys") else _dataset(node, path)
        for name, node in group.items()
    }


def _dataset(node: Any, path: Path) -> Any:  # noqa: ANN401
    """An array of an HDF5 file: a large one that lies there in one piece, mapped; else read."""
    if node.chunks or node.external or node.is_virtual or node.nbytes < _MAPPED:
        return node[()]
    at = node.id.get_offset()
    if at is None or node.dtype.kind not in "fiu":
        return node[()]
    return np.memmap(path, node.dtype, "r", at, node.shape)


class _NumpyOnly(pickle.Unpickler):
    """Unpickler that allows the classes of numpy arrays, and nothing else."""

    _FUNCTIONS = ("_reconstruct", "scalar", "_frombuffer")

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        """The class of this name, if numpy arrays need it.

        Raises:
            UnpicklingError: for everything else.
        """
        if module == "numpy" and name in {"ndarray", "dtype"}:
            return getattr(np, name)
        if (
            module
            in {
                "numpy.core.multiarray",
                "numpy._core.multiarray",
                "numpy._core.numeric",
                "numpy.core.numeric",
            }
            and name in self._FUNCTIONS
        ):
            from numpy._core import multiarray, numeric

            return getattr(numeric if name == "_frombuffer" else multiarray, name)
        if (module, name) == ("_codecs", "encode"):  # how protocol 2 writes bytes
            return _latin1
        raise pickle.UnpicklingError(
            f"it would import {module}.{name}; only numpy arrays, numbers, text, lists and dicts "
            "are allowed"
        )


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes encoded as {encoding!r} are not allowed")
    return text.encode("latin1")


def unpickle(data: bytes) -> Any:  # noqa: ANN401
    """Read a pickle of numpy arrays, numbers, text, lists and dicts only.

    Raises:
        UnpicklingError: before anything else would be imported or called.
    """
    return _NumpyOnly(io.BytesIO(data), encoding="latin1").load()


@dataclass(frozen=True)
class _Leaf:
    """An array of a tree, and the group that it is in, with the group's name ("" at the top)."""

    group: Tree
    place: str
    name: str
    value: Any

    @property
    def path(self) -> str:
        """The name with those of its groups."""
        return f"{self.place}/{self.name}" if self.place else self.name


def _find(tree: Tree, array: str | None, id_name: str | None, path: Path) -> LoadedArrays:
    leaves = _leaves(tree)
    names = sorted({leaf.name for leaf in leaves if _is_vectors(leaf.value)})
    if array == NAMES_ARE_IDS or (array is None and not names):
        by_id = _by_id(tree)
        if by_id is not None:
            return by_id
    if array is None:
        if not names:
            raise MmfuseError(
                f"{path} holds no vectors, which are numbers of shape (N, D), or (N, T, D) of "
                f"sequences; it has "
                f"{'; '.join(_describe(leaf.name, leaf.value) for leaf in leaves[:5])}"
            )
        if len(names) != 1:
            raise MmfuseError(
                f"{path} holds {len(names)} arrays ({', '.join(names[:20])}); name one with "
                f"--array, or --array {NAMES_ARE_IDS} where the names are sample ids"
            )
        array = names[0]
    parts = [leaf for leaf in leaves if leaf.name == array]
    if not parts:
        inner = tree.get(array)
        by_id = _by_id(inner) if isinstance(inner, Mapping) else None
        if by_id is not None:
            return by_id
        raise MmfuseError(f"{path} has no array {array!r}; it has: {', '.join(names[:20])}")
    return _with_ids(parts, leaves, id_name, path)


def _with_ids(
    parts: Sequence[_Leaf], leaves: Sequence[_Leaf], id_name: str | None, path: Path
) -> LoadedArrays:
    """Parts of one name joined, with the ids that are beside each.

    Raises:
        MmfuseError: where several parts are not all with ids, or other words may be ids.
    """
    name = parts[0].name
    ids = [_ids(part, id_name) for part in parts]
    lacking = [part.place or "top" for part, own in zip(parts, ids, strict=True) if own is None]
    if lacking and len(parts) > 1:
        raise MmfuseError(
            f"{path}: {name!r} is in {len(parts)} groups, without ids in {', '.join(lacking[:5])}, "
            "and their order is not known; add an array `id` to each group"
        )
    rows = _joined([_rows(part.group, part.value) for part in parts])
    found = [word for own in ids if own is not None for word in own]
    if lacking:
        words = {leaf.path: _distinct_words(leaf.value, len(rows)) for leaf in leaves}
        _check_no_ids(words, len(rows), path)
    elif len(found) != len(rows):
        raise MmfuseError(f"{path}: {len(found)} ids are beside {len(rows)} vectors {name!r}")
    return LoadedArrays(rows, None if lacking else found)


def _check_no_ids(distinct: Mapping[str, int], rows: int, path: Path) -> None:
    """Check that no words beside vectors without ids may be their ids.

    Classes may stand there: words most of which recur are no ids.

    Args:
        distinct: by name of an array of one word a row, how many of them differ.
        rows: how many vectors there are.
        path: of the file.

    Raises:
        MmfuseError: naming the words.
    """
    for name, count in distinct.items():
        if 2 * count > rows > 1:
            raise MmfuseError(
                f"{path}: its ids may be in {name!r}; call it id, beside the vectors, or leave it "
                "out of the file if they are in the order of the rows"
            )


def _leaves(tree: Tree, place: str = "") -> list[_Leaf]:
    """Every array with its group and name."""
    found: list[_Leaf] = []
    for name, node in tree.items():
        if isinstance(node, Mapping):
            found += _leaves(node, f"{place}/{name}" if place else str(name))
        else:
            found.append(_Leaf(tree, place, str(name), node))
    return found


def _distinct_words(leaf: Any, rows: int) -> int:  # noqa: ANN401
    """How many words differ in an array or list of one word a row; 0 for anything else."""
    if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "USO":
        leaf = leaf.reshape(-1).tolist() if leaf.size == rows else None
    if not isinstance(leaf, list | tuple) or len(leaf) != rows:
        return 0
    return len(set(leaf)) if all(isinstance(word, str | bytes) for word in leaf) else 0


def _is_vectors(leaf: Any) -> bool:  # noqa: ANN401
    if isinstance(leaf, np.ndarray) and leaf.dtype != object:
        return leaf.ndim >= 2 and leaf.dtype.kind in "fiub"
    items = leaf.tolist() if isinstance(leaf, np.ndarray) else leaf
    if not isinstance(items, list) or not items:
        return False
    return all(isinstance(i, np.ndarray) and i.dtype.kind in "fiub" and i.ndim for i in items)


def _describe(name: str, leaf: Any) -> str:  # noqa: ANN401
    """An array's name, type and shape."""
    found = np.asarray(leaf, None if isinstance(leaf, np.ndarray) else object)
    what = "text" if found.dtype.kind in "US" else str(found.dtype)
    return f"{name or 'an array'} of {what} {found.shape}"


def _by_id(tree: Tree) -> LoadedArrays | None:
    """A tree with one vector (D,) or sequence (T, D) per id."""
    items = [np.asarray(v) for v in tree.values() if isinstance(v, np.ndarray | list)]
    if len(items) != len(tree) or not items:
        return None
    if any(i.ndim not in (1, 2) or i.dtype.kind not in "fiub" for i in items):
        return None
    if len({(i.ndim, i.shape[-1]) for i in items}) != 1:
        return None
    return LoadedArrays(_joined([items]), [str(name) for name in tree])


def _rows(group: Tree, leaf: Any) -> NDArray[Any] | list[NDArray[Any]]:  # noqa: ANN401
    if not isinstance(leaf, np.ndarray) or leaf.dtype == object:
        return [np.asarray(item) for item in leaf]
    if leaf.dtype.kind not in "fiub":
        raise MmfuseError(f"an array of {leaf.dtype} holds no vectors")
    if leaf.ndim == 1:
        leaf = leaf[:, None]
    ends = None
    if "offsets" in group:
        ends = np.asarray(group["offsets"])[1:-1]
    elif "lengths" in group and leaf.ndim == 2:
        ends = np.cumsum(np.asarray(group["lengths"]))[:-1]
    elif "lengths" in group:
        return [row[:n] for row, n in zip(leaf, np.asarray(group["lengths"]).tolist(), strict=True)]
    if ends is not None:
        return np.split(leaf, ends)
    return leaf if leaf.ndim == 2 else list(leaf)


def _ids(part: _Leaf, id_name: str | None) -> list[str] | None:
    beside = [n for n, v in part.group.items() if n != part.name and not isinstance(v, Mapping)]
    name = _name_of_ids(beside, id_name)
    if name is None:
        return None
    found = np.asarray(part.group[name]).reshape(-1).tolist()
    return [i.decode() if isinstance(i, bytes) else str(i) for i in found]


def _name_of_ids(names: Sequence[str], id_name: str | None) -> str | None:
    """Which of these names is that of the ids: as it is written, else in other letters."""
    wanted = ID_NAMES if id_name is None else (id_name, *ID_NAMES)
    for word in wanted:
        alike = [name for name in names if str(name).casefold() == word.casefold()]
        if alike:
            return word if word in alike else alike[0]
    return None


def _joined(
    parts: Sequence[NDArray[Any] | list[NDArray[Any]]],
) -> NDArray[Any] | list[NDArray[Any]]:
    if len(parts) == 1 and isinstance(parts[0], np.ndarray):
        return parts[0]  # perhaps larger than memory
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate([np.asarray(part) for part in parts])
    rows = [row for part in parts for row in part]
    if all(row.ndim == 1 for row in rows):
        return np.stack(rows)
    return rows


def _parquet(path: Path, array: str | None, id_name: str | None) -> LoadedArrays:
    import polars as pl

    frame = pl.read_parquet(path)
    own = _name_of_ids(frame.columns, id_name)
    ids = None if own is None else frame[own].cast(pl.String).to_list()
    rows = _vectors_of(frame, array, id_name, path)
    if ids is None:
        texts = frame.select(pl.col(pl.String, pl.Categorical, pl.Enum))
        _check_no_ids({text.name: text.n_unique() for text in texts}, len(frame), path)
    return LoadedArrays(rows, ids)


def _vectors_of(
    frame: Any,  # noqa: ANN401 - a polars data frame
    array: str | None,
    id_name: str | None,
    path: Path,
) -> NDArray[Any] | list[NDArray[Any]]:
    """A column of lists, or number columns side by side."""
    import polars as pl

    lists = [n for n, t in frame.schema.items() if isinstance(t, pl.List | pl.Array)]
    if array is None and len(lists) == 1:
        array = lists[0]
    if array in lists:
        return _joined([_of_lists(frame[str(array)])])
    words = [] if array is None else array.split(",")
    numbers = [
        n for n, t in frame.schema.items() if t.is_numeric() and not _name_of_ids([n], id_name)
    ]
    picked = [n for n in numbers if any(fnmatchcase(n, word) for word in words)]
    unmatched = [w for w in words if not any(fnmatchcase(n, w) for n in numbers)]
    if not picked or unmatched:
        strange = f"no number column {', '.join(unmatched)}; " if unmatched else ""
        raise MmfuseError(
            f"{path}: {strange}name a column of lists, or the columns that make a vector, with "
            f"--array, such as {_example(lists, numbers)}; it has: "
            f"{', '.join([*lists, *numbers][:30]) or 'none of either'}"
        )
    found: NDArray[Any] = frame.select(picked).cast(pl.Float32).to_numpy()
    return found


def _example(lists: Sequence[str], numbers: Sequence[str]) -> str:
    """Example for --array: a column of lists, or a pattern that most number columns match."""
    if lists:
        return lists[0]
    stems = Counter(name.rstrip("0123456789") for name in numbers)
    stem, count = max(stems.items(), key=lambda item: item[1], default=("", 0))
    return f"'{stem}*'" if stem and count > 1 else ",".join(numbers[:3]) or "'voice_*,age'"


def _of_lists(column: Any) -> list[NDArray[Any]]:  # noqa: ANN401 - a polars series
    """One array per cell; a null becomes NaN in the shape of the first vector."""
    cells = [None if cell is None else np.asarray(cell) for cell in column.to_list()]
    there = [cell for cell in cells if cell is not None]
    nothing = np.full(there[0].shape if there else (1,), np.nan, np.float32)
    return [nothing if cell is None else cell for cell in cells]
