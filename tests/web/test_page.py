"""The page in a real browser, each tab used as a person would, at a desk and on a phone."""

import re
import shutil
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest
from PIL import Image

from made_up_detector import WITH, WITHOUT, paint
from unmask.check.result import Check
from unmask.report.model_check import check_page

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}
PATIENCE = 60_000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium on this machine: apt install chromium"
    ),
]


@pytest.fixture(scope="module")
def browser() -> Iterator:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as running:
        made = running.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--use-fake-device-for-media-stream",
                "--use-fake-ui-for-media-stream",
            ],
        )
        yield made
        made.close()


@pytest.fixture(scope="module", params=WIDTHS)
def page(request, browser, served) -> Iterator:
    """The page, freshly opened; at the end nothing has gone wrong on it and none left loopback."""
    width, height = WIDTHS[request.param]
    context = browser.new_context(
        viewport={"width": width, "height": height}, permissions=["camera"]
    )
    opened, wrong = context.new_page(), []
    opened.set_default_timeout(PATIENCE)
    # What the browser says of the hostile report is that it kept its script from running.
    blocked = f"Blocked script execution in '{served.url}/reports/page"
    opened.on(
        "console",
        lambda m: (
            wrong.append(m.text) if m.type == "error" and not m.text.startswith(blocked) else None
        ),
    )
    opened.on("pageerror", lambda e: wrong.append(str(e)))
    here = (f"{served.url}/", "data:", "blob:")
    opened.on("request", lambda r: None if r.url.startswith(here) else wrong.append(r.url))
    opened.on(
        "response", lambda r: wrong.append(f"{r.status} {r.url}") if r.status >= 400 else None
    )
    opened.goto(f"{served.url}/")
    yield opened
    assert wrong == []
    assert served.files() == []
    context.close()


def tab(page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def fits(page) -> None:
    across = page.evaluate("document.documentElement.scrollWidth")
    assert across <= page.viewport_size["width"]


def field(page, label: str):
    return page.get_by_label(label, exact=True).locator("visible=true").first


def test_check_opens_first_and_an_example_runs_with_one_click(page, tmp_path: Path) -> None:
    page.get_by_role("button", name="Check", exact=True).click()
    page.locator("tbody tr", has_text="the input pipeline").wait_for()
    saved = page.get_by_role("link", name="Download the report")
    saved.wait_for()
    fits(page)
    with page.expect_download() as download:
        saved.click()
    assert download.value.suggested_filename == "report.html"
    report = Path(download.value.path()).read_text()
    assert "<h1>mnist" in report
    assert "Questions" in report


def test_check_an_uploaded_model(page, tmp_path: Path) -> None:
    weights = resources.files("unmask.models") / "weights"
    for name in ("mnist.safetensors", "mnist.json"):
        (tmp_path / name).write_bytes((weights / name).read_bytes())
    for label in "07":
        for number in range(3):
            folder = tmp_path / "digits" / label
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("L", (28, 28), 40 * number).save(folder / f"{number}.png")
    shutil.make_archive(str(tmp_path / "digits"), "zip", tmp_path / "digits")
    tab(page, "Check")
    # As fast as the page can be drawn, before the server could be told of the first.
    own = page.get_by_role("tab", name="Your own", exact=True).element_handle()
    check = page.get_by_role("button", name="Check", exact=True).element_handle()
    page.evaluate(
        """async ([own, check]) => {
            own.click();
            await new Promise(requestAnimationFrame);
            check.click();
        }""",
        [own, check],
    )
    page.get_by_text("there is no model yet").wait_for()
    upload = page.locator(".files input[type=file]")
    upload.set_input_files(
        [tmp_path / name for name in ("mnist.safetensors", "mnist.json", "digits.zip")]
    )
    page.locator("ul.files li", has_text="digits.zip").wait_for()
    page.get_by_role("button", name="Check", exact=True).click()
    page.get_by_text(re.compile(r"mnist\.safetensors on digits\.zip")).wait_for()
    fits(page)
    (tmp_path / "note.txt").write_text("no model")
    upload.set_input_files(tmp_path / "note.txt")
    page.get_by_text("note.txt is neither a model nor a zip of images").wait_for()


def test_flow_trains_finds_the_fault_and_mends_it(page) -> None:
    tab(page, "Flow")
    field(page, "number input for depth").fill("12")
    field(page, "number input for width").fill("32")
    field(page, "number input for epochs").fill("2")
    field(page, "number input for nets").fill("2")
    page.get_by_role("button", name="Train").click()
    page.locator("svg.curves path.now").first.wait_for(state="attached")
    fix = page.get_by_role("button", name="Apply the fix")
    fix.wait_for()
    assert "vanishing" in page.locator(".card").locator("visible=true").first.inner_text()
    page.get_by_text("Gradient of every layer").wait_for()
    fits(page)
    fix.click()
    page.get_by_text("Nothing blocks the gradient").wait_for()
    assert page.get_by_label("activation").first.input_value() == "tanh"
    accuracy = re.search(
        r"test accuracy ([\d.]+)",
        page.locator(".status").locator("visible=true").first.inner_text(),
    )
    assert accuracy is not None
    assert float(accuracy[1]) > 50
    assert page.locator("svg.curves path.earlier").count() > 0
    page.get_by_text("layers lie within").wait_for()


def test_fool_a_drawn_digit(page) -> None:
    tab(page, "Fool")
    tab(page, "Draw")
    pad = page.locator(".pad canvas")
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()

    def at(x: float, y: float) -> tuple[float, float]:
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    page.mouse.move(*at(0.5, 0.15))
    page.mouse.down()
    page.mouse.move(*at(0.5, 0.5), steps=5)
    page.mouse.move(*at(0.5, 0.85), steps=5)
    page.mouse.up()
    page.get_by_text(re.compile("predicted: 1,")).wait_for()
    page.get_by_role("button", name="Fool it").click()
    page.get_by_text(re.compile("Predicted: 3, .* on the saved image")).wait_for()
    page.get_by_text("marks: on the original").wait_for()
    fits(page)
    saved = page.get_by_role("link", name="save PNG").first
    with page.expect_download() as download:
        saved.click()
    assert download.value.suggested_filename == "predicted-as-3.png"
    assert Image.open(download.value.path()).size == (28, 28)
    slider = page.get_by_role("slider", name="step").last
    slider.evaluate("e => { e.value = 1; e.dispatchEvent(new Event('input', {bubbles: true})); }")
    page.get_by_text(re.compile(r"step 1 of \d+: 1")).wait_for()


def test_fool_an_example_by_every_attack(page) -> None:
    tab(page, "Fool")
    tab(page, "Examples")
    page.locator("[data-example='7']").locator("visible=true").click()
    page.get_by_text(re.compile("predicted: 7,")).wait_for()
    page.get_by_role("button", name="Compare attacks").click()
    page.locator("tbody tr", has_text="Square").wait_for()
    assert page.locator("tbody tr").locator("visible=true").count() == 7
    fits(page)


def test_fool_an_uploaded_picture(page, tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), "white").save(tmp_path / "blank.png")
    tab(page, "Fool")
    tab(page, "Upload")
    upload = page.locator(".picture input[type=file]").nth(1)
    upload.set_input_files(tmp_path / "blank.png")
    page.get_by_text("the image shows no digit").wait_for()


