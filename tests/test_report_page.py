"""The report's page in a real browser: it fits, is quiet, fetches nothing, follows keyboard, scheme and printer."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from study import VARIANTS, make_chain, make_study, write_table

from planner import Plan
from runtime.reports.report import write_report

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTHS = (360, 800, 1440)
# Of what a name may hold: markup, what ends a comment, style or attribute, mathematics, another direction, a bell.
HOSTILE = "<script>document.title='owned'</script>\"'><img src=x onerror=alert(1)>--></style>]]> $\\alpha_ ‮אב\a{{7*7}}"


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"there is no browser here: none of {', '.join(BROWSERS)}")
    with sync_api.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a study with hostile names, a damaged subject and a long one."""
    folder = tmp_path_factory.mktemp("study")
    files = make_study(folder, 9, 3, 2, requests=20, model=f"models:{HOSTILE}", layer=HOSTILE + "x" * 300)
    plan = Plan.load(files[1])
    baselines = [dataclasses.replace(each, name=HOSTILE) for each in plan.baselines]
    dataclasses.replace(plan, baselines=tuple(baselines), notes=(HOSTILE,)).save(files[1])
    (folder / "damaged.json").write_text('{"schema": "edgecut.plan/4"}')
    return write_report([*files, folder / "damaged.json"], folder / "report").page


@pytest.fixture
def opened(browser, study: Path):
    """The page, with whatever it said or asked for; each test has its own."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    said: list[str] = []
    page.on("console", lambda message: said.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (said.append("a dialog"), dialog.dismiss()))
    page.on("request", lambda request: said.append(request.url) if not _stays(request.url) else None)
    page.goto(study.as_uri())
    yield page
    page.close()
    assert not said


def _stays(url: str) -> bool:
    return url.startswith(("file:", "data:"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_overflows(opened, width: int, scheme: str) -> None:
    opened.set_viewport_size({"width": width, "height": 800})
    opened.emulate_media(color_scheme=scheme)
    opened.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    beyond = opened.evaluate("""() => [...document.querySelectorAll('body *')].filter(each =>
        !each.closest('.scroll, .picture, .skip') && each.getBoundingClientRect().right > innerWidth + 1
    ).map(each => each.tagName + ' ' + each.className + ': ' + each.textContent.slice(0, 60))""")
    assert not beyond
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_both_schemes_can_be_read(opened) -> None:
    """Text of the page and of its pictures against the ground, by the contrast that WCAG asks of text."""
    for scheme in ("light", "dark"):
        opened.emulate_media(color_scheme=scheme)
        colours = opened.evaluate("""() => {
            const of = (each, name) => getComputedStyle(each)[name];
            const texts = [...document.querySelectorAll('h1, h3, p, td, summary, nav a, .missing p')];
            const drawn = [...document.querySelectorAll('.picture text')].slice(0, 2);
            return {ground: of(document.documentElement, 'backgroundColor'),
                    texts: [...new Set([...texts.map(t => of(t, 'color')), ...drawn.map(t => of(t, 'fill'))])]};
        }""")
        for colour in colours["texts"]:
            assert contrast(colour, colours["ground"]) >= 4.5, (scheme, colour, colours["ground"])


def contrast(one: str, other: str) -> float:
    """Of two colours (WCAG 2.2, relative luminance)."""

    def luminance(colour: str) -> float:
        parts = np.array([int(part) for part in re.findall(r"\d+", colour)[:3]]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_keyboard_reaches_everything(opened) -> None:
    wanted = opened.evaluate("""() => {
        const all = [...document.querySelectorAll('a[href], summary, [tabindex="0"]')];
        const seen = all.filter(each => each.closest('details:not([open])') === null || each.matches('summary'));
        seen.forEach((each, place) => each.dataset.place = place);
        return seen.length;
    }""")
    reached = []
    for _ in range(wanted):
        opened.keyboard.press("Tab")
        reached.append(opened.evaluate("document.activeElement.dataset.place"))
        assert opened.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    assert reached == [str(place) for place in range(wanted)]
    opened.locator("a.skip").focus()
    opened.keyboard.press("Enter")
    assert opened.evaluate("document.activeElement.id") == "findings"
    opened.locator("summary").first.focus()
    opened.keyboard.press("Enter")
    assert opened.locator("details[open] table").first.is_visible()


def test_every_picture_is_described_and_its_files_are_there(opened, study: Path) -> None:
    pictures = opened.locator(".picture").all()
    assert len(pictures) >= 7
    for picture in pictures:
        title = picture.locator("xpath=ancestor::figure").locator("h4").inner_text()
        assert title in str(picture.get_attribute("aria-label"))
    links = opened.evaluate("[...document.querySelectorAll('.files a')].map(each => each.href)")
    assert len(links) >= 3 * len(pictures)
    for link in links:
        assert opened.evaluate("link => new URL(link).protocol", link) == "file:"
    names = opened.evaluate(
        "[...document.querySelectorAll('.files a')].map(each => decodeURIComponent(each.getAttribute('href')))"
    )
    assert all((study.parent / name).is_file() for name in names)
    lost = opened.evaluate("""() => [...document.querySelectorAll('.picture [href], nav a')].filter(
        each => each.getAttribute('href').startsWith('#') &&
        !document.getElementById(each.getAttribute('href').slice(1))).length""")
    assert lost == 0
    ids = opened.evaluate("[...document.querySelectorAll('[id]')].map(each => each.id)")
    assert len(ids) == len(set(ids))


def test_hostile_names_are_text(opened) -> None:
    text = opened.locator("body").inner_text()
    assert "<script>document.title='owned'</script>" in text
    assert "{{7*7}}" in text
    assert opened.title() != "owned"
    assert opened.locator("script, img").count() == 0
    drawn = opened.evaluate("[...document.querySelectorAll('.picture text')].map(each => each.textContent)")
    assert any("7*7" in each for each in drawn)


def test_what_is_damaged_is_named(opened) -> None:
    missing = opened.locator("header .missing")
    assert "damaged.json" in missing.inner_text()
    assert "key 'chain' is missing" in missing.inner_text()


def test_it_prints(opened, tmp_path: Path) -> None:
    pdf = opened.pdf(format="A4")
    assert pdf.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) >= 3
    opened.emulate_media(media="print", color_scheme="dark")
    assert (
        opened.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    )
    assert not opened.locator("nav").is_visible()


def test_hostile_devices_of_a_table(browser, tmp_path: Path) -> None:
    """A plan's devices are checked by its fleet; those of a table are whatever its sidecar says."""
    chain = make_chain(3, "m", "l", np.random.default_rng(0))
    device = f"../../{HOSTILE}"
    write_table(tmp_path / "a.csv", chain, device, np.full(3, 0.1), VARIANTS[:1], np.random.default_rng(0))
    report = write_report([tmp_path / "a.csv"], tmp_path / "report")
    assert all(file.parent == tmp_path / "report" for file in report.files)
    page = browser.new_page()
    page.goto(report.page.as_uri())
    assert device.replace("\a", "") in page.locator("#subjects ~ .scroll").inner_text().replace("\a", "")
    assert page.locator("script, img").count() == 0
    page.close()
