"""Recordings: the same as the functions that they were made of, to the last bit."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sentence_embedder import SentenceTransformer
from sentence_embedder.acceleration import attention, recording
from sentence_embedder.acceleration.architectures import read_encoder
from sentence_embedder.acceleration.encoder import Encoder
from sentence_embedder.acceleration.linear import Products
from sentence_embedder.acceleration.recording import Functions, Recording, Recordings, recorded
from sentence_embedder.acceleration.sizes import rounded_up
from sentence_embedder.grad_mode import inference_mode
from sentence_embedder.models import Normalize, Pooling
from tests.acceleration.tiny_transformers import CONFIGS, ragged_texts, tiny_transformer
from tests.crowd import in_threads
from tests.interruption import interrupted_at
from tests.programs import run_program


def recordings_of(encoder: Encoder) -> list[Recording | None]:
    """What an encoder has recorded, or tried to."""
    return list(encoder.recordings._recordings.values())


def recordings_in(model: SentenceTransformer) -> list[Recording | None]:
    """The same of the encoder that stands for a model at present."""
    (reading,) = model._acceleration._readings.values()
    (kept,) = reading._kept
    assert kept.encoder is not None
    return recordings_of(kept.encoder)


def unrecorded(encoder: Encoder) -> Encoder:
    """The encoder without what it has recorded."""
    return replace(encoder, recordings=NoRecordings())


class NoRecordings(Recordings):
    """Records nothing."""

    def computed(self, key: Hashable, call: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """What a function makes of inputs."""
        del key
        return call(*inputs)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is recorded when it is computed for the first time, however many functions that takes."""
    monkeypatch.setattr(recording, "_WORTH_RECORDING", 1)
    monkeypatch.setattr(recording, "_MOST_FUNCTIONS", 100)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    "products",
    [
        Products(torch.float32, packed=True),
        Products(torch.bfloat16, packed=True),
        Products(torch.float32, packed=False),
    ],
    ids=["float32", "bfloat16", "plain"],
)
@pytest.mark.parametrize("name", CONFIGS)
def test_each_architecture(name: str, products: Products) -> None:
    """A text has the token embeddings that it has without recordings, whichever text of its length was recorded."""
    encoder = read_encoder(tiny_transformer(name), products)
    sizes = [(1, 1), (9, 9), (9, 9), (9, 9), (20, 20), (20, 22), (21, 22), (40, 40), (60, 64)]
    for (length, size), places in zip(sizes, [None, None, [4, 0], [3], None, None, None, [39], None], strict=True):
        kept = None if places is None else np.array(places)
        for seed in (1, 2, 3):
            texts = ragged_texts((length,), seed=seed).filled_up(size)
            with inference_mode():
                found = encoder(texts, kept)
                assert torch.equal(found, unrecorded(encoder)(texts, kept))
    made = recordings_of(encoder)
    assert len(made) == len(sizes)
    assert all(made)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("name", ["roberta", "mpnet"])
@pytest.mark.parametrize("pads_first", [False, True])
def test_a_padding_token_in_a_text(name: str, pads_first: bool) -> None:
    """A text with one, whose positions are others, and one of its length without do not share a recording."""
    encoder = read_encoder(tiny_transformer(name), Products(torch.float32, packed=True))
    plain, padded = ragged_texts((9,)), ragged_texts((9,))
    padded.columns["input_ids"][[2, 7]] = 1
    with inference_mode():
        for texts in [padded, plain, padded] if pads_first else [plain, padded, plain]:
            assert torch.equal(encoder(texts), unrecorded(encoder)(texts))
    assert len(recordings_of(encoder)) == 2
    assert all(recordings_of(encoder))


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("name", "longest"), [("bert", 64), ("roberta", 62)])
def test_a_text_that_is_too_long(name: str, longest: int) -> None:
    """A text with more tokens than there are positions is an error, not something else."""
    encoder = read_encoder(tiny_transformer(name), Products(torch.float32, packed=True))
    with inference_mode():
        assert encoder(ragged_texts((longest,))).isfinite().all()
        for _ in range(2):
            with pytest.raises(IndexError, match="out of range"):
                encoder(ragged_texts((longest + 1,)))


