"""The words of the field, explained where they stand and at the end of a page."""

from __future__ import annotations

TERMS = {
    "D_f": "the forget set: the training examples to be unlearned",
    "D_r": "the retain set: the rest of the training examples",
    "D_v": "the validation set, never trained on: the examples of which a model is known to be unaware",
    "D_t": "the test set",
    "original": "the model trained on all training examples, from which unlearning begins; t = 0 of the path",
    "retrained": "a model trained from scratch without the forget set: the yardstick, which no method sees",
    "pre-unlearned": "the original after another unlearning method: the model the path leads to, t = 1",
    "straight line": "the models between the original and the pre-unlearned one, weight by weight; nothing is trained",
    "MCU": "mode connectivity unlearning: a trained curve of models between both ends; its best point is taken",
    "t": "where on the path a model lies, from 0 (original) to 1 (pre-unlearned)",
    "t*": "the t of the lowest score, chosen without the retrained model",
    "UA": "unlearning accuracy, the share of the forget set misclassified. Best: equal to the retrained model's",
    "RA": "accuracy on the retain set. Best: equal to the retrained model's",
    "TA": "accuracy on the test set. Best: equal to the retrained model's",
    "MIA": "the share of the forget set that a membership attack on confidence takes for never seen. Best: equal to "
    "the retrained model's",
    "avg_gap": "the mean distance of UA, RA, TA and MIA from the retrained model's, in points. Best: 0",
    "score by accuracy": "the mean distance of retain and forget accuracy from targets that need no retrained model: "
    "the original's accuracy on the training examples and on unseen ones. Best: 0",
    "score by distribution": "half of what retain and validation accuracy are off, and the distance W₁ of the "
    "confidences on the forget set from those on unseen examples. Best: 0",
    "W₁": "the Wasserstein distance of two distributions: how far, on average, one must be moved to become the other",
    "effective region": "the t where the score is lower than at t = 1: the path is better there than the model it "
    "leads to",
    "mask": "which weights of the path are trained: those that matter for the forget set and not for the retain set",
    "β": "how strongly the path's training rewards forgetting; adaptive: decided for every batch",
    "confidence": "the probability a model gives to a label: in distributions the right one, of pictures the predicted",
    "barrier": "how far a loss or an accuracy gets worse between two models than a straight line between their ends. "
    "Best: 0",
    "seed floor": "the barrier between two runs of one method that differ in their seed alone, beside which any other "
    "is read",
    "nats": "the unit of losses with natural logarithms",
    "Pareto front": "the points than which no other one is better in both directions",
    "seed": "a replicate: it draws its own forget set, original and retrained model",
}

HEADS = {
    "score, acc.": "score by accuracy",
    "score, distr.": "score by distribution",
    "score(t*)": "t*",
    "D_r nats": "D_r",
    "D_f nats": "D_f",
    "acc. points": "barrier",
    "UA test": "UA",
    "UA %": "UA",
    "RA %": "RA",
    "effective region against retrain": "effective region",
}
"""Heads of columns that are not a term itself."""


def of(head: str) -> str | None:
    """What the head of a column means, where a word of it is explained."""
    return TERMS.get(HEADS.get(head, head))
