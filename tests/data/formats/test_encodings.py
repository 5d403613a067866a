"""Encodings: what is not UTF-8 is guessed with a note, or refused with its line."""

import pytest

from cache.errors import MmfuseError
from pipelines.data.formats.encodings import decode

HEADER = "id,text,label\n"
TEXTS = {
    "utf-8": ["1,plain", "1,Ærø,a\n2,日本語"],
    "utf-16": ["1,naïve", "1,a"],
    "utf-16-le": ["1,naïve,a\n2,b"],
    "utf-16-be": ["1,naïve,a\n2,b"],
    "cp1252": [
        "1,Müller,a\n2,Schröder,b\n3,Groß", "1,30 €,a\n2,40 €", "1,it’s “fine” – ok", "1,España",
        "1,20 °C", "1,Ærø Ålborg", "1,¿Qué? ¡Sí!", "1,«oui» l´été", "1,5 µm,½ cup", "1,più caffè",
    ],
    "cp1250": ["1,Łódź żółty gęś,a\n2,Kraków świat", "1,Bardzo dobry film, polecam gorąco"],
    "cp1251": ["1,Иванов,a\n2,Петров красивый", "1,Привет мир как дела"],
    "koi8_r": ["1,Привет мир как дела,a\n2,хороший фильм"],
    "cp1253": ["1,καλή ταινία,a\n2,κακή ταινία"],
    "shift_jis": ["1,これは面白い映画です,a\n2,つまらない"],
    "euc_jp": ["1,これは面白い映画です,a\n2,つまらない"],
    "gb18030": ["1,这是一部好电影,a\n2,不好看"],
    "big5": ["1,這是一部好電影"],
    "euc_kr": ["1,좋은 영화입니다,a\n2,나쁜 영화"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("encoding", "text"), [(name, text) for name, texts in TEXTS.items() for text in texts]
)
def test_a_text_is_read_as_it_was_written(encoding, text):
    """Also long ones whose first letters are plain; a guess is told with an example."""
    for body in (HEADER + text + "\n", HEADER + "0,plain,b\n" * 2000 + text + "\n"):
        notes = []
        found, name = decode(body.encode(encoding), "a.csv", None, notes.append)
        assert found == body
        guessed = not encoding.startswith("utf")
        assert len(notes) == guessed
        if guessed:
            assert f"a.csv is not UTF-8: read as {name}, such as" in notes[0]
            assert "--encoding NAME" in notes[0]


def test_the_example_of_a_guess_is_its_first_odd_word():
    """With the line, so that the reader sees whether the guess is right."""
    notes = []
    decode("id,name\n1,Anna\n2,Jörg Müller\n".encode("cp1252"), "a.csv", None, notes.append)
    assert "such as 'Jörg' in line 3" in notes[0]


def test_a_named_encoding_is_taken_at_its_word():
    """No guess and no note; bytes that are not in it are named by line."""
    notes = []
    data = "id\n1 é\n".encode("cp1252")
    assert decode(data, "a.csv", "cp437", notes.append) == ("id\n1 Θ\n", "cp437")
    assert not notes
    with pytest.raises(MmfuseError, match=r"line 2 is not ascii \(byte 0xe9\)"):
        decode(data, "a.csv", "ascii", notes.append)
    with pytest.raises(MmfuseError, match="unknown encoding 'cp99999'"):
        decode(data, "a.csv", "cp99999", notes.append)
    with pytest.raises(MmfuseError, match="unknown encoding 'base64'"):
        decode(data, "a.csv", "base64", notes.append)


def test_damaged_utf_8_is_not_another_encoding():
    """One bad byte among many good letters would turn all of them into others."""
    good = "id,text\n" + "1,schöne Grüße\n" * 20
    with pytest.raises(MmfuseError, match=r"line 22 is not utf-8 \(byte 0xff\)"):
        decode(good.encode() + b"2,\xff\n", "a.csv", None, print)
