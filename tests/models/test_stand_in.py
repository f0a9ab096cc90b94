"""What stands in for a checkpoint until somebody needs transformers."""

from __future__ import annotations

import copy
import io
import json
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from sentence_embedder import SentenceTransformer
from sentence_embedder.deferred import seen
from sentence_embedder.files import WeightsError
from sentence_embedder.fingerprint import fingerprint_of
from sentence_embedder.models import Transformer, deferred_checkpoint
from sentence_embedder.models.checkpoint import load_model, load_tokenizer
from sentence_embedder.models.stand_ins.model import StandInModel
from sentence_embedder.models.stand_ins.mpnet import MPNetConfig, MPNetStandIn
from sentence_embedder.models.stand_ins.stand_in import read_stand_in
from tests.minilm import minilm_folder
from tests.models.changed_files import TEXTS, change, is_deferred
from tests.usual_tokenizers import USUAL_CHECKPOINTS


@pytest.fixture(scope="module", params=USUAL_CHECKPOINTS)
def both(request: pytest.FixtureRequest, checkpoints: Mapping[str, Path]) -> tuple[Transformer, Transformer]:
    """A tiny model of each usual kind, deferred and loaded."""
    name = str(checkpoints[request.param])
    at_once = Transformer(name, max_seq_length=12)
    assert at_once.tokenizer.is_fast
    return Transformer(name, max_seq_length=12), at_once


def _filed(model: Any) -> Any:
    """What ``torch.save`` and ``torch.load`` make of a model, as between the processes of a pool."""
    file = io.BytesIO()
    torch.save(model, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=False)


def _in_inference_mode(folder: Path) -> SentenceTransformer:
    with torch.inference_mode():
        return SentenceTransformer(str(folder), device="cpu")


