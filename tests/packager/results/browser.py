"""Debian's chromium, headless: what a page becomes in a real browser."""

import json
import os
import re
import shutil
import subprocess

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_ASK = """
<script>
addEventListener("load", () => {
  const told = {errors: window.__errors || [], width: innerWidth, page: document.documentElement.scrollWidth};
  const seen = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = (c) => {
    const [r, g, b] = c.map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const back = (node) => {
    for (; node; node = node.parentElement) {
      const c = seen(getComputedStyle(node).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c.slice(0, 3);
    }
    return [255, 255, 255];
  };
  document.querySelectorAll("details").forEach((one) => (one.open = true));
  told.contrast = 21;
  for (const node of document.querySelectorAll("body *")) {
    if (["SCRIPT", "STYLE", "title"].includes(node.tagName)) continue;
    if (![...node.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
    const style = getComputedStyle(node);
    const [a, b] = [light(seen(node.closest("svg") ? style.fill : style.color).slice(0, 3)), light(back(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < told.contrast) [told.contrast, told.worst] = [ratio, node.outerHTML.slice(0, 80)];
  }
  told.opened = document.documentElement.scrollWidth;
  told.dark = seen(getComputedStyle(document.body).backgroundColor)[0] < 128;
  const head = document.querySelector("table.sorts th:nth-child(3) button");
  head.click();
  told.sorted = [...document.querySelectorAll("table.sorts")][0].tBodies[0].rows.length;
  told.order = [...document.querySelector("table.sorts").tBodies[0].rows].map((row) => row.cells[0].textContent.trim());
  told.plots = document.querySelectorAll("svg").length;
  told.named = document.querySelectorAll("svg[role=img][aria-label]").length;
  told.tables = document.querySelectorAll("figure details table").length;
  told.requests = performance.getEntriesByType("resource").length;
  document.documentElement.setAttribute("data-told", JSON.stringify(told));
});
</script></body>"""
_CATCH = (
    '<script>window.__errors=[];addEventListener("error",(e)=>__errors.push(String(e.message)))</script><meta charset'
)


def chromium(folder, page, *options, width=1280, height=1600, dark=False):
    """Runs the browser on the page, no network; its standard output."""
    argv = [
        CHROMIUM,
        "--headless",
        "--disable-gpu",
        "--hide-scrollbars",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={folder / 'profile'}",
        f"--window-size={width},{height}",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
        *options,
        page.as_uri(),
    ]
    env = {**os.environ, "HOME": str(folder)}
    return subprocess.run(argv, capture_output=True, check=True, text=True, timeout=240, env=env).stdout


def told(folder, page, **options):
    """What the page says of itself when it has been opened: errors, widths, contrast, plots, tables, requests."""
    asked = folder / f"asked-{page.name}"
    text = page.read_text(encoding="utf-8").replace("<meta charset", _CATCH, 1)
    asked.write_text(text.replace("</body>", _ASK, 1), encoding="utf-8")
    dom = chromium(folder, asked, "--dump-dom", **options)
    found = re.search(r'data-told="([^"]*)"', dom)
    assert found, dom[-2000:]
    return json.loads(
        found.group(1).replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    )
