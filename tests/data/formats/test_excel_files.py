"""Excel workbooks, made by openpyxl: sheets, titles above the header, dates, stray cells."""

import datetime
import sys
import zipfile

import openpyxl
import polars as pl
import pytest

from cache.errors import MmfuseError
from pipelines.data.table_files import read_table
from pipelines.data.values.mixed_cells import MIXED, datetimes_of, numbers_of, words_of


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
    datetimes = datetimes_of(found["a"]).to_list()
    assert [n for n, moment in enumerate(datetimes) if moment is not None] == [5]
    assert words(found)["a"][5:7] == ["1950-01-02", "true"]


DAYS = datetime.timedelta(days=1)
HOURS = datetime.timedelta(hours=1)


def column(path, cells):
    """The column that these cells make beside one of words, read again."""
    return read_table(book(path, ("S", [["a", "b"], *([cell, "x"] for cell in cells)])))["a"]


def test_a_boolean_beside_numbers_is_no_number(tmp_path):
    """Nor is a number beside booleans a boolean; booleans alone stay what they are."""
    found = column(tmp_path / "a.xlsx", [1, True, 0, False, None, 2.5])
    assert found.dtype == MIXED
    assert numbers_of(found).to_list() == [1, None, 0, None, None, 2.5]
    assert words_of(found).to_list() == ["1", "true", "0", "false", None, "2.5"]
    assert column(tmp_path / "b.xlsx", [True, None, False]).to_list() == [True, None, False]


SPANS = [30 * HOURS, 90 * DAYS, 2 * HOURS, -HOURS]
SECONDS = [108_000, 7_776_000, 7_200, -3_600]


@pytest.mark.parametrize(
    ("odd", "word"),
    [
        ("unknown", "unknown"),
        ("n/a", "n/a"),
        (True, "true"),
        (datetime.date(2024, 3, 1), "2024-03-01"),
    ],
)
def test_durations_are_seconds_whatever_stands_beside_them(tmp_path, odd, word):
    """Of more than a day too; the odd cell is what it is stored as."""
    found = column(tmp_path / "a.xlsx", [*SPANS, odd])
    assert numbers_of(found).to_list() == [*SECONDS, None]
    assert words_of(found).to_list() == [*(str(second) for second in SECONDS), word]
    assert datetimes_of(found).count() == isinstance(odd, datetime.date)


@pytest.mark.parametrize("odd", [0, 1.5, None])
def test_numbers_beside_durations_stay_as_they_are(tmp_path, odd):
    """So the column has one type, numbers."""
    assert column(tmp_path / "a.xlsx", [odd, *SPANS]).to_list() == [odd, *SECONDS]


def test_a_column_of_odd_cells_does_not_keep_others_from_being_read(tmp_path):
    """Durations beside a number, in a table that does not begin in the first cell."""
    made = openpyxl.Workbook()
    day = datetime.date(2024, 3, 1)
    rows = [["Spans", "Days", "Both"], [30 * HOURS, day, day], [0, day, 50 * HOURS], [7, "?", day]]
    for row, cells in enumerate(rows, 5):
        for place, cell in enumerate(cells, 3):
            made.active.cell(row, place, cell)
    made.save(tmp_path / "a.xlsx")
    found = read_table(tmp_path / "a.xlsx")
    assert found["Spans"].to_list() == [108_000, 0, 7]
    assert numbers_of(found["Days"]).null_count() == 3
    assert words_of(found["Days"]).to_list() == ["2024-03-01", "2024-03-01", "?"]
    assert numbers_of(found["Both"]).to_list() == [None, 180_000, None]
    assert words_of(found["Both"]).to_list() == ["2024-03-01", "180000", "2024-03-01"]


def test_dates_and_durations_in_one_column_are_told_apart(tmp_path):
    """Dates of 1900 are dates beside numbers and words; long durations are no dates."""
    early = [datetime.date(1900, 5, day) for day in (1, 2, 3)]
    found = column(tmp_path / "a.xlsx", [*early, 12, "x"])
    assert words_of(found).to_list() == ["1900-05-01", "1900-05-02", "1900-05-03", "12", "x"]
    assert [moment is not None for moment in datetimes_of(found)] == [True] * 3 + [False] * 2
    spans = [number * 100 * DAYS for number in range(1, 8)]
    late = [datetime.datetime(1950 + year, 1, 1, 12) for year in range(9)]
    mixed = [cell for pair in zip(late, spans, strict=False) for cell in pair]
    found = column(tmp_path / "b.xlsx", [*mixed, late[-1], 5, True])
    numbers = [n for cell in spans for n in (None, cell.total_seconds())]
    assert numbers_of(found).to_list() == [*numbers, None, 5, None]
    assert datetimes_of(found).count() == len(late) - 1


def test_times_of_day_are_seconds_since_midnight(tmp_path):
    """As in Parquet; beside dates too, whose own times of day stay with them."""
    times = [datetime.time(1, 30), datetime.time(0, 0), None, datetime.time(23, 59, 59, 500_000)]
    assert column(tmp_path / "a.xlsx", times).to_list() == [5_400, 0, None, 86_399.5]
    moment = datetime.datetime(2024, 3, 1, 1, 30)
    found = column(tmp_path / "b.xlsx", [datetime.time(1, 30), moment, "late"])
    assert numbers_of(found).to_list() == [5_400, None, None]
    assert words_of(found).to_list() == ["5400", "2024-03-01 01:30:00", "late"]


def test_errors_in_cells_are_missing_and_counted(tmp_path):
    """Whatever the error; words that look like one are words, and other sheets do not count."""
    cells = [1, "#NAME?", "#N/A", "#DIV/0!", 2, datetime.date(2024, 3, 1), 30 * HOURS]
    rows = [["a", "b"], *([cell, "#N/A"] for cell in cells)]
    path = book(tmp_path / "a.xlsx", ("S & T", rows), ("Others", rows), ("Fine", [[1, 2], [3, 4]]))
    made = openpyxl.load_workbook(path)
    for sheet in ("S & T", "Others"):
        for row in range(2, len(rows) + 1):
            made[sheet].cell(row, 2).data_type = "s"
    made.save(path)
    notes = []
    found = read_table(path, sheet="S & T", note=notes.append)
    assert numbers_of(found["a"]).to_list() == [1, None, None, None, 2, None, 108_000]
    assert found["b"].to_list() == ["#N/A"] * len(cells)
    assert notes == [
        f"{path}, sheet 'S & T': 3 of 16 cells are errors of Excel and count as missing, such as "
        "that in A3"
    ]
    notes.clear()
    read_table(path, sheet="Fine", note=notes.append)
    assert not notes


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
