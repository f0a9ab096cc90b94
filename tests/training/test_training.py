"""Training: the steps are those of sentence-transformers, and what is asked for beside them happens."""

from __future__ import annotations

import copy
import functools
import logging
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import sentence_embedder
from sentence_embedder import InputExample, SentenceTransformer, losses, models
from sentence_embedder.acceleration.trained_linear import QuickProducts
from sentence_embedder.evaluation import EmbeddingSimilarityEvaluator, SentenceEvaluator
from sentence_embedder.training.loop import TrainingError
from sentence_embedder.training.plan import TrainingPlan
from sentence_embedder.training.schedules import SCHEDULERS
from sentence_embedder.training.training_record import LoggedSteps
from tests.reference.environment import VERSIONS, record_training
from tests.training.cases import CASES, TEXTS, TrainingCase, examples, loader_of, model_of

GOLDEN = Path(__file__).parents[1] / "golden" / "training.npz"

NO_GRADIENT = "key.bias"
"""What adds the same to all scores of a query moves no weight of the softmax: its gradient is rounding, of which an
optimizer that divides by the gradient's size makes steps. 2.7 and 6.2 differ there, too."""

Make = Callable[[], SentenceTransformer]


@pytest.fixture
def make(tiny_folders: dict[str, Path]) -> Make:
    """Makes a tiny model without dropout, the same one each time."""

    def made() -> SentenceTransformer:
        model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        model[0].auto_model.config.attention_probs_dropout_prob = 0.0
        return model

    return made


def fit(model: SentenceTransformer, *given: Any, **arguments: Any) -> Any:
    """``fit`` as short as tests need it: a few quick steps."""
    arguments = {"warmup_steps": 0, "optimizer_params": {"lr": 1e-3}, "scheduler": "constantlr", **arguments}
    arguments["show_progress_bar"] = False
    return model.fit(*given, **arguments)


def pairs(count: int = 12, batch_size: int = 4, **arguments: Any) -> Any:
    """A loader of pairs with similarities, in their order."""
    return loader_of(examples(InputExample, count=count), batch_size=batch_size, shuffle=False, **arguments)


def weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the weights."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """The largest between weights, those without a gradient aside."""
    assert one.keys() == other.keys()
    return max(
        float((one[name].double() - other[name].double()).abs().max()) for name in one if NO_GRADIENT not in name
    )


# ── Ours equals theirs ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("name", "case"), CASES.items(), ids=CASES)
def test_twenty_steps_are_those_of_sentence_transformers(
    name: str, case: TrainingCase, tiny_folders: dict[str, Path]
) -> None:
    """With a seed, 20 steps of every objective give the weights that 6.2 gives."""
    recorded = np.load(GOLDEN)

    model = model_of(tiny_folders["bert"], SentenceTransformer)
    ours = case.run(sentence_embedder, losses, model, model.fit)

    theirs = {key: torch.from_numpy(recorded[f"{name}#{key}"]) for key in ours}
    assert difference(ours, theirs) < 1e-5


@pytest.mark.reference
@pytest.mark.parametrize("version", VERSIONS)
def test_twenty_steps_live(version: str, tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    """The same here and now, in 2.7 and in 6.2."""
    record_training(version, tiny_folders["bert"], tmp_path / "theirs.npz")

    recorded = np.load(tmp_path / "theirs.npz")
    for name, case in CASES.items():
        model = model_of(tiny_folders["bert"], SentenceTransformer)
        ours = case.run(sentence_embedder, losses, model, model.fit)
        theirs = {key: torch.from_numpy(recorded[f"{name}#{key}"]) for key in ours}
        assert difference(ours, theirs) < 1e-5


@pytest.mark.parametrize("name", SCHEDULERS)
def test_learning_rates(name: str, make: Make) -> None:
    """Every schedule starts, rises and falls as its name says."""
    model = make()
    logs: list[LoggedSteps] = []

    fit(
        model,
        [(pairs(), losses.CosineSimilarityLoss(model))],
        scheduler=name.upper(),
        warmup_steps=2,
        steps_per_epoch=8,
        log_steps=1,
        on_log=logs.append,
    )

    rates = [log.learning_rates[0] for log in logs]
    if name == "constantlr":
        assert rates == [1e-3] * 8
    else:
        assert rates[:2] == pytest.approx([5e-4, 1e-3])
        assert (rates[-1] == pytest.approx(1e-3)) == (name == "warmupconstant")
    if name in ("warmuplinear", "warmupcosine"):
        assert rates[2:] == sorted(rates[2:], reverse=True)
        assert rates[-1] == pytest.approx(0)


# ── Objectives and steps ──────────────────────────────────────────────────────────────────────────────────────


class Counting(nn.Module):
    """A loss that writes down which texts it saw, by their tokens."""

    def __init__(self, model: nn.Module, seen: list[Any], name: str = "") -> None:
        super().__init__()
        self.model = model
        self.seen = seen
        self.name = name

    def forward(self, features: Sequence[dict[str, Any]], labels: Tensor) -> Tensor:
        """The mean embedding of the first column."""
        assert self.training
        self.seen.append((self.name, [round(float(label), 6) for label in labels]))
        return self.model(features[0])["sentence_embedding"].mean()  # type: ignore[no-any-return]


def numbered(count: int) -> list[InputExample]:
    """Examples with their number as label."""
    return [InputExample(texts=[TEXTS[number % len(TEXTS)]], label=float(number)) for number in range(count)]


def test_objectives_take_turns(make: Make) -> None:
    """Each step is a batch of every objective; the smallest says how long an epoch is; longer data goes on."""
    model, seen = make(), list[Any]()
    small = loader_of(numbered(4), batch_size=2, shuffle=False)
    large = loader_of(numbered(5), batch_size=1, shuffle=False)

    record = fit(model, [(small, Counting(model, seen, "s")), (large, Counting(model, seen, "l"))], epochs=3)

    assert [name for name, _ in seen] == ["s", "l"] * 6
    assert [labels for name, labels in seen if name == "s"] == [[0.0, 1.0], [2.0, 3.0]] * 3
    assert [labels for name, labels in seen if name == "l"] == [[0.0], [1.0], [2.0], [3.0], [4.0], [0.0]]
    assert record.steps == 6


def test_a_loader_is_left_as_it_is(make: Make) -> None:
    """The user's loader has its own collate_fn afterwards, and its data set is the same."""
    model = make()
    loader = pairs()
    before = dict(vars(loader))

    fit(model, [(loader, losses.CosineSimilarityLoss(model))])

    assert vars(loader) == before


def test_losses_of_several_parts(make: Make) -> None:
    """A loss may give its parts by name: their sum counts."""

    class Parts(losses.CosineSimilarityLoss):
        def forward(self, sentence_features: Any, labels: Any = None) -> Any:
            whole = super().forward(sentence_features, labels)
            return {"one": 0.25 * whole, "other": 0.75 * whole}

    model, other = make(), make()

    ours = fit(model, [(pairs(), Parts(model))])
    plain = fit(other, [(pairs(), losses.CosineSimilarityLoss(other))])

    assert ours.losses[0] == pytest.approx(plain.losses[0])
    assert difference(weights(model), weights(other)) < 1e-5


def test_data_without_a_length_needs_steps(make: Make) -> None:
    """A loader that does not know its length is taken with steps_per_epoch alone."""
    model, seen = make(), list[Any]()

    class Endless:
        def __iter__(self) -> Iterator[Any]:
            while True:
                yield numbered(2)

    with pytest.raises(ValueError, match=r"objective 0 \(Counting\): expected a loader with a length"):
        fit(model, [(Endless(), Counting(model, seen))])
    fit(model, [(Endless(), Counting(model, seen))], steps_per_epoch=3)

    assert len(seen) == 3


