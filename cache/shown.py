"""Shown: results that have a table, which a layer above theirs makes."""

from collections.abc import Callable
from typing import Any


def _not_connected() -> object:
    raise RuntimeError("results have tables once `import mmfuse` has run")


load_tables: Callable[[], object] = _not_connected
"""Imports the module that fills `TABLES`; set by `import mmfuse`."""
TABLES: dict[type, Callable[[Any], Any]] = {}
"""By type of a result: what makes a table of one."""


class Shown:
    """A result with a table: `pipelines.reports.table.Table`, which this layer does not know."""

    def table(self) -> Any:  # noqa: ANN401 - a Table
        """The result as a table, with `to_polars()`, as the command line shows it."""
        if type(self) not in TABLES:
            load_tables()
        return TABLES[type(self)](self)

    def _repr_html_(self) -> str:
        return str(self.table().to_html())
