"""The report's page in a real headless Chromium: console, filters, sorting, narrow screens, axe-core, print."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from made_records import TEN, data_record, write_evaluation, write_grid, write_retrieval, write_run

from repro.report import build_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.page

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
REPOSITORY = Path(__file__).parents[2]
SCREENSHOT = REPOSITORY / "docs" / "report.png"
MOST_BYTES = 400_000  # of the screenshot
MOST_PAGES = 22  # on paper


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report with something in every table and figure."""
    folder, out = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("report")
    data = data_record(classes=["<script>alert(1)</script>", *TEN[1:]], name="ten classes of photographs")
    for seed in range(3):
        write_run(folder, seed=seed, data=data)
        write_evaluation(folder, seeds=(seed,), error=24 + seed, data=data)
        write_evaluation(folder, seeds=(seed,), error=26 + seed, views=1, data=data)
    for variant, error in (("no-lrn", 28.0), ("one-gpu", 27.0), ("no-conv3", 29.0)):
        write_run(folder, variant, level=error, data=data)
        write_evaluation(folder, variant, error=error, data=data)
    write_run(folder, recipe="paper", stall=6, data=data)
    write_retrieval(folder, data=data)
    write_grid(folder / "cifar10", "cifar-relu", 0.002, [45, 22, 15])
    write_grid(folder / "cifar10", "cifar-tanh", 0.001, [70, 60, 52, 46, 41, 37, 33, 30, 28, 26, 24, 22])
    return build_report(folder, out).page.as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=os.environ.get("REPRO_CHROMIUM", "/usr/bin/chromium"), args=ARGUMENTS
        )
        yield chromium
        chromium.close()