def test_data_sets_of_datasets(make: Make) -> None:
    """A data set of ``datasets`` is taken as it is, in shuffled batches of 32, and so is a stream, in its order; of
    several one has to be chosen.
    """
    from datasets import Dataset, DatasetDict

    rows: Any = Dataset.from_dict({"text": TEXTS * 3, "label": [float(place) for place in range(3 * len(TEXTS))]})
    stream = rows.to_iterable_dataset().with_format("torch")
    model, seen = make(), list[Any]()

    fit(model, [(rows, Counting(model, seen))])
    fit(model, [(loader_of(rows, batch_size=21), Counting(model, seen))])
    fit(model, [(loader_of(stream, batch_size=21, shuffle=False), Counting(model, seen))], steps_per_epoch=2)

    fit(model, [(stream, Counting(model, seen))], steps_per_epoch=2)

    everything = [float(place) for place in range(42)]
    batches = [labels for _, labels in seen]
    assert [len(labels) for labels in batches] == [32, 10, 21, 21, 21, 21, 32, 10]
    assert sorted(batches[0] + batches[1]) == sorted(batches[2] + batches[3]) == everything
    assert batches[0] + batches[1] != everything
    assert batches[4] + batches[5] == batches[6] + batches[7] == everything
    with pytest.raises(ValueError, match=r"expected one data set, found several.*'train'"):
        fit(model, [(DatasetDict({"train": rows}), Counting(model, seen))])


def test_an_optimizer_with_arguments_of_its_own(make: Make) -> None:
    """Whatever makes an optimizer can be given, and the model card names the class."""
    model = make()
    made: Any = functools.partial(torch.optim.AdamW, betas=(0.9, 0.98))

    record = fit(model, [(pairs(), losses.CosineSimilarityLoss(model))], optimizer_class=made)

    assert record.steps == 3
    assert TrainingPlan(optimizer_class=made).to_dict()["optimizer_class"] == "torch.optim.adamw.AdamW"


def test_no_data_is_an_error(make: Make) -> None:
    """A loader without batches is named; so is a training without objectives."""
    model = make()

    with pytest.raises(ValueError, match=r"objective 0 \(Counting\): expected batches, the loader gave none"):
        fit(model, [([], Counting(model, []))])
    with pytest.raises(ValueError, match="train_objectives: expected at least one"):
        fit(model, [])


# ── Larger batches ────────────────────────────────────────────────────────────────────────────────────────────

RANKING: dict[str, Callable[[SentenceTransformer], nn.Module]] = {
    "ranking": losses.MultipleNegativesRankingLoss,
    "cached ranking": losses.CachedMultipleNegativesRankingLoss,
    "cosent": losses.CoSENTLoss,
    "similarity": losses.CosineSimilarityLoss,
    "softmax": lambda model: _softmax(model),
    "matryoshka": lambda model: losses.MatryoshkaLoss(
        model, losses.MultipleNegativesRankingLoss(model), matryoshka_dims=[32, 8]
    ),
}


def _softmax(model: SentenceTransformer) -> nn.Module:
    torch.manual_seed(0)
    return losses.SoftmaxLoss(model, 32, 2)


@pytest.mark.parametrize("name", RANKING)
@pytest.mark.parametrize("steps", [1, 2])
def test_joined_batches_are_one(name: str, steps: int, make: Make) -> None:
    """effective_batch_size=12 with batches of 4 takes the steps of batches of 12."""
    model, other = make(), make()
    arguments = {"optimizer_class": torch.optim.SGD, "optimizer_params": {"lr": 0.1}, "epochs": 2}
    rows = examples(InputExample, count=24)
    for row in rows:
        row.label = int(row.label > 0.5) if name == "softmax" else row.label

    def loader(size: int) -> Any:
        return loader_of(rows, batch_size=size, shuffle=False)

    joined = fit(
        model,
        [(loader(4), RANKING[name](model))],
        effective_batch_size=12,
        gradient_accumulation_steps=steps,
        **arguments,
    )
    whole = fit(other, [(loader(12), RANKING[name](other))], gradient_accumulation_steps=steps, **arguments)

    assert joined.steps == whole.steps == 4 // steps
    assert joined.losses == pytest.approx(np.array(whole.losses), abs=1e-5)
    assert difference(weights(model), weights(other)) < 1e-5


