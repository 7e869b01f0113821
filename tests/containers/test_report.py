"""The report in a real browser: widths, colour schemes, print, accessibility."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[2]
ARTEFACTS = ROOT / "results" / "test-artefacts"
EXAMPLE = ROOT / "tests" / "unit" / "bench" / "comparison.json"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
WIDTHS = (360, 768, 1280)
SCHEMES = ("light", "dark")
HOSTILE = {"arm": "is long & </script><script>document.title='bad'</script>", "library": "<img src=x>"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "a browser is needed: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the example, against an earlier record in which an arm was slower."""
    folder = tmp_path_factory.mktemp("results")
    shutil.copy(EXAMPLE, folder / "now.json")
    earlier = json.loads(EXAMPLE.read_text())
    earlier["provenance"].update(time_utc="2026-11-28T12:00:00+00:00", revision="1" * 40)
    for one in earlier["rounds"]:
        if one["arm"] == "webdataset":
            one["epochs"][0]["imgs_per_s"] *= 0.7
    (folder / "before.json").write_text(json.dumps(earlier))
    return report(folder, "now.json", "AGAINST=before.json")


@pytest.fixture(scope="module")
def hostile_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a record whose texts try to leave their place, with several numbers of workers."""
    folder = tmp_path_factory.mktemp("hostile")
    record = json.loads(EXAMPLE.read_text())
    record["summary"]["answer"] = HOSTILE["arm"]
    record["failures"][0]["message"] = HOSTILE["library"] * 50
    record["provenance"]["endpoint"] = f"http://{'x' * 200}{HOSTILE['library']}"
    record["summary"]["arms"] += [{**arm, "workers": 16} for arm in record["summary"]["arms"]]
    for one in [*record["summary"]["arms"], *record["summary"]["waterfall"]]:
        one["arm"] = f"{one['arm']} {HOSTILE['arm']}"
    for arm in record["arms"]:
        arm.update(library=HOSTILE["library"], how="x" * 400)
    (folder / "hostile.json").write_text(json.dumps(record))
    return report(folder, "hostile.json")


def report(folder: Path, *words: str) -> Path:
    command = [sys.executable, "-m", "larder", "report", *words, f"LARDER_RESULTS={folder}"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    return folder / f"{Path(words[0]).stem}.html"


def open_page(browser: Browser, file: Path, width: int, scheme: str, *, scripts: bool = True) -> tuple[Page, list[str]]:
    """Return a page, and a list to which messages of the console, errors and requests are added."""
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if scheme == "dark" else "light",
        java_script_enabled=scripts,
    )
    page, heard = context.new_page(), []
    page.on("console", lambda message: heard.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: heard.append(f"error: {error}"))
    page.on("request", lambda request: heard.append(f"request: {request.url}") if request.url != page.url else None)
    page.goto(file.as_uri())
    return page, [one for one in heard if one != f"request: {file.as_uri()}"]


def faults_of(page: Page) -> list[str]:
    """Return what axe finds."""
    violations = Axe().run(page).response["violations"]
    return [f"{one['id']}: {node['target']} {node['failureSummary']}" for one in violations for node in one["nodes"]]


def overflowing(page: Page) -> list[str]:
    """Return the texts of plots that leave the page, or overlap another one in their row."""
    return page.evaluate("""() => {
        const box = (text) => text.getBoundingClientRect(), found = [];
        for (const text of document.querySelectorAll(".plot text")) {
            if (box(text).left < -1 || box(text).right > innerWidth + 1) found.push(text.textContent);
            const next = text.nextElementSibling;
            if (next?.tagName === "text" && !next.matches(".tick") && Math.abs(box(next).top - box(text).top) < 5
                && box(text).right > box(next).left) found.push(text.textContent + "|" + next.textContent);
        }
        return found;
    }""")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_and_has_no_findings(browser: Browser, page_file: Path, width: int, scheme: str) -> None:
    page, heard = open_page(browser, page_file, width, scheme)
    assert heard == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert overflowing(page) == []
    assert faults_of(page) == []
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTEFACTS / f"report-{width}-{scheme}.png", full_page=True)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "with all tables open"
    assert faults_of(page) == [], "with all tables open"
    page.context.close()


@pytest.mark.parametrize("width", [360, 1280])
def test_hostile_texts_stay_in_their_place(browser: Browser, hostile_file: Path, width: int) -> None:
    page, heard = open_page(browser, hostile_file, width, "light")
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert heard == []
    assert page.title().startswith("Feeding photos")
    assert page.locator("img").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert overflowing(page) == []
    assert faults_of(page) == []
    page.screenshot(path=ARTEFACTS / f"report-hostile-{width}.png", full_page=True)
    page.context.close()


def test_it_is_readable_without_scripts(browser: Browser, page_file: Path) -> None:
    page, heard = open_page(browser, page_file, 360, "light", scripts=False)
    assert heard == []
    assert page.get_by_role("heading", level=1).is_visible()
    assert "webdataset with 2 workers is 43% faster" in page.locator("#changes").inner_text()
    summary = page.locator("#throughput summary")
    summary.click()
    assert page.locator("#throughput table").is_visible()
    page.context.close()


def test_colours_follow_the_scheme(browser: Browser, page_file: Path) -> None:
    def colours(scheme: str) -> list[str]:
        page, _ = open_page(browser, page_file, 768, scheme)
        found = page.evaluate(
            "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
        )
        page.context.close()
        return [str(one) for one in found]

    light, dark = colours("light"), colours("dark")
    assert brightness(light[0]) > 200 > 60 > brightness(light[1])
    assert brightness(dark[0]) < 60 < 200 < brightness(dark[1])


def brightness(colour: str) -> float:
    parts = [float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    return sum(parts) / 3


def test_it_prints_in_light_colours_with_all_tables(browser: Browser, page_file: Path) -> None:
    page, _ = open_page(browser, page_file, 1280, "dark")
    page.emulate_media(media="print", color_scheme="dark")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == "rgb(255, 255, 255)"
    assert not page.get_by_role("navigation").is_visible()
    cell = page.locator("#throughput details td").first
    assert cell.evaluate("(cell) => cell.checkVisibility({contentVisibilityAuto: true})")
    page.set_viewport_size({"width": 690, "height": 980})  # A4 with its margins
    assert page.evaluate("document.documentElement.scrollWidth") <= 690
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTEFACTS / "report-print.png", full_page=True)
    printed = page.pdf(path=ARTEFACTS / "report.pdf", format="A4")
    assert printed.startswith(b"%PDF-")
    page.context.close()


def test_the_keyboard_reaches_tables_and_details(browser: Browser, page_file: Path) -> None:
    page, _ = open_page(browser, page_file, 360, "light")
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.tagName"))
    assert {"A", "DIV", "SUMMARY"} <= reached
    page.context.close()
