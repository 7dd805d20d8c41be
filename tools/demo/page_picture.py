"""Draw docs/report.png: the top of the page that `bench report` writes, with the pointer on a result.

python -m tools.demo.page_picture results/demo-run/report.html docs/report.png
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image

POINTED_AT = 'tr[data-row="segearth-ov"] td[data-dataset="isaid"] button'


def draw(page: Path, out: Path) -> None:
    """Write the picture (PNG of 128 colours) of a page that has segearth-ov on isaid; needs Chromium or Chrome."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1280, "height": 860}, color_scheme="light")
        tab.goto(f"{page.resolve().as_uri()}#chosen=segearth-ov")
        tab.wait_for_selector("html[data-ready=yes]")
        tab.hover(POINTED_AT)
        shot = Image.open(io.BytesIO(tab.screenshot())).convert("RGB")
        browser.close()
    shot.quantize(128, dither=Image.Dither.NONE).save(out, optimize=True)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
