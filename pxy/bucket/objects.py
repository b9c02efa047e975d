"""Objects of a Google Cloud Storage bucket: whole or not there, each with a generation.

A name below gs://bucket/folder is an object; there are neither folders nor renames.
What stands in for them: an upload is seen whole or not at all; a write may ask that the
object still be of a generation (0: that there be none); a listing is true at once, with
the size and the MD5 of each object, which the store computes when it takes one in.

Requests go through gcsfs, which finds the credentials and tries again (six times, half
a minute) what failed for the moment: 408, 429, 5xx, lost connections. Here that is
tried again until PATIENCE is over, and what it ends with is a line, with its cure.

Left out: s3://, since orbax-checkpoint 0.12 saves to gs:// alone.
"""

import base64
import dataclasses
import datetime
import fnmatch
import functools
import hashlib
import json
import os
import pathlib
import re
import time
from collections.abc import Callable

from pxy import fields
from pxy.bucket import hush

PATIENCE = 120.0
"""Seconds for which a request that may yet succeed is tried again."""
SILENCE = 30.0
"""Seconds without an answer after which a request has failed for the moment."""
_URL = re.compile(r"gs://([a-z0-9][a-z0-9._-]{1,220}[a-z0-9])(?:/+([^#?*\[\]\s]+?))?/*")
_NOTES = re.compile(r"\[(\w+)='((?:[^'\\]|\\.)*)'\]")
"""What tensorstore says behind an error's text, in no order: [curl_code='52']."""
_EMULATOR = "STORAGE_EMULATOR_HOST"


@dataclasses.dataclass(frozen=True)
class Object:
  """What a listing says of one."""

  size: int
  digest: str
  """`md5:...`, or `crc32c:...` of what was put together of parts; base64."""
  updated: float
  """When it was written, in seconds since 1970 by the store's clock."""

  def same(self, path: pathlib.Path) -> bool:
    """Whether a file has its contents."""
    if not path.is_file() or path.stat().st_size != self.size:
      return False
    with open(path, "rb") as file:
      found = hashlib.file_digest(file, "md5").digest()
    return self.digest == f"md5:{base64.b64encode(found).decode()}"


def is_url(place) -> bool:
  """Whether a place is in an object store, and no path."""
  return str(place).startswith(("gs:/", "s3:/"))


