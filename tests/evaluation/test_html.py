"""report.html as a file, and as a person uses it in a browser: sorting, filtering, slices, layers, keyboard."""

import re
import shutil

import nibabel
import numpy as np
import pytest
from PIL import Image as Picture

from r2seg.data.images import write_probabilities
from r2seg.evaluation.evaluate import evaluate
from r2seg.evaluation.options import EvaluationOptions
from r2seg.evaluation.viewer import MAX_CASES
from r2seg.evaluation.write import write_report


def save(path, array, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 1.0, 2.0, 1.0]) if affine is None else affine), path)


def make_cases(folder, num_cases=4, shape=(20, 18, 12)):
    """References with two boxes; predictions lose more and more of the first."""
    generator = np.random.default_rng(0)
    for index in range(num_cases):
        reference = np.zeros(shape, np.uint8)
        reference[2:12, 3:12, 2:9] = 1
        reference[13:18, 3:12, 2:9] = 2
        prediction, other = reference.copy(), reference.copy()
        prediction[2 : 3 + index, :, 4:] = 0
        other[13 : 14 + index % 3] = 0
        image = generator.normal(reference * 100.0, 30).astype(np.int16)
        for name, array in (("ref", reference), ("out", prediction), ("rival", other), ("images", image)):
            save(folder / name / f"case_{index}.nii.gz", array)
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = make_cases(tmp_path_factory.mktemp("html"))
    from r2seg.data.images import read_image

    for path in (folder / "out").glob("*.nii.gz"):
        image = read_image(path)
        soft = np.stack([np.where(image.array[0] == label, 0.9, 0.2) for label in range(3)])
        for name in ("out", "rival"):
            write_probabilities(folder / name / "probabilities" / path.name, soft, image)
    report = evaluate(
        folder / "out",
        folder / "ref",
        EvaluationOptions(
            images=folder / "images",
            against=[folder / "rival"],
            measures=["counts", "volumes", "surfaces", "probabilities"],
        ),
    )
    write_report(report, folder / "report")
    return folder / "report/report.html"


def test_the_page_needs_nothing_from_outside(page):
    text = page.read_text("utf-8")
    outside = re.findall(r'(?:src|href)="(?!data:|#|\.\./)([^"]*)"', text)
    assert outside == []
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)


def test_links_lead_to_the_files(page):
    links = re.findall(r'href="(\.\./[^"]+)"', page.read_text("utf-8"))
    assert len(links) > 8
    assert all((page.parent / link).is_file() for link in links)


def test_ids_of_the_plots_are_unique(page):
    ids = re.findall(r'\bid="([^"]+)"', page.read_text("utf-8"))
    assert len(ids) == len(set(ids)) > 20


def test_a_hundred_cases_stay_small(tmp_path):
    """Noise is the worst that can be drawn; the pictures' number is bounded, so the cases only add rows."""
    make_cases(tmp_path, 100, (24, 24, 16))
    report = evaluate(tmp_path / "out", tmp_path / "ref", EvaluationOptions(images=tmp_path / "images"))
    write_report(report, tmp_path / "report", ["html"])
    size = (tmp_path / "report/report.html").stat().st_size
    assert size < 5e6
    # With slices of full size in all places of the viewer there is still room.
    assert MAX_CASES * 25 * 40_000 < 15e6


def test_a_name_that_looks_like_markup_is_shown_as_text(tmp_path):
    make_cases(tmp_path, 1)
    for name in ("ref", "out"):
        (tmp_path / name / "case_0.nii.gz").rename(tmp_path / name / "<b>&'x.nii.gz")
    report = evaluate(tmp_path / "out", tmp_path / "ref")
    write_report(report, tmp_path / "report", ["html"])
    text = (tmp_path / "report/report.html").read_text("utf-8")
    assert "&lt;b&gt;&amp;&#39;x" in text
    assert "<b>&'x" not in text


def test_pictures_are_shown_upright_in_colour(tmp_path):
    reference = np.zeros((30, 40), np.uint8)
    reference[2:8, 5:20] = 255
    for name, array in (("ref", reference), ("out", np.roll(reference, 1, 0)), ("images", np.dstack([reference] * 3))):
        (tmp_path / name).mkdir()
        Picture.fromarray(array).save(tmp_path / name / "a.png")
    report = evaluate(tmp_path / "out", tmp_path / "ref", EvaluationOptions(images=tmp_path / "images"))
    from r2seg.evaluation.viewer import choose, show

    shown = show(report, *choose(report)[0])
    assert (shown.width, shown.height, shown.axis) == (40, 30, "")
    (slice_,) = shown.slices
    assert slice_.image.startswith("data:image/jpeg")
    corners = {tuple(float(n) for n in point.split(",")) for point in re.findall(r"[\d.]+,[\d.]+", slice_.reference)}
    assert min(x for x, _ in corners) == 5 and max(y for _, y in corners) == 8
    assert slice_.num_errors == 30


