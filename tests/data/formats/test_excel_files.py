"""Excel workbooks, made by openpyxl: sheets, titles above the header, dates, stray cells."""

import datetime
import sys

import openpyxl
import pytest

from cache.errors import MmfuseError
from pipelines.data.table_files import read_table


def book(path, *sheets):
    """A workbook of (name, rows)."""
    made = openpyxl.Workbook()
    made.remove(made.active)
    for name, rows in sheets:
        sheet = made.create_sheet(name)
        for row in rows:
            sheet.append(row)
    made.save(path)
    return path


HEADER = ["ID", "Age ", "Since", "Share", "Member", "Verdict"]
ROWS = [
    [1, 30, datetime.date(2024, 3, 1), 0.125, True, "yes"],
    [2, "n/a", datetime.datetime(2024, 3, 2, 13, 5), 1, False, "no"],
    ["007", 31.5, None, 12345678901, None, " yes "],
]
READ = {
    "ID": ["1", "2", "007"],
    "Age": ["30", "n/a", "31.5"],
    "Since": ["2024-03-01 00:00:00", "2024-03-02 13:05:00", None],
    "Share": ["0.125", "1", "12345678901"],
    "Member": ["true", "false", None],
    "Verdict": ["yes", "no", " yes "],
}


def test_cells_are_strings_as_a_csv_would_have_them(tmp_path):
    """Whole numbers without a point, dates in ISO form, blanks around words as they are."""
    notes = []
    found = read_table(book(tmp_path / "a.xlsx", ("S", [HEADER, *ROWS])), note=notes.append)
    assert found.to_dict(as_series=False) == READ
    assert not notes


def test_titles_above_the_header_and_empty_rows_and_columns_are_left_out(tmp_path):
    """As people export them: a title, an empty line, an empty column, an empty line below."""
    padded = [[None, *row, None] for row in (HEADER, *ROWS)]
    rows = [["Survey of 2024"], [], *padded[:2], [], *padded[2:], [None, " "]]
    notes = []
    found = read_table(book(tmp_path / "a.xlsx", ("S", rows)), note=notes.append)
    assert found.to_dict(as_series=False) == READ
    (note,) = notes
    assert "the header is row 3; what stands above it is left out" in note
    assert "'Survey of 2024'" in note


def test_a_column_without_a_name_is_numbered_if_it_holds_anything(tmp_path):
    """Nothing is dropped in silence."""
    rows = [["a", None, "b"], [1, 2, 3], [4, None, 6]]
    found = read_table(book(tmp_path / "a.xlsx", ("S", rows)))
    assert found.to_dict(as_series=False) == {
        "a": ["1", "4"], "column 2": ["2", None], "b": ["3", "6"],
    }  # fmt: skip


def test_the_first_sheet_with_a_table_is_read_unless_one_is_named(tmp_path):
    """Which one is told; an unknown one is an error with the nearest."""
    cover = [["Stock list"], ["confidential"]]
    data, more = [["x", "z"], [1, 2]], [["y"], [2]]
    path = book(
        tmp_path / "a.xlsx", ("Empty", []), ("Cover", cover), ("Data", data), ("More", more)
    )
    notes = []
    assert read_table(path, note=notes.append).columns == ["x", "z"]
    assert "sheet 'Data' is read, not 'Empty', 'Cover', 'More'; --sheet NAME" in notes[0]
    assert read_table(path, sheet="More").columns == ["y"]
    with pytest.raises(MmfuseError, match="did you mean More"):
        read_table(path, sheet="Mor")
    with pytest.raises(MmfuseError, match="no cells in sheet 'Empty'"):
        read_table(path, sheet="Empty")


def test_two_columns_of_one_name_are_refused(tmp_path):
    """Blanks and line ends within the name do not make another one."""
    path = book(tmp_path / "a.xlsx", ("S", [["a b", "a\nb"], [1, 2]]))
    with pytest.raises(MmfuseError, match="two columns are named 'a b'"):
        read_table(path)


def test_a_stray_cell_in_the_last_corner_is_refused_before_it_takes_gigabytes(tmp_path):
    """A file of five kilobytes whose used range has 17 thousand million cells."""
    path = tmp_path / "a.xlsx"
    made = openpyxl.Workbook()
    made.active["A1"], made.active["B1"], made.active["XFD1048576"] = "x", "label", 1
    made.save(path)
    with pytest.raises(MmfuseError, match=r"1,048,576 rows × 16,384 columns.*up to XFD1048576"):
        read_table(path)


def test_what_is_no_workbook_is_one_line(tmp_path):
    """A text called .xlsx, and a workbook that was cut."""
    text = tmp_path / "a.xlsx"
    text.write_bytes(b"id,label\n1,a\n")
    whole = book(tmp_path / "b.xlsx", ("S", [["x"], [1]])).read_bytes()
    cut = tmp_path / "c.xlsx"
    cut.write_bytes(whole[: len(whole) // 2])
    for path in (text, cut):
        with pytest.raises(MmfuseError, match="cannot be read as a workbook") as caught:
            read_table(path)
        assert "\n" not in str(caught.value)


def test_without_the_package_the_error_says_what_to_install(tmp_path, monkeypatch):
    """Workbooks need an extra."""
    monkeypatch.setitem(sys.modules, "fastexcel", None)
    with pytest.raises(MmfuseError, match=r'pip install "mmfuse\[excel\]"'):
        read_table(book(tmp_path / "a.xlsx", ("S", [["x"], [1]])))
