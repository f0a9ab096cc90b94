"""Losses: values and gradients are those of sentence-transformers, and what they promise holds."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from sentence_embedder import SentenceTransformer, losses, util
from sentence_embedder.losses.gradient_cache import joint_loss
from sentence_embedder.losses.similarity_losses import cosent
from tests.losses.cases import CASES, CLASSES, ROWS, TEACHER, WIDTH, LinearModel, _columns, _tokenizer
from tests.reference.environment import record_losses
from tests.reference.golden import GOLDEN


@pytest.fixture(scope="module")
def golden() -> Any:
    """What sentence-transformers 6.2.0 makes of the cases."""
    return np.load(GOLDEN / "losses.npz")


def _assert_alike(found: Any, expected: Any) -> None:
    """Numbers agree; sums of large ones that cancel keep the error of these."""
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=max(1e-5, 1e-6 * np.abs(expected).max()))


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_the_reference(name: str, golden: Any) -> None:
    """The loss of a batch, and its gradient by the weights of the model, are those of sentence-transformers."""
    value, gradient = CASES[name].run(losses, util)

    _assert_alike(value, golden[f"{name}#value"])
    _assert_alike(gradient, golden[f"{name}#gradient"])


@pytest.mark.reference
def test_the_reference_says_the_same_today(golden: Any, tmp_path: Path) -> None:
    """What was recorded is what the installed sentence-transformers gives."""
    record_losses("6.2", tmp_path / "losses.npz")

    live = np.load(tmp_path / "losses.npz")
    assert set(live) == set(golden)
    for name in live:
        _assert_alike(live[name], golden[name])


GUIDE = LinearModel(seed=4)
GUIDE.tokenizer = _tokenizer()

CACHED: dict[str, tuple[str, dict[str, Any]]] = {
    "CachedMultipleNegativesRankingLoss": ("MultipleNegativesRankingLoss", {}),
    "CachedMultipleNegativesSymmetricRankingLoss": ("MultipleNegativesSymmetricRankingLoss", {}),
    "CachedGISTEmbedLoss": ("GISTEmbedLoss", {"guide": GUIDE, "temperature": 0.2}),
    "MegaBatchMarginLoss": ("MegaBatchMarginLoss", {"positive_margin": 1.0}),
}


@pytest.mark.parametrize("size", [1, 5, 100])
@pytest.mark.parametrize("name", CACHED)
def test_cached_gradients_are_those_of_the_whole_batch(name: str, size: int) -> None:
    """However few texts go through the model at a time, value and gradients are those of the plain loss, also when
    the loss is scaled before ``backward``.
    """
    plain, arguments = CACHED[name]
    more = {"use_mini_batched_version": False} if plain == name else {}
    gradients = []
    for of, options in ((plain, more), (name, {"mini_batch_size": size})):
        model = LinearModel()
        model.tokenizer = GUIDE.tokenizer
        value = getattr(losses, of)(model, **arguments, **options)(_columns(2), None)
        (value * 3).backward()
        gradients.append((value.detach(), model.weight.grad))

    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_cached_gradients_draw_the_same_random_numbers() -> None:
    """With dropout, the embeddings that are made again are those that the loss saw."""

    class Dropping(LinearModel):
        def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
            made = super().forward(features)
            return {**made, "sentence_embedding": nn.functional.dropout(made["sentence_embedding"], 0.5)}

    torch.manual_seed(0)
    model = Dropping()
    seen: list[torch.Tensor] = []
    hook = model.register_forward_hook(lambda _, __, made: seen.append(made["sentence_embedding"].detach()))
    losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=5)(_columns(2), None).backward()
    hook.remove()

    half = len(seen) // 2
    assert half == 6
    for first, again in zip(seen[:half], seen[half:], strict=True):
        torch.testing.assert_close(first, again)


def test_cached_gradients_leave_random_numbers_as_they_are() -> None:
    """After ``backward`` random numbers go on where they were before it."""
    loss = losses.CachedMultipleNegativesRankingLoss(LinearModel(), mini_batch_size=5)(_columns(2), None)
    state = torch.get_rng_state()

    loss.backward()

    assert torch.equal(torch.get_rng_state(), state)


def test_cached_gradients_of_lower_precision_are_those_of_the_loss() -> None:
    """Under autocast the embeddings are made again in the same format, although ``backward`` is called outside."""
    formats = []
    model = LinearModel()
    model.register_forward_hook(lambda _, __, made: formats.append(made["sentence_embedding"].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=5)(_columns(2), None)

    loss.backward()

    assert set(formats) == {torch.bfloat16}
    assert model.weight.grad is not None


def test_a_frozen_model_learns_nothing() -> None:
    """A model that is frozen, or frozen for one column, is no error."""
    model = LinearModel()
    model.weight.requires_grad_(False)

    losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=5)(_columns(2), None).backward()

    assert model.weight.grad is None


def test_ranks_exchange_gradients_once() -> None:
    """Of a distributed model all but the last mini-batch keep their gradients to themselves."""

    class Distributed(LinearModel):
        waiting = 0
        exchanged = 0

        @contextmanager
        def no_sync(self) -> Iterator[None]:
            self.waiting += 1
            yield
            self.waiting -= 1

        def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
            self.exchanged += torch.is_grad_enabled() and not self.waiting
            return super().forward(features)

    model = Distributed()
    losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=5)(_columns(2), None).backward()

    assert model.exchanged == 1


def test_features_without_rows_are_refused() -> None:
    """Features that have no row for each text cannot be taken a few texts at a time: that is said."""
    features = [{"input_ids": torch.arange(9), "offsets": torch.tensor([0, 4])}] * 2
    with pytest.raises(ValueError, match="a row for each text, found"):
        losses.CachedMultipleNegativesRankingLoss(LinearModel())(features, None)


class Counting(LinearModel):
    """Remembers the Features that it got."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[str, Any]] = []

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """The embeddings of the vectors."""
        self.seen.append(features)
        return super().forward(features)