def test_batches_that_cannot_be_joined(make: Make) -> None:
    """A loss of which batches cannot be joined, and sizes that do not fit, are errors before the first step."""
    model, seen = make(), list[Any]()

    with pytest.raises(ValueError, match="effective_batch_size: expected a loss of this package"):
        fit(model, [(pairs(), Counting(model, seen))], effective_batch_size=8)
    with pytest.raises(ValueError, match="a multiple of the loader's batch size, 4, found 6"):
        fit(model, [(pairs(), losses.CoSENTLoss(model))], effective_batch_size=6)
    with pytest.raises(ValueError, match="expected a loader with a batch_size"):
        fit(model, [([numbered(2)], losses.CoSENTLoss(model))], effective_batch_size=6)

    assert not seen


def test_accumulated_gradients_are_a_mean(make: Make) -> None:
    """Three batches of 4 in a step give the gradient of one of 12, for a loss that is a mean over rows."""
    model, other = make(), make()
    arguments = {"optimizer_class": torch.optim.SGD, "optimizer_params": {"lr": 0.1}, "epochs": 2}

    fit(
        model,
        [(pairs(batch_size=4), losses.CosineSimilarityLoss(model))],
        gradient_accumulation_steps=3,
        **arguments,
    )
    fit(other, [(pairs(batch_size=12), losses.CosineSimilarityLoss(other))], **arguments)

    assert difference(weights(model), weights(other)) < 1e-5


# ── Judging ───────────────────────────────────────────────────────────────────────────────────────────────────


class Scores(SentenceEvaluator):
    """Says what it is told to, and writes down how it was called."""

    def __init__(self, *scores: Any) -> None:
        self.scores = list(scores)
        self.calls: list[Any] = []

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float] | float:
        """The next score."""
        model.encode(["a text"])  # puts the model into evaluation mode
        self.calls.append((output_path, epoch, steps))
        return self.scores.pop(0)  # type: ignore[no-any-return]


def test_when_an_evaluator_is_asked(make: Make, tmp_path: Path) -> None:
    """It is asked within epochs and at their ends; the callback hears of it each time; the best model is kept."""
    model, heard, seen = make(), list[Any](), list[Any]()
    evaluator = Scores(0.1, 0.5, 0.3, 0.2)

    record = fit(
        model,
        [(pairs(), Counting(model, seen))],
        evaluator,
        epochs=2,
        evaluation_steps=2,
        output_path=tmp_path / "out",
        callback=lambda *call: heard.append(call),
    )

    assert evaluator.calls == [
        (str(tmp_path / "out" / "eval"), *when) for when in ((0, 2), (0, -1), (1, 2), (1, -1))
    ]
    assert heard == [(0.1, 0, 2), (0.5, 0, -1), (0.3, 1, 2), (0.2, 1, -1)]
    assert record.scores == [0.1, 0.5, 0.3, 0.2]
    assert record.best is not None
    assert (record.best.score, record.best.epoch, record.best.step) == (0.5, 0, 3)
    assert model.best_score == 0.5
    assert record.model_path == str(tmp_path / "out")
    saved = weights(SentenceTransformer(record.model_path, device="cpu"))
    assert difference(saved, weights(model)) > 1e-4  # it was trained further
    assert not model.training