class TestTheSame:
    """What is computed is what transformers computes, and what is loaded is what transformers loads."""

    @pytest.mark.parametrize("name", ["minilm", *USUAL_CHECKPOINTS])
    def test_encode_needs_no_transformers(self, name: str, checkpoints: Mapping[str, Path]) -> None:
        """A process that loads a model and encodes does not import transformers, until it asks for the model."""
        folder = minilm_folder() if name == "minilm" else checkpoints[name]
        (architecture,) = json.loads((folder / "config.json").read_text())["architectures"]
        program = (
            "import sys\nfrom sentence_embedder import SentenceTransformer\n"
            f"model = SentenceTransformer({str(folder)!r}, device='cpu')\n"
            "model.eval().to('cpu').encode(['a text', 'another'], prompt='query: ')\n"
            f"assert {architecture!r} in repr(model)\n"
            "print('transformers' in sys.modules, type(model[0].auto_model).__name__)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

        assert done.stdout.split() == ["False", architecture]

    def test_fingerprint(self, folder: Path) -> None:
        """What is told of it is the same before and after it is loaded, and nothing is loaded for that."""
        model = SentenceTransformer(str(folder), device="cpu")
        before = fingerprint_of(model), repr(model)

        assert is_deferred(model[0])
        assert model.tokenizer.is_fast
        assert model[0].model_seen.architecture in repr(model[0].auto_model)
        assert (fingerprint_of(model), repr(model)) == before
        with torch.no_grad():
            next(model.parameters()).view(-1)[0] += 1
        assert fingerprint_of(model) != before[0]

    @pytest.mark.parametrize("place", ["its own", "removed", "changed", "added to"])
    def test_the_model_and_tokenizer_of_transformers(self, place: str, folder: Path) -> None:
        """What is loaded later is, to the last attribute, what transformers makes of the folder as it was, even if
        that is no longer there.
        """
        expected, words = load_model(str(folder), None, {}, {}), load_tokenizer(str(folder), None, {})
        transformer = Transformer(str(folder))
        assert is_deferred(transformer)
        if place == "removed":
            shutil.rmtree(folder)
        elif place == "changed":
            change(folder / "config.json", {"hidden_act": "relu"})
            change(folder / "tokenizer_config.json", {"do_lower_case": False})
        elif place == "added to":
            change(folder / "added_tokens.json", {"foo": 500})
            change(folder / "processor_config.json", {"audio_tokenizer": {}})

        model, tokenizer = transformer.auto_model, transformer.tokenizer

        assert type(model) is type(expected)
        assert vars(model).keys() == vars(expected).keys()
        assert model.config.to_dict() == expected.config.to_dict()
        assert (model.name_or_path, model.config.name_or_path) == (str(folder), str(folder))
        assert not model.training
        own, others = model.state_dict(), expected.state_dict()
        assert list(own) == list(others)
        assert all(torch.equal(own[name], others[name]) for name in own)
        assert all(parameter.requires_grad for parameter in model.parameters())
        assert type(tokenizer) is type(words)
        assert tokenizer.backend_tokenizer.to_str() == words.backend_tokenizer.to_str()
        assert tokenizer.name_or_path == words.name_or_path
        assert str(tokenizer.init_kwargs) == str(words.init_kwargs)

    def test_the_weights_are_those_that_were_read(self, folder: Path) -> None:
        """Weights that are written anew, in place, change nothing of a model that has been loaded."""
        transformer = Transformer(str(folder))
        before = transformer.model_seen.embeddings.word_embeddings.weight.clone()
        weights = {name: tensor * 0 for name, tensor in load_file(folder / "model.safetensors").items()}
        content = folder / "zeros.safetensors"
        save_file(weights, content, metadata={"format": "pt"})

        with (folder / "model.safetensors").open("r+b") as file:
            file.write(content.read_bytes())

        assert torch.equal(transformer.auto_model.get_input_embeddings().weight, before)

    def test_its_own_forward_pass(self, folder: Path) -> None:
        """The stand-in computes what the model does, for texts of any length."""
        stand_in, model = read_stand_in(folder), load_model(str(folder), None, {}, {})
        assert stand_in is not None
        mask = (torch.arange(9) < torch.tensor([[9], [1], [5]])).long()
        ids = torch.arange(27).reshape(3, 9) % 40 * mask

        with torch.no_grad():
            (found,) = stand_in.model(input_ids=ids, attention_mask=mask)
            expected = model(input_ids=ids, attention_mask=mask)[0]

        assert torch.allclose(found[mask.bool()], expected[mask.bool()], atol=1e-5)

    @given(texts=st.lists(st.text(max_size=40), min_size=1, max_size=4))
    def test_tokens(self, both: tuple[Transformer, Transformer], texts: list[str]) -> None:
        """Any text, and any pair of texts, has the tokens that it has with the tokenizer of transformers."""
        deferred, at_once = both
        pairs = list(zip(texts, [*texts[1:], "x"], strict=True))

        assert str(deferred.tokenize([*texts, *pairs])) == str(at_once.tokenize([*texts, *pairs]))
        assert is_deferred(deferred)

    @pytest.mark.usefixtures("native_halves")
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "auto"])
    def test_embeddings(self, dtype: str) -> None:
        """The real model makes the same embeddings before and after transformers has loaded it."""
        model: Any = SentenceTransformer(str(minilm_folder()), device="cpu", dtype=dtype)
        before = model.encode(TEXTS)
        assert is_deferred(model[0])

        assert type(model[0].auto_model).__name__ == "BertModel"
        assert np.abs(model.encode(TEXTS) - before).max() <= (1e-6 if dtype == "float32" else 5e-3)

    def test_saved_again(self, folder: Path, tmp_path: Path) -> None:
        """What is saved of it stands in for it again, with the same embeddings."""
        model = SentenceTransformer(str(folder), device="cpu")
        before = model.encode(TEXTS)
        model.save(str(tmp_path / "saved"))
        again: Any = SentenceTransformer(str(tmp_path / "saved"), device="cpu")

        assert np.array_equal(again.encode(TEXTS), before)
        assert is_deferred(again[0])

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), _filed])  # noqa: S301
    def test_copies(self, copied: Callable[[Any], Any], folder: Path) -> None:
        """A copy, or what was pickled, is deferred, too, and whole, wherever the folder is by then."""
        model: Any = SentenceTransformer(str(folder), device="cpu")
        before = model.encode(TEXTS)
        shutil.rmtree(folder)

        twin = copied(model)

        assert is_deferred(twin[0])
        assert is_deferred(model[0])
        assert np.allclose(twin.encode(TEXTS), before, atol=1e-6)
        assert twin.tokenizer("the cat")["input_ids"] == model.tokenizer("the cat")["input_ids"]

    def test_a_shallow_copy_shares_what_it_has(self, folder: Path) -> None:
        """Model and tokenizer of both are the same objects, whichever is looked at first."""
        transformer = Transformer(str(folder))

        twin = copy.copy(transformer)

        assert twin.auto_model is transformer.auto_model
        assert twin.tokenizer is transformer.tokenizer

    @pytest.mark.parametrize("made", [copy.deepcopy, _filed, lambda model: SentenceTransformer(modules=[*model])])
    def test_made_in_inference_mode(self, made: Callable[[Any], Any], folder: Path) -> None:
        """The weights of a model that is copied, or read, in inference mode can be trained later."""
        model = SentenceTransformer(str(folder), device="cpu")
        with ThreadPoolExecutor(1) as thread, torch.inference_mode():
            twin = made(model)
            inside = thread.submit(_in_inference_mode, folder).result()

        for one in (twin, inside):
            assert all(weight.requires_grad and not weight.is_inference() for weight in one.parameters())

    def test_threads_get_one_tokenizer(self, folder: Path) -> None:
        """What one thread adds to the tokenizer, all have."""
        transformer = Transformer(str(folder))
        barrier = threading.Barrier(4)

        def tokenizer(_: int) -> Any:
            barrier.wait()
            return transformer.tokenizer

        with ThreadPoolExecutor(4) as threads:
            assert len({id(found) for found in threads.map(tokenizer, range(4))}) == 1

    def test_children(self, folder: Path) -> None:
        """The model is found among the children by its class, at the first look."""
        (child,) = Transformer(str(folder)).children()
        ((name, named),) = Transformer(str(folder)).named_children()

        assert type(child) is type(named)
        assert type(child).__module__.startswith("transformers.models.")
        assert name == "auto_model"

    def test_its_name_is_as_it_was_given(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Spelt as the caller spelt it."""
        monkeypatch.chdir(folder.parent)
        name = f"./{folder.name}/"
        transformer = Transformer(name)

        assert transformer.auto_model.name_or_path == transformer.tokenizer.name_or_path == name
        assert transformer.auto_model.config.name_or_path == name

    def test_an_error_while_it_is_loaded_is_told(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What goes wrong inside transformers is not taken for an attribute that is not there."""

        def fails(*_: Any) -> Any:
            raise AttributeError("no such thing in transformers")

        monkeypatch.setattr(deferred_checkpoint, "load_model", fails)
        monkeypatch.setattr(deferred_checkpoint, "load_tokenizer", fails)
        transformer = Transformer(str(folder))

        for ask in (
            lambda: transformer.auto_model,
            lambda: transformer.tokenizer,
            lambda: [*transformer.parameters()],
        ):
            with pytest.raises(RuntimeError, match="no such thing in transformers"):
                ask()

    def test_without_a_model(self, folder: Path) -> None:
        """Whoever takes the model out has none."""
        transformer = Transformer(str(folder))

        del transformer.auto_model

        assert not hasattr(transformer, "auto_model")

    def test_what_is_changed_is_computed(self, folder: Path) -> None:
        """Weights and tokenizer that somebody changes are those that encode uses from then on."""
        model: Any = SentenceTransformer(str(folder), device="cpu")
        before = model.encode(TEXTS)

        with torch.no_grad():
            next(model.parameters()).mul_(2)
        changed = model.encode(TEXTS)
        model.tokenizer.add_tokens(["sat"])
        model[0].auto_model.resize_token_embeddings(len(model.tokenizer), mean_resizing=False)

        assert not np.allclose(changed, before, atol=1e-3)
        assert len(model[0].tokenize(["sat"])["input_ids"][0]) == 3
        assert np.allclose(model.encode(TEXTS), model[0:2].encode(TEXTS), atol=1e-6)

    def test_other_ways_than_the_lean_one(self, folder: Path) -> None:
        """Whoever turns acceleration off, trains, or listens to the model, has the model of transformers."""
        expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
        plain: Any = SentenceTransformer(str(folder), device="cpu", acceleration=False)
        assert np.allclose(plain.encode(TEXTS), expected, atol=1e-5)
        assert not isinstance(seen(plain[0]._modules["auto_model"]), StandInModel)
        called: list[int] = []
        model: Any = SentenceTransformer(str(folder), device="cpu")
        model[0].auto_model.register_forward_hook(lambda *_: called.append(1))

        assert np.allclose(model.encode(TEXTS), expected, atol=1e-5)
        assert called


class TestUnknown:
    """What is not known is loaded by transformers at once."""

    def test_arguments(self, folder: Path) -> None:
        """Arguments for transformers are for transformers."""
        for arguments in (
            {"model_args": {"attn_implementation": "eager"}},
            {"tokenizer_args": {"padding_side": "left"}},
            {"config_args": {"hidden_dropout_prob": 0.5}},
            {"model_args": {"dtype": torch.float16}},
        ):
            assert not is_deferred(Transformer(str(folder), **arguments))
        assert is_deferred(Transformer(str(folder), model_args={"trust_remote_code": False}))

    @pytest.mark.parametrize("damage", ["cut", "missing", "extra", "shape", "whole numbers"])
    def test_weights_that_do_not_fit(self, damage: str, bert: Path) -> None:
        """They are an error when the model is made, as ever, not when somebody looks at it."""
        path = bert / "model.safetensors"
        weights = load_file(path)
        name = "encoder.layer.0.output.dense.weight"
        if damage == "missing":
            del weights[name]
        elif damage == "extra":
            weights["encoder.layer.0.extra.weight"] = torch.zeros(1)
        elif damage == "shape":
            weights[name] = torch.zeros(3, 3)
        elif damage == "whole numbers":
            weights[name] = weights[name].to(torch.int32)
        weights = {key: tensor.clone() for key, tensor in weights.items()}
        save_file(weights, path, metadata={"format": "pt"})
        if damage == "cut":
            path.write_bytes(path.read_bytes()[:-100])

        assert read_stand_in(bert) is None
        if damage != "whole numbers":
            with pytest.raises(WeightsError):
                Transformer(str(bert))


@pytest.mark.parametrize("table", ["word", "position"])
def test_an_mpnet_without_a_row_for_padding(table: str, mpnet: Path) -> None:
    """It is an error of transformers."""
    size = {"word": "vocab_size", "position": "max_position_embeddings"}[table]
    change(mpnet / "config.json", {size: 1, "pad_token_id": 0})
    weights = load_file(mpnet / "model.safetensors")
    name = f"embeddings.{table}_embeddings.weight"
    save_file({**weights, name: weights[name][:1].clone()}, mpnet / "model.safetensors", metadata={"format": "pt"})

    assert read_stand_in(mpnet) is None
    with pytest.raises(ValueError, match="mpnet: could not be loaded: AssertionError"):
        Transformer(str(mpnet))


def test_distances() -> None:
    """An MPNet adds to scores what transformers adds, however far tokens are apart."""
    config = transformers.MPNetConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
    model = transformers.MPNetModel(config)
    encoder = MPNetStandIn(
        MPNetConfig(**{field.name: getattr(config, field.name) for field in fields(MPNetConfig)})
    )
    encoder.load_state_dict(model.state_dict())
    texts = torch.empty(1, 600, 0)

    with torch.no_grad():
        found, expected = (one.encoder.compute_position_bias(texts) for one in (encoder, model))

    assert torch.equal(found, expected)
