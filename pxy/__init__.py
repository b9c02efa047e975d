"""pxy: reinforcement learning of language models on P(y|x) and on P(y).

Start at `pxy/loop.py`. Importing pxy, or any module of it, touches no backend.

Axes live in names. A suffix lists the axes of an array, outermost first: `logp_BT` is
[rows, tokens]. The same letters, lower case, appear in einsum strings.

  B  rows (sequences)              N  query heads          P  prompts in a batch
  T  query tokens                  K  key-value heads      R  responses per prompt
  S  key / cache tokens            G  N / K                C  copies of one response
  D  model width                   H  head width           L  layers
  V  vocabulary                    F  feed-forward width
"""

__version__ = "0.1.0"

ORDER = (
  "fields",  # typed fields <-> JSON, ranges, errors
  "versions",  # packages that do not go together, in one line
  "imports",  # code that comes late: dear modules, functions of the user's own
  "files",  # whole or not there
  "bucket",  # gs://: objects, a lock, a run's folder mirrored here
  "rl",  # log-probs, advantages, views, packing, surrogates, the objective
  "config",  # what a run is; the only owner of defaults
  "methods",  # the method's table: rates -> phases
  "show",  # log, completions, progress, mirrors: what every layer may write to
  "parallel",  # mesh, processes, heartbeat
  "text",  # tokenizers, chat templates
  "model",  # one decoder with flags, attention, cache
  "testing",  # a tiny model and tokenizer to test with
  "safety",  # signals, watchdog, rescue, numbers that go wrong
  "rewards",  # graders, and the processes they run in
  "data",  # prompts: files, tasks, the embedded world
  "train",  # state, optimizer, the jitted step, checkpoints
  "weights",  # Hugging Face folders, the Hub, GGUF, export
  "sampling",  # the engine; draw and grade
  "measures",  # arrays in, numbers with intervals and nulls out
  "evaluate",  # the scores of one evaluation; behaviour, alignment
  "run",  # a run: folder, session, one step, its numbers
  "aot",  # a run's programs compiled for a pod
  "report",  # plots and pages
  "study",  # methods x worlds x seeds: cells, runners, verdicts
  "loop",  # START HERE
  "pretrain",  # the base model, by the same session
  "commands",  # the command line: uses all, is used by nothing
)
"""The order of reading, and of importing: a part imports those above it only, and
inside a folder no two files import each other (tests/test_layout.py)."""
