"""The page in a real browser: it runs, says nothing on the console and fits the window."""

import re
import shutil
import struct
import subprocess

import pytest

from hoserkd.report.html import render_html

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
               None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
MEASURE = """<script>
document.querySelectorAll("input[name=layer]")[1].click();
document.getElementById("next").click();
var city = document.getElementById("city");
var far = city.getAttribute("viewBox");
document.getElementById("near").click();
document.body.dataset.nearer = city.getAttribute("viewBox") !== far;
document.title = "width " + document.documentElement.scrollWidth + " of " + window.innerWidth;
</script></body>"""


def browse(page, folder, *options):
    """Return what the browser printed on stdout and stderr for a page."""
    path = folder / "page.html"
    path.write_text(page)
    done = subprocess.run(
        [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         "--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}", *options,
         path.as_uri()],
        capture_output=True, text=True, timeout=120, check=False)
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def page(report):
    return render_html(report)


@pytest.mark.parametrize("width", [1280, 500])
def test_the_page_runs_silently_and_fits_the_window(page, tmp_path, width):
    out, err = browse(page.replace("</body>", MEASURE), tmp_path, "--dump-dom",
                      f"--window-size={width},900")
    assert "CONSOLE" not in err
    assert "trip 2 / 5" in out
    assert out.count("<polyline") == 4
    found = re.search(r"<title>width (\d+) of (\d+)", out)
    assert found is not None
    assert int(found[1]) <= int(found[2])
    assert re.search(r'<g class="layer zones"[^>]*hidden', out)
    assert 'data-nearer="true"' in out


def test_the_page_fits_a_phone(page, tmp_path):
    """Chromium's windows are at least 500 wide, so the phone is a frame of 390."""
    (tmp_path / "phone.html").write_text(page)
    frame = ('<iframe id="phone" src="phone.html" style="width:390px;height:800px;border:0">'
             '</iframe><script>document.getElementById("phone").onload = function () {'
             'var root = this.contentDocument.documentElement;'
             'document.title = "width " + root.scrollWidth + " of " + root.clientWidth;};'
             "</script>")
    out, err = browse(f"<body>{frame}</body>", tmp_path, "--dump-dom",
                      "--allow-file-access-from-files", "--window-size=800,900")
    assert "CONSOLE" not in err
    assert "<title>width 390 of 390" in out


def test_the_printed_page_holds_what_was_folded_and_the_maps_of_use(page, tmp_path):
    pdf = tmp_path / "page.pdf"
    browse(page, tmp_path, f"--print-to-pdf={pdf}", "--no-pdf-header-footer")
    assert pdf.read_bytes().startswith(b"%PDF")
    reader = shutil.which("pdftotext")
    if reader is None:
        pytest.skip("needs pdftotext to read what was printed")
    text = subprocess.run([reader, pdf, "-"], capture_output=True, text=True, check=True).stdout
    for words in ("Discrete Fréchet", "Use of the roads: fast", "What the figures mean",
                  "Settings of the evaluation", "evaluate.edr_epsilon_m"):
        assert words in text
    assert "Settings of the runs" not in text


def test_the_page_can_be_pictured_in_the_dark(page, tmp_path):
    picture = tmp_path / "page.png"
    browse(page, tmp_path, f"--screenshot={picture}", "--window-size=800,1200",
           "--blink-settings=preferredColorScheme=0")
    content = picture.read_bytes()
    assert struct.unpack(">II", content[16:24]) == (800, 1200)
    assert len(content) > 20_000