LENGTHS = [3, 1, 2, 6, 1, 1, 1, 4, 2, 2, 9, 1]


def _of_tokens(side: str = "right") -> list[dict[str, Any]]:
    mask = (torch.arange(9) < torch.tensor(LENGTHS)[:, None]).long()
    mask = mask if side == "right" else mask.flip(1)
    ids = mask * torch.arange(1, 10)
    return [{**column, "input_ids": ids, "attention_mask": mask} for column in _columns(2)]


def test_mini_batches_by_tokens() -> None:
    """With ``mini_batch_num_tokens`` a mini-batch has as many texts as have no more tokens, or one; the loss and
    its gradient stay the same.
    """
    for name, (_, arguments) in CACHED.items():
        gradients = []
        for options in ({}, {"mini_batch_num_tokens": 6}):
            model = Counting()
            model.tokenizer = GUIDE.tokenizer
            value = getattr(losses, name)(model, **arguments, **options)(_of_tokens(), None)
            value.backward()
            gradients.append((value.detach(), model.weight.grad))

        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
        assert [len(features["vectors"]) for features in model.seen[:6]] == [3, 1, 3, 2, 1, 1], name


def test_padding_of_a_mini_batch_is_left_out() -> None:
    """The columns that are padding for all texts of a mini-batch do not go through the model; padding before the
    tokens does, as positions depend on it.
    """
    for side, widths in (("right", [3, 6, 4, 9]), ("left", [9, 9, 9, 9])):
        model = Counting()
        given = _of_tokens(side)
        losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=3)(given, None).backward()

        assert [features["input_ids"].shape[1] for features in model.seen[:4]] == widths
        assert [features["attention_mask"].shape[1] for features in model.seen[:4]] == widths
        assert all(features["vectors"].shape[1] == WIDTH for features in model.seen)
        assert given[0]["input_ids"].shape == (ROWS, 9)


