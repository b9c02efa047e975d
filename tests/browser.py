"""A page in a real Chromium, asked over its debugging pipe: no driver, no package."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

NAMES = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 60


def program() -> str | None:
  """Where Chromium is; None where it is not installed."""
  return next((found for name in NAMES if (found := shutil.which(name))), None)


class Page:
  """One tab: `with browser.opened() as page`.

  Attributes:
    complaints: what the browser has said since the page was opened: errors of the
      console, of loading, of the content policy.
  """

  def __init__(self, read: int, write: int):
    self._read, self._write = read, write
    self._number, self._buffer, self._events = 0, b"", []
    self.complaints: list[str] = []
    target = self._ask("Target.createTarget", url="about:blank")["targetId"]
    self._session = self._ask(
      "Target.attachToTarget", targetId=target, flatten=True
    )["sessionId"]  # fmt: skip
    for domain in ("Page", "Log", "Runtime", "Network"):
      self._ask(f"{domain}.enable")

  def show(self, path: pathlib.Path, width: int, *, dark: bool = False) -> None:
    """Loads a file at a width in pixels, as a telephone does below 600."""
    self.complaints.clear()
    self._ask(
      "Emulation.setDeviceMetricsOverride",
      width=width,
      height=900,
      deviceScaleFactor=1,
      mobile=width < 600,
    )
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    self._ask("Emulation.setEmulatedMedia", features=[scheme])
    self._ask("Page.navigate", url=pathlib.Path(path).resolve().as_uri())
    while not any(e["method"] == "Page.loadEventFired" for e in self._events):
      self._events.append(self._next())
    self._ask("Runtime.evaluate", expression="1")  # what was said comes before it
    for event in self._events:
      self._heard(event)
    self._events.clear()

  def value(self, expression: str):
    """The JSON value of a JavaScript expression on the page; None if it has none."""
    found = self._ask("Runtime.evaluate", expression=expression, returnByValue=True)
    if "exceptionDetails" in found:
      raise ValueError(f"{expression}: {found['exceptionDetails']}")
    return found["result"].get("value")

  def _heard(self, event: dict) -> None:
    given = event["params"]
    if event["method"] == "Log.entryAdded":
      entry = given["entry"]
      if entry["level"] in ("error", "warning"):
        self.complaints.append(entry["text"])
    elif event["method"] == "Runtime.consoleAPICalled":
      if given["type"] in ("error", "warning", "assert"):
        self.complaints.append(str(given["args"]))
    elif event["method"] == "Runtime.exceptionThrown":
      self.complaints.append(str(given["exceptionDetails"]))
    elif event["method"] == "Network.loadingFailed":
      self.complaints.append(given["errorText"])

  def _ask(self, method: str, **given):
    self._number += 1
    message = {"id": self._number, "method": method, "params": given}
    if not method.startswith("Target."):
      message["sessionId"] = self._session
    os.write(self._write, json.dumps(message).encode() + b"\0")
    while True:
      answer = self._next()
      if answer.get("id") == self._number:
        if "error" in answer:
          raise ValueError(f"{method}: {answer['error']['message']}")
        return answer["result"]
      if "method" in answer:
        self._events.append(answer)

  def _next(self) -> dict:
    while b"\0" not in self._buffer:
      more = os.read(self._read, 1 << 16)
      if not more:
        raise ValueError("chromium ended; start it by hand to see why")
      self._buffer += more
    one, _, self._buffer = self._buffer.partition(b"\0")
    return json.loads(one)


@contextlib.contextmanager
def opened():
  """A Page of a headless Chromium, which ends with it."""
  to_read, to_write = os.pipe()
  from_read, from_write = os.pipe()
  with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
    process = subprocess.Popen(
      [
        "bash", "-c", f'exec "$@" 3<&{to_read} 4>&{from_write}', "bash", program(),
        "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu",
        "--disable-dev-shm-usage", "--no-first-run", f"--user-data-dir={folder}",
      ],
      pass_fds=(to_read, from_write),
      stdin=subprocess.DEVNULL,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(to_read)
    os.close(from_write)
    try:
      yield Page(from_read, to_write)
    finally:
      os.close(to_write)
      try:
        process.wait(timeout=10)
      except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
      os.close(from_read)
