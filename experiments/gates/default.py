"""May this model take its base's place? What `pxy gate` asks when it is given no gates.

  pxy gate RUN --against BASE

No less is solved, at one try and at eight; the same question in another way is answered
as well; what cannot be known is not answered more often; confidences are as good; over
all questions no answer is given too often that was not before; and other text is as
likely. What a task has no columns for is not asked of it. A margin is what would not
matter, and, but for the two that are asked for by name elsewhere (a point of
robustness, .01 nats), not finer than the full plan of a world can see.
"""

from pxy.measures.gate import Gate


def gates():
  return (
    Gate("bound/pass@1", at_least=-0.02),
    Gate("bound/pass@8", at_least=-0.03),
    Gate("robust/worst", at_least=-0.01),
    Gate("robust/agreement", at_least=-0.05),
    Gate("hallucination/unknown_wrong", at_most=0.05),
    Gate("calibration/brier", at_most=0.02),
    Gate("bias/tv", at_most=0.05),
    Gate("kept/nll_document", at_most=0.01),
  )
