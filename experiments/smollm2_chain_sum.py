"""Does DSRL teach a real, small model a task it half knows? SmolLM2-135M, short sums.

  pxy train experiments/smollm2_chain_sum.py --out runs/smollm2

The task is reasoning-gym's chain_sum with two or three one-digit terms; train and test
questions are disjoint. The score is 1 if the box, or else the last number of the
response, is the right number. (The task's own score, `--data.grader auto`, gives part
marks to a wrong number that contains the right one, 112 for 12: there is something to
exploit.)

Phase 1 is NSR-PreRL on log P(y), phase 2 is GRPO on log P(y|x), as in dsrl.py. The
learning rates are guesses: the authors' 1e-6 for 4 B parameters, larger for a model 30
times smaller; the marginal one is smaller still, for the reason in common.py. Where
the score before training is not between 20 and 70 %, move max_terms and max_digits.

Cost: 128 responses of at most 64 tokens a step; 2 GB for weights and Adam. On a CPU a
few updates: `--steps 3 --data.prompts 4 --eval.problems 16`; on one GPU all 200, with
`--compute.dtype bfloat16`.

Expected: unknown; the 200 steps have not been run. Seen on 2 CPU cores: the model has
avg@4 12.5 ± 6.5 % on 16 problems (`pxy eval` with this task, `--grader number`), and

  --steps 2 --phases.0.steps 1 --data.prompts 4 --data.responses 4 --eval.problems 8
  --eval.samples 2 --sampling.slots 16

goes through both phases in 70 s, with avg@2 18.8 ± 13.2 % before and after.
"""

from common import GRPO, MARGINAL, negatives, scaled

from pxy.config import Compute, Data, Eval, Phase, Sampling, Train

TASK = "gym:chain_sum?min_terms=2,max_terms=3,min_digits=1,max_digits=1,size=6000"


def config():
  return Train(
    model="builtin:smollm2-135m",
    phases=(
      Phase("nsr-prerl", (scaled(negatives(MARGINAL), 0.01),), steps=10, lr=1e-6),
      Phase("grpo", (GRPO,), lr=5e-6, on_start="reset_optimizer"),
    ),
    steps=200,
    eval_every=50,
    data=Data(
      task=TASK, grader="number", prompts=16, responses=8, max_prompt_tokens=96
    ),
    sampling=Sampling(max_new_tokens=64, slots=128),
    compute=Compute(row_tokens=256, micro_rows=8),
    eval=Eval(problems=128, samples=8),
  )
