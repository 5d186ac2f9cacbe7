"""Names that are harmless in every format, and still tell files apart."""

import csv
import io
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from evaluation.names import escaped, relative_name, unescaped


@given(st.text(st.characters(codec=None), max_size=20))  # every code point, lone surrogates too
def test_any_name_becomes_harmless_and_comes_back(name: str) -> None:
    safe = escaped(name)
    assert unescaped(safe) == name  # so different names stay different
    assert safe.isprintable() and safe.encode("utf-8").decode() == safe
    assert not safe.startswith(("=", "+", "-", "@"))
    file = io.StringIO()
    csv.writer(file).writerow([safe, "x"])
    assert next(csv.reader(io.StringIO(file.getvalue()))) == [safe, "x"]


def test_paths_are_relative_to_the_data_root(tmp_path: Path) -> None:
    assert relative_name(str(tmp_path / "gan" / "0_real" / "a.png"), tmp_path) == "gan/0_real/a.png"
