"""Teaches a small model to say the most with its first values: ``python examples/train_matryoshka.py``.

``MatryoshkaLoss`` is another loss for embeddings of several widths at a time, so that embeddings can be cut, to
save memory, and still mean the same.
"""

from __future__ import annotations

from training_material import Material

from sentence_embedder import SentenceTransformer
from sentence_embedder.losses import CoSENTLoss, MatryoshkaLoss

WIDTHS = [384, 64, 16]


def scores(model: SentenceTransformer, material: Material) -> list[float]:
    """The Spearman correlation of embeddings cut to each width."""
    evaluator = material.evaluator()
    found = []
    for width in WIDTHS:
        with model.truncate_sentence_embeddings(width):
            found.append(model.evaluate(evaluator)["spearman_cosine"])
    return found


def main() -> None:
    material = Material.from_command_line(__doc__)
    model = material.model_to_train()
    before = scores(model, material)

    loader = material.loader(material.examples("train"), batch_size=16)
    model.fit(
        [(loader, MatryoshkaLoss(model, CoSENTLoss(model), matryoshka_dims=WIDTHS))],
        epochs=material.epochs(of_stsb=1),
        steps_per_epoch=min(100, len(loader)),
        warmup_steps=10,
        optimizer_params={"lr": 1e-4},
        seed=1,
    )

    for width, one, other in zip(WIDTHS, before, scores(model, material), strict=True):
        print(f"Spearman correlation of {width:3} values, before: {one:.3f}, after: {other:.3f}")


if __name__ == "__main__":
    main()
