"""What is released: its files, its checks, and its links."""

import importlib.util
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ADDRESS = "https://host/owner/repository"
PYTHON = sys.executable, "-m"


def run(*command, cwd):
    done = subprocess.run([*command], cwd=cwd, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write_links(folder):
    """Give README.md and pyproject.toml in a folder the links of a release."""
    path = ROOT / "docs" / "absolute_links.py"
    spec = importlib.util.spec_from_file_location("absolute_links", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main(folder, ADDRESS, "v1")


def build(sources, output):
    """Build what is released: the source distribution, and a wheel from it."""
    run(*PYTHON, "build", "--no-isolation", "--outdir", output, sources, cwd=ROOT)
    (archive,), (wheel,) = output.glob("*.tar.gz"), output.glob("*.whl")
    return archive, wheel


def unpack(archive, folder):
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


@pytest.fixture
def with_links(tmp_path):
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    write_links(tmp_path)
    return tmp_path


def test_a_release_has_absolute_links_alone(with_links):
    """Also what is made from the sources of a release, where they are absolute already."""
    (address,) = re.findall(r'^Source = "(.+)"$', (with_links / "pyproject.toml").read_text(), re.M)
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)]+)\)", (with_links / "README.md").read_text())
    assert len(links) > 10
    for image, link in links:
        beginning = f"{address}/{'raw' if image else 'blob'}/"
        assert link.startswith(beginning)
        tag, path = link.removeprefix(beginning).split("/", 1)
        assert tag.startswith("v")
        assert (ROOT / path).is_file()


def test_the_package_the_citation_and_the_changelog_have_one_version_and_date():
    (version,) = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    citation = (ROOT / "CITATION.cff").read_text()
    (date,) = re.findall(r'^date-released: "(.+)"$', citation, re.M)
    assert f"\nversion: {version}\n" in citation
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert headings[:2] == ["[Unreleased]", f"[{version}] - {date}"]


@pytest.mark.slow
def test_what_is_released_is_sound_and_its_sources_build_and_pass_tests_of_their_own(tmp_path):
    archive, _ = build(ROOT, tmp_path / "first")
    sources = unpack(archive, tmp_path / "first")
    write_links(sources)
    archive, wheel = build(sources, tmp_path / "released")
    run(*PYTHON, "twine", "check", "--strict", archive, wheel, cwd=tmp_path)
    run(*PYTHON, "check_wheel_contents", wheel, cwd=tmp_path)
    with zipfile.ZipFile(wheel) as files:
        packed = set(files.namelist())
    data = {path for path in (ROOT / "lightning_nc").rglob("templates/*") if path.is_file()}
    assert data
    assert {path.relative_to(ROOT).as_posix() for path in data} <= packed
    released = unpack(archive, tmp_path / "released")
    those_that_read_files = ["docs", "imports", "readme", "release", "reproductions"]
    files = [f"tests/test_{name}.py" for name in those_that_read_files]
    # with `-m`, Python imports the package from this folder, not the one that is installed
    run(*PYTHON, "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *files, cwd=released)