@pytest.mark.usefixtures("at_once")
def test_settings_that_change(tiny_folders: dict[str, Any]) -> None:
    """What follows the layers may be set anew at any time: what was recorded before is not taken for it."""
    model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
    pooling, normalize = Pooling(model[1].word_embedding_dimension), Normalize()
    elsewhere = Normalize(module_output_name="elsewhere")
    for modules in ([pooling], [pooling, normalize], [pooling, elsewhere], [pooling, normalize]):
        for modes in (("mean",), ("cls",), ("lasttoken",), ("cls", "mean"), ("mean", "cls"), ("max",), ("mean",)):
            pooling.config = replace(pooling.config, pooling_modes=modes)
            fast, plain = (
                SentenceTransformer(modules=[model[0], *modules], device="cpu", acceleration=is_fast)
                for is_fast in (True, False)
            )
            fast._acceleration = model._acceleration
            for text in ("the cat", "a dog sat"):
                found = fast.encode(text)
                np.testing.assert_allclose(found, plain.encode(text), atol=1e-5)
                assert np.array_equal(found, fast.encode(text))
    # Of two lengths: with a Normalize and without, of what are four to a recording; and of all tokens.
    assert len(recordings_in(model)) == 2 * (2 * 4 + 1)
    assert all(recordings_in(model))


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CONFIGS)
def test_weights_are_read_each_time(name: str, dtype: torch.dtype) -> None:
    """Nobody may have said that they changed: a recording reads what the encoder reads, and keeps nothing of it."""
    model = tiny_transformer(name).to(dtype)
    encoder, texts = read_encoder(model, Products(dtype, packed=False)), ragged_texts((9,))
    with inference_mode():
        before = encoder(texts)
        for parameter in model.parameters():
            parameter.data.add_(torch.linspace(0, 0.5, parameter.numel()).view(parameter.shape))
        after = encoder(texts)
        assert all(recordings_of(encoder))
        assert not torch.allclose(after, before, atol=1e-2)
        assert torch.equal(after, unrecorded(encoder)(texts))


def test_what_is_seldom_computed_is_not_recorded() -> None:
    """Recording takes about as long as it saves in 128 times; and only 128 are kept."""
    recordings, x = Recordings(), torch.ones(2, 2)
    for shape in range(150):
        for _ in range(127):
            recordings.computed(shape, torch.neg, x)
    assert not recordings._recordings

    for shape in range(150):
        assert recordings.computed(shape, torch.neg, x).equal(-x)
    assert len(recordings._recordings) == 128


def test_what_a_function_has_made_it_may_write_to() -> None:
    """What is recorded of that is done each time."""
    x = torch.ones(3)

    found = recorded(lambda x: (x + 1).mul_(x), [x], Functions())

    assert found is not None
    assert x.equal(torch.ones(3))
    assert found(torch.full((3,), 2.0)).equal(torch.full((3,), 6.0))


def test_inputs_and_weights_stay_as_they_are() -> None:
    """A function that writes to what was there before is not recorded, nor does the attempt write to it."""
    x, weight = torch.ones(3), torch.ones(3)
    assert recorded(lambda x: x.add_(1), [x], Functions()) is None
    assert recorded(lambda x: weight.add_(x), [x], Functions()) is None
    assert x.equal(torch.ones(3))
    assert weight.equal(torch.ones(3))


@pytest.mark.usefixtures("at_once")
def test_what_a_function_raises() -> None:
    """Where inputs are wrong, the error is that of the function, not one of the interpreter."""
    recordings, table = Recordings(), torch.arange(6.0).reshape(3, 2)
    call = partial(torch.embedding, table)
    assert recordings.computed(2, call, torch.tensor([0, 2])).equal(table[[0, 2]])
    assert recordings._recordings[2] is not None
    with pytest.raises(IndexError, match="out of range"):
        recordings.computed(2, call, torch.tensor([0, 3]))
    assert recordings.computed(2, call, torch.tensor([1, 2])).equal(table[1:])
    assert recordings._recordings[2] is not None


@pytest.mark.usefixtures("at_once")
def test_a_recording_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the function does not, the function's is the answer, and the recording is dropped."""
    recordings, x = Recordings(), torch.ones(3)
    recordings.computed(3, torch.neg, x)
    assert recordings._recordings[3] is not None

    def fails(*_: Any) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(Recording, "__call__", fails)
    assert recordings.computed(3, torch.neg, x).equal(-x)
    assert recordings._recordings == {3: None}


