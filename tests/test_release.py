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


def run(*command, cwd):
    done = subprocess.run([*command], cwd=cwd, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def with_links(tmp_path):
    """README.md and pyproject.toml as a release has them."""
    path = ROOT / "docs" / "absolute_links.py"
    spec = importlib.util.spec_from_file_location("absolute_links", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    script.main(tmp_path, ADDRESS, "v1")
    return tmp_path


def test_a_release_has_absolute_links_alone(with_links):
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)]+)\)", (with_links / "README.md").read_text())
    assert len(links) > 10
    for image, link in links:
        path = link.removeprefix(f"{ADDRESS}/{'raw' if image else 'blob'}/v1/")
        assert (ROOT / path).is_file()
        assert path != link
    assert f'Source = "{ADDRESS}"\n' in (with_links / "pyproject.toml").read_text()


def test_the_citation_and_the_package_are_of_one_version():
    (version,) = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    (cited,) = re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.M)
    assert cited == version


@pytest.mark.slow
def test_what_is_built_is_sound_and_its_sources_pass_tests_of_their_own(tmp_path):
    build = ["-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    run(sys.executable, *build, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    (sources,) = tmp_path.glob("*.tar.gz")
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, sources, cwd=tmp_path)
    run(sys.executable, "-m", "check_wheel_contents", wheel, cwd=tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        released = set(archive.namelist())
    data = {path for path in (ROOT / "lightning_nc").rglob("templates/*") if path.is_file()}
    assert data
    assert {path.relative_to(ROOT).as_posix() for path in data} <= released
    with tarfile.open(sources) as archive:
        archive.extractall(tmp_path, filter="data")
    folder = tmp_path / sources.name.removesuffix(".tar.gz")
    those_that_read_files = ["test_docs", "test_imports", "test_reproductions", "test_release"]
    files = [f"tests/{name}.py" for name in those_that_read_files]
    quick = ["-q", "-p", "no:cacheprovider", "-m", "not slow"]
    run(sys.executable, "-m", "pytest", *quick, *files, cwd=folder)
