"""The chart of runs in a real headless Chromium: choosing, filtering, reading values, and the page without script."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from made_records import data_record, write_course, write_run
from test_page import opened

from repro.records.reading import read_records
from repro.records.runs import Run
from repro.report import build_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.page


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two nets of two seeds on images with validation, and one without."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in range(2):
        for variant in ("alexnet", "no-lrn"):
            write_run(folder, variant, seed=seed, epochs=6, weights=False, data=data_record(name="ten"))
    write_course(folder / "cifar", "cifar-lrn", 0.001, 0, [60, 50, 40])
    return folder


@pytest.fixture(scope="module")
def address(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return build_report(runs, tmp_path_factory.mktemp("report")).page.as_uri()


def read(page: Page) -> dict[str, str]:
    """Return the values in the chart's legend by name."""
    rows = page.locator(".chart .u-series")
    pairs = rows.evaluate_all("rows => rows.map(row => [row.querySelector('.u-label').textContent, "
                              "row.querySelector('.u-value').textContent])")  # fmt: skip
    return dict(pairs)


def run_named(runs: Path, name: str) -> Run:
    return next(run for run in read_records(runs).runs if run.name == name)


def test_chosen_runs_are_overlaid_and_read_by_keys(browser: Browser, address: str, runs: Path) -> None:
    page = opened(browser, address)
    first, second = "alexnet-authors-small-seed0", "no-lrn-authors-small-seed1"
    page.get_by_role("button", name="Clear").click()
    assert page.locator(".chart canvas").count() == 0
    for name in (first, second):
        page.locator("#runs-table").get_by_label(name, exact=True).check()
    page.locator(".explorer select[name=metric]").select_option(label="Validation top-1 error, %")
    assert list(read(page)) == ["epoch", first, second]
    page.locator(".chart").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    values = read(page)
    assert values["epoch"] == "2"
    for name in (first, second):
        assert float(values[name]) == pytest.approx(run_named(runs, name).log[1].val_top1_error, abs=0.005)
    page.keyboard.press("End")
    assert read(page)["epoch"] == "6"
    assert page.locator(".explorer output.unseen").inner_text().startswith(f"Epoch 6: {first} ")


def test_values_under_the_pointer(browser: Browser, address: str, runs: Path) -> None:
    page = opened(browser, address, 375, "dark")
    page.get_by_role("button", name="Clear").click()
    name = "alexnet-authors-small-seed1"
    page.locator("#runs-table").get_by_label(name, exact=True).check()
    page.locator(".explorer select[name=metric]").select_option(label="Training loss, nats")
    area = page.locator(".chart .u-over")
    size = area.bounding_box()
    assert size
    area.hover(position={"x": size["width"] - 1, "y": 10})
    assert float(read(page)[name]) == pytest.approx(run_named(runs, name).log[-1].train_loss, abs=1e-4)


def test_rows_are_filtered_and_sorted_with_their_boxes(browser: Browser, address: str) -> None:
    page = opened(browser, address)
    shown = page.locator("#runs-table tbody tr:not([hidden])")
    page.locator(".filters select[name=Variant]").select_option("no-lrn")
    assert shown.count() == 2
    page.locator(".filters input[name=text]").fill("SEED1")
    assert shown.count() == 1
    assert page.locator(".filters output").inner_text() == "1 of 5 runs"
    page.get_by_role("button", name="Clear").click()
    page.get_by_role("button", name="Add these curves").click()
    assert list(read(page))[1:] == ["no-lrn-authors-small-seed1"]
    page.locator(".filters input[name=text]").fill("")
    page.locator(".filters select[name=Variant]").select_option("")
    head = page.locator("#runs-table thead th", has_text="Seed")
    head.get_by_role("button").click()
    column = int(str(head.get_attribute("data-column")))
    seeds = shown.evaluate_all("(rows, column) => rows.map(row => row.cells[column].textContent)", column)
    assert len(set(seeds)) > 1
    assert seeds == sorted(seeds)
    boxes = page.locator("#runs-table tbody input:checked")
    assert boxes.evaluate_all("boxes => boxes.map(box => box.parentElement.textContent)") == [
        "no-lrn-authors-small-seed1"
    ]


def test_runs_without_a_value_are_counted_not_drawn(browser: Browser, address: str) -> None:
    page = opened(browser, address)
    page.get_by_role("button", name="Add these curves").click()
    page.locator(".explorer select[name=metric]").select_option(label="Validation top-1 error, %")
    assert page.locator(".explorer form output").first.inner_text() == "4 of 5 curves; 1 without this value"


def test_without_script_the_pictures_are_open(browser: Browser, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert page.locator("#explorer").is_hidden()
    assert page.locator("details.curves img").first.is_visible()
    assert page.locator("#runs-table tbody tr").count() == 5
    context.close()
