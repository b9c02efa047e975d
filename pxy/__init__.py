"""pxy: reinforcement learning of language models on P(y|x) and on P(y).

Start at `pxy/loop.py`. Importing pxy, or any module of it, touches no backend.

Axes live in names. A suffix lists the axes of an array, outermost first: `logp_BT` is
[rows, tokens]. The same letters, lower case, appear in einsum strings.

  B  rows (sequences)              N  query heads          P  prompts in a batch
  T  query tokens                  K  key-value heads      R  responses per prompt
  S  key / cache tokens            G  N / K                C  copies of one response
  D  model width                   H  head width           L  layers
  V  vocabulary                    F  feed-forward width

Imports go up this list only:

  records  config  files  malloc  metrics  sampling/draw  rl/logprob  rl/advantage
  rl/surrogate  rl/rollout  data/pack  text/tokenizer  rewards/answer  rewards/equal
  report/completions  report/log  parallel/mesh  parallel/heartbeat  parallel/process
  text/template  data/trace  data/arithmetic  data/rows  data/prompts  rewards/tasks
  rewards/jail  rewards/worker  rewards/remote  rewards/pool  model/*  weights/*
  sampling/step  sampling/engine  rl/view  rl/objective  rl/score  batch  train/*
  watchdog  collect  evaluate/*  aot/*  report/*  record  run_folder  interrupt  rescue
  plan  guard  run  loop  pretrain  cli
"""

__version__ = "0.1.0"
