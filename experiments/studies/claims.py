"""Which claims of arXiv 2604.14142 hold, on two small worlds that anyone can repeat?

  pxy study claims --out runs/claims --jobs 2
  pxy study claims --dry-run

Methods of the table, and controls, with 5 seeds on `builtin:tiny`, which errs on its
sums, and on `builtin:world`, which knows some facts well and some not: 120 steps of 32
prompts x 8 responses, evaluated on 256 problems x 16 samples; the world's runs are
probed as well.
Arms that are a warm-up alone run as long as the others, so that an update is an update.
Cost: `--dry-run` says.
"""

from pxy.study.plan import Arm, Claim, Study, World

SIZE = ("--steps", "120", "--eval.problems", "256", "--eval.samples", "16")
PASS1, PASS16 = "bound/pass@1", "bound/pass@16"


def claim(name, text, measure, arm, against="before", **more) -> Claim:
  return Claim(name, text, measure, arm, against, **more)


def study() -> Study:
  return Study(
    worlds=(
      World("add3", "add3", SIZE),
      World("world", "world", SIZE, ("--quick", "--against", "builtin:world")),
    ),
    arms=(
      Arm("grpo"),
      Arm("dsrl"),
      Arm("nsr_rl_warmup"),
      Arm("nsr_prerl"),
      Arm("psr_prerl"),
      Arm("prerl"),
      Arm("nsr_rl"),
      Arm("psr_rl"),
      Arm("w_reinforce"),
      Arm("joint"),
      Arm("dr_grpo", "grpo", ("--phases.0.terms.0.advantage", "mean")),
      Arm("rloo", "grpo", ("--phases.0.terms.0.advantage", "rloo")),
      Arm("random_label"),
      Arm("all_down"),
      Arm("zero_phase", "dsrl", ("--phases.0.lr", "1e-30")),
    ),
    seeds=(0, 1, 2, 3, 4),
    claims=(
      claim("dsrl-end", "DSRL ends above GRPO", PASS1, "dsrl", "grpo",
            paper="Table 1: avg@32 above GRPO's in every row"),
      claim("dsrl-wide", "DSRL has more in 16 tries than GRPO", PASS16, "dsrl", "grpo",
            paper="Figure 6: pass@k above GRPO's up to k = 256"),
      claim("is-it-p-of-y", "the same warm-up in P(y|x) ends below DSRL", PASS1, "dsrl",
            "nsr_rl_warmup"),
      claim("any-phase", "a first phase that does nothing ends below DSRL", PASS1,
            "dsrl", "zero_phase"),
      claim("labels", "a first phase with labels at random ends below DSRL", PASS1,
            "dsrl", "random_label"),
      claim("down", "a first phase that pushes all down ends below DSRL", PASS1,
            "dsrl", "all_down"),
      claim("nsr-prerl", "NSR-PreRL alone raises accuracy", PASS1, "nsr_prerl"),
      claim("psr-prerl", "PSR-PreRL alone lowers accuracy", PASS1, "psr_prerl",
            expects="less"),
      claim("grpo-bound", "GRPO has as much in 16 tries as its base", PASS16, "grpo",
            expects="same"),
      claim("robust", "DSRL is right more often in all wordings than GRPO",
            "robust/worst", "dsrl", "grpo", worlds=("world",)),
      claim("biased", "DSRL's answers are nearer the truth over all than GRPO's",
            "bias/tv", "dsrl", "grpo", expects="less", worlds=("world",)),
      claim("hallucinates", "DSRL answers fewer questions about invented names",
            "hallucination/unknown_wrong", "dsrl", "grpo", expects="less",
            worlds=("world",)),
      claim("calibrated", "DSRL's log P(y|x) tells right from wrong better",
            "calibration/auroc_prompt", "dsrl", "grpo", worlds=("world",)),
      claim("kept", "DSRL forgets less of held-out text", "kept/nll_document", "dsrl",
            "grpo", expects="less", margin=0.01, worlds=("world",)),
    ),
  )  # fmt: skip