def test_metrics_of_which_one_counts(make: Make) -> None:
    """A dict counts by its primary metric; less may be better; a score that is not a number is never the best."""
    model = make()
    evaluator = Scores({"a": 9.0, "b": float("nan")}, {"a": 0.0, "b": 3.0}, {"a": 1.0, "b": 2.0}, {"b": 5.0})
    evaluator.primary_metric, evaluator.greater_is_better = "b", False

    record = fit(model, [(pairs(), losses.CosineSimilarityLoss(model))], evaluator, epochs=4)

    assert record.best is not None
    assert record.best.score == 2.0
    assert record.best.metrics == {"a": 1.0, "b": 2.0}
    evaluator.scores = [{"a": 1.0}]
    with pytest.raises(ValueError, match=r"Scores: expected its primary_metric 'b' in \['a'\]"):
        fit(model, [(pairs(), losses.CosineSimilarityLoss(model))], evaluator)


@pytest.mark.parametrize("scores", [None, (0.5, 0.1)], ids=["no evaluator", "the last model"])
def test_the_model_is_saved_at_the_end(scores: tuple[float, ...] | None, make: Make, tmp_path: Path) -> None:
    """Without an evaluator, or if the best model is not asked for, what is saved is the last one."""
    model = make()

    record = fit(
        model,
        [(pairs(), losses.CosineSimilarityLoss(model))],
        None if scores is None else Scores(*scores),
        epochs=2,
        output_path=str(tmp_path),
        save_best_model=scores is None,
    )

    saved = SentenceTransformer(str(record.model_path), device="cpu")
    assert difference(weights(saved), weights(model)) == 0
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "- Loss: `CosineSimilarityLoss`" in card


def test_of_scores_that_are_no_numbers_the_last_model_is_saved(make: Make, tmp_path: Path) -> None:
    """Where no score is a number there is no best model, and what is saved at the end is the last one."""
    model = make()
    evaluator = Scores(*[float("nan")] * 3)

    record = fit(
        model, [(pairs(), losses.CosineSimilarityLoss(model))], evaluator, epochs=3, output_path=str(tmp_path)
    )

    saved = SentenceTransformer(str(record.model_path), device="cpu")
    assert difference(weights(saved), weights(model)) == 0


def test_an_evaluator_that_says_nothing_is_named(make: Make) -> None:
    """A dict without a metric is an error."""
    model = make()

    with pytest.raises(ValueError, match="Scores: expected a metric at least, found an empty dict"):
        fit(model, [(pairs(), losses.CosineSimilarityLoss(model))], Scores({}))


def test_training_stops_early(make: Make) -> None:
    """After so many judgements without a better one it ends."""
    model = make()
    evaluator = Scores(0.1, 0.3, 0.2, 0.3, 0.9)

    record = fit(
        model, [(pairs(), losses.CosineSimilarityLoss(model))], evaluator, epochs=9, early_stopping_patience=2
    )

    assert record.scores == [0.1, 0.3, 0.2, 0.3]
    assert record.stopped_early
    assert record.steps == 12


def test_one_state_of_the_model_is_judged_once(make: Make) -> None:
    """An evaluation at the end of an epoch that follows one after its last step does not use up the patience."""
    model = make()
    evaluator = Scores(0.1, 0.1, 0.2, 0.2, 0.1, 0.1)

    record = fit(
        model,
        [(pairs(), losses.CosineSimilarityLoss(model))],
        evaluator,
        epochs=3,
        evaluation_steps=3,
        early_stopping_patience=1,
    )

    assert record.scores == [0.1, 0.1, 0.2, 0.2, 0.1]
    assert record.steps == 9


def test_the_encoder_has_the_new_weights(make: Make) -> None:
    """After training, and between its steps, encode gives the vectors of the weights as they are then."""
    model = make()
    sentences = TEXTS[:5]
    before = model.encode(sentences)
    between: list[Any] = []

    def evaluator(model: SentenceTransformer, **_: Any) -> float:
        between.append(model.encode(sentences))
        return 0.0

    fit(model, [(pairs(), losses.CosineSimilarityLoss(model))], evaluator, epochs=2)

    after = model.encode(sentences)
    model._acceleration.enabled = False
    np.testing.assert_allclose(after, model.encode(sentences), atol=1e-6)
    np.testing.assert_allclose(between[1], after, atol=1e-6)
    for other in (before, between[0]):
        assert np.abs(other - after).max() > 1e-3


