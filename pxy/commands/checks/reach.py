"""What stands elsewhere: the Hugging Face Hub, and a bucket that a run is to go to.

First a look, without credentials: whether there is an answer within seconds. In a
bucket that answers an object is then written and removed, as a run writes its own.
"""

import os
import re
import threading
import urllib.error
import urllib.parse
import urllib.request

from pxy import fields
from pxy.bucket import objects
from pxy.commands.checks import line as line_lib

SECONDS = 10.0
_HUB = "https://huggingface.co"
_GCS = "https://storage.googleapis.com"
_BUCKET = re.compile(r"gs://([a-z0-9][a-z0-9._-]*)(/.*)?", re.ASCII)


def hub() -> list[line_lib.Line]:
  """Whether hf:// models can be fetched; others need no Hub."""
  url = os.environ.get("HF_ENDPOINT") or _HUB
  offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
  return [judge_hub(url, offline, None if offline else ask(url))]


def judge_hub(url: str, offline: bool, answer: int | str | None) -> line_lib.Line:
  """Of a Hub that answered with an HTTP status, or why it did not."""
  if offline:
    return line_lib.Line("hub", "ok", "not asked, as HF_HUB_OFFLINE says")
  if isinstance(answer, int) and answer < 500:
    return line_lib.Line("hub", "ok", f"{url} answers")
  said = f"status {answer}" if isinstance(answer, int) else answer
  return line_lib.Line(
    "hub", "warn", f"{url}: {said}",
    "only hf:// models need it: set HTTPS_PROXY, or HF_ENDPOINT to a mirror; with their"
    " files in HF_HOME already, HF_HUB_OFFLINE=1",
  )  # fmt: skip


def bucket(out: str) -> list[line_lib.Line]:
  """Whether the bucket of a `gs://...` is there, and takes what a run writes."""
  found = there(out)
  return found if found[0].status == "fail" else [written(out)]


def written(out: str) -> line_lib.Line:
  """Of an object that was written and removed: credentials and rights are there."""
  try:
    folder = objects.Bucket(out)
    name = f".doctor-{os.getpid()}"
    folder.remove(name, folder.write(name, b"\0"))
  except fields.Error as error:
    found, _, cure = str(error).rpartition("; ")
    if not found:
      found, cure = cure, "docs/pods.md says what a bucket needs"
    return line_lib.Line("bucket", "fail", found, cure)
  return line_lib.Line("bucket", "ok", f"{out}: can be written")


def there(out: str) -> list[line_lib.Line]:
  """Whether the bucket of a `gs://...` answers."""
  match = _BUCKET.fullmatch(out)
  if match is None:
    return [judge_bucket(out, "is no gs://BUCKET/FOLDER")]
  host = os.environ.get("STORAGE_EMULATOR_HOST") or _GCS
  host = host if "://" in host else f"http://{host}"
  name = urllib.parse.quote(match[1], safe="")
  return [judge_bucket(out, ask(f"{host}/storage/v1/b/{name}"))]


def judge_bucket(out: str, answer: int | str) -> line_lib.Line:
  """Of a bucket's own address; who is asked without credentials refuses with 401."""
  if answer == 404:
    cure = "gcloud storage buckets create, or name another"
    return line_lib.Line("bucket", "fail", f"{out}: there is no such bucket", cure)
  if isinstance(answer, int) and answer < 500:
    return line_lib.Line("bucket", "ok", f"{out}: in reach")
  said = f"status {answer}" if isinstance(answer, int) else answer
  cure = "name a bucket as gs://BUCKET/FOLDER, and look at the network (HTTPS_PROXY)"
  return line_lib.Line("bucket", "fail", f"{out}: {said}", cure)


def ask(url: str, seconds: float = SECONDS) -> int | str:
  """The HTTP status that a URL answers with, or why it does not.

  In a thread of its own, for no time limit holds for the resolver of names.
  """
  said: list[int | str] = []
  thread = threading.Thread(target=lambda: said.append(_ask(url, seconds)), daemon=True)
  thread.start()
  thread.join(seconds)
  return said[0] if said else f"no answer in {seconds:g} s"


def _ask(url: str, seconds: float) -> int | str:
  if not url.startswith(("http://", "https://")):
    return "is no http:// or https:// address"
  try:
    with urllib.request.urlopen(url, timeout=seconds) as answer:
      return answer.status
  except urllib.error.HTTPError as error:
    return error.code
  except urllib.error.URLError as error:
    return str(getattr(error.reason, "strerror", None) or error.reason)
  except (OSError, ValueError) as error:  # ValueError: a host that cannot be
    return str(error) or type(error).__name__
