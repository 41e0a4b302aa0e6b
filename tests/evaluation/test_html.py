"""report.html as a file, and as a person uses it in a browser: sorting, filtering, slices, layers, keyboard."""

import base64
import io
import re
import shutil

import nibabel
import numpy as np
import pytest
from PIL import Image as Picture

from r2seg.data.images import read_image, write_label_map, write_probabilities
from r2seg.evaluation.evaluate import evaluate
from r2seg.evaluation.options import EvaluationOptions
from r2seg.evaluation.viewer import MAX_CASES
from r2seg.evaluation.write import write_report
from r2seg.labels import Label


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


@pytest.mark.usefixtures("no_plots")
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


def rendered(folder, **options):
    report = evaluate(folder / "out", folder / "ref", EvaluationOptions(**options))
    write_report(report, folder / "report", ["html"])
    return report, (folder / "report/report.html").read_text("utf-8")


@pytest.mark.usefixtures("no_plots")
def test_every_case_of_the_first_method_has_a_picture(tmp_path):
    make_cases(tmp_path, 14)
    _, text = rendered(tmp_path, images=tmp_path / "images")
    found = re.findall(r'<template data-case="(\w+)" data-label="(\w+)">(.*?)</template>', text, re.S)
    assert sorted((case, label) for case, label, _ in found) == sorted(
        (f"case_{index}", f"label_{label}") for index in range(14) for label in (1, 2)
    )
    assert all("data:image/jpeg" in body and 'class="outline reference"' in body for _, _, body in found)


@pytest.mark.usefixtures("no_plots")
def test_a_full_page_leaves_out_the_best_cases_and_says_so(tmp_path, monkeypatch):
    from r2seg.evaluation import viewer

    make_cases(tmp_path, 6)
    monkeypatch.setattr(viewer, "MAX_BYTES", 30_000)
    _, text = rendered(tmp_path, images=tmp_path / "images")
    kept = set(re.findall(r'<template data-case="case_(\d)"', text))
    assert 0 < len(kept) < 6
    assert kept == set("543210"[: len(kept)])  # case 5 lost most
    left_out = 6 - len(kept)
    words = f"{left_out} case{'s' if left_out > 1 else ''} with the best scores have no picture"
    assert words in text


@pytest.mark.usefixtures("no_plots")
def test_references_in_colours_are_scored_and_the_page_shows_the_colours_of_the_labels(tmp_path):
    labels = {"disc": Label((1,), rgb=[(128, 0, 0)]), "cup": Label((2,), rgb=[(0, 128, 0)], color=(0x3B, 0x82, 0xF6))}
    reference = np.zeros((20, 30), np.uint8)
    reference[4:16, 4:26], reference[8:12, 10:20] = 1, 2
    prediction = reference.copy()
    prediction[8:10, 10:20] = 1  # half of the cup
    (tmp_path / "ref").mkdir(), (tmp_path / "images").mkdir()
    Picture.fromarray(np.uint8([[0, 0, 0], [128, 0, 0], [0, 128, 0]])[reference]).save(tmp_path / "ref/a.png")
    Picture.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(tmp_path / "images/a.png")
    write_label_map(tmp_path / "out/a.png", prediction, read_image(tmp_path / "images/a.png"), labels)
    report = evaluate(tmp_path / "out", tmp_path / "ref", EvaluationOptions(labels=labels, images=tmp_path / "images"))
    scores = {row.label: row.scores["dice"] for row in report.rows}
    assert scores == pytest.approx({"disc": 2 * 224 / (224 + 244), "cup": 2 * 20 / (20 + 40)})
    write_report(report, tmp_path / "report", ["html"])
    page = (tmp_path / "report/report.html").read_text()
    for label, colour in (("disc", "#800000"), ("cup", "#3b82f6")):
        assert f'<i class="swatch" style="background: {colour}"></i>{label}</td>' in page


@pytest.mark.usefixtures("no_plots")
def test_the_field_of_view_is_drawn(tmp_path):
    make_cases(tmp_path, 2)
    for index in range(2):
        inside = np.zeros((20, 18, 12), np.uint8)
        inside[1:-1, 1:-1] = 1
        save(tmp_path / f"fov/case_{index}.nii.gz", inside)
    _, text = rendered(tmp_path, masks=tmp_path / "fov")
    assert 'class="outline field" d="M' in text and "border of what is counted (field of view)" in text
    _, text = rendered(tmp_path)
    assert 'class="outline field"' not in text


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize("facts", [{}, {"segmented_by": {}}])
def test_ct_is_shown_in_the_runs_window(tmp_path, facts):
    from r2seg.evaluation.viewer import show_all

    make_cases(tmp_path, 1)
    window = {"preprocessing": {"intensity": {"kind": "hu_window", "low": -20.0, "high": 500.0}}}
    provenance = {"segmented_by": {**window, "run": "r", "cases_of_its_train": [], "cases_of_its_validation": []}}
    report, text = rendered(tmp_path, images=tmp_path / "images", provenance=provenance if facts else window)
    assert "shown from -20 to 500 HU, as the network sees it" in text
    one, _ = show_all(report)[0].values()
    picture = Picture.open(io.BytesIO(base64.b64decode(one.slices[one.start].image.partition(",")[2])))
    # label_1 has 100 HU on average: (100 + 20) / 520 of white
    inside = np.asarray(picture).astype(float)[::-1, ::-1].T[3:11, 4:11].mean()
    assert inside == pytest.approx(255 * 120 / 520, abs=8)