def test_tokens_cannot_be_counted_without_a_mask() -> None:
    """Mini-batches by tokens of Features without an attention mask are refused."""
    loss = losses.CachedMultipleNegativesRankingLoss(LinearModel(), mini_batch_num_tokens=8)
    with pytest.raises(ValueError, match="mini_batch_num_tokens: expected features with an attention_mask"):
        loss(_columns(2), None)


class Own(nn.Module):
    """A loss as users write them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, sentence_features: Any, labels: Any) -> torch.Tensor:
        """The sum of all products."""
        del labels
        first, second = (self.model(features)["sentence_embedding"] for features in sentence_features)
        return (first * second).sum()  # type: ignore[no-any-return]


class Doubled(losses.MultipleNegativesRankingLoss):
    """A loss of ours in which somebody has changed ``forward``."""

    def forward(self, sentence_features: Any, labels: Any = None) -> Any:
        """Twice."""
        return 2 * super().forward(sentence_features, labels)


def test_matryoshka_of_losses_of_others() -> None:
    """Over a loss that a user has written, or has changed, the widths count as well; the model stays as it was."""
    model = LinearModel()
    cut = [
        torch.nn.functional.normalize((column["vectors"] @ model.weight.T)[:, :4], dim=-1) for column in _columns(2)
    ]

    own = losses.MatryoshkaLoss(model, Own(model), [4])(_columns(2), None)
    doubled, plain = (
        losses.MatryoshkaLoss(model, loss(model), [4, 8])(_columns(2), None)
        for loss in (Doubled, losses.MultipleNegativesRankingLoss)
    )

    torch.testing.assert_close(own, (cut[0] * cut[1]).sum())
    torch.testing.assert_close(doubled, 2 * plain)
    assert not model._forward_hooks


def test_matryoshka_of_a_guided_loss() -> None:
    """Over a loss with a guide, the guide's embeddings stay whole, and a cached loss is the plain one."""
    model, guide = LinearModel(), LinearModel(seed=4)
    model.tokenizer = guide.tokenizer = _tokenizer()
    values = []
    for name, arguments in (("GISTEmbedLoss", {}), ("CachedGISTEmbedLoss", {"mini_batch_size": 5})):
        inner = getattr(losses, name)(model, guide, temperature=0.2, **arguments)
        values.append(losses.MatryoshkaLoss(model, inner, [8, 3])(_columns(3), None))

    torch.testing.assert_close(*values)


@pytest.mark.parametrize("rows", [29, 30, 31, 32])
def test_a_positive_that_comes_twice_is_taken_alike(rows: int) -> None:
    """A candidate that the guide finds as similar as the positive, not more, counts as wrong, whatever the size of
    the batch and of its parts.
    """
    model, guide = LinearModel(), LinearModel(seed=4)
    model.tokenizer = guide.tokenizer = _tokenizer()
    generator = torch.Generator().manual_seed(1)
    anchors, positives = torch.randn(2, rows, WIDTH, generator=generator)
    positives[rows // 2 : 2 * (rows // 2)] = positives[: rows // 2]
    columns = [{"vectors": anchors}, {"vectors": positives}]
    temperature = 0.2
    similarities = util.cos_sim(*(model(column)["sentence_embedding"] for column in columns))
    guided = util.cos_sim(*(guide(column)["sentence_embedding"] for column in columns)).double()
    too_similar = guided > guided.diagonal().unsqueeze(-1) + 1e-6
    scores = similarities.masked_fill(too_similar, float("-inf")) / temperature
    expected = functional.cross_entropy(scores, torch.arange(rows))
    arguments: Any = {"contrast_anchors": False, "contrast_positives": False}

    plain = losses.GISTEmbedLoss(model, guide, temperature, **arguments)(columns, None)
    cached = losses.CachedGISTEmbedLoss(model, guide, temperature, mini_batch_size=5, **arguments)(columns, None)

    torch.testing.assert_close(plain, expected)
    torch.testing.assert_close(cached, expected)


def test_losses_are_copied_and_pickled() -> None:
    """A loss can be copied, and pickled, and its copy gives the same."""
    loss = losses.CachedMultipleNegativesRankingLoss(LinearModel(), mini_batch_size=5)
    expected = loss(_columns(2), None)

    for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):  # noqa: S301
        torch.testing.assert_close(twin(_columns(2), None), expected)


