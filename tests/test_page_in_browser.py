"""The page of a pipeline in a browser: every step by its fragment, and the keys.

Chromium, the Debian package `chromium`, has to be there: without it these tests fail.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from example_networks import networks
from test_page import Element, Reader, sections

import minigraph as mg
from minigraph.passes.pipelines import INFERENCE
from minigraph.tools.page import page
from passes_by_hand import pipeline

pytestmark = pytest.mark.nightly


def browse(path: Path, fragment: str = "", script: str = "") -> Element:
    """The page as it stands in the browser after its scripts have run; `script` runs behind them."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert program, "these tests need Chromium: apt-get install chromium"
    if script:
        text = path.read_text(encoding="utf-8").replace("</body>", f"<script>{script}</script></body>")
        path = path.with_name("driven.html")
        path.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [
            program,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={path.parent / 'profile'}",
            "--window-size=1400,1000",
            "--virtual-time-budget=2000",
            "--dump-dom",
            f"{path.as_uri()}{fragment}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return Reader(done.stdout).root


def shown(root: Element) -> Element:
    """The one section that is not hidden."""
    (section,) = (s for s in sections(root) if "hidden" not in s.attributes)
    return section


@pytest.fixture
def path(tmp_path):
    return page(pipeline(), tmp_path / "page.html")


@pytest.fixture(scope="module")
def resnet20(tmp_path_factory):
    answer = mg.inference(networks.resnet20(), ["logits"])
    return page(mg.optimize(answer, answer.init(0)), tmp_path_factory.mktemp("resnet20") / "page.html")


RESNET20 = ["0 given", *(f"{i} {p.name}" for i, p in enumerate(INFERENCE, 1)), f"{len(INFERENCE) + 1} result"]


@pytest.mark.parametrize("number", range(len(RESNET20)))
def test_every_pass_on_resnet20_is_shown(resnet20, number):
    section = shown(browse(resnet20, f"#{number}"))
    assert next(section.find("h2")).text() == RESNET20[number]
    pictures = list(section.find("svg"))
    assert len(pictures) == (2 if RESNET20[number].split()[1] in ("scale-and-shift", "fold-before", "tidy") else 1)
    assert all("conv1" in picture.text() for picture in pictures)


TITLES = ["0 given", "1 look", "2 fold", "3 result"]


@pytest.mark.parametrize("number", range(4))
def test_the_fragment_says_which_step_is_shown(path, number):
    root = browse(path, f"#{number}")
    assert next(shown(root).find("h2")).text() == TITLES[number]
    marked = [a.attributes["href"] for a in root.find("a", aria_current="step")]
    assert marked == [f"#{number}"]


@pytest.mark.parametrize("number", range(4))
def test_a_step_shows_its_pictures(path, number):
    section = shown(browse(path, f"#{number}"))
    words = [picture.text() for picture in section.find("svg")]
    assert len(words) == (2 if number == 2 else 1)
    if number == 2:
        assert "− bn1" in words[0]
        assert "+ bn1" in words[1]
    for picture in section.find("svg"):
        assert 100 < float(picture.attributes["width"] or 0) < 1100  # it has a size, and fits


def test_a_picture_is_found_again_when_one_comes_back(path):
    root = browse(path, "#0", 'location.hash = "1"; setTimeout(() => { location.hash = "0" }, 100)')
    assert next(shown(root).find("h2")).text() == "0 given"
    assert "batch_norm_inference" in next(shown(root).find("svg")).text()


@pytest.mark.parametrize("fragment", ["", "#99", "#-4", "#x"])
def test_other_fragments_show_a_step_all_the_same(path, fragment):
    expected = TITLES[3] if fragment == "#99" else TITLES[0]
    assert next(shown(browse(path, fragment)).find("h2")).text() == expected


def press(*keys: str) -> str:
    presses = "".join(f'dispatchEvent(new KeyboardEvent("keydown", {{ key: "{key}" }}));' for key in keys)
    return f"setTimeout(() => {{ {presses} }}, 100)"


@pytest.mark.parametrize(
    ("fragment", "key", "title"),
    [("#1", "ArrowRight", "2 fold"), ("#1", "ArrowLeft", "0 given"), ("#0", "ArrowLeft", "0 given"),
     ("#3", "ArrowRight", "3 result")],
)  # fmt: skip
def test_arrow_keys_step(path, fragment, key, title):
    assert next(shown(browse(path, fragment, press(key))).find("h2")).text() == title


def test_arrow_keys_step_through_all_passes(resnet20):
    root = browse(resnet20, "#0", press(*["ArrowRight"] * (len(RESNET20) - 1)))
    assert next(shown(root).find("h2")).text() == RESNET20[-1]


def test_keys_and_buttons_zoom(path):
    width = lambda script: float(next(shown(browse(path, "#0", script)).find("svg")).attributes["width"] or 0)
    fit = width("")
    assert width(press("+")) == pytest.approx(fit * 1.25, rel=1e-3)
    assert width(press("-", "-")) == pytest.approx(fit * 0.64, rel=1e-3)
    assert width(press("+", "+", "0")) == pytest.approx(fit, rel=1e-3)
    assert width("setTimeout(() => document.querySelector(\"[data-factor='1.25']\").click(), 100)") > fit


def test_pictures_stand_above_each_other_if_wanted(path):
    section = shown(browse(path, "#2", press("s")))
    assert len(list(section.find("div", class_="view stacked"))) == 1
    section = shown(browse(path, "#2", press("s", "s")))
    assert len(list(section.find("div", class_="view"))) == 1


def test_scripts_run_without_an_error(path):
    catch = 'addEventListener("error", (event) => { document.title = "failed: " + event.message });'
    text = path.read_text(encoding="utf-8").replace("<body>", f"<body><script>{catch}</script>")
    path.write_text(text, encoding="utf-8")
    root = browse(path, "#2", press("+", "ArrowLeft", "ArrowRight", "0"))
    assert not re.search("failed", next(root.find("title")).text())


def test_without_pictures_it_steps_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("minigraph.tools.page.can_render", lambda format: False)
    path = mg.page(pipeline(), tmp_path / "page.html")
    root = browse(path, "#2", press("+", "ArrowLeft"))
    assert next(shown(root).find("h2")).text() == "1 look"
    assert "There are no pictures here" in shown(root).text()