def test_scores_rise(make: Make) -> None:
    """A tiny model learns a few examples by heart."""
    model = make()
    rows = examples(InputExample, count=12)
    firsts, seconds = ([row.texts[place] for row in rows] for place in (0, 1))
    evaluator = EmbeddingSimilarityEvaluator(firsts, seconds, [row.label for row in rows])

    record = fit(
        model,
        [(loader_of(rows, batch_size=4), losses.CosineSimilarityLoss(model))],
        evaluator,
        epochs=20,
        optimizer_params={"lr": 3e-3},
        seed=1,
    )

    assert record.scores[-1] > record.scores[0] + 0.2
    assert record.losses[-1][0] < record.losses[0][0] / 2


# ── What is said of it ────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_logged(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Every so many steps, and at the end of an epoch, there are the means of losses, and the rates."""
    model, logs, single = make(), list[LoggedSteps](), list[LoggedSteps]()
    caplog.set_level(logging.INFO, logger="sentence_embedder.training")

    record = fit(
        model,
        [(pairs(20), losses.CosineSimilarityLoss(model)), (pairs(20), losses.CoSENTLoss(model))],
        log_steps=2,
        on_log=logs.append,
    )
    other = make()
    fit(
        other,
        [(pairs(20), losses.CosineSimilarityLoss(other)), (pairs(20), losses.CoSENTLoss(other))],
        log_steps=1,
        on_log=single.append,
    )

    assert record.logs == logs
    assert [(log.epoch, log.step) for log in logs] == [(0, 2), (0, 4), (0, 5)]
    assert all(log.learning_rates == (1e-3, 1e-3) and log.seconds_per_step > 0 for log in logs)
    first_two = np.mean([single[0].losses, single[1].losses], axis=0)
    assert logs[0].losses == pytest.approx(first_two)
    assert "step=4" in caplog.text


def test_a_seed_repeats_a_training(tiny_folders: dict[str, Path]) -> None:
    """With a seed the order of the data and the dropout are the same again; with another one they are not."""

    def trained(seed: int) -> dict[str, Tensor]:
        model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
        loader = loader_of(examples(InputExample), batch_size=4)
        fit(model, [(loader, losses.CosineSimilarityLoss(model))], seed=seed)
        return weights(model)

    assert difference(trained(3), trained(3)) == 0
    assert difference(trained(3), trained(4)) > 0


# ── Number formats and memory ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("arguments", [{"use_amp": True}, {"amp_dtype": "bfloat16"}], ids=str)
def test_mixed_precision(arguments: dict[str, Any], make: Make) -> None:
    """Products in bfloat16 train the float32 weights to nearly the same ones."""
    model, other = make(), make()
    seen: list[torch.dtype] = []
    model[0].auto_model.encoder.layer[0].intermediate.dense.register_forward_hook(
        lambda _module, _inputs, output: seen.append(output.dtype)
    )
    sgd = {"optimizer_class": torch.optim.SGD, "optimizer_params": {"lr": 0.1}}

    fit(model, [(pairs(), losses.CosineSimilarityLoss(model))], **arguments, **sgd)
    fit(other, [(pairs(), losses.CosineSimilarityLoss(other))], **sgd)

    assert set(seen) == {torch.bfloat16}
    assert {tensor.dtype for tensor in weights(model).values()} <= {torch.float32, torch.int64}
    assert 0 < difference(weights(model), weights(other)) < 1e-2


