"""Excel workbooks, made by openpyxl: sheets, titles above the header, dates, stray cells."""

import datetime
import sys
import zipfile

import openpyxl
import polars as pl
import pytest

from cache.errors import MmfuseError
from pipelines.data.mixed_cells import MIXED, moments_of, numbers_of, words_of
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
    "Since": ["2024-03-01", "2024-03-02 13:05:00", None],
    "Share": ["0.125", "1", "12345678901"],
    "Member": ["true", "false", None],
    "Verdict": ["yes", "no", " yes "],
}


TYPES = [MIXED, MIXED, pl.Datetime("ms"), pl.Float64, pl.Boolean, pl.String]


def words(frame):
    """The words of every column."""
    return {column.name: words_of(column).to_list() for column in frame}


def test_cells_are_what_they_are_stored_as(tmp_path):
    """As words: whole numbers without a point, dates in ISO form, blanks around words as is."""
    notes = []
    found = read_table(book(tmp_path / "a.xlsx", ("S", [HEADER, *ROWS])), note=notes.append)
    assert words(found) == READ
    assert found.dtypes == TYPES
    assert not notes


def test_a_stored_number_is_told_from_a_word_of_digits(tmp_path):
    """Negative, large and small ones, whole ones, dates; `TRUE` is no number."""
    cells = [1.234, "1.234", -7.5, 12345678901, 0, datetime.date(1950, 1, 2), True, "x", 1e-9]
    rows = [["a", "b"], *([cell, n] for n, cell in enumerate(cells))]
    found = read_table(book(tmp_path / "a.xlsx", ("S", rows)))
    numbers = [1.234, None, -7.5, 12345678901, 0, None, None, None, 1e-9]
    assert numbers_of(found["a"]).to_list() == numbers
    moments = moments_of(found["a"]).to_list()
    assert [n for n, moment in enumerate(moments) if moment is not None] == [5]
    assert words(found)["a"][5:7] == ["1950-01-02", "true"]


def test_a_sheet_that_is_hidden_is_not_read_unless_it_is_named(tmp_path):
    """People hide sheets that they do not want to be seen."""
    path = book(tmp_path / "a.xlsx", ("Old", [["a", "b"], [1, 2]]), ("New", [["c", "d"], [1, 2]]))
    made = openpyxl.load_workbook(path)
    made["Old"].sheet_state = "hidden"
    made.save(path)
    assert read_table(path).columns == ["c", "d"]
    assert read_table(path, sheet="Old").columns == ["a", "b"]


def test_titles_above_the_header_and_empty_rows_and_columns_are_left_out(tmp_path):
    """As people export them: a title, an empty line, an empty column, an empty line below."""
    padded = [[None, *row, None] for row in (HEADER, *ROWS)]
    rows = [["Survey of 2024"], [], *padded[:2], [], *padded[2:], [None, " "]]
    notes = []
    found = read_table(book(tmp_path / "a.xlsx", ("S", rows)), note=notes.append)
    assert words(found) == READ
    (note,) = notes
    assert "the header is row 3; what stands above it is left out" in note
    assert "'Survey of 2024'" in note


def test_a_column_without_a_name_is_numbered_if_it_holds_anything(tmp_path):
    """Nothing is dropped in silence."""
    rows = [["a", None, "b"], [1, 2, 3], [4, None, 6]]
    found = read_table(book(tmp_path / "a.xlsx", ("S", rows)))
    assert words(found) == {"a": ["1", "4"], "column 2": ["2", None], "b": ["3", "6"]}


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


def test_a_stray_cell_is_found_however_its_xml_is_written(tmp_path):
    """Single quotes, blanks around the equals sign, and a sheet of another name."""
    path = book(tmp_path / "a.xlsx", ("S", [["x", "label"], [1, 2]]))
    with zipfile.ZipFile(path) as made:
        members = {info.filename: made.read(info) for info in made.infolist()}
    name = "xl/worksheets/sheet1.xml"
    cell = b"<c  r = 'XFD1000000' t='n'><v>1</v></c></row></sheetData>"
    members["xl/other/my.xml"] = members.pop(name).replace(b"</row></sheetData>", cell)
    for key in ("xl/_rels/workbook.xml.rels", "[Content_Types].xml"):
        members[key] = members[key].replace(b"xl/worksheets/sheet1.xml", b"xl/other/my.xml")
        members[key] = members[key].replace(b"worksheets/sheet1.xml", b"other/my.xml")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for member, data in members.items():
            made.writestr(member, data)
    with pytest.raises(MmfuseError, match=r"1,000,000 rows × 16,384 columns"):
        read_table(path)