def opened(browser: Browser, address: str, width: int = 1280, scheme: Any = "light") -> Page:
    """Return the opened page, after checking that it logs nothing and loads nothing from the network."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    logged: list[str] = []
    page.on("console", lambda message: logged.append(message.text))
    page.on("pageerror", lambda error: logged.append(str(error)))
    page.on("request", lambda request: logged.append(request.url) if request.url.startswith("http") else None)
    page.goto(address)
    page.wait_for_load_state("networkidle")
    assert logged == []
    return page


def test_filters_and_order(browser: Browser, address: str) -> None:
    page = opened(browser, address)
    rows = page.locator(".claims tbody tr")
    shown = page.locator(".claims tbody tr:not([hidden])")
    everything = rows.count()
    assert shown.count() == everything > 80
    for word in ("match", "missing", "not comparable"):
        page.locator(f"#filter input[value='{word}']").uncheck()
    verdicts = set(shown.evaluate_all("rows => rows.map(row => row.dataset.verdict)"))
    assert verdicts == {"mismatch"}
    assert page.locator("#filter output").inner_text() == f"{shown.count()} of {everything} claims"
    for word in ("match", "missing", "not comparable"):
        page.locator(f"#filter input[value='{word}']").check()
    page.locator("#filter select[name=section]").select_option("3.1")
    assert set(shown.evaluate_all("rows => rows.map(row => row.dataset.section)")) == {"3.1"}
    page.locator("#filter select[name=section]").select_option("")
    page.locator("#filter input[name=text]").fill("CENTRE crop alone")
    assert shown.count() == 2
    page.locator("#filter input[name=text]").fill("")
    page.locator("#filter select[name=order]").select_option("verdict")
    order = rows.evaluate_all("rows => rows.map(row => row.dataset.verdict)")
    words = ["match", "mismatch", "missing", "not comparable"]
    assert order == sorted(order, key=words.index)


def test_a_table_sorts_by_numbers_and_by_words_inside_its_groups(browser: Browser, address: str) -> None:
    page = opened(browser, address)

    def column(index: int) -> list[str]:
        found: list[str] = page.locator("#architecture-table tbody tr").evaluate_all(
            "(rows, index) => rows.map(row => row.cells[index].textContent.trim())", index
        )
        return found

    head = page.locator("#architecture-table th", has_text="Parameters").first
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    numbers = [int(text.replace(",", "")) for text in column(7) if text != "—"]
    assert numbers == sorted(numbers)
    assert column(7)[-1] == "—"  # empty cells stay last
    head.get_by_role("button").press("Enter")
    numbers = [int(text.replace(",", "")) for text in column(7) if text != "—"]
    assert head.get_attribute("aria-sort") == "descending"
    assert numbers == sorted(numbers, reverse=True)
    assert column(7)[-1] == "—"
    page.locator("#architecture-table th").first.get_by_role("button").click()
    assert column(0)[:3] == ["all layers", "conv1", "conv2"]
    assert head.get_attribute("aria-sort") is None
    # The group of what is not comparable keeps its heading on top.
    page.locator("#ablations-table th[data-column='2'] button").click()
    assert page.locator("#ablations-table tbody").nth(1).locator("tr").first.get_attribute("class") == "heading"


def test_figures_open_large_and_close_by_key(browser: Browser, address: str) -> None:
    page = opened(browser, address)
    page.locator(".enlarge").first.click()
    assert page.locator("dialog").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("dialog").is_hidden()


@pytest.mark.parametrize("width", [375, 768, 1280])
def test_nothing_is_wider_than_the_screen(browser: Browser, address: str, width: int) -> None:
    page = opened(browser, address, width)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_axe_finds_nothing(browser: Browser, address: str, scheme: str, width: int) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = opened(browser, address, width, scheme)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    found = Axe().run(page).response
    assert len(found["passes"]) > 20
    problems = [(each["id"], [node["html"][:120] for node in each["nodes"][:3]]) for each in found["violations"]]
    assert problems == []


def test_a_table_says_that_it_scrolls_where_it_does(browser: Browser, address: str) -> None:
    hint = "#tables .hint >> nth=1"  # of Table 2, with nine columns of numbers
    assert opened(browser, address, 375).locator(hint).is_visible()
    assert opened(browser, address, 1280).locator(hint).is_hidden()


@pytest.mark.parametrize("width", [375, 768, 1280])
def test_the_first_table_is_within_the_screen(browser: Browser, address: str, width: int) -> None:
    page = opened(browser, address, width)
    for cell in page.locator(".summary :is(th, td)").all():
        box = cell.bounding_box()
        assert box is None or (box["x"] >= 0 and box["x"] + box["width"] <= width)
    # Nothing is drawn over its neighbour: each text is within its cell.
    overflow = page.locator(".summary :is(th, td)").evaluate_all(
        "cells => cells.filter(cell => cell.scrollWidth > cell.clientWidth + 1).map(cell => cell.textContent)"
    )
    assert overflow == []


@pytest.mark.parametrize("width", [375, 1280])
def test_the_table_of_contents_follows(browser: Browser, address: str, width: int) -> None:
    page = opened(browser, address, width)
    assert page.locator(".toc [aria-current]").inner_text() == "Summary"
    page.evaluate("document.getElementById('limits').scrollIntoView({ behavior: 'instant' })")
    page.wait_for_function("document.querySelector('.toc [aria-current]')?.textContent === 'Limits'")
    assert page.locator(".toc [aria-current]").is_visible()
    assert page.locator(".toc").bounding_box()["y"] >= 0  # type: ignore[index]


def test_a_link_to_something_folded_opens_it(browser: Browser, address: str) -> None:
    page = opened(browser, f"{address}#deviation-order-conv1")
    assert page.locator("#deviation-order-conv1").is_visible()


def test_print_holds_the_claims_without_details(browser: Browser, address: str, tmp_path: Path) -> None:
    page = opened(browser, address)
    page.evaluate("document.querySelectorAll('.claims details').forEach(each => each.open = true)")
    page.emulate_media(media="print")
    assert page.locator("#filter").is_hidden()
    assert page.locator(".toc").is_hidden()
    assert page.locator(".claims tbody tr").first.is_visible()
    assert page.locator(".claims .quantity").first.is_visible()
    assert not any(each.is_visible() for each in page.locator(".claims dl").all())
    assert page.locator(".commands").is_hidden()
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    content = (tmp_path / "report.pdf").read_bytes()
    assert content[:5] == b"%PDF-"
    assert content.count(b"/Type /Page\n") + content.count(b"/Type /Page ") <= MOST_PAGES


def test_the_page_on_2000_runs_is_small_and_fits(browser: Browser, tmp_path: Path) -> None:
    variants = ("alexnet", "no-lrn", "one-gpu", "no-overlap", "tanh", "no-dropout", "no-colour", "no-conv3")
    for variant in variants:
        for seed in range(250):
            write_run(tmp_path / "runs", variant, seed=seed, weights=False)
            if seed < 100:
                write_evaluation(tmp_path / "runs", variant, seeds=(seed,), error=20 + seed % 7, predictions=False)
    made = build_report(tmp_path / "runs", tmp_path / "out")
    assert made.page.stat().st_size < 4_000_000
    page = opened(browser, made.page.as_uri(), 375)
    assert page.evaluate("document.documentElement.scrollWidth") <= 375


def test_the_readmes_picture(browser: Browser, tmp_path: Path) -> None:
    """A screenshot of the report on the runs in REPRO_RUNS, or the published ones."""
    runs = Path(os.environ.get("REPRO_RUNS", REPOSITORY / "outputs" / "reference"))
    page = opened(browser, build_report(runs, tmp_path).page.as_uri())
    SCREENSHOT.parent.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOT)
    assert 20_000 < SCREENSHOT.stat().st_size < MOST_BYTES