def test_volumes_are_seen_as_radiologists_look_whatever_the_files_axes(tmp_path):
    """A dot at the patient's right, front and top is left and up on the last slice, in LPS and in RAS files alike."""
    from r2seg.evaluation.viewer import choose, show

    seen = set()
    for name, signs in (("ras", (1, 1, 1)), ("las", (-1, 1, 1)), ("rpi", (1, -1, -1))):
        array = np.zeros((10, 11, 12), np.uint8)
        index = [n - 2 if sign > 0 else 1 for n, sign in zip(array.shape, signs, strict=True)]
        array[tuple(index)] = 1
        save(tmp_path / name / "ref/a.nii.gz", array, np.diag([*signs, 1.0]))
        save(tmp_path / name / "out/a.nii.gz", array, np.diag([*signs, 1.0]))
        report = evaluate(tmp_path / name / "out", tmp_path / name / "ref")
        shown = show(report, *choose(report)[0])
        found = next(s for s in shown.slices if s.reference)
        x, y = map(float, re.search(r"M([\d.]+),([\d.]+)", found.reference).groups())
        seen.add((shown.axis, found.number, round(x), round(y)))
    ((axis, number, x, y),) = seen
    assert (axis, number) == ("axial", 11)
    assert x <= 2 and y <= 2


# --- in the browser

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@pytest.fixture(scope="module")
def browser(page, tmp_path_factory):
    if not (CHROMIUM and DRIVER):
        pytest.skip("no chromium and chromedriver on this machine (Debian: apt-get install chromium chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install -e '.[test]'")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1280,1000",
        "--disable-dev-shm-usage",
    ]:
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        driver.get(page.as_uri())
        yield driver
        errors = [entry for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
        assert errors == []
    finally:
        driver.quit()


def column(browser, title):
    """Texts of a column of the cases that are shown."""
    return browser.execute_script(
        """
        const table = document.getElementById("cases");
        const heads = [...table.tHead.rows[0].cells];
        const index = heads.findIndex(head => head.textContent.trim() === arguments[0]);
        return [...table.tBodies[0].rows].filter(row => !row.hidden).map(row => row.cells[index].textContent.trim());
        """,
        title,
    )


def head(browser, title):
    return browser.find_element("xpath", f"//table[@id='cases']//th[normalize-space()='{title}']/button")


def test_the_table_sorts_by_numbers_both_ways_and_from_the_keyboard(browser):
    head(browser, "Dice").click()
    values = [float(text) for text in column(browser, "Dice")]
    assert values == sorted(values) and len(set(values)) > 3
    assert head(browser, "Dice").find_element("xpath", "..").get_attribute("aria-sort") == "ascending"
    head(browser, "Dice").send_keys("\ue007")  # Enter
    assert [float(text) for text in column(browser, "Dice")] == sorted(values, reverse=True)


def test_the_table_filters_by_text_label_and_method(browser):
    total = len(column(browser, "Case"))
    box = browser.find_element("id", "filter-text")
    box.send_keys("case_2")
    assert set(column(browser, "Case")) == {"case_2"}
    label = browser.find_element("id", "filter-label")
    label.send_keys("label_2")
    assert set(column(browser, "Label")) == {"label_2"}
    browser.find_element("id", "filter-method").send_keys("rival")
    assert column(browser, "Method") == ["rival"]
    assert browser.find_element("id", "cases-count").text == f"1 of {total} rows"
    browser.refresh()
    assert len(column(browser, "Case")) == total


def visible_slices(figure):
    return [
        s.get_attribute("data-name") for s in figure.find_elements("css selector", ".stage svg") if s.is_displayed()
    ]


def test_the_slider_moves_through_the_slices_with_the_arrow_keys(browser):
    figure = browser.find_element("css selector", "figure.case")
    slider = figure.find_element("css selector", "input[type=range]")
    slider.send_keys("\ue011")  # Home
    first = visible_slices(figure)
    slider.send_keys("\ue014")  # right
    second = visible_slices(figure)
    assert first != second
    assert len(first) == len(second) == 1
    assert figure.find_element("css selector", "output").text == second[0]
    assert re.fullmatch(r"axial \d+ / 12", second[0])


def test_layers_can_be_switched_off(browser):
    box = browser.find_element("css selector", "[data-layer=prediction]")
    outline = "return getComputedStyle(document.querySelector('.stage .prediction')).display"
    assert browser.execute_script(outline) != "none"
    box.send_keys(" ")
    assert browser.execute_script(outline) == "none"
    box.send_keys(" ")


def test_every_picture_of_the_page_decodes(browser):
    broken = browser.execute_async_script(
        """
        const done = arguments[0];
        const addresses = [...document.querySelectorAll("image")].map(image => image.getAttribute("href"));
        Promise.all(addresses.map(address => {
          const picture = new Image(); picture.src = address;
          return picture.decode().then(() => 0, () => 1);
        })).then(results => done([results.length, results.reduce((a, b) => a + b, 0)]));
        """
    )
    assert broken[0] > 20 and broken[1] == 0


def test_nothing_is_fetched(browser):
    assert browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)") == []


def test_the_page_fits_a_narrow_screen(browser):
    browser.set_window_size(500, 900)
    width = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    browser.set_window_size(1280, 1000)
    assert width[0] <= width[1]
