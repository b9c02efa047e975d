"""Does DSRL beat GRPO where the paper says so? The authors' run: Qwen3-4B on MATH.

  pxy train experiments/qwen3_4b_math.py --out runs/qwen3 --data.task math_train.parquet

The recipe of arXiv 2604.14142's public code, in pxy's words: Qwen3-4B without thinking;
MATH's 7,500 training problems; 128 prompts x 8 responses, 348 steps (6 epochs); prompts
of 1,024 and responses of 8,192 tokens at temperature 1; AdamW at 1e-6, constant; no KL,
no entropy term; NSR-PreRL with coefficient 0.01 for 20 steps, then GRPO, moments kept
at the switch. One update a batch, so clipping is inert. Where pxy differs: answers are
compared by algebra where rules do not decide (`--data.grader boxed` has rules
alone; `--reward math=1 --reward my.py:f=0.2` adds a reward of your own), and phase 1
makes 20 updates, not 19.

math_train.parquet and math_test.parquet are MATH as rows in verl's format: its script
examples/data_preprocess/math_dataset.py writes train.parquet and test.parquet, to be
renamed. `pxy data check math_train.parquet --task math` says whether every answer can
be graded against. Rows without a system message get SYSTEM.

Cost: up to 9.4 M tokens a step, for a pod of 64 chips: 48 GB for weights and Adam over
the mesh, a row of 9,216 tokens per device in each micro-batch, eight chips to one copy
of the sampler's weights, and all responses of a step at once, in a cache that holds 512
at their longest. `--dry-run` prints the plan, and `pxy compile` with
`--topology v5e:8x8` what every program needs there (docs/pods.md).

Expected, as reported for the paper: an avg@32 over six benchmarks of 57.5 with DSRL,
55.8 with GRPO (`experiments/qwen3_4b_math.py:grpo`) and 41.3 before, without seeds or
spreads. pxy has not made this run: that takes a pod.
"""

from pxy import methods
from pxy.config import Compute, Data, Eval, Reward, Sampling, Save, Train

RATES = methods.Rates(
  conditional=1e-6, negatives=1e-6, marginal=1e-6, warmup=20, on_start="keep"
)

SYSTEM = (
  "Reason step by step, and put the final answer within \\boxed{}: one expression, and"
  " nothing else in the box."
)


def config(method: str = "dsrl") -> Train:
  return Train(
    model="hf://Qwen/Qwen3-4B",
    phases=methods.phases(method, RATES),
    steps=348,
    eval_every=58,
    save_every=20,
    data=Data(
      task="math_train.parquet",
      grader="math",
      prompts=128,
      responses=8,
      max_prompt_tokens=1024,
      system=SYSTEM,
      template_arguments=("enable_thinking=false",),
    ),
    sampling=Sampling(
      max_new_tokens=8192, slots=1024, cache_tokens=512 * 9216, tensor=8
    ),
    reward=Reward(workers=16),
    compute=Compute(
      dtype="bfloat16", remat="full", row_tokens=9216, micro_rows=64, vocab_chunk=19_072
    ),
    eval=Eval(task="math_test.parquet", problems=500, samples=4),
    save=Save(grace=120.0),
  )
