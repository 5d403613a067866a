"""Files of tables: what spreadsheets and scripts write is read; what is wrong is named by line."""

import gzip

import polars as pl
import pytest

from cache.errors import MmfuseError
from pipelines.data.table_files import read_table
from pipelines.data.values.mixed_cells import words_of

LINES = 'id,plot,genre\n0,à bientôt,drama\n1,"two\nlines",noir\n'
WHOLE = pl.DataFrame(
    {"id": ["0", "1"], "plot": ["à bientôt", "two\nlines"], "genre": ["drama", "noir"]}
)


def written(folder, name, content):
    """A file with that content."""
    path = folder / name
    path.write_bytes(content)
    return path


def refused(path):
    """The message a file is refused with."""
    with pytest.raises(MmfuseError) as caught:
        read_table(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_csv_as_spreadsheets_save_it_is_the_same_table(tmp_path, encoding, separator, ending):
    """Marks, UTF-16, other separators and other line ends change nothing."""
    text = LINES.replace(",", separator).replace("\n", ending)
    found = read_table(written(tmp_path, "a.csv", text.encode(encoding)))
    assert found.with_columns(pl.col("plot").str.replace("\r\n", "\n")).equals(WHOLE)


def test_a_semicolon_beside_commas_separates_nothing(tmp_path):
    """A header with commas is separated by commas, whatever else is in it."""
    found = read_table(written(tmp_path, "a.csv", b"id,a;b,genre\n0,x;y,z\n"))
    assert found.columns == ["id", "a;b", "genre"]


def test_json_lines_with_a_mark_and_empty_lines_are_read(tmp_path):
    """A byte order mark and blank lines are no samples."""
    path = written(tmp_path, "a.jsonl", b'\xef\xbb\xbf{"id":0,"y":"a"}\n\n{"id":1,"y":"b"}\n')
    assert read_table(path).rows() == [(0, "a"), (1, "b")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            "id,plot\n0,à\n1,é\n2,ü ü\n3,caf".encode() + b"\xe9\n",
            "line 5 is not utf-8 (byte 0xe9)",
        ),
        ("a.csv", b"id,plot\n0,a\n1,b,c\n", "line 3 has 3 cells, the header 2"),
        ("a.csv", "id,plot\n0,a,b\n".encode("utf-16"), "line 2 has 3 cells, the header 2"),
        ("a.csv", b"id,plot,plot\n0,a,b\n", "two columns are named 'plot'"),
        ("a.csv", b"", "empty CSV"),
        ("a.jsonl", b'{"id":0}\n{"id":\n', "line 2 is not JSON"),
        ("a.jsonl", b'{"id":0,"x":NaN}\n', "write null for what is missing"),
        ("a.jsonl", b'[{"id":0}]\n', "line 1 is not an object"),
        ("a.json", b'{"id":0}\n', "write a list of objects"),
        ("a.json", b"[1, 2]\n", "item 1 is 1, not an object"),
        ("a.json", b'{"id":', "it is not JSON"),
        ("a.json", b'{"a":[{"x":1}],"b":[{"x":1}]}', "several lists of objects: 'a', 'b'"),
        ("a.json", b'{"a":[1,2],"b":[1]}', "write a list of objects"),
        ("a.json", b'{"rows":[{"x":NaN}]}', "write null for what is missing"),
        ("a.csv.gz", b"id,plot\n0,a\n", "Not a gzipped file"),
        ("a.csv.gz", gzip.compress(b"id,plot\n0,a\n")[:-9], "ended before"),
        ("a.ods", b"", "a table ends in .csv"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(tmp_path, name, content, message):
    """One line for the person, in words of the file and not of the library that reads it."""
    assert message in refused(written(tmp_path, name, content))


def test_a_text_may_be_gzipped(tmp_path):
    """As data portals offer it; the ending before .gz says what it is."""
    path = written(tmp_path, "a.csv.gz", gzip.compress(LINES.encode()))
    assert read_table(path).equals(WHOLE)
    path = written(tmp_path, "b.jsonl.gz", gzip.compress(WHOLE.write_ndjson().encode()))
    assert read_table(path).equals(WHOLE)


def test_a_stated_separator_is_no_header(tmp_path):
    """The line `sep=;` that spreadsheets write above the header, with commas in the header too."""
    found = read_table(written(tmp_path, "a.csv", b'sep=;\r\nid;"a, b"\r\n0;x\r\n'))
    assert (found.columns, found.rows()) == (["id", "a, b"], [("0", "x")])


def test_blanks_around_the_names_of_columns_are_dropped(tmp_path):
    """`id, plot` names the column plot; two names that become one are refused."""
    assert read_table(written(tmp_path, "a.csv", b"id, plot\n0,a\n")).columns == ["id", "plot"]
    assert "two columns are named 'plot'" in refused(
        written(tmp_path, "b.csv", b"plot, plot\n0,a\n")
    )


@pytest.mark.parametrize(
    ("option", "name"), [({"encoding": "cp1252"}, "a.parquet"), ({"sheet": "A"}, "a.csv")]
)
def test_an_option_of_another_format_is_refused(tmp_path, option, name):
    """Nothing that was asked for is dropped in silence."""
    path = written(tmp_path, name, b"")
    with pytest.raises(MmfuseError, match=f"--{next(iter(option))} is for"):
        read_table(path, **option)


def test_a_folder_is_no_table(tmp_path):
    """A folder named like a table is said to be one."""
    (tmp_path / "a.csv").mkdir()
    assert "this is a folder" in refused(tmp_path / "a.csv")


def test_lines_may_end_as_on_old_macs_and_headers_be_long(tmp_path):
    """Bare carriage returns; sixteen thousand columns."""
    text = b"id,plot,genre\r0,x,drama\r1,y,noir\r"
    assert read_table(written(tmp_path, "a.csv", text))["plot"].to_list() == ["x", "y"]
    names = [f"f{number}" for number in range(16_000)]
    wide = "\n".join([",".join(names), ",".join("1" for _ in names)]) + "\n"
    assert read_table(written(tmp_path, "b.csv", wide.encode())).columns == names


@pytest.mark.parametrize("header", ['"id";"weight, kg";"label"', "id;weight, kg;label"])
def test_a_comma_in_a_header_does_not_separate_where_a_semicolon_does(tmp_path, header):
    """The mark is the one that cuts every record into equally many cells."""
    lines = [header, *(f"s{row};{row},5;a" for row in range(60))]
    found = read_table(written(tmp_path, "a.csv", "\n".join(lines).encode()))
    assert found.columns == ["id", "weight, kg", "label"]
    assert found["weight, kg"][3] == "3,5"


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "b.json"])
def test_json_that_is_nested_without_end_is_one_line(tmp_path, name):
    """Neither a crash nor a traceback."""
    deep = '{"a":' * 100_000 + "1" + "}" * 100_000
    text = f"[{deep}]" if name == "b.json" else deep
    assert "nested too deeply" in refused(written(tmp_path, name, text.encode()))


