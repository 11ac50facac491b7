"""Headless Chromium, driven over a pipe by the DevTools protocol; only the browser is needed.

It is looked for on the path, or is `KERAS_RESNET_CHROMIUM`.
"""

import base64
import contextlib
import functools
import http.server
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find():
    """The browser's path, or skip."""
    given = os.environ.get("KERAS_RESNET_CHROMIUM")
    path = given or next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.skip("no Chromium on the path (or in KERAS_RESNET_CHROMIUM)")
    return path


@contextlib.contextmanager
def serving(folder):
    """Serve a folder as `python -m http.server` does; gives the address."""
    handler = functools.partial(_Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class Page:
    """One page; keeps what it requested and what it wrote to the console."""

    def __init__(self, send):
        self._send = send
        self.requests, self.console = [], []

    def on_event(self, event):
        method, about = event["method"], event["params"]
        if method == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        elif method == "Runtime.consoleAPICalled":
            words = " ".join(str(item.get("value")) for item in about["args"])
            self.console.append((about["type"], words))
        elif method == "Runtime.exceptionThrown":
            details = about["exceptionDetails"]
            self.console.append(("exception", str(details.get("exception", details))))
        elif method == "Log.entryAdded":
            self.console.append((about["entry"]["level"], about["entry"]["text"]))

    def call(self, method, **parameters):
        return self._send(method, parameters)

    def goto(self, url):
        self.call("Page.navigate", url=url)

    def run(self, script):
        """The value of a JavaScript expression; promises are awaited."""
        answer = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def text(self, selector):
        return self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")

    def wait(self, selector, text, seconds=60):
        """Wait until the text of an element has `text` in it; return all of it."""
        end = time.monotonic() + seconds
        while text not in (found := self.text(selector)):
            assert time.monotonic() < end, f"{selector} says {found!r}, not {text!r}"
            time.sleep(0.05)
        return found

    def choose(self, path):
        """Choose a file, as a visitor does in the dialogue."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def drop(self, path, x=200, y=300):
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def paste(self, path):
        """Put a PNG into the clipboard and press Ctrl+V."""
        permissions = ["clipboardReadWrite", "clipboardSanitizedWrite"]
        self.call("Browser.grantPermissions", permissions=permissions)
        self.call("Page.bringToFront")  # only a page with the focus may write
        script = """(async (text) => {
            const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
            const blob = new Blob([bytes], { type: "image/png" });
            await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
        })("%s")"""
        self.run(script % base64.b64encode(Path(path).read_bytes()).decode())
        about = {"key": "v", "code": "KeyV", "windowsVirtualKeyCode": 86, "modifiers": 2}
        self.call("Input.dispatchKeyEvent", type="keyDown", commands=["paste"], **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def press(self, key):
        code = {"Tab": 9, "Enter": 13}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        about = {"key": key, "code": key, "windowsVirtualKeyCode": code, **text}
        self.call("Input.dispatchKeyEvent", type="keyDown", **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def resize(self, width, height, *, dark=False, touch=False):
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=touch,
        )
        self.call("Emulation.setTouchEmulationEnabled", enabled=touch)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path):
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))


@contextlib.contextmanager
def page(profile, *flags):
    """Start a browser with a profile folder of its own; gives its page."""
    (browser_in, our_out), (our_in, browser_out) = os.pipe(), os.pipe()
    command = [
        find(),
        "--headless=new",
        "--no-sandbox",  # tests run as root in containers
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--remote-debugging-pipe",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        f"--user-data-dir={profile}",
        *flags,
        "about:blank",
    ]
    redirected = f'exec "$@" 3<&{browser_in} 4>&{browser_out}'
    process = subprocess.Popen(
        ["bash", "-c", redirected, "bash", *command],
        pass_fds=(browser_in, browser_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(browser_in)
    os.close(browser_out)
    try:
        with open(our_in, "rb") as answers, open(our_out, "wb", buffering=0) as orders:
            yield _first_page(_Connection(answers, orders))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _first_page(connection):
    while True:
        targets = connection.send("Target.getTargets", {})["targetInfos"]
        if pages := [target for target in targets if target["type"] == "page"]:
            break
        time.sleep(0.05)
    attached = connection.send(
        "Target.attachToTarget", {"targetId": pages[0]["targetId"], "flatten": True}
    )
    found = Page(functools.partial(connection.send, session=attached["sessionId"]))
    connection.on_event = found.on_event
    for domain in ("Page", "Network", "Runtime", "Log", "DOM"):
        found.call(f"{domain}.enable")
    return found


class _Connection:
    """Orders and answers are JSON, each followed by a zero byte."""

    def __init__(self, answers, orders):
        self._answers, self._orders = answers, orders
        self._number, self._rest = 0, b""
        self.on_event = lambda event: None

    def send(self, method, parameters, session=None):
        self._number += 1
        order = {"id": self._number, "method": method, "params": parameters}
        order |= {"sessionId": session} if session else {}
        self._orders.write(json.dumps(order).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            if "method" in answer:
                self.on_event(answer)

    def _receive(self):
        while b"\0" not in self._rest:
            chunk = self._answers.read1(2**20)
            assert chunk, "the browser is gone"
            self._rest += chunk
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)
