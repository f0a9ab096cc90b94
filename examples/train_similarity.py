"""Teaches a small model how alike sentences are: ``python examples/train_similarity.py``.

Pairs with a score from 0 to 1 and ``CosineSimilarityLoss``: the cosine of each pair should be its score.
"""

from __future__ import annotations

from training_material import Material

from sentence_embedder.losses import CosineSimilarityLoss


def main() -> None:
    material = Material.from_command_line(__doc__)
    model, evaluator = material.model_to_train(), material.evaluator()
    before = model.evaluate(evaluator)["spearman_cosine"]

    loader = material.loader(material.examples("train"), batch_size=16)
    record = model.fit(
        [(loader, CosineSimilarityLoss(model))],
        evaluator=evaluator,
        epochs=material.epochs(of_stsb=1),
        steps_per_epoch=min(100, len(loader)),
        warmup_steps=10,
        optimizer_params={"lr": 1e-4},
        seed=1,
    )

    print(f"Spearman correlation with people's scores, before: {before:.3f}, after: {record.scores[-1]:.3f}")


if __name__ == "__main__":
    main()
