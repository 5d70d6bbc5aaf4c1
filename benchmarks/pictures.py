"""`python -m benchmarks.pictures [REPORTS]`: README's pictures and one whole report, from a run."""

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
GALLERY = IMAGES.parent / "gallery"
REPORT = "03_graph_finetuning.html"
LARGEST, LARGEST_REPORT = 150_000, 6_000_000
WIDTH, HEIGHT = 1200, 990


def write_png(picture: bytes, path: Path) -> None:
    """Write a PNG of at most `LARGEST` bytes, with as many colours as that allows."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    for colours in (256, 128, 64, 32):
        image.quantize(colours).save(path, optimize=True)
        if path.stat().st_size <= LARGEST:
            return
    raise SystemExit(f"{path}: {path.stat().st_size} bytes, expected at most {LARGEST}")


def keep_report(reports: Path) -> None:
    """Keep a report as it is, but for where the project lay."""
    text = (reports / REPORT).read_text(encoding="utf-8").replace(f"{reports.parent}/", "")
    size = len(text.encode())
    if size > LARGEST_REPORT:
        raise SystemExit(f"{REPORT}: {size} bytes, expected at most {LARGEST_REPORT}")
    GALLERY.mkdir(exist_ok=True)
    (GALLERY / REPORT).write_text(text, encoding="utf-8")


def main() -> None:
    """Open two reports offline, and keep what a reader sees first and an explorer."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pictures", description=__doc__)
    parser.add_argument("reports", type=Path, nargs="?", default=Path("reports"))
    reports = parser.parse_args().reports.resolve()
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser")
    IMAGES.mkdir(parents=True, exist_ok=True)
    keep_report(reports)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, offline=True)
        page = context.new_page()
        page.goto((reports / "04_interpretability.html").as_uri())
        explorer = page.locator("figure.plot:has(.control.slider)").first
        explorer.scroll_into_view_if_needed()
        explorer.locator(".main-svg").first.wait_for()
        page.wait_for_timeout(1000)
        write_png(explorer.screenshot(), IMAGES / "explorer.png")
        page.goto((reports / "06_context_verdict.html").as_uri())
        write_png(page.screenshot(), IMAGES / "report.png")
        browser.close()


if __name__ == "__main__":
    main()