def test_without_gradients_a_cached_loss_is_a_number() -> None:
    """Under ``no_grad`` a cached loss is the plain one."""
    with torch.no_grad():
        one, other = (
            loss(_columns(2), None)
            for loss in (
                losses.MultipleNegativesRankingLoss(LinearModel()),
                losses.CachedMultipleNegativesRankingLoss(LinearModel(), mini_batch_size=5),
            )
        )

    torch.testing.assert_close(one, other)
    assert not other.requires_grad


def test_many_pairs_take_little_memory() -> None:
    """CoSENT makes nothing of rows × rows, and is what its definition says, ties included."""
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(60, generator=generator).requires_grad_()
    labels = torch.randint(0, 5, (60,), generator=generator)
    wrong_way = [scores[i] - scores[j] for i in range(60) for j in range(60) if labels[i] < labels[j]]
    expected = torch.log1p(torch.stack(wrong_way).exp().sum())

    found = cosent(scores, labels)

    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(each, scores)[0] for each in (found, expected)))
    assert torch.isfinite(cosent(torch.randn(200_000, generator=generator), torch.arange(200_000)))


def test_a_projection_is_saved_and_loaded(tmp_path: Path) -> None:
    """The linear layer of a distillation can be written, and read by a loss with or without one; one of another
    width is refused.
    """
    model = LinearModel()
    first, without, narrower = (losses.EmbedDistillLoss(model, "mse", dim) for dim in (5, None, 4))
    first.save_projection(tmp_path / "projection.safetensors")

    without.load_projection(tmp_path / "projection.safetensors")

    teacher = torch.zeros(ROWS, 5)
    torch.testing.assert_close(without(_columns(1), teacher), first(_columns(1), teacher))
    assert without.projection_dim == 5
    with pytest.raises(ValueError, match=r"from width to width \(8, 4\), found \(8, 5\)"):
        narrower.load_projection(tmp_path / "projection.safetensors")
    with pytest.raises(ValueError, match="give a projection_dim"):
        losses.EmbedDistillLoss(model).save_projection(tmp_path / "none.safetensors")


WRONG_SETTINGS: list[tuple[str, dict[str, Any], str]] = [
    ("MultipleNegativesRankingLoss", {"scale": 0.0}, "scale: expected a number above 0"),
    ("MultipleNegativesRankingLoss", {"directions": ("doc_to_query",)}, "'query_to_doc' among them"),
    ("MultipleNegativesRankingLoss", {"directions": ("query_to_doc", "up")}, "directions: expected some of"),
    ("MultipleNegativesRankingLoss", {"partition_mode": "none"}, "partition_mode: expected one of"),
    (
        "MultipleNegativesRankingLoss",
        {"directions": ("query_to_doc", "doc_to_doc"), "partition_mode": "per_direction"},
        "expected 'joint' for",
    ),
    ("MultipleNegativesRankingLoss", {"hardness_mode": "soft"}, "hardness_mode: expected None or one of"),
    ("MultipleNegativesRankingLoss", {"hardness_strength": -1.0}, "hardness_strength: expected 0 or more"),
    ("EmbedDistillLoss", {"distance_metric": "l3"}, "distance_metric: expected one of"),
    ("DistillKLDivLoss", {"teacher_temperature": 0.0}, "teacher_temperature: expected a finite number above 0"),
    (
        "GlobalOrthogonalRegularizationLoss",
        {"mean_weight": 0, "second_moment_weight": None},
        "expected one at least",
    ),
    ("GlobalOrthogonalRegularizationLoss", {"aggregation": "max"}, "aggregation: expected one of"),
]