@pytest.mark.parametrize("joined", [None, 12])
def test_activations_are_computed_twice(joined: int | None, make: Make) -> None:
    """gradient_checkpointing changes memory, not weights; afterwards the model is as before."""
    model, other = make(), make()
    passes: list[int] = []
    model[0].auto_model.encoder.layer[0].intermediate.register_forward_hook(lambda *_: passes.append(1))

    fit(
        model,
        [(pairs(), losses.CosineSimilarityLoss(model))],
        gradient_checkpointing=True,
        effective_batch_size=joined,
    )
    fit(other, [(pairs(), losses.CosineSimilarityLoss(other))], effective_batch_size=joined)

    assert difference(weights(model), weights(other)) < 1e-6
    assert len(passes) == (12 if joined is None else 18)
    assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    assert not model[0].auto_model.get_input_embeddings()._forward_hooks
    with pytest.raises(ValueError, match="gradient_checkpointing: expected a Transformer that can"):
        fit(SentenceTransformer(modules=[nn.Linear(2, 2)]), [([], nn.Module())], gradient_checkpointing=True)


@pytest.mark.parametrize("joined", [None, 8])
def test_large_products_are_quick_and_the_same(
    joined: int | None, minilm: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a model whose products are worth it, steps are those of torch's own, also when activations are computed
    twice, and when batches are joined.
    """
    monkeypatch.setattr("sentence_embedder.training.objective.quick_products", lambda _: QuickProducts())
    found = []
    for arguments in ({}, {"gradient_checkpointing": True}):
        model = copy.deepcopy(minilm)
        model[0].auto_model.encoder.layer = model[0].auto_model.encoder.layer[:1]
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        model[0].auto_model.config.attention_probs_dropout_prob = 0.0
        record = fit(
            model,
            [(pairs(8, batch_size=4), losses.MultipleNegativesRankingLoss(model))],
            optimizer_class=torch.optim.SGD,
            effective_batch_size=joined,
            **arguments,
        )
        found.append((record.losses[0][0], weights(model)))

    assert found[0][0] == pytest.approx(found[1][0], abs=1e-5)
    assert difference(found[0][1], found[1][1]) < 1e-5


def test_the_second_pass_is_quick_too(minilm: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where batches are joined, texts go through the model twice, both times with oneDNN's products."""
    monkeypatch.setattr("sentence_embedder.training.objective.quick_products", lambda _: QuickProducts())
    model = copy.deepcopy(minilm)

    with profile(activities=[ProfilerActivity.CPU]) as events:
        fit(model, [(pairs(8, batch_size=4), losses.CoSENTLoss(model))], effective_batch_size=8)

    names = [event.name for event in events.events() or ()]
    products = sum("_linear_pointwise" in name for name in names)
    assert products == 2 * 2 * 6 * (6 + 6 + 12)  # batches, columns, layers: there, there again, and two back


def test_long_gradients_are_shortened(make: Make) -> None:
    """max_grad_norm limits a step; None does not."""
    moved = []
    for limit in (1e-3, None):
        model = make()
        before = weights(model)
        arguments = {"optimizer_class": torch.optim.SGD, "optimizer_params": {"lr": 1.0}, "weight_decay": 0.0}
        record = fit(
            model,
            [(pairs(), losses.MultipleNegativesRankingLoss(model))],
            steps_per_epoch=1,
            max_grad_norm=limit,
            **arguments,
        )
        after = weights(model)
        moved.append(sum(float((after[name] - before[name]).square().sum()) for name in after) ** 0.5)
        length = record.logs[0].gradient_norms[0]

    assert moved[0] == pytest.approx(1e-3, rel=1e-2)
    assert moved[1] == pytest.approx(length, rel=1e-2)


# ── What cannot go on ─────────────────────────────────────────────────────────────────────────────────────────


class Failing(losses.CosineSimilarityLoss):
    """A loss that is not finite, or whose gradient is not, at its third batch."""

    def __init__(self, model: nn.Module, factor: Callable[[Tensor], Tensor]) -> None:
        super().__init__(model)
        self.factor = factor
        self.count = 0

    def forward(self, sentence_features: Any, labels: Any = None) -> Any:
        """The loss, spoilt or not."""
        self.count += 1
        loss = super().forward(sentence_features, labels)
        return self.factor(loss) if self.count == 3 else loss


@pytest.mark.parametrize(
    ("factor", "what"),
    [
        (lambda loss: loss * float("nan"), "the loss is nan"),
        (lambda loss: loss * float("inf"), "the loss is inf"),
        (lambda loss: loss + (loss - loss.detach()).sqrt(), "the length of the gradient is (inf|nan)"),
    ],
    ids=["nan", "inf", "gradient"],
)
def test_a_loss_that_is_not_finite_stops_training(
    factor: Callable[[Tensor], Tensor], what: str, make: Make, tmp_path: Path
) -> None:
    """The error names step, objective and last checkpoint, and the weights are still those before the step."""
    model, other = make(), make()

    with pytest.raises(TrainingError, match=rf"objective 0 \(Failing\): step 3, epoch 0: {what}") as raised:
        fit(
            model,
            [(pairs(), Failing(model, factor))],
            checkpoint_path=tmp_path,
            checkpoint_save_steps=1,
        )
    fit(other, [(pairs(), losses.CosineSimilarityLoss(other))], steps_per_epoch=2)

    assert raised.value.step == 3
    assert raised.value.checkpoint == str(tmp_path / "2")
    assert str(tmp_path / "2") in str(raised.value)
    again = pickle.loads(pickle.dumps(raised.value))  # noqa: S301
    assert (str(again), again.step, again.checkpoint) == (str(raised.value), 3, raised.value.checkpoint)
    assert difference(weights(model), weights(other)) == 0
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("argument", ["output_path", "checkpoint_path"])
def test_what_cannot_be_saved_is_not_trained(argument: str, make: Make, tmp_path: Path) -> None:
    """A model that is to be saved is looked at before the first step, and inside a Router; others train."""
    softmax = models.Dense(32, 4, activation_function=nn.Softmax(dim=-1))
    for last in (softmax, models.Router({"query": [softmax]}, "query")):
        model = SentenceTransformer(modules=[*make(), last], device="cpu")
        before = copy.deepcopy(weights(model))
        objectives = [(pairs(), losses.CosineSimilarityLoss(model))]

        with pytest.raises(ValueError, match=r"activation_function of a Dense: .* its arguments would be lost"):
            fit(model, objectives, **{argument: tmp_path})

        assert difference(weights(model), before) == 0
        assert fit(model, objectives).steps == 3


def test_the_objective_that_fails_is_named(make: Make) -> None:
    """With several objectives those before it have taken their part of the step."""
    model = make()

    with pytest.raises(TrainingError, match=r"objective 1 \(Failing\): step 3, epoch 0"):
        fit(
            model,
            [
                (pairs(), losses.CosineSimilarityLoss(model)),
                (pairs(), Failing(model, lambda loss: loss * float("nan"))),
            ],
        )

    assert all(bool(tensor.isfinite().all()) for tensor in model.parameters())


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"scheduler": "linear"}, "scheduler: expected one of .* found 'linear'"),
        ({"epochs": -1}, "epochs: expected a whole number, 0 or more, found -1"),
        ({"epochs": 1.5}, "epochs: expected a whole number, 0 or more, found 1.5"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps: .* 1 or more, found 0"),
        ({"early_stopping_patience": 0}, "early_stopping_patience: .* 1 or more, found 0"),
        ({"effective_batch_size": 0}, "effective_batch_size: .* 1 or more, found 0"),
        ({"amp_dtype": "int8"}, "amp_dtype: expected one of .* found 'int8'"),
        ({"resume_from_checkpoint": True}, "expected a checkpoint_path to look in, found none"),
    ],
)
def test_a_plan_is_checked(arguments: dict[str, Any], what: str) -> None:
    """An argument that makes no sense is an error before anything happens."""
    with pytest.raises(ValueError, match=what):
        TrainingPlan(**arguments)