def test_a_number_of_thousands_of_digits_in_json_is_its_digits(tmp_path):
    """As a label it is a word."""
    digits = "9" * 5000
    text = f'[{{"label": {digits}}}, {{"label": 7}}]'
    found = read_table(written(tmp_path, "a.json", text.encode()))
    assert words_of(found["label"]).to_list() == [digits, "7"]


def test_a_parquet_of_few_bytes_and_more_rows_than_memory_is_refused(tmp_path, monkeypatch):
    """One value repeated takes no space in the file, and much when it is read."""
    path = tmp_path / "a.parquet"
    pl.DataFrame({"a": pl.repeat(1, 2_000_000, eager=True)}).write_parquet(path)
    assert len(read_table(path)) == 2_000_000
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PAGE_SIZE": 4096}.get(name, 100_000))
    with pytest.raises(MmfuseError, match=r"2,000,000 rows × 1 columns in [\d,]+ bytes"):
        read_table(path)


def noted(path):
    """The table, and what is said about it."""
    notes = []
    return read_table(path, note=notes.append), notes


@pytest.mark.parametrize(
    ("cells", "read"),
    [
        (['3" nail', "nut", '7" x 2" beam'], ['3" nail', "nut", '7" x 2" beam']),
        (['"Top" brand', "plain", "other"], ["Top brand", "plain", "other"]),
        (['"open', "plain", "other"], ['"open', "plain", "other"]),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_quotes_inside_of_cells_do_not_refuse_a_table(tmp_path, cells, read, suffix):
    """Inches, names in quotes, a quote that nothing closes: kept, and the first line is named."""
    mark = "," if suffix == ".csv" else "\t"
    lines = [mark.join(["id", "item", "kind"])]
    lines += [mark.join([str(n), cell, "ab"[n % 2]]) for n, cell in enumerate(cells * 5)]
    frame, notes = noted(written(tmp_path, f"a{suffix}", "\n".join(lines).encode() + b"\n"))
    assert frame["item"].to_list() == read * 5
    assert frame["kind"].to_list() == ["ab"[n % 2] for n in range(15)]
    assert notes == ["quotes inside of cells are kept as they are, the first in line 2"]


def test_records_that_lack_cells_are_counted_with_the_line_of_the_first(tmp_path):
    """A line break that nobody quoted makes one of a cell's rest; empty last cells do not count."""
    text = b"label,size,words\na,1,one\nb,2,two and\nthree\na,3,\nb,4\na,5,five\n"
    frame, notes = noted(written(tmp_path, "a.csv", text))
    assert frame["label"].to_list() == ["a", "b", "three", "a", "b", "a"]
    assert notes == [
        "2 records have fewer cells than the header has names, the first ends in line 4 with 1 of "
        "3 cells; what they lack counts as missing"
    ]
    assert noted(written(tmp_path, "b.csv", b"label,size\na,\nb,2\n"))[1] == []


def test_columns_without_a_name(tmp_path):
    """Empty ones go, as in a workbook; pandas' index goes and is told; others get a number."""
    text = b",label,,x,\n0,a,,1.5,\n1,b,,2.5,\n2,a,,3.5,\n"
    frame, notes = noted(written(tmp_path, "a.csv", text))
    assert frame.columns == ["label", "x"]
    assert notes == ["the first column has no name and counts the rows; it is left out"]
    frame, notes = noted(written(tmp_path, "b.csv", b"column 2,,label\n7,5.5,a\n8,6.5,b\n"))
    assert frame.columns == ["column 2", "column 5", "label"]
    assert notes == ["column 2 has no name; it is called 'column 5'"]
    assert frame["column 5"].to_list() == ["5.5", "6.5"]
