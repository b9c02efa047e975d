"""Which claims of arXiv 2604.14142 hold, on two small worlds that anyone can repeat?

  pxy study claims --out runs/claims --jobs 2
  pxy study claims --dry-run

What the paper says, the methods that it is held against, and the controls without which
"it works" means nothing. 5 seeds on `builtin:world`, which knows some facts well and
some not, and on `builtin:tiny`, which errs on its sums: 120 steps of 32 prompts x 8
responses, evaluated on 256 problems x 16 samples (64 of DSRL and GRPO). Learning rates
are those of the sweep (rates.py), so many for every method, on a seed that is none of
these. All arms see the same prompts in the same order for as many updates, but
`nsr_prerl_20`, which is a first phase of 20 and no more; DAPO draws more of them. All
runs are probed, those that a claim of the promise compares in full.
Cost: `--dry-run` says.
"""

import rates

from pxy.study.plan import BEFORE, ZERO, Arm, Claim, Study, World

SIZE = ("--steps", "120", "--eval.problems", "256", "--eval.samples", "16")
PASS1, PASS32 = "bound/pass@1", "bound/pass@32"
FULL = ("--what", "robust,calibration,hallucination,bias,kept")
"""A probe in full, but for the bound: that is of the run's own evaluation."""
MORE = ("--eval.samples", "64")
ALIGN = ("--n", "128", "--responses", "4")
CHOSEN = {
  "world": {
    "grpo": 1.7e-4,
    "dsrl": 2e-4,
    "nsr_rl_warmup": 6.7e-5,
    "teacher_psr": 2e-4,
    "nsr_prerl": 6.7e-5,
    "psr_prerl": 6.7e-5,
    "prerl": 2e-4,
    "nsr_rl": 2e-4,
    "psr_rl": 5e-4,
    "w_reinforce": 6.7e-5,
    "joint": 5e-4,
    "dr_grpo": 1.7e-4,
    "rloo": 5e-4,
    "gspo": 1.7e-4,
    "dapo": 5e-4,
  },
  "add3": {
    "grpo": 5e-4,
    "dsrl": 3e-5,
    "nsr_rl_warmup": 1e-5,
    "nsr_prerl": 3.3e-6,
    "psr_prerl": 3e-5,
    "prerl": 3e-5,
    "nsr_rl": 1.5e-4,
    "psr_rl": 5e-4,
    "w_reinforce": 1.5e-4,
    "joint": 5e-4,
  },
}
"""World: method: learning rate of its first phase, the best of the sweep's three; a
method that has not been swept there takes the base's own."""


def arm(name, like="", *options, rate=None, probes=None, worlds=()) -> Arm:
  """A method of the sweep, or (`like`) one that differs from it by options alone, or by
  its first phase's rate."""
  method, own = rates.METHODS[like or name]
  at = tuple(
    (world, _rates(world, chosen, like or name, rate))
    for world, chosen in CHOSEN.items()
    if not worlds or world in worlds
  )
  return Arm(name, method, (*own, *options), worlds, at, probes)


def _rates(world, chosen, name, rate) -> tuple[str, ...]:
  """Options: the first phase's own, and that of GRPO where it is the second."""
  rate = rate or chosen.get(name)
  first = ("--phases.0.lr", f"{rate:g}") if rate else ()
  two = len(rates.phases(world, name)) > 1 and "grpo" in chosen
  return (*first, "--phases.1.lr", f"{chosen['grpo']:g}") if two else first


def claim(name, text, measure, arm, against="before", **more) -> Claim:
  return Claim(name, text, measure, arm, against, **more)


def against(other: str, **more) -> Claim:
  return claim(
    f"dsrl-{other}", f"DSRL ends above {other}", PASS1, "dsrl", other, **more
  )


WORLD = {"worlds": ("world",)}


