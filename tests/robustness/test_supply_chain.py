"""What is installed: exact versions, and files with known SHA-256 sums only."""

import base64
import hashlib
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.ci

SOURCES = {
    "requirements/lock.txt": "requirements.txt",
    "requirements/dev-lock.txt": "requirements/dev.txt",
}
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
SYSTEMS = [
    {"sys_platform": system, "platform_system": name, "platform_machine": machine}
    for system, name, machine in (
        ("linux", "Linux", "x86_64"),
        ("linux", "Linux", "aarch64"),
        ("darwin", "Darwin", "arm64"),
    )
]
PYTHONS = [
    {"python_version": f"3.{minor}", "python_full_version": f"3.{minor}.1"}
    for minor in (11, 12, 13, 14)
]


def entries(text: str) -> list[tuple[Requirement, list[str]]]:
    """The requirements of a file in pip's format, each with its options."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith("#"):
            requirement, *options = re.split(r"\s+(?=--)", line.strip())
            found.append((Requirement(requirement), options))
    return found


def locked(lock: str) -> list[tuple[Requirement, list[str]]]:
    return entries((REPOSITORY / lock).read_text(encoding="utf-8"))


def pins(name: str) -> Iterator[Requirement]:
    """What a requirements file asks for, with the files it includes."""
    for line in (REPOSITORY / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("-r "):
            yield from pins(str(Path(name).parent / line.removeprefix("-r ")))
        elif line.strip() and not line.startswith("#"):
            yield Requirement(line)


def version_of(requirement: Requirement) -> Version:
    (specifier,) = requirement.specifier
    assert specifier.operator == "==" and not specifier.version.endswith("*"), requirement
    return Version(specifier.version)


@pytest.mark.parametrize("lock", SOURCES)
def test_every_pin_is_locked_for_every_system(lock: str) -> None:
    found = {canonicalize_name(requirement.name): requirement for requirement, _ in locked(lock)}
    wanted = list(pins(SOURCES[lock]))
    assert len(wanted) >= 10
    for pin in wanted:
        there = found[canonicalize_name(pin.name)]
        assert version_of(there) == version_of(pin) and there.marker is None, (
            f"{pin}: run `make lock`"
        )


@pytest.mark.parametrize("lock", SOURCES)
def test_every_locked_file_has_a_hash_and_nothing_says_where_it_comes_from(lock: str) -> None:
    for requirement, options in locked(lock):
        assert version_of(requirement)
        assert requirement.url is None
        assert options and all(HASH.fullmatch(option) for option in options), requirement
    text = (REPOSITORY / lock).read_text(encoding="utf-8")
    assert "://" not in text
    # an absolute path
    assert not re.search(r"(^|[\s=])(/|~|[A-Za-z]:\\)", text.replace(" \\\n", " "))
    assert set(re.findall(r"(?:^|\s)(-{1,2}[a-z-]+)", text)) == {"--hash"}
    # among the files that tests/test_architecture.py reads for forbidden words
    assert Path(lock).suffix == ".txt"


def test_both_locks_agree() -> None:
    development = {
        str(requirement): options for requirement, options in locked("requirements/dev-lock.txt")
    }
    for requirement, options in locked("requirements/lock.txt"):
        assert development[str(requirement)] == options
    assert "timm" not in {requirement.name for requirement, _ in locked("requirements/lock.txt")}


@pytest.mark.parametrize("lock", SOURCES)
def test_one_version_per_package_on_each_system(lock: str) -> None:
    for system in SYSTEMS:
        for python in PYTHONS:
            names = [
                r.name
                for r, _ in locked(lock)
                if r.marker is None or r.marker.evaluate({**system, **python})
            ]
            assert len(names) == len(set(names)), (system, python)


@pytest.mark.parametrize("lock", SOURCES)
def test_what_the_locked_packages_need_is_locked(lock: str) -> None:
    """By the metadata of the packages that are installed here, for all systems."""
    checked = 0
    for system in SYSTEMS:
        environment = {**system, **PYTHONS[0]}
        found = {
            canonicalize_name(r.name): version_of(r)
            for r, _ in locked(lock)
            if r.marker is None or r.marker.evaluate(environment)
        }
        todo, seen = [(name, "") for name in found], set()
        while todo:
            name, extra = todo.pop()
            try:
                needed = [Requirement(text) for text in requires(name) or []]
            except PackageNotFoundError:  # of another system
                continue
            for one in needed:
                if (name, extra, str(one)) not in seen and (
                    one.marker is None or one.marker.evaluate({**environment, "extra": extra})
                ):
                    seen.add((name, extra, str(one)))
                    wanted = canonicalize_name(one.name)
                    assert one.specifier.contains(found[wanted], prereleases=True), (
                        f"{name} needs {one}"
                    )
                    todo += [(wanted, extra) for extra in one.extras]
        checked += len(seen)
    assert checked > 50


def small_wheel(folder: Path) -> Path:
    """A package that says hello, as pip installs it."""
    files = {
        "hello_lock.py": "WORD = 'hello'\n",
        "hello_lock-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: hello-lock\nVersion: 1.0\n",
        "hello_lock-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for name, text in files.items():
        digest = (
            base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        )
        record += f"{name},sha256={digest},{len(text)}\n"
    files["hello_lock-1.0.dist-info/RECORD"] = record + "hello_lock-1.0.dist-info/RECORD,,\n"
    path = folder / "hello_lock-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return path


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize(
    ("hashes", "why"),
    [(f" --hash=sha256:{'0' * 64}", "DO NOT MATCH THE HASHES"), ("", "Hashes are required")],
)
def test_make_install_refuses_what_has_another_hash_or_none(
    hashes: str, why: str, tmp_path: Path
) -> None:
    small_wheel(tmp_path)
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements/lock.txt").write_text(f"hello-lock==1.0{hashes}\n")
    ran = subprocess.run(
        ["make", "install", f"PYTHON={sys.executable}", "VENV=v"],
        cwd=tmp_path,
        env={
            "PATH": "/usr/bin:/bin",
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode != 0 and why in ran.stderr, ran.stderr
    assert not (tmp_path / "v" / ".installed").exists()
    assert not list((tmp_path / "v").rglob("hello_lock.py"))


def test_every_installation_of_a_lock_requires_hashes() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert re.findall(r"^\t(.*) -r (\S+)$", makefile, re.MULTILINE) == [
        ("$(PIP_INSTALL)", lock) for lock in SOURCES
    ]
    (command,) = re.findall(r"^PIP_INSTALL = (.*)$", makefile, re.MULTILINE)
    assert "--require-hashes" in command.split()
    # it installs by make
    assert "pip install" not in (REPOSITORY / ".ci/run").read_text(encoding="utf-8")
