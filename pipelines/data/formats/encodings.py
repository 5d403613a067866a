"""Text encodings of files: UTF-8 and marked UTF-16 are known, any other is guessed and told."""

import codecs
import re
from collections.abc import Callable

from cache.errors import MmfuseError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_OTHERS = (
    "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "koi8_r", "shift_jis", "euc_jp",
    "gb18030", "big5", "euc_kr",
)  # fmt: skip
_LOOK = 1 << 20  # bytes that a guess looks at
_HIGH = re.compile(rb"[\x80-\xff]+")
# Signs of cp1252 that no Western text has right before a letter; they are letters elsewhere.
_ODD = re.compile(r"[¢£¤¥¦§¨¬¯±²³¶¸¹¼½¾÷×](?=[^\W\d_])")
_WORD = re.compile(r"[^\s,;\t]*[^\x00-\x7f][^\s,;\t]*")


def marked_encoding(start: bytes) -> str | None:
    """The encoding that the first bytes of a file state: a byte-order mark, or zeros of UTF-16."""
    for mark, name in _MARKS:
        if start.startswith(mark):
            return name
    even, odd = start[::2].count(0), start[1::2].count(0)
    if 10 * max(even, odd) > 4 * (len(start) // 2) and 10 * min(even, odd) < len(start) // 2:
        return "utf-16-le" if odd > even else "utf-16-be"
    return None


def decode(
    data: bytes, where: str, encoding: str | None, tell: Callable[[str], None]
) -> tuple[str, str]:
    """Text of a file, and the encoding it was read by.

    UTF-8 where the bytes are UTF-8, else as their mark says, else as Western European text
    (cp1252) or what charset-normalizer takes them for; a guess is told with an example.

    Args:
        data: the file.
        where: its name, for messages.
        encoding: Python's name of it, instead of a guess.
        tell: called with a sentence about a guess.

    Raises:
        MmfuseError: for an unknown encoding, or bytes that are not in it, with their line.
    """
    if encoding is not None:
        return _by_name(data, where, encoding)
    name = marked_encoding(data[:4096]) or "utf-8"
    try:
        return data.decode(name), name
    except UnicodeDecodeError:
        if name != "utf-8" or _is_damaged_utf8(data):
            return _by_name(data, where, name)  # raises
        name = _guess(data)
    text, _ = _by_name(data, where, name)
    found = _WORD.search(text)
    if found is not None:
        line = text.count("\n", 0, found.start()) + 1
        example = f", such as {found.group()[:40]!r} in line {line}"
        tell(f"{where} is not UTF-8: read as {name}{example}; --encoding NAME for another")
    return text, name


def _by_name(data: bytes, where: str, encoding: str) -> tuple[str, str]:
    try:
        text = data.decode(encoding)
    except LookupError:
        raise MmfuseError(
            f"unknown encoding {encoding!r}; Python's names are meant, such as utf-8, cp1252, "
            f"latin-1, cp1251, shift_jis, gb18030"
        ) from None
    except UnicodeError as error:
        start = getattr(error, "start", 0)
        line = data[:start].count(b"\n") + 1
        raise MmfuseError(
            f"{where}: line {line} is not {encoding} (byte 0x{data[start]:02x}); "
            f"--encoding NAME says which encoding it is"
        ) from error
    return text.removeprefix("\ufeff"), encoding


def _is_damaged_utf8(data: bytes) -> bool:
    """Whether more letters beyond ASCII are UTF-8 than are not: another encoding would be wrong."""
    text = data.decode("utf-8", errors="replace")
    faults = text.count("\ufffd")
    return len(re.findall(r"[^\x00-\x7f]", text)) > 2 * faults


def _guess(data: bytes) -> str:
    """The likely encoding of bytes that are not UTF-8."""
    lines = (line for line in data[:_LOOK].splitlines(keepends=True) if _HIGH.search(line))
    sample = b"".join(lines) or data  # what is not ASCII begins late
    if _is_western(sample):
        return "cp1252" if _decodes(data, "cp1252") else "latin-1"
    from charset_normalizer import from_bytes

    best = from_bytes(sample, cp_isolation=[n for n in _OTHERS if _decodes(data, n)]).best()
    return best.encoding if best is not None else "latin-1"


def _is_western(sample: bytes) -> bool:
    """Whether letters beyond ASCII stand alone, as accents do, and signs not within words."""
    runs = [len(run) for run in _HIGH.findall(sample)]
    if sum(run for run in runs if run <= 2) < 0.8 * sum(runs):
        return False
    text = sample.decode("cp1252", errors="replace")
    odd = len(_ODD.findall(text)) + text.count("\ufffd")
    return 10 * odd < sum(runs)


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeError:
        return False
    return True