def study() -> Study:
  return Study(
    worlds=(
      World("world", "world", SIZE, ("--quick",), "builtin:world",
            ("--task", "world/chains", *ALIGN)),
      World("add3", "add3", SIZE, ("--quick",), "builtin:tiny",
            ("--task", "arithmetic/add3", *ALIGN)),
    ),
    arms=(
      arm("grpo", "", *MORE, probes=FULL),
      arm("dsrl", "", *MORE, probes=FULL),
      arm("nsr_rl_warmup", probes=FULL),
      arm("zero_phase", "dsrl", rate=1e-30),
      arm("random_label", "dsrl", f"{rates.TERM}control", "random-label"),
      arm("all_down", "dsrl", f"{rates.TERM}control", "all-down"),
      arm("format_only", "dsrl", "--data.grader", "form", "--eval.grader", "auto",
          **WORLD),
      arm("conditional", "dsrl", f"{rates.TERM}space", "conditional", **WORLD),
      arm("nsr_prerl"),
      arm("nsr_prerl_20", "nsr_prerl", "--steps", "20"),
      arm("psr_prerl"),
      arm("prerl"),
      arm("nsr_rl"),
      arm("psr_rl"),
      arm("w_reinforce"),
      arm("joint"),
      *(arm(name, **WORLD) for name in rates.ONE),
      arm("cispo", "grpo", f"{rates.TERM}clip", "cispo", f"{rates.TERM}clip-low", "1.0",
          f"{rates.TERM}clip-high", "0.28", **WORLD),
      # Drawn tokens of GRPO's last steps have an entropy of .31 nats, of DSRL's .32.
      arm("grpo_matched", "grpo", "--sampling.temperature", "1.01", **WORLD),
      arm("grpo_hot", "grpo", "--sampling.temperature", "1.1", **WORLD),
      arm("dsrl_short", "dsrl", "--phases.0.steps", "5", **WORLD),
      arm("dsrl_long", "dsrl", "--phases.0.steps", "60", **WORLD),
      arm("dsrl_document", "dsrl", f"{rates.TERM}context", "document", **WORLD),
      arm("dsrl_shuffled", "dsrl", f"{rates.TERM}context", "shuffled", **WORLD),
      arm("dsrl_mixture", "dsrl", f"{rates.TERM}context", "mixture",
          "--compute.row-tokens", "448", **WORLD),
    ),
    seeds=(0, 1, 2, 3, 4),
    claims=(
      # What the paper says.
      claim("align", "gradients of log P(y) and log P(y|x) align", "align/cosine",
            BEFORE, ZERO, paper="cosine 0.44 (Qwen3-4B, AMC23)"),
      claim("nsr-prerl", "NSR-PreRL raises P(right|x) without seeing x", PASS1,
            "nsr_prerl_20", paper="rises for some 20 steps"),
      claim("psr-prerl", "PSR-PreRL lowers P(right|x)", PASS1, "psr_prerl",
            expects="less", paper="degrades"),
      claim("prerl", "PreRL alone ends below GRPO", PASS1, "prerl", "grpo",
            expects="less", paper="tracks RL for 150 steps, then collapses"),
      claim("dsrl-end", "DSRL ends above GRPO", PASS1, "dsrl", "grpo",
            paper="avg@32 57.5 against 55.8 (Qwen3-4B, six benchmarks)"),
      claim("dsrl-wide", "DSRL has more in 32 tries than GRPO",
            PASS32, "dsrl", "grpo", paper="pass@k above GRPO's up to k = 256", **WORLD),
      claim("dsrl-steps-world", "DSRL needs fewer steps", "train/steps@0.33", "dsrl",
            "grpo", expects="less", margin=5, paper="2.5x fewer to 45 %", **WORLD),
      claim("dsrl-steps-add3", "DSRL needs fewer steps", "train/steps@0.7", "dsrl",
            "grpo", expects="less", margin=5, paper="2.5x fewer to 45 %",
            worlds=("add3",)),
      claim("transition", "NSR-PreRL thinks of other ways more often",
            "thoughts/transition_rate", "nsr_prerl_20", paper="x14.9 after 20 steps",
            margin=0.005, worlds=("add3",)),
      claim("reflection", "NSR-PreRL reflects more often", "thoughts/reflection_rate",
            "nsr_prerl_20", paper="x6.5 after 20 steps", margin=0.005,
            worlds=("add3",)),
      claim("short", "a first phase of 5 steps ends below one of 15", PASS1,
            "dsrl_short", "dsrl", expects="less", paper="10 to 25 steps are best",
            **WORLD),
      claim("long", "a first phase of 60 steps ends below one of 15", PASS1,
            "dsrl_long", "dsrl", expects="less", paper="10 to 25 steps are best",
            **WORLD),
      claim("document", "another fixed context does as well", PASS1, "dsrl_document",
            "dsrl", expects="same", **WORLD),
      claim("shuffled", "a prompt of another question does worse", PASS1,
            "dsrl_shuffled", "dsrl", expects="less", **WORLD),
      claim("mixture", "the true marginal does as well", PASS1, "dsrl_mixture", "dsrl",
            expects="same", **WORLD),
      # Controls: what DSRL must beat for it to be P(y).
      against("nsr_rl_warmup", paper="57.5 against 54.4 (Qwen3-4B)"),
      against("zero_phase"),
      against("random_label"),
      against("all_down"),
      against("format_only", **WORLD),
      claim("dsrl-conditional", "DSRL ends above the same with a first phase on P(y|x)",
            PASS1, "dsrl", "conditional", **WORLD),
      against("grpo_matched", **WORLD),
      against("teacher_psr", **WORLD),
      # Other methods.
      *(against(other) for other in ("w_reinforce", "joint")),
      *(
        against(other, **WORLD)
        for other in ("nsr_rl", "psr_rl", "dr_grpo", "rloo", "gspo", "dapo")
      ),
      # The bound.
      claim("grpo-bound", "GRPO has as much in 32 tries as its base",
            PASS32, "grpo", expects="same", **WORLD),
      claim("dsrl-bound", "DSRL has more in 32 tries than its base", PASS32, "dsrl",
            paper="pass@k above the base's up to k = 256", **WORLD),
      # The promise.
      claim("robust", "DSRL answers the same in other wordings more often than GRPO",
            "robust/agreement", "dsrl", "grpo", **WORLD),
      claim("biased", "DSRL follows the stereotype less than GRPO", "bias/follows",
            "dsrl", "grpo", expects="less", **WORLD),
      claim("marginal", "DSRL's answers are nearer the truth over all than GRPO's",
            "bias/tv", "dsrl", "grpo", expects="less", **WORLD),
      claim("hallucinates", "DSRL answers fewer questions about invented names",
            "hallucination/unknown_wrong", "dsrl", "grpo", expects="less", **WORLD),
      claim("calibrated", "DSRL's log P(y|x) tells right from wrong better",
            "calibration/auroc_prompt", "dsrl", "grpo"),
      claim("kept", "DSRL forgets less of held-out text", "kept/nll_document", "dsrl",
            "grpo", expects="less", margin=0.01),
      claim("robust-space",
            "DSRL answers the same in other wordings more often than nsr_rl_warmup",
            "robust/agreement", "dsrl", "nsr_rl_warmup", **WORLD),
    ),
  )  # fmt: skip
