"""How tests read a report's HTML, and have a browser show it."""

import base64
import io
import json
import os
import re
import select
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from skimage.draw import polygon2mask


class Page(HTMLParser):
    """A report, parsed: its tags with their attributes, and the text that a person reads."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text, self.inside, self.raw = [], "", "", path.read_text(encoding="utf-8")
        self.feed(self.raw)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside = tag

    def handle_data(self, data):
        if self.inside not in ("style", "script"):
            self.text += " ".join(data.split()) + " "

    def all(self, tag):
        return [attributes for found, attributes in self.tags if found == tag]

    def slices(self, plane):
        """(index, image, contour as a mask of the image's shape, label) of each slice one can step to."""
        ids = next(t for t in self.all("input") if t.get("aria-label") == f"{plane} slice")["data-slices"].split()
        for id in ids:
            start = next(i for i, (_, attributes) in enumerate(self.tags) if attributes.get("id") == id)
            uri = self.tags[start + 1][1]["href"]
            grey = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
            tag, path = self.tags[start + 2]
            mask = np.zeros(grey.shape, int)
            for line in re.findall("M([^Z]+)Z", path["d"]) if tag == "path" else ():
                points = np.array([point.split(",") for point in line.split()], float)[:, ::-1] - 0.5
                mask += polygon2mask(grey.shape, points)
            yield int(id.rpartition("-")[2]), grey, mask % 2 == 1, self.tags[start][1]["data-label"]


class Browser:
    """A headless Chromium that is spoken to through its debugging pipe; it notes errors and requests."""

    def __init__(self, folder):
        program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if not program:
            pytest.skip("no Chromium on this machine: apt-get install chromium")
        (theirs, self.write), (self.read, ours) = os.pipe(), os.pipe()
        # the protocol wants file descriptors 3 and 4
        command = ["bash", "-c", f'exec "$@" 3<&{theirs} 4>&{ours}', "-", program, "--headless", "--no-sandbox"]
        command += ["--disable-gpu", "--remote-debugging-pipe", f"--user-data-dir={folder}", "--hide-scrollbars"]
        self.process = subprocess.Popen(command, pass_fds=(theirs, ours), stderr=subprocess.DEVNULL)
        os.close(theirs), os.close(ours)
        self.count, self.events, self.buffer, self.session = 0, [], b"", None
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def next(self):
        while b"\0" not in self.buffer:
            assert select.select([self.read], [], [], 120)[0], "the browser does not answer"
            chunk = os.read(self.read, 1 << 20)
            assert chunk, "the browser is gone"
            self.buffer += chunk
        message, _, self.buffer = self.buffer.partition(b"\0")
        message = json.loads(message)
        self.events += [message] if "method" in message else []
        return message

    def __call__(self, method, **params):
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while (answer := self.next()).get("id") != self.count:
            pass
        return answer["result"]

    def open(self, path, width, height, **features):
        self.events.clear()
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 700)
        self("Emulation.setEmulatedMedia", features=[{"name": n, "value": v} for n, v in features.items()])
        self("Page.navigate", url=path.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.next()

    def js(self, expression):
        answer = self("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def close(self):
        self("Browser.close")
        self.process.wait(30)
        os.close(self.write), os.close(self.read)
