"""Names that are harmless in every format, and still tell files apart."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.names import escaped, relative_name, unescaped

ANY_NAME = st.text(st.characters(codec=None), max_size=20)  # every code point, lone surrogates too


@given(ANY_NAME)
def test_harmless_and_reversible(name: str) -> None:
    safe = escaped(name)
    assert unescaped(safe) == name
    assert safe.isprintable() and safe.encode("utf-8").decode() == safe
    assert not safe.startswith(("=", "+", "-", "@"))


@given(ANY_NAME, ANY_NAME)
def test_different_names_stay_different(one: str, other: str) -> None:
    assert (escaped(one) == escaped(other)) == (one == other)


@given(ANY_NAME)
def test_survives_csv(name: str) -> None:
    file = io.StringIO()
    csv.writer(file).writerow([escaped(name), "x"])
    assert next(csv.reader(io.StringIO(file.getvalue()))) == [escaped(name), "x"]


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("0_real/cat 1.png", "0_real/cat 1.png"),
        ("größe/图.png", "größe/图.png"),
        ("a\nb\t.png", r"a\x0ab\x09.png"),
        ("=1+1.png", r"\x3d1+1.png"),
        ("a\\b", r"a\x5cb"),
        ("\udcff.png", r"\udcff.png"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
    ],
)
def test_by_hand(name: str, safe: str) -> None:
    assert escaped(name) == safe


def test_paths_are_relative_to_the_data_root(tmp_path) -> None:
    assert relative_name(str(tmp_path / "gan" / "0_real" / "a.png"), tmp_path) == "gan/0_real/a.png"