def test_mask_by_file_and_camera(page, tmp_path: Path) -> None:
    picture = tmp_path / "street.png"
    paint((300, 200), [((40, 40, 80, 80), WITH), ((150, 60, 200, 120), WITHOUT)]).save(picture)
    tab(page, "Mask")
    upload = page.locator(".picture input[type=file]").last
    upload.set_input_files(picture)
    page.get_by_text(re.compile("2 faces: 1 with")).wait_for()
    assert page.locator("tbody tr", has_text="without mask").locator("visible=true").count() == 1
    before = page.locator("figure.found img").get_attribute("src")
    page.locator("[data-example='1']").locator("visible=true").click()
    page.wait_for_function(
        "!document.querySelector('figure.found figcaption').innerText.startsWith('2 ')"
    )
    upload.set_input_files(picture)
    page.get_by_text(re.compile("2 faces: 1 with")).wait_for()
    page.get_by_label("hide the faces").check()
    page.wait_for_function(
        "before => document.querySelector('figure.found img').src !== before", arg=before
    )
    hidden = page.locator("figure.found img").get_attribute("src")
    page.get_by_role("button", name="JSON").click()
    page.get_by_text("class_names").first.wait_for()
    fits(page)
    (tmp_path / "note.txt").write_text("no image")
    upload.set_input_files(tmp_path / "note.txt")
    page.get_by_text("That is no image").wait_for()
    page.get_by_role("button", name="Use the camera").locator("visible=true").click()
    page.get_by_role("button", name="Take the image").click()
    page.wait_for_function(
        "before => document.querySelector('figure.found img')?.src !== before", arg=hidden
    )


def test_reports_open_and_run_nothing(page) -> None:
    tab(page, "Reports")
    page.frame_locator("iframe.report").locator("h1").wait_for()
    page.get_by_label("report, the newest first").click()
    page.get_by_role("option", name=re.compile("hostile")).click()
    page.frame_locator("iframe.report").get_by_text("Hostile").wait_for()
    time.sleep(0.3)
    assert page.title() == "Unmask"
    fits(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_keeps_a_screen_reader_or_weak_eyes_out(
    browser, served, width: str, scheme: str
) -> None:
    """axe-core's rules of WCAG find nothing serious on any tab."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    across, down = WIDTHS[width]
    context = browser.new_context(viewport={"width": across, "height": down}, color_scheme=scheme)
    page, found = context.new_page(), []
    page.set_default_timeout(PATIENCE)
    page.goto(f"{served.url}/")
    for name in ("Check", "Flow", "Fool", "Mask", "Reports"):
        tab(page, name)
        page.locator("[role=tabpanel]:visible :is(button, input):visible").first.wait_for()
        found += [
            (name, violation["id"], violation["nodes"][0]["html"])
            for violation in axe.run(page).response["violations"]
            if violation["impact"] in ("serious", "critical")
        ]
    context.close()
    assert found == []


@pytest.mark.parametrize("width", WIDTHS)
def test_a_report_is_no_wider_than_the_window(browser, width: str) -> None:
    across, down = WIDTHS[width]
    page = browser.new_page(viewport={"width": across, "height": down})
    found = Check("a_package_of_mine.models:make_the_model_of_last_week", "d", (), 1, 1)
    page.set_content(check_page(found))
    # Figures are drawn at 200 dpi.
    wide = "<svg xmlns='http://www.w3.org/2000/svg' width='1600' height='900'/>"
    figure = f"<figure><img src=\"data:image/svg+xml,{wide}\" alt=''></figure>"
    page.evaluate("text => document.querySelector('main').innerHTML += text", figure)
    page.wait_for_function("document.querySelector('img').naturalWidth == 1600")
    fits(page)
    page.close()
