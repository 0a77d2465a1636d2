"""Open pages in a real browser, and run a script in them."""

import contextlib
import functools
import http.server
import json
import queue
import shutil
import subprocess
import threading

import pytest

#: Widths of a desktop and of a phone, in pixels.
WIDTHS = (1300, 380)

# The page lies in a frame, because a window has no 380 pixels in headless mode.
_DRIVER = """<!doctype html><meta charset="utf-8"><script>
const wait = ms => new Promise(done => setTimeout(done, ms));
const until = async test => {
  for (let i = 0; i < 250 && !test(); i++) await wait(20);
};
async function check(window, document) {
  SCRIPT
}
async function run() {
  const found = [];
  for (const dark of [false, true]) for (const width of WIDTHS) {
    const frame = document.createElement("iframe");
    frame.style = `width:${width}px;height:900px;border:0;` +
      `color-scheme:${dark ? "dark" : "light"}`;
    frame.allow = "autoplay";
    frame.src = "PAGE";
    const loaded = new Promise(done => { frame.onload = done; });
    document.body.append(frame);
    await loaded;
    const inner = frame.contentWindow;
    found.push({
      dark, width,
      seen_dark: inner.matchMedia("(prefers-color-scheme: dark)").matches,
      paper: inner.getComputedStyle(inner.document.body).backgroundColor,
      overflow: inner.document.documentElement.scrollWidth - inner.innerWidth,
      ...await check(inner, inner.document)});
    frame.remove();
  }
  return found;
}
window.onload = async () => {
  let found;
  try { found = await run(); } catch (error) { found = String(error.stack); }
  await fetch("/found", {method: "POST", body: JSON.stringify(found)});
};
</script><body></body>"""


class _Server(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and keeps what the page posts."""

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        self.server.found.put(json.loads(self.rfile.read(length)))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def _serve(folder):
    handler = functools.partial(_Server, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.found = queue.Queue()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def drive(page, script, widths=WIDTHS):
    """Open a page at each width, light and dark, and run a script in it.

    Arguments
    ---------
    page : pathlib.Path
        The page; whatever it refers to must lie in its folder.
    script : str
        JavaScript that returns an object, with ``window`` and ``document`` of
        the page, ``wait(ms)`` and ``until(test)``.
    widths : sequence of int
        Widths in pixels.

    Returns
    -------
    list of dict
        What the script returned, with ``dark``, ``width``, whether the page
        saw a dark scheme (``seen_dark``), the colour of its background
        (``paper``) and its horizontal ``overflow`` in pixels.
    """
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no chromium on this machine")
    text = _DRIVER.replace("SCRIPT", script).replace("PAGE", page.name)
    driver = page.with_name("driver.html")
    driver.write_text(text.replace("WIDTHS", str(list(widths))), "utf-8")
    with _serve(page.parent) as server:
        process = subprocess.Popen(
            [
                browser,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--autoplay-policy=no-user-gesture-required",
                "--window-size=1400,1000",
                f"--user-data-dir={page.parent / 'browser'}",
                f"http://127.0.0.1:{server.server_port}/{driver.name}",
            ],
            stderr=subprocess.DEVNULL,
        )
        try:
            found = server.found.get(timeout=90)
        finally:
            process.terminate()
            process.wait()
    assert isinstance(found, list), found
    return found