@pytest.mark.usefixtures("no_plots")
def test_thin_structures_are_tinted_at_first_and_thick_ones_outlined(tmp_path):
    rows, columns = np.mgrid[:200, :240]
    vessels = (np.abs(rows - 100 - 60 * np.sin(columns / 20)) < 2).astype(np.uint8)
    disc = (np.hypot(rows - 100, columns - 120) < 60).astype(np.uint8)
    for name, mask, checked in (("thin", vessels, "agreement"), ("thick", disc, "reference")):
        for side in ("ref", "out"):
            (tmp_path / name / side).mkdir(parents=True)
            Picture.fromarray(np.roll(mask, side == "out", 0)).save(tmp_path / name / side / "a.png")
        _, text = rendered(tmp_path / name)
        on = re.findall(r'data-layer="([\w-]+)" checked', text)
        assert checked in on and len({"agreement", "reference"} & set(on)) == 1
        assert "false-positive" in on and "false-negative" in on


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


@pytest.mark.parametrize("width", [390, 500])
def test_the_page_fits_a_narrow_screen(browser, width):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        wide, inner, text = browser.execute_script(
            "return [document.documentElement.scrollWidth, window.innerWidth, getComputedStyle(document.body).fontSize]"
        )
        assert (inner, text) == (width, "15px")
        assert wide <= width
        outside = browser.execute_script(
            """return [...document.querySelectorAll("h1, h2, p, .card, .notes li, figure, .filters label")]
                 .filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"""
        )
        assert outside == []
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_click_on_a_row_shows_its_case_and_another_closes_it(browser):
    name = browser.find_element("xpath", "//tr[@data-case='case_2' and @data-label='label_1']//button")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", name)
    name.click()
    (figure,) = browser.find_elements("css selector", "tr.detail figure")
    assert figure.find_element("css selector", "figcaption").text.startswith("case_2, label_1: Dice")
    assert figure.is_displayed() and len(visible_slices(figure)) == 1
    slider = figure.find_element("css selector", "input[type=range]")
    before = visible_slices(figure)
    slider.send_keys("\ue011" if slider.get_attribute("value") != "0" else "\ue010")
    assert visible_slices(figure) != before
    assert name.get_attribute("aria-expanded") == "true"
    other = browser.find_element("xpath", "//tr[@data-case='case_1' and @data-label='label_2']//td[4]")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", other)
    other.click()  # anywhere in the row
    (figure,) = browser.find_elements("css selector", "tr.detail figure")
    assert figure.find_element("css selector", "figcaption").text.startswith("case_1, label_2: Dice")
    assert name.get_attribute("aria-expanded") == "false"
    head(browser, "Dice").click()
    assert browser.find_elements("css selector", "tr.detail") == []


def test_the_case_stays_in_sight_when_the_table_is_scrolled(browser):
    places = browser.execute_script(
        """const box = document.getElementById("cases-box"); box.scrollLeft = 400;
           const cell = document.querySelector("#cases tbody td"); const name = cell.textContent.trim();
           const found = [name, box.scrollLeft, cell.getBoundingClientRect().left - box.getBoundingClientRect().left];
           box.scrollLeft = 0; return found;"""
    )
    assert places[0].startswith("case_") and places[1] > 100
    assert abs(places[2]) < 3


def colours(browser, scheme):
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    read = """return ["body", "p", "#cases td", "nav"].map(s => { const e = getComputedStyle(document.querySelector(s));
              return [e.color, e.backgroundColor].map(c => c.match(/[\\d.]+/g).map(Number)) })"""
    found = browser.execute_script(read)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    return found


def test_the_page_is_dark_where_the_system_is(browser):
    for scheme, dark in (("light", False), ("dark", True)):
        page = sum(colours(browser, scheme)[0][1][:3])
        for text, own in colours(browser, scheme):
            assert (sum(text[:3]) > 450) == dark or sum(text[:3]) in range(200, 500)
            if len(own) == 3:
                assert (sum(own) < 150) == dark
        assert (page < 150) == dark


def test_a_print_has_no_clipped_column(browser):
    """On A4 across, less its margins: 277 mm of 96 pixels an inch."""
    size = {"width": 1047, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        boxes = browser.execute_script(
            """return [document.documentElement, ...document.querySelectorAll(".scroll, #cases-box, #cases")].map(e =>
                 [e.scrollWidth, e.clientWidth, e.scrollHeight - e.clientHeight])"""
        )
        numbers = browser.execute_script(
            """return [...document.querySelectorAll("#cases td.number")].map(e => e.getClientRects()[0].height)"""
        )
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert len(boxes) > 3
    assert all(inner <= outer for inner, outer, _ in boxes)
    assert all(hidden <= 0 for *_, hidden in boxes[1:])
    assert len(numbers) > 50
