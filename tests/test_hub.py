"""hf://: a folder of a Hub, which here is a server on this machine."""

import contextlib
import functools
import hashlib
import http.server
import json
import threading

import huggingface_hub
import jax
import numpy as np
import pytest

from pxy import config, testing
from pxy.weights import hf, hub, load

SHA = "0123456789abcdef0123456789abcdef01234567"
NAME = "org/tiny.model-1"


class Hub(http.server.BaseHTTPRequestHandler):
  """The part of the Hub's interface that a snapshot needs; `root` has the files."""

  root = None
  asked: list[str]

  def log_message(self, *args):
    pass

  def do_HEAD(self):
    self.do_GET()

  def do_GET(self):
    path = self.path.split("?")[0]
    if path.startswith(f"/api/models/{NAME}/revision/"):
      if path.rpartition("/")[2] not in ("main", "v1", SHA):
        return self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
      names = sorted(p.name for p in self.root.iterdir())
      siblings = [{"rfilename": name} for name in names]
      about = {"id": NAME, "sha": SHA, "siblings": siblings}
      return self.answer(200, json.dumps(about).encode())
    if path.startswith(f"/api/models/{NAME}/tree/"):
      tree = [
        {
          "type": "file",
          "path": p.name,
          "size": p.stat().st_size,
          "oid": hashlib.sha1(p.read_bytes()).hexdigest(),
        }
        for p in sorted(self.root.iterdir())
      ]
      return self.answer(200, json.dumps(tree).encode())
    if path.startswith(f"/{NAME}/resolve/{SHA}/"):
      name = path.rpartition("/")[2]
      self.asked.append(name)
      data = (self.root / name).read_bytes()
      return self.answer(200, data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"'})
    return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

  def answer(self, code, data, headers=()):
    self.send_response(code)
    for key, value in dict(headers).items():
      self.send_header(key, value)
    self.send_header("X-Repo-Commit", SHA)
    self.send_header("Content-Length", str(len(data)))
    self.send_header("Content-Type", "application/json")
    self.end_headers()
    if self.command == "GET":
      self.wfile.write(data)


@pytest.fixture
def server(tmp_path, monkeypatch):
  """(the Hub's handler, a function that takes it off the network)."""
  arch = testing.arch()
  root = tmp_path / "root"
  hf.save(
    root, arch, testing.params(arch), tokenizer=testing.tokenizer(), shard_bytes=20_000
  )
  for name in ("pytorch_model.bin", "modeling.py", "README.md"):
    (root / name).write_text("not to be fetched")
  handler = type("H", (Hub,), {"root": root, "asked": []})
  httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
  threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
  snapshot = functools.partial(
    huggingface_hub.snapshot_download,
    endpoint=f"http://127.0.0.1:{httpd.server_port}",
    cache_dir=tmp_path / "cache",
    token=False,
  )
  monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
  hub.folder.cache_clear()

  def close():
    httpd.shutdown()
    httpd.server_close()

  with contextlib.ExitStack() as stack:
    stack.callback(close)
    yield handler, stack.close  # closing twice closes once
  huggingface_hub.close_session()
  hub.folder.cache_clear()


def test_a_model_of_the_hub(server):
  handler, close = server
  policy = load.load(f"hf://{NAME}")
  assert policy.arch == testing.arch()
  jax.tree.map(
    np.testing.assert_array_equal, policy.params, testing.params(policy.arch)
  )
  assert "pytorch_model.bin" not in handler.asked
  assert {p.suffix for p in policy.folder.iterdir()} <= {".json", ".safetensors"}
  assert load.arch(f"hf://{NAME}@v1") == policy.arch
  close()
  hub.folder.cache_clear()
  assert load.arch(f"hf://{NAME}") == policy.arch, "what is here needs no network"


@pytest.mark.parametrize(
  ("model", "message"),
  [
    (f"hf://{NAME}@v9", "no such revision"),
    ("hf://org/other", "no such model"),
    ("hf://org", "expected hf://org/name"),
    ("hf://org/../../etc", "expected hf://org/name"),
    ("hf://org/a..b", "no name of a model"),
  ],
)
def test_what_the_hub_has_not(server, model, message):
  with pytest.raises(config.Error, match=message) as error:
    load.load(model)
  assert "\n" not in str(error.value)


def test_without_a_network_and_without_the_files(server):
  _, close = server
  close()
  with pytest.raises(config.Error, match="cannot be reached") as error:
    load.load(f"hf://{NAME}")
  assert "\n" not in str(error.value)