class Bucket:
  """The objects below gs://bucket/folder; nothing is asked for by making one.

  Names are relative to the folder; root: it may be the bucket itself. Raises
  fields.Error, one line with the cure, here for what is no such URL and from any method
  for what cannot be done.
  """

  def __init__(self, url: str, *, root: bool = False):
    match = _URL.fullmatch(url)
    if url.startswith("s3:/"):
      raise fields.Error(
        f"{url}: not in S3, to which orbax-checkpoint saves nothing; give"
        " gs://bucket/folder, or a folder"
      )
    parts = (match[2] or "").split("/") if match else [""]
    if {"", ".", ".."} & set(parts) and not (root and match and not match[2]):
      raise fields.Error(f"{url}: expected gs://bucket/folder")
    self.bucket, self._prefix = match[1], match[2] or ""
    self.url = f"gs://{self.bucket}/{self._prefix}".rstrip("/")

  def listed(self, under: str = "", *, deep: bool = True) -> dict[str, Object]:
    """Every object whose name begins with `under`, by its name; deep: also of the
    folders below."""
    prefix, found, page = self._key(""), {}, {} if deep else {"delimiter": "/"}
    while True:
      answer = self._ask(
        "GET",
        "b/{}/o",
        self.bucket,
        prefix=prefix + under,
        fields="items(name,size,md5Hash,crc32c,updated),nextPageToken",
        json_out=True,
        **page,
      )
      for item in answer.get("items", ()):
        md5, crc = item.get("md5Hash"), item.get("crc32c")
        digest = f"md5:{md5}" if md5 else f"crc32c:{crc}"
        name = item["name"].removeprefix(prefix)
        if name and not name.endswith("/"):  # a console's "folder" is an empty object
          at = datetime.datetime.fromisoformat(item["updated"]).timestamp()
          found[name] = Object(int(item["size"]), digest, at)
      if not answer.get("nextPageToken"):
        return found
      page["pageToken"] = answer["nextPageToken"]

  def read(self, name: str) -> tuple[bytes, str] | None:
    """(bytes, generation) of an object; None where there is none."""
    try:
      headers, data = self._ask(
        "GET", "b/{}/o/{}", self.bucket, self._key(name), alt="media"
      )
    except FileNotFoundError:
      return None
    return data, headers["X-Goog-Generation"]

  def write(self, name: str, data: bytes, generation: str | None = None) -> str | None:
    """Writes an object whole.

    Args:
      generation: that it must be of, "0" for none; None: whatever is there.

    Returns:
      Its new generation; None where it was of another.
    """
    about = json.dumps({"name": self._key(name)}).encode()
    edge = b"--pxy-" + os.urandom(16).hex().encode()
    kinds = b"application/json; charset=UTF-8", b"application/octet-stream"
    parts = (
      edge + b"\r\nContent-Type: " + kind + b"\r\n\r\n" + part + b"\r\n"
      for kind, part in zip(kinds, (about, data), strict=True)
    )
    when = {} if generation is None else {"ifGenerationMatch": generation}
    try:
      answer = self._ask(
        "POST",
        f"{_files()._location}/upload/storage/v1/b/{self.bucket}/o",
        uploadType="multipart",
        headers={"Content-Type": f"multipart/related; boundary={edge[2:].decode()}"},
        data=b"".join(parts) + edge + b"--",
        json_out=True,
        **when,
      )
    except FileExistsError:  # 412
      return None
    return answer["generation"]

  def upload(self, name: str, path: pathlib.Path) -> None:
    """A file as an object; the store's MD5 is compared with that of what was sent."""
    self._act(lambda: _files().put_file(str(path), self._place(name)))

  def download(self, name: str, path: pathlib.Path) -> None:
    """An object as a file, put into its place when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
      self._act(lambda: _files().get_file(self._place(name), str(partial)))
      os.replace(partial, path)
    finally:
      partial.unlink(missing_ok=True)

  def remove(self, name: str, generation: str | None = None) -> None:
    """Removes an object, if it is there (and of a generation)."""
    when = {} if generation is None else {"ifGenerationMatch": generation}
    try:
      self._ask("DELETE", "b/{}/o/{}", self.bucket, self._key(name), **when)
    except (FileNotFoundError, FileExistsError):
      pass

  def _key(self, name: str) -> str:
    return f"{self._prefix}/{name}" if self._prefix else name

  def _place(self, name: str) -> str:
    return f"{self.bucket}/{self._key(name)}"

  def _ask(self, method: str, path: str, *args, **query):
    """A request of the JSON API. FileNotFoundError: there is no such object;
    FileExistsError: it is of another generation."""
    return self._act(lambda: _files().call(method, path, *args, **query))

  def _act(self, act: Callable):
    until = time.monotonic() + PATIENCE
    while True:
      try:
        return act()
      except FileExistsError:
        raise
      except FileNotFoundError as error:
        if self._missing(error):
          raise fields.Error(
            f"{self.url}: there is no bucket {self.bucket}; make it (gcloud storage"
            f" buckets create gs://{self.bucket}), or see how it is spelled"
          ) from None
        raise
      except fields.Error:
        raise
      except Exception as error:
        said = self._said(error)
        if said is None:
          raise
        text, passing = said
        if passing and time.monotonic() < until:
          time.sleep(PATIENCE / 100)
          continue
        raise fields.Error(f"{self.url}: {text}") from error

  def told(self, error: Exception) -> str:
    """What an exception of Orbax's, which asks by itself, means; in a line."""
    said = self._said(error)
    return said[0] if said else ""

  def _missing(self, error: Exception) -> bool:
    """Whether it is the bucket that is not there, and not an object in it."""
    if "/o/" in str(error):
      return False
    if not str(error).startswith("b/"):  # an upload, or a file
      try:
        _files().call("GET", "b/{}/o", self.bucket, maxResults="1")
        return False
      except FileNotFoundError:
        return True
      except Exception:
        return False
    return True

  def _said(self, error: Exception) -> tuple[str, bool] | None:
    """What an exception means, and whether it may pass; None: nothing of a store's."""
    text = " ".join(str(error).split())
    notes = dict(_NOTES.findall(text))
    text = _NOTES.split(text)[0].rstrip()[:160] or type(error).__name__
    code = str(getattr(error, "code", None) or getattr(error, "status", ""))
    code = code or notes.get("http_response_code", "")
    module = type(error).__module__.partition(".")[0]
    name = type(error).__name__
    if code == "401" or (module == "google" and "Transport" not in name):
      return (
        f"no credentials that the store takes ({text}); gcloud auth"
        " application-default login, or GOOGLE_APPLICATION_CREDENTIALS=KEY.json"
      ), False
    if str(error).startswith("Forbidden") or code == "403":
      return (
        f"the account that is signed in may not do that ({text}); it needs the role"
        f" storage.objectAdmin on gs://{self.bucket}"
      ), False
    if code == "429" or code.startswith("5"):
      return f"the store answers {code} ({text}); wait, and start again", True
    apart = "curl_code" in notes or isinstance(error, (TimeoutError, ConnectionError))
    if apart or module in ("aiohttp", "requests", "google", "asyncio", "fsspec"):
      return f"the store cannot be reached ({text}); see to the network", True
    if code or module == "gcsfs" or text.startswith("Bad Request"):
      return f"the store refuses ({text})", False
    return None


