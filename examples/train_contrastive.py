"""Teaches a small model to find the sentence that says the same: ``python examples/train_contrastive.py``.

Pairs that mean the same, without scores, and ``MultipleNegativesRankingLoss``: each sentence should be nearer to
its partner than to all other sentences of the batch. With ``effective_batch_size`` the loss sees more rows than fit
into memory at a time.
"""

from __future__ import annotations

from training_material import Material

from sentence_embedder import InputExample
from sentence_embedder.evaluation import InformationRetrievalEvaluator
from sentence_embedder.losses import MultipleNegativesRankingLoss


def partners(examples: list[InputExample]) -> list[InputExample]:
    """The pairs that mean the same."""
    return [example for example in examples if example.label >= 0.8]


def finding(examples: list[InputExample]) -> InformationRetrievalEvaluator:
    """How high the partner of each first sentence ranks among all second ones."""
    pairs = partners(examples)
    return InformationRetrievalEvaluator(
        queries={f"q{number}": (pair.texts or [])[0] for number, pair in enumerate(pairs)},
        corpus={f"d{number}": (pair.texts or [])[1] for number, pair in enumerate(examples)},
        relevant_docs={
            f"q{number}": {f"d{place}" for place, other in enumerate(examples) if other is pair}
            for number, pair in enumerate(pairs)
        },
    )


def main() -> None:
    material = Material.from_command_line(__doc__)
    model, evaluator = material.model_to_train(), finding(material.examples("dev"))
    before = model.evaluate(evaluator)["cosine_ndcg@10"]

    loader = material.loader(partners(material.examples("train")), batch_size=8)
    model.fit(
        [(loader, MultipleNegativesRankingLoss(model))],
        epochs=material.epochs(of_stsb=1),
        warmup_steps=2,
        optimizer_params={"lr": 1e-4},
        effective_batch_size=8 if material.data is None else 32,
        seed=1,
    )

    after = model.evaluate(evaluator)["cosine_ndcg@10"]
    print(f"nDCG@10 of the sentence that says the same, before: {before:.3f}, after: {after:.3f}")


if __name__ == "__main__":
    main()
