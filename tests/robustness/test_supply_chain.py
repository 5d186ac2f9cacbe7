"""Installed packages: exact versions, and files with known SHA-256 sums only."""

import base64
import hashlib
import itertools
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


def locked(lock: str) -> list[tuple[Requirement, list[str]]]:
    """Return the requirements of a lock file, each with its options."""
    entries = []
    for line in (REPOSITORY / lock).read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith("#"):
            requirement, *options = re.split(r"\s+(?=--)", line.strip())
            entries.append((Requirement(requirement), options))
    return entries


def versions(lock: str, environment: dict[str, str]) -> list[tuple[str, Version]]:
    """Return the packages that a lock installs on a system, by name."""
    return [
        (canonicalize_name(requirement.name), version_of(requirement))
        for requirement, _ in locked(lock)
        if requirement.marker is None or requirement.marker.evaluate(environment)
    ]


def pins(name: str) -> Iterator[Requirement]:
    """Return the pins of a requirements file and of the files it includes."""
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
    by_name = {canonicalize_name(requirement.name): requirement for requirement, _ in locked(lock)}
    pinned = list(pins(SOURCES[lock]))
    assert len(pinned) >= 10
    for pin in pinned:
        entry = by_name[canonicalize_name(pin.name)]
        equal = version_of(entry) == version_of(pin) and entry.marker is None
        assert equal, f"{pin}: run `make lock`"


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
    for system, python in itertools.product(SYSTEMS, PYTHONS):
        packages = versions(lock, {**system, **python})
        assert len(packages) == len(dict(packages)), (system, python)


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system["platform_machine"])
@pytest.mark.parametrize("lock", SOURCES)
def test_what_the_locked_packages_need_is_locked(lock: str, system: dict[str, str]) -> None:
    """By the metadata of the packages that are installed here."""
    environment = {**system, **PYTHONS[0]}
    packages = dict(versions(lock, environment))
    waiting, needs = [(name, "") for name in packages], set()
    while waiting:
        name, extra = waiting.pop()
        try:
            texts = requires(name) or []
        except PackageNotFoundError:  # of another system
            continue
        for need in {(name, extra, text) for text in texts} - needs:
            requirement = Requirement(need[2])
            marker = requirement.marker
            if marker is None or marker.evaluate({**environment, "extra": extra}):
                needs.add(need)
                needed = canonicalize_name(requirement.name)
                assert requirement.specifier.contains(packages[needed], prereleases=True), need
                waiting += [(needed, extra) for extra in requirement.extras]
    assert len(needs) > 15


def small_wheel(folder: Path) -> Path:
    """A package that says hello, as pip installs it."""
    files = {
        "hello_lock.py": "WORD = 'hello'\n",
        "hello_lock-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: hello-lock\nVersion: 1.0\n",
        "hello_lock-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "hello_lock-1.0.dist-info/RECORD,,\n"
    path = folder / "hello_lock-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
            record += f"{name},sha256={digest.decode()},{len(text)}\n"
        wheel.writestr("hello_lock-1.0.dist-info/RECORD", record)
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