@pytest.mark.parametrize(("name", "settings", "message"), WRONG_SETTINGS)
def test_wrong_settings_are_refused(name: str, settings: dict[str, Any], message: str) -> None:
    """A setting that a loss does not know is an error that says which it knows."""
    with pytest.raises(ValueError, match=message):
        getattr(losses, name)(LinearModel(), **settings)


def test_hardness_without_strength_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """A mode of hardness that changes nothing, as its strength is 0, is logged."""
    losses.MultipleNegativesRankingLoss(LinearModel(), hardness_mode="hard_negatives")

    assert "hardness_strength is 0" in caplog.text


def test_parts_of_a_loss_can_be_left_out() -> None:
    """Of the spread of embeddings, the part whose weight is None or 0 is not there."""
    loss = losses.GlobalOrthogonalRegularizationLoss(LinearModel(), mean_weight=None)

    assert set(loss(_columns(2), None)) == {"gor_second_moment"}


_OF_PAIRS = ("CosineSimilarityLoss", "CoSENTLoss", "ContrastiveLoss", "OnlineContrastiveLoss")
_OF_CLASSES = (
    *("BatchAllTripletLoss", "BatchHardTripletLoss"),
    *("BatchHardSoftMarginTripletLoss", "BatchSemiHardTripletLoss"),
)

WRONG_LABELS = [
    ("CoSENTLoss", 2, torch.zeros(3), r"one for each of 12 rows, found \(3,\)"),
    ("AnglELoss", 2, None, "a similarity for each pair, found None"),
    ("EmbedDistillLoss", 1, None, "a teacher's embeddings, .* found None"),
    *((name, 2, None, "a label for each row, found none") for name in _OF_PAIRS),
    *((name, 1, None, "a label for each row, found none") for name in _OF_CLASSES),
    *((name, 3, None, "a label for each row, found none") for name in ("MarginMSELoss", "DistillKLDivLoss")),
    ("AnglELoss", 3, torch.zeros(ROWS), "found 0 for all rows.*label=1"),
    ("EmbedDistillLoss", 1, torch.zeros(ROWS, 2, WIDTH), r"found \(12, 2, 8\)"),
    ("MSELoss", 1, torch.zeros(ROWS, 3), "for a teacher of another width give its width as projection_dim"),
]


@pytest.mark.parametrize(("name", "count", "labels", "message"), WRONG_LABELS)
def test_the_shape_of_labels_is_checked(name: str, count: int, labels: Any, message: str) -> None:
    """Labels that do not fit to the texts are an error that says what would."""
    with pytest.raises(ValueError, match=message):
        getattr(losses, name)(LinearModel())(_columns(count), labels)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_distances_of_halves(dtype: torch.dtype) -> None:
    """Texts that are near one another, and far from zero, keep their distances in halves, and where torch chooses
    them.
    """
    generator = torch.Generator().manual_seed(1)
    common, own = (torch.randn(rows, 384, generator=generator) for rows in (1, 12))
    texts = (14 * common + 0.05 * own).to(dtype)
    expected = torch.cdist(texts.double(), texts.double())

    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.float32):
        found = losses.BatchHardTripletLossDistanceFunction.eucledian_distance(texts)

    torch.testing.assert_close(found.double(), expected, atol=0.1, rtol=0)


def test_a_model_that_cuts_its_embeddings_is_trained_whole(tiny_folders: dict[str, Path]) -> None:
    """``truncate_dim`` is for ``encode``: a loss sees all values of an embedding."""
    model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu", truncate_dim=16)
    inner, widths = losses.MultipleNegativesRankingLoss(model), [32, 16]

    assert losses.MatryoshkaLoss(model, inner, widths).matryoshka_dims == (32, 16)
    assert losses.MSELoss(model, projection_dim=8).projection.in_features == 32  # type: ignore[union-attr]
    assert model.truncate_dim == 16


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_projection_of_halves(dtype: torch.dtype) -> None:
    """The embeddings of a model in halves go through a layer to the teacher's width as others do."""
    loss = losses.MSELoss(LinearModel(), projection_dim=3)
    embeddings, labels = torch.ones(ROWS, WIDTH), torch.zeros(ROWS, 3)
    expected = loss.of_embeddings([embeddings], labels)

    torch.testing.assert_close(loss.of_embeddings([embeddings.to(dtype)], labels), expected)


