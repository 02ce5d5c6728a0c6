"""Names that are no file names: what is written for them stays in its folder, apart from others."""

import posixpath
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pytorch_lightning.loggers import CSVLogger

from lightning_nc import MeasureCallback, NeuralCollapse, Probe
from lightning_nc.figures.canvas import canvas
from lightning_nc.loggers.files import path_of
from lightning_nc.loggers.films import log_film
from lightning_nc.loggers.images import save_figure
from lightning_nc.measures import CollapseMeasure
from tests import nets

pytestmark = pytest.mark.filterwarnings(*nets.only_our_warnings)

HOSTILE = (
    *(
        "../../x",
        "/x",
        "//x",
        "a//b",
        "a/./b",
        "a/../b",
        "",
        "/",
        ".",
        "..",
        "...",
        "a/",
        "~",
        "~/x",
    ),
    *(
        "a\\b",
        "..\\x",
        "C:\\x",
        "a\0b",
        "a\nb",
        "a b ",
        " a b",
        "a.",
        "nul",
        "NUL",
        "aux.txt",
        "com1",
    ),
    *(
        "Val",
        "val",
        "VAL",
        "a_b",
        "a/b",
        "a-b",
        "a*b",
        "a?b",
        "a:b",
        "x" * 300,
        "X" * 300,
        "é",
        "e\u0301",
    ),
    *(
        "\udcff",
        "\N{GRINNING FACE}",
        "x" * 81,
        "x" * 82,
        "$(id)",
        "`id`",
        "a;b",
        "%2e%2e",
        "step_1.png",
    ),
)
RESERVED = {"con", "prn", "aux", "nul", *(f"{a}{b}" for a in ("com", "lpt") for b in range(10))}
parts = st.one_of(st.sampled_from(HOSTILE), st.text(st.sampled_from("aA./\\_~ é"), max_size=4))


@given(st.lists(parts, min_size=2, max_size=2, unique=True))
@example(["Val", "val"])
def test_two_tags_have_two_paths_inside_the_folder_also_where_case_is_not_told(tags):
    one, other = (path_of(f"nc/{tag}/law").lower() for tag in tags)
    assert one != other
    for path in (one, other):
        assert posixpath.normpath(path) == path
        for name in path.split("/"):
            assert set(name) <= {*string.ascii_lowercase, *string.digits, *"_-~"}
            assert 0 < len(name) < 100
            assert name not in RESERVED


def test_ordinary_tags_are_their_own_paths():
    for tag in ("nc/train/law", "separation/my_probe/classes", "nc/val-2/a/b/epochs"):
        assert path_of(tag) == tag


def test_no_figure_or_film_is_written_elsewhere_or_over_another(tmp_path):
    logs = tmp_path / "a" / "b" / "logs"
    logger = CSVLogger(logs, "", "")
    figure, _ = canvas(1, (0.2, 0.2))
    film = tmp_path / "film.gif"
    film.write_bytes(b"GIF")
    for name in HOSTILE:
        save_figure(logs, f"nc/{name}/law", figure, 0)
        log_film(logger, f"nc/{name}/law", film, 0)
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path != film]
    assert all(path.is_relative_to(logs / "figures" / "nc") for path in written)
    assert sum(path.suffix == ".png" for path in written) == len(HOSTILE)
    assert sum(path.suffix == ".gif" for path in written) == len(HOSTILE)
    assert not any("-2." in path.name for path in written)  # each had its folder for itself


@pytest.mark.parametrize(
    "name", ["../../x", "/x", "a/", "a//b", "a/./b", "..", "..\\x", "a\nb", "\0"]
)
def test_a_probe_with_a_name_that_is_no_key_is_refused_in_a_sentence(name):
    with pytest.raises(ValueError, match="name of a Probe is part of logged keys") as told:
        Probe("train", name=name)
    assert repr(name) in str(told.value)


class Outside(CollapseMeasure):
    """A measure whose figures are named after a path that leads out of the folder."""

    def draw(self, timeline):
        return {f"../../../../{name}": draw for name, draw in super().draw(timeline).items()}


def test_what_a_run_writes_stays_in_its_folder_whatever_probes_and_figures_are_called(tmp_path):
    names = ("Val", "val", "a b", "$\\foo$", "_x", "\N{GRINNING FACE}", "x" * 300)
    used = [NeuralCollapse(probe=Probe("train", name=name)) for name in names]
    used.append(MeasureCallback(Outside()))
    root = tmp_path / "a" / "b"
    nets.fit(tmp_path / "root", used, logger=CSVLogger(root, "", ""), max_epochs=1)
    assert {path.name for path in tmp_path.iterdir()} <= {"a", "root"}
    written = {path.name for path in root.iterdir()} - {"hparams.yaml"}  # of an older Lightning
    assert written == {"metrics.csv", "figures", "lightning_nc.json"}
    pictures = list(root.rglob("figures/nc/*/cosines/*.png"))
    assert len(pictures) == 2 * len(names)  # before training, and after the epoch