def test_what_depends_on_no_input_is_computed_once() -> None:
    """A mask is made when it is recorded; weights, and what is given, are read each time."""
    calls: list[int] = []
    weight = torch.arange(6.0).reshape(2, 3)

    def call(x: Tensor) -> Tensor:
        mask = torch.zeros(3).masked_fill_(torch.arange(3) > 1, float("-inf"))
        calls.append(0)
        return torch.cat([x @ weight + mask, torch.ones(1, 3)])

    found = recorded(call, [torch.ones(1, 2)], Functions())

    assert found is not None
    x = torch.tensor([[2.0, 5.0]])
    assert found(x).equal(call(x))
    assert len(calls) == 2


def test_parts_of_weights_are_read_each_time() -> None:
    """Which part is not spelt out, so that texts of all lengths share a function; what comes of a part, is made."""
    weight, functions = torch.arange(6.0), Functions()
    found = [recorded(lambda x, end=end: x + weight[:end].add(1), [torch.ones(end)], functions) for end in (2, 5)]
    assert len(functions._made) == 1
    weight.mul_(2)
    for recording_of_part, end in zip(found, (2, 5), strict=True):
        assert recording_of_part is not None
        assert recording_of_part(torch.ones(end)).equal(weight[:end] + 2)


@pytest.mark.parametrize("name", CONFIGS)
def test_texts_of_most_lengths_share_a_function(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done to them is the same to the letter, also on processors that tell most of them apart."""
    monkeypatch.setattr(recording, "_WORTH_RECORDING", 1)
    monkeypatch.setattr(attention, "_floats_in_a_vector", lambda: 16)
    monkeypatch.setattr(attention, "_longest_in_products", lambda _dtype: 24)
    encoder = read_encoder(tiny_transformer(name), Products(torch.float32, packed=True))
    with inference_mode():
        for head in (None, mean):
            for length in (1, 2, 7, 8, 15, 16, 17, 24, 25, 29, 33, 34, 40, 60):
                encoder(ragged_texts((length,)).filled_up(rounded_up(length)), None, head)
    assert len(recordings_of(encoder)) == 28
    assert all(recordings_of(encoder))


def mean(tokens: Tensor, lengths: NDArray[np.int64]) -> Tensor:
    """What may follow the layers."""
    del lengths
    return tokens.mean(dim=0, keepdim=True)


def test_only_so_many_functions_are_kept() -> None:
    """Each takes memory."""
    functions = Functions()
    found = [recorded(partial(torch.mul, other=factor / 2), [torch.ones(3)], functions) for factor in range(15)]
    assert [one is not None for one in found] == [True] * 12 + [False] * 3


WEIGHT = torch.arange(3.0)


def kept() -> Callable[[Tensor], Tensor]:
    """A function with memory."""
    memory = torch.zeros(100)
    return lambda x: memory.add_(x) * 2


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x * 2 if x.sum() > 0 else x,
        lambda x: x[x > 0],
        lambda x: x.nonzero().float(),
        lambda x: torch.nn.functional.dropout(x, 0.5),
        lambda x: x + torch.rand_like(x),
        lambda x: x + torch.rand(100),
        lambda _: torch.ones(100),
        kept(),
        lambda x: x.to(memory_format=torch.channels_last),
        lambda _: None,
        lambda x: x * WEIGHT[0].item(),
        lambda x: x * float(WEIGHT.sum()),
        lambda x: x * 2 if torch.equal(WEIGHT, WEIGHT + 1) else x,
    ],
    ids=[
        *("branch", "mask", "places", "dropout", "random", "chance", "constant", "memory", "format", "nothing"),
        *("number of a weight", "number of weights", "branch by weights"),
    ],
)
def test_what_cannot_be_repeated_is_not_recorded(call: Callable[[Tensor], Tensor]) -> None:
    """What depends on values, on chance or on what was before, and what has no spelling, is left to Python."""
    assert recorded(call, [torch.ones(100)], Functions()) is None


@pytest.mark.usefixtures("at_once")
def test_a_torch_without_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no public interface: where it is gone, or makes something else, all is as before."""
    x = torch.ones(3)
    for other in (x, None, -x.double(), -x[None]):
        monkeypatch.setattr(Recording, "__call__", lambda *_, other=other: other)
        recordings = Recordings()
        assert recordings.computed(3, torch.neg, x).equal(-x)
        assert recordings._recordings == {3: None}
    monkeypatch.delattr(torch._C, "parse_ir")
    assert Recordings().computed(3, torch.neg, x).equal(-x)


@pytest.mark.usefixtures("at_once")
def test_weights_that_change(tiny_folders: dict[str, Any]) -> None:
    """A text that was recorded gets the embedding of the weights as they are now."""
    model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
    before = model.encode("the cat")
    assert np.array_equal(model.encode("the cat"), before)
    assert all(recordings_in(model))

    with torch.no_grad():
        model[0].auto_model.encoder.layer[0].output.LayerNorm.weight.mul_(2)

    after = model.encode("the cat")
    assert all(recordings_in(model))
    plain = SentenceTransformer(modules=list(model), device="cpu", acceleration=False)
    assert not np.allclose(after, before, atol=1e-3)
    np.testing.assert_allclose(after, plain.encode("the cat"), atol=1e-5)


def test_many_threads_record_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """While one records, the others go on without it."""
    recordings, begun, go_on = Recordings(), threading.Event(), threading.Event()

    def slow(*_: Any) -> None:
        calls[threading.get_ident()] += 1
        begun.set()
        assert go_on.wait(60)

    calls: Counter[int] = Counter()
    monkeypatch.setattr(recording, "recorded", slow)
    x = torch.ones(3)
    thread = threading.Thread(target=lambda: [recordings.computed(3, torch.neg, x) for _ in range(128)])
    thread.start()
    assert begun.wait(60)
    for _ in range(50):
        assert recordings.computed(3, torch.neg, x).equal(-x)
    go_on.set()
    thread.join()
    assert calls == {thread.ident: 1}


@pytest.mark.usefixtures("at_once")
def test_who_listens_to_operations_hears_what_is_done() -> None:
    """Nothing is recorded while a caller listens: trials would be heard, too."""

    class Listener(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            heard.append(func)
            return func(*args, **(kwargs or {}))

    heard: list[Any] = []
    x = torch.ones(3)
    with Listener():  # type: ignore[no-untyped-call]
        Recordings().computed(3, torch.neg, x)
    assert len(heard) == 1


@pytest.mark.usefixtures("at_once")
def test_threads_share_recordings(tiny_folders: dict[str, Any]) -> None:
    """They may record, and use what others have recorded, at the same time."""
    model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
    texts = ["the cat", "a dog sat", "hello world the mat", " ".join(["cat"] * 19)]
    expected = [SentenceTransformer(str(tiny_folders["bert"]), device="cpu").encode(text) for text in texts]
    wrong: list[str] = []

    def work(_: int) -> None:
        wrong.extend(
            text
            for _ in range(40)
            for text, row in zip(texts, expected, strict=True)
            if not np.array_equal(model.encode(text), row)
        )

    in_threads(8, work)

    assert not wrong
    assert len(recordings_in(model)) == len(texts)
    assert all(recordings_in(model))


# One that comes while a generator is taken down, Python forgets.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupted_at_every_place() -> None:
    """Wherever a Ctrl-C comes, torch listens to nobody afterwards, and what is recorded next is right."""
    x, number = torch.ones(3), 0

    def work() -> None:
        recorded(lambda x: (x * 2).split([1, 2])[1], [x], Functions())

    while interrupted_at(number := number + 1, work, ("recording.py", "test_recording.py")):
        assert torch._C._len_torch_dispatch_stack() == 0
        found = recorded(torch.neg, [x], Functions())
        assert found is not None
        assert found(x).equal(-x)
    assert number > 50


PROGRAM = """
import sys
from sentence_embedder import SentenceTransformer

model = SentenceTransformer(sys.argv[1], device="cpu")
for _ in range(150):
    model.encode("the cat", prompt="")
(reading,) = model._acceleration._readings.values()
(recording,) = reading._kept[0].encoder.recordings._recordings.values()
print(recording is not None, {"torch._dynamo", "torch.distributed.tensor", "transformers"} & sys.modules.keys())
"""


def test_recording_imports_nothing_heavy(tiny_folders: dict[str, Any]) -> None:
    """Neither torch.compile, which takes a second, nor transformers."""
    assert run_program(PROGRAM, str(tiny_folders["bert"])).strip() == "True set()"