def test_a_model_that_guides_itself(tiny_folders: dict[str, Path]) -> None:
    """It is in training mode where it learns."""
    model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu").train()
    loss = losses.GISTEmbedLoss(model, guide=model)

    loss([model.tokenize(["a cat", "the dog"]), model.tokenize(["red", "do"])], None)

    assert all(module.training for module in model.modules())


def test_the_width_has_two_names() -> None:
    """A SoftmaxLoss takes the width of the embeddings under its old and its new name, and only one of them."""
    loss = losses.SoftmaxLoss(LinearModel(), embedding_dimension=WIDTH, num_labels=3)

    assert loss.classifier.weight.shape == (3, 3 * WIDTH)
    assert loss.get_config_dict()["num_labels"] == 3
    with pytest.raises(TypeError, match="expected the width of the embeddings"):
        losses.SoftmaxLoss(LinearModel(), num_labels=3)
    with pytest.raises(TypeError, match="expected the width of the embeddings"):
        losses.SoftmaxLoss(LinearModel(), embedding_dimension=WIDTH)
    with pytest.raises(TypeError, match="found 8, 8 and 3"):
        losses.SoftmaxLoss(LinearModel(), WIDTH, 3, embedding_dimension=WIDTH)


def test_widths_can_come_in_any_order() -> None:
    """The order of the widths of a MatryoshkaLoss changes nothing; a width beyond that of the embeddings is
    named.
    """

    def value(dims: list[int]) -> torch.Tensor:
        model: Any = LinearModel()
        model.get_embedding_dimension = lambda: None  # it does not know
        inner = losses.MultipleNegativesRankingLoss(model)
        weights = [dim / 10 for dim in dims]
        return losses.MatryoshkaLoss(model, inner, dims, weights)(_columns(2), None)  # type: ignore[no-any-return]

    torch.testing.assert_close(value([2, 8, 5]), value([8, 5, 2]))
    with pytest.raises(ValueError, match="up to that of the embeddings, 8, found 9"):
        value([9])


def test_some_widths_are_drawn() -> None:
    """With ``n_dims_per_step`` each batch has some of the widths, and over many batches all of them."""
    model = LinearModel()
    inner = losses.MultipleNegativesRankingLoss(model)
    loss = losses.MatryoshkaLoss(model, inner, [2, 5, 8], n_dims_per_step=1)

    values = {round(float(loss(_columns(2), None).detach()), 5) for _ in range(50)}

    assert len(values) == 3


def test_settings_are_checked() -> None:
    """Widths without weights, widths below 1 and sizes below 1 are refused."""
    model = LinearModel()
    inner = losses.MultipleNegativesRankingLoss(model)
    for dims, weights in (([4, 2], [1.0]), ([], None), ([0], None)):
        with pytest.raises(ValueError, match="expected"):
            losses.MatryoshkaLoss(model, inner, dims, weights)
    with pytest.raises(ValueError, match="mini_batch_size: expected 1 or more, found 0"):
        losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=0)(_columns(2), None)
    with pytest.raises(ValueError, match="classifier, found none"):
        losses.SoftmaxLoss(model, WIDTH, 2, concatenation_sent_rep=False, concatenation_sent_difference=False)


WRONG_COLUMNS = [
    ("CosineSimilarityLoss", 3, "expected 2 columns of texts, found 3"),
    ("TripletLoss", 2, "expected 3 columns of texts, found 2"),
    ("MultipleNegativesRankingLoss", 1, "two columns or more, found 1"),
    ("MarginMSELoss", 2, "queries, positives and negatives, found 2"),
    ("BatchHardTripletLoss", 2, "expected 1 columns"),
]


