"""The site of the documents builds without a warning, and leads to all there is."""

import importlib
import inspect
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import lightning_nc
from lightning_nc.measures import MEASURES
from tests.browser import needs_chromium, picture, share_of_rows_with_ink
from tests.programs import run_python

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


class Page(HTMLParser):
    """What a page links to, what it loads, and which anchors it has."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loads, self.anchors = set(), set(), {""}
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.anchors.add(given.get("id"))
        if tag == "a" and given.get("href"):
            self.links.add(given["href"])
        if tag == "link" and given.get("rel") == "stylesheet":
            self.loads.add(given["href"])
        if tag in ("img", "script") and given.get("src"):
            self.loads.add(given["src"])


class Site:
    """The pages in a folder."""

    def __init__(self, folder):
        self.folder = folder

    @cached_property
    def pages(self):
        return {path.resolve(): Page(path) for path in self.folder.rglob("*.html")}

    def __getitem__(self, name):
        return self.pages[(self.folder / name).resolve()]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = run_python(ROOT / "docs" / "make_site.py", SITE_FOLDER=str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    return Site(folder / "site")


def test_every_link_within_the_site_leads_somewhere(site):
    assert len(site.pages) > 20
    for path, page in site.pages.items():
        for link in page.links | page.loads:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.exists(), f"{path.name}: {link}"
            if target in site.pages and parts.fragment:
                anchors = site.pages[target].anchors
                assert unquote(parts.fragment) in anchors, f"{path.name}: {link}"


def test_nothing_is_loaded_from_elsewhere(site):
    loaded = {address for page in site.pages.values() for address in page.loads}
    assert loaded
    assert not {address for address in loaded if urlsplit(address).netloc}


@pytest.mark.parametrize("module", ["lightning_nc", "functional", "metrics", "theory"])
def test_every_public_name_is_in_the_reference(site, module):
    path = module if module == "lightning_nc" else f"lightning_nc.{module}"
    found = importlib.import_module(path)
    given = lightning_nc.__all__ if found is lightning_nc else vars(found)
    names = [name for name in given if not name.startswith("_")]
    public = {name for name in names if not inspect.ismodule(getattr(found, name))}
    assert len(public) > 1
    pages = [page for where, page in site.pages.items() if where.parent.name == "api"]
    assert {f"{path}.{name}" for name in public} <= set().union(*(page.anchors for page in pages))


def test_the_reference_begins_with_what_users_look_for(site):
    first = site["api/lightning_nc.html"]
    sought = ["EquiSeparation", "measure", "measure_checkpoints", "Probe"]
    places = [first.text.index(f'id="lightning_nc.{name}"') for name in sought]
    assert places == sorted(places)
    assert "lightning_nc.Answer" not in first.anchors


@pytest.mark.parametrize("measure", MEASURES)
def test_every_quantity_has_its_part_of_a_page_with_a_formula(site, measure):
    text = site[f"quantities/{measure.family}.html"].text
    for row in measure.quantities:
        assert f"{measure.family}/{{p}}/{row.name}<" in text
    assert "<math" in text
    assert "https://" in text  # the paper


@needs_chromium
@pytest.mark.parametrize("name", ["index", "api/lightning_nc", "quantities/separation"])
def test_a_browser_shows_a_page(site, name):
    page = (site.folder / f"{name}.html").as_uri()
    pixels = picture(page, f"site_{name.replace('/', '_')}", "1400,1500")
    assert share_of_rows_with_ink(pixels) > 0.3
