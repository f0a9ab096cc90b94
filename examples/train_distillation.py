"""Teaches a model of one or two layers what one of six knows: ``python examples/train_distillation.py``.

The student's embeddings should be the teacher's (``MSELoss``); sentences need no labels. Both are judged by scores
that neither has seen.
"""

from __future__ import annotations

from training_material import Material

from sentence_embedder import InputExample, SentenceTransformer
from sentence_embedder.losses import MSELoss


def main() -> None:
    material = Material.from_command_line(__doc__)
    teacher, student = SentenceTransformer(material.model), material.student()
    evaluator = material.evaluator()
    of_teacher = teacher.evaluate(evaluator)["spearman_cosine"]
    before = student.evaluate(evaluator)["spearman_cosine"]

    sentences = [text for example in material.examples("train") for text in example.texts or ()][:3_200]
    embeddings = teacher.encode(sentences)
    rows = [InputExample(texts=[text], label=row) for text, row in zip(sentences, embeddings, strict=True)]
    record = student.fit(
        [(material.loader(rows, batch_size=32 if len(rows) > 1_000 else 8), MSELoss(student))],
        evaluator=evaluator,
        epochs=material.epochs(of_stsb=1),
        warmup_steps=10,
        optimizer_params={"lr": 4e-4},
        seed=1,
    )

    print(f"Spearman correlation, teacher: {of_teacher:.3f}")
    print(f"student, before: {before:.3f}, after: {record.scores[-1]:.3f}")


if __name__ == "__main__":
    main()