@pytest.mark.parametrize(("name", "count", "message"), WRONG_COLUMNS)
def test_the_number_of_columns_is_checked(name: str, count: int, message: str) -> None:
    """A batch with more or fewer columns than a loss takes is an error that says so."""
    with pytest.raises(ValueError, match=message):
        getattr(losses, name)(LinearModel())(_columns(count), torch.zeros(ROWS))


def test_labels_that_fit_to_nothing() -> None:
    """Labels of a MarginMSELoss that are neither margins nor similarities are named."""
    with pytest.raises(ValueError, match=r"labels: expected the shape \(12, 1\), found \(12, 5\)"):
        losses.MarginMSELoss(LinearModel())(_columns(3), torch.zeros(ROWS, 5))


def test_without_labels_a_softmax_loss_classifies() -> None:
    """Without labels the embeddings and the scores of the classes are returned."""
    loss = losses.SoftmaxLoss(LinearModel(), WIDTH, 3)

    (first, second), scores = loss(_columns(2), None)

    assert first.shape == second.shape == (ROWS, WIDTH)
    assert scores.shape == (ROWS, 3)


def test_settings_are_written_down() -> None:
    """The settings of a loss can be put into a model card."""
    model = LinearModel()
    inner = losses.CachedMultipleNegativesRankingLoss(model)

    assert inner.get_config_dict() == {
        "scale": 20.0,
        "similarity_fct": "cos_sim",
        "directions": ("query_to_doc",),
        "partition_mode": "joint",
        "hardness_mode": None,
        "hardness_strength": 0.0,
        "mini_batch_size": 32,
        "mini_batch_num_tokens": None,
    }
    assert losses.TripletLoss(model).get_config_dict() == {
        "distance_metric": "TripletDistanceMetric.EUCLIDEAN",
        "triplet_margin": 5,
    }
    assert (
        losses.ContrastiveLoss(model).get_config_dict()["distance_metric"]
        == "SiameseDistanceMetric.COSINE_DISTANCE"
    )
    assert losses.MatryoshkaLoss(model, inner, [4, 8]).get_config_dict()["matryoshka_dims"] == (8, 4)
    assert losses.BatchAllTripletLoss(model).get_config_dict() == {
        "distance_metric": "eucledian_distance",
        "margin": 5,
    }


def test_a_guide_of_other_words_gets_the_texts(tiny_folders: dict[str, Path]) -> None:
    """A guide with another tokenizer, or with a lower limit, tokenises the texts anew."""
    model, alike, other = (
        SentenceTransformer(str(tiny_folders[name]), device="cpu") for name in ("bert", "bert", "roberta")
    )
    texts = ["the cat sat on the mat", "hello world"]
    features = [model.tokenize(texts), model.tokenize(texts[::-1])]

    same, foreign = (losses.GISTEmbedLoss(model, guide) for guide in (alike, other))

    torch.testing.assert_close(same.targets(features, None)[0], model.encode(texts, convert_to_tensor=True))
    decoded = [model.tokenizer.decode(ids, skip_special_tokens=True) for ids in features[0]["input_ids"]]
    torch.testing.assert_close(foreign.targets(features, None)[0], other.encode(decoded, convert_to_tensor=True))
    with pytest.raises(ValueError, match="a tokenizer of transformers, found NoneType"):
        losses.GISTEmbedLoss(model, LinearModel())
    with pytest.raises(ValueError, match="margin_strategy"):
        losses.GISTEmbedLoss(model, other, margin_strategy="none")  # type: ignore[arg-type]


def test_contrastive_tension_of_an_array() -> None:
    """The texts may be an array of numpy."""
    texts = np.array([str(number) for number in range(20)])

    batches = list(losses.ContrastiveTensionDataLoader(texts, 4, pos_neg_ratio=4))

    assert len(batches) == 2
    assert {text for batch in batches for pair in batch for text in pair.texts} <= set(texts)