@functools.cache
def matching(url: str) -> dict[str, Object]:
  """The objects that a URL names, by their URLs in the order of names; the last part of
  it may be a pattern (*, ?, [ ]). The same answer in all of a process.

  Raises fields.Error: there is none, or the bucket refuses.
  """
  above, _, name = url.rpartition("/")
  if re.search(r"[*?\[\]#\s]", above):
    raise fields.Error(
      f"{url}: expected gs://bucket/folder/FILE; only FILE may have *, ? or [ ] in it"
    )
  folder = Bucket(above, root=True)
  literal = re.split(r"[*?\[]", name)[0]
  listed = folder.listed(literal, deep=False)
  if literal == name:
    found = [name] if name in listed else []
  else:
    found = [x for x in sorted(listed) if fnmatch.fnmatchcase(x, name)]
    found = [x for x in found if not x.startswith(".")]
  if not found:
    raise fields.Error(f"{url}: there is no such object; see how it is spelled")
  return {f"{folder.url}/{x}": listed[x] for x in found}


def epath(url: str):
  """The URL as Orbax takes it; both then go by this file's settings."""
  from etils import epath as lib

  _files()
  hush.credentials(_URL.match(url)[1])
  return lib.Path(url)


@functools.cache
def _files():
  """gcsfs, one in a process: no cached listings, no wait for ever, no word on stderr.

  Orbax's own (etils.epath) goes by the same settings.
  """
  emulator = os.environ.get(_EMULATOR)
  if emulator:  # tensorstore knows neither by that name, and looks for credentials
    os.environ.setdefault("TENSORSTORE_GCS_HTTP_URL", emulator)
    os.environ.setdefault("GOOGLE_AUTH_TOKEN_FOR_TESTING", "none")
  # tensorstore gives a request up that moves less than a byte a second for so long.
  os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS", str(int(SILENCE)))
  os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES", "1")
  # Its gRPC for zonal buckets costs 2 s and 100 MB, and speaks on stderr.
  os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
  import logging  # not for --help

  try:
    import aiohttp
    import fsspec
    import gcsfs
  except ImportError as error:
    raise fields.Error(
      f"gs:// needs gcsfs ({error}); pip install 'gcsfs>=2026.10'"
    ) from None
  for name in ("gcsfs", "google.auth"):  # what matters is raised
    logging.getLogger(name).setLevel(logging.CRITICAL + 1)
  settings = {
    "use_listings_cache": False,
    "consistency": "md5",
    "requests_timeout": aiohttp.ClientTimeout(sock_connect=10, sock_read=SILENCE),
  }
  for name in gcsfs.GCSFileSystem.protocol:
    fsspec.config.conf.setdefault(name, {}).update(settings)
  return fsspec.filesystem("gcs", finalize_on_close=True)