def test_pairs_of_contrastive_tension() -> None:
    """Of each four pairs of a batch the first is a text and itself; no text comes twice; and the loader says how
    many batches there are.
    """
    loader = losses.ContrastiveTensionDataLoader([str(number) for number in range(100)], 8, pos_neg_ratio=4)

    batches = list(loader)

    assert len(batches) == len(loader) == 7
    for batch in batches:
        assert [pair.label for pair in batch] == [1, 0, 0, 0] * 2
        assert all((pair.texts[0] == pair.texts[1]) == bool(pair.label) for pair in batch)
    used = [text for batch in batches for pair in batch for text in set(pair.texts)]
    assert len(set(used)) == len(used)
    with pytest.raises(ValueError, match="multiple of pos_neg_ratio=3"):
        losses.ContrastiveTensionDataLoader(["a"], 8, pos_neg_ratio=3)


# ── What cached and cut losses must not lose ──────────────────────────────────────────────────────────────────


class _Weighted(nn.Module):
    """A similarity with a weight to learn."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Dot products, weighted."""
        return self.weight * (one @ other.T)


def test_parameters_of_a_cached_loss_are_trained() -> None:
    """A similarity that is learnt has the gradient that it has in the plain loss."""
    found = []
    for make in (losses.MultipleNegativesRankingLoss, losses.CachedMultipleNegativesRankingLoss):
        similarity = _Weighted()
        (make(LinearModel(), 0.1, similarity)(_columns(2)) * 3).backward()
        assert similarity.weight.grad is not None
        found.append(similarity.weight.grad)

    assert torch.allclose(found[0], found[1], atol=1e-5)
    assert float(found[0].abs()) > 0.01


@pytest.mark.parametrize("name", ["softmax", "ranking", "teacher"])
def test_joined_batches_have_the_gradients_of_one(name: str) -> None:
    """The loss of three batches joined is that of one batch, gradients by model and loss included."""

    def made() -> Any:
        torch.manual_seed(1)
        model = LinearModel()
        if name == "softmax":
            return losses.SoftmaxLoss(model, WIDTH, 4)
        return losses.MSELoss(model) if name == "teacher" else losses.MultipleNegativesRankingLoss(model)

    labels = {"softmax": CLASSES, "teacher": TEACHER, "ranking": None}[name]
    features = _columns(1 if name == "teacher" else 2)
    whole, parts = made(), made()
    batches = [
        ([{"vectors": column["vectors"][rows]} for column in features], None if labels is None else labels[rows])
        for rows in (slice(0, 4), slice(4, 9), slice(9, 12))
    ]

    expected, found = whole(features, labels), joint_loss(parts, batches)
    (expected * 2).backward()
    (found * 2).backward()  # type: ignore[no-untyped-call]

    assert float(found.detach()) == pytest.approx(float(expected.detach()), abs=1e-6)
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-5)


def test_scores_of_a_teacher_are_not_cut() -> None:
    """MatryoshkaLoss cuts labels that are embeddings, and no others, however many columns these have."""
    model = LinearModel()
    inner = losses.MarginMSELoss(model)
    features, scores = _columns(4), TEACHER[:, :3]
    cut = [functional.normalize(model(column)["sentence_embedding"][:, :2], dim=-1) for column in features]

    found = losses.MatryoshkaLoss(model, inner, [2])(features, scores)

    assert float(found.detach()) == pytest.approx(float(inner.of_embeddings(cut, scores).detach()), abs=1e-6)


def test_cached_gradients_do_not_vanish_in_half_precision() -> None:
    """Under autocast to float16, with a large batch, the gradient is that of the plain loss."""
    found = []
    for make in (losses.MultipleNegativesRankingLoss, losses.CachedMultipleNegativesRankingLoss):
        model = LinearModel()
        generator = torch.Generator().manual_seed(1)
        columns = [{"vectors": torch.randn(2048, WIDTH, generator=generator)} for _ in range(2)]
        with torch.autocast("cpu", dtype=torch.float16):
            loss = make(model)(columns)
        (loss * 4096).backward()
        found.append(model.weight.grad)

    assert found[0] is not None
    assert found[1] is not None
    assert float((found[0] - found[1]).norm() / found[0].norm()) < 0.02
