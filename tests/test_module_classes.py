"""Classes of others: which names on disk become which class, and what runs only with trust."""

from __future__ import annotations

import json
import pickle
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sentence_embedder import SentenceTransformer, models
from sentence_embedder.features import Features
from sentence_embedder.files import read_json, write_json
from sentence_embedder.models import Dense, Pooling, Router, StaticEmbedding, Transformer
from sentence_embedder.models.module import check_module
from sentence_embedder.models.tokenizer import WhitespaceTokenizer
from sentence_embedder.module_classes import class_named
from sentence_embedder.record import FormatError
from tests.programs import run_program

TEXTS = ["the cat sat on the mat", "hello world"]

SCALE = '''
"""A module as it was written for sentence-transformers 2.7."""

import json
import os
from pathlib import Path

from torch import nn

Path(__file__).with_name("ran").touch()


class Scale(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, features):
        features.update({"sentence_embedding": features["sentence_embedding"] * self.factor})
        return features

    def save(self, output_path):
        with open(os.path.join(output_path, "config.json"), "w") as file:
            json.dump({"factor": self.factor}, file)

    @staticmethod
    def load(input_path):
        with open(os.path.join(input_path, "config.json")) as file:
            return Scale(**json.load(file))
'''

NEWER = '''
"""A module as it is written for 5.0 and later, with a keyword argument of its own."""

import json
from pathlib import Path

from torch import nn

from .numbers_of_ours import TWO


class Shift(nn.Module):
    forward_kwargs = {"by"}

    def forward(self, features, by=0.0, **kwargs):
        features["sentence_embedding"] = features["sentence_embedding"] + TWO * by
        return features

    def save(self, output_path, *args, safe_serialization=True, **kwargs):
        Path(output_path, "config.json").write_text(json.dumps({"safe": safe_serialization}))

    @classmethod
    def load(cls, model_name_or_path, subfolder="", token=None, trust_remote_code=False, **kwargs):
        assert trust_remote_code
        assert Path(model_name_or_path, subfolder, "config.json").exists()
        return cls()
'''

TRANSFORMER = '''
"""A first module of its own, in the manner of jina-embeddings-v3."""

from torch import nn

from sentence_embedder.models import Transformer as Plain


class Transformer(nn.Module):
    def __init__(self, model_name_or_path, max_seq_length=None, model_args=None, tokenizer_args=None,
                 config_args=None, cache_dir=None, backend=None, **kwargs):
        super().__init__()
        self.inner = Plain(model_name_or_path, max_seq_length, model_args, tokenizer_args=tokenizer_args)
        self.max_seq_length = max_seq_length
        self.given = kwargs

    def forward(self, features, task=None):
        features = self.inner(features)
        if task == "negative":
            features["token_embeddings"] = -features["token_embeddings"]
        return features

    def tokenize(self, texts):
        return self.inner.tokenize(texts)

    def save(self, output_path):
        self.inner.save(output_path)

    @staticmethod
    def load(input_path):
        raise AssertionError("it is made from its folder")
'''


class Doubled(nn.Module):
    """A module of the caller's own, without arguments."""

    def forward(self, features: Features) -> Features:
        """Twice the embedding, put into the Features that were given."""
        features["sentence_embedding"] = 2 * features["sentence_embedding"]
        return features

    def save(self, output_path: str) -> None:
        """Write nothing but an empty file."""
        Path(output_path, "doubled").touch()

    @staticmethod
    def load(input_path: str) -> Doubled:
        """The module."""
        assert Path(input_path, "doubled").exists()
        return Doubled()


def _add(folder: Path, type_name: str, path: str, config: Any = None, **row: Any) -> None:
    """Put a module behind the others of a folder."""
    rows = read_json(folder / "modules.json")
    rows.append({"idx": len(rows), "name": str(len(rows)), "path": path, "type": type_name, **row})
    write_json(folder / "modules.json", rows)
    (folder / path).mkdir(exist_ok=True)
    if config is not None:
        write_json(folder / path / "config.json", config)


@pytest.fixture
def folder(model: SentenceTransformer, tmp_path: Path) -> Path:
    """A folder with a plain model."""
    model.save(tmp_path / "model")
    return tmp_path / "model"


def _load(folder: Path, **arguments: Any) -> SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu", trust_remote_code=True, **arguments)


class TestTrust:
    """What runs, and when."""

    @pytest.mark.parametrize("type_name", ["scale.Scale", f"{__name__}.Doubled", "os.system", "subprocess.Popen"])
    def test_nothing_runs_without_trust(self, type_name: str, folder: Path) -> None:
        """A class of others is refused: the message names it, its file and the switch."""
        (folder / "scale.py").write_text(SCALE)
        _add(folder, type_name, "2_Own", {"factor": 3})
        file_name = f"{type_name.split('.')[-2]}.py"
        imported = set(sys.modules)

        with pytest.raises(FormatError, match=rf"{file_name}.*trust_remote_code=True.*found '{type_name}'"):
            SentenceTransformer(str(folder), device="cpu")
        assert not list(Path(folder).rglob("ran"))
        assert not any("scale" in name for name in sys.modules.keys() - imported)

    def test_a_module_of_2_7_runs_with_trust(self, folder: Path, model: SentenceTransformer) -> None:
        """``forward(features)``, ``save(path)`` and a static ``load(path)`` are all that a module needs."""
        (folder / "scale.py").write_text(SCALE)
        _add(folder, "scale.Scale", "2_Scale", {"factor": 3})

        scaled = _load(folder)

        np.testing.assert_allclose(scaled.encode(TEXTS), 3 * model.encode(TEXTS), rtol=1e-5, atol=1e-6)

    def test_it_is_saved_with_its_code(self, folder: Path, tmp_path: Path) -> None:
        """The code is copied, so that the saved folder is whole, and the class keeps its name."""
        (folder / "scale.py").write_text(SCALE)
        _add(folder, "scale.Scale", "2_Scale", {"factor": 3})
        scaled = _load(folder)

        scaled.save(tmp_path / "again")

        assert read_json(tmp_path / "again" / "modules.json")[2]["type"] == "scale.Scale"
        assert (tmp_path / "again" / "scale.py").read_text() == SCALE
        np.testing.assert_array_equal(_load(tmp_path / "again").encode(TEXTS), scaled.encode(TEXTS))

    def test_a_class_that_is_installed(self, folder: Path, model: SentenceTransformer, tmp_path: Path) -> None:
        """A class of an installed package is imported with trust, and saved under its own name."""
        _add(folder, f"{__name__}.Doubled", "2_Doubled")
        (folder / "2_Doubled" / "doubled").touch()

        doubled = _load(folder)
        doubled.save(tmp_path / "again")

        np.testing.assert_allclose(doubled.encode(TEXTS), 2 * model.encode(TEXTS), rtol=1e-5, atol=1e-6)
        assert read_json(tmp_path / "again" / "modules.json")[2]["type"] == f"{__name__}.Doubled"

    @pytest.mark.parametrize("type_name", ["nowhere.Scale", "scale.Missing", "json.dumps", "json"])
    def test_what_is_no_class(self, type_name: str, folder: Path) -> None:
        """With trust too, a name that leads to no class is an error that says so."""
        (folder / "scale.py").write_text(SCALE)
        _add(folder, type_name, "2_Own", {})

        with pytest.raises(FormatError, match=f"expected a class in .*{type_name}"):
            _load(folder)


class Halved(nn.Module):
    """An activation of the caller's own."""

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """Half of it."""
        return given / 2


class Commas(WhitespaceTokenizer):
    """A tokenizer of the caller's own: words lie between commas."""

    def tokenize(self, text: str, **kwargs: Any) -> list[int]:
        """The ids of the words."""
        return super().tokenize(text.replace(",", " "), **kwargs)


class OwnDense(Dense):
    """A module of the caller's own that has what a Dense has."""


def _of_words(tokenizer: Any, *more: nn.Module) -> SentenceTransformer:
    tokenizer.set_vocab(["PAD", "cat", "dog"])
    weights = torch.arange(12.0).reshape(3, 4)
    return SentenceTransformer(modules=[models.WordEmbeddings(tokenizer, weights), Pooling(4), *more], device="cpu")


class TestClassesInSettings:
    """Classes of the caller's own that the settings of a module name."""

    @pytest.mark.parametrize(
        ("make", "key"),
        [
            (lambda: _of_words(Commas()), "tokenizer_class"),
            (
                lambda: _of_words(WhitespaceTokenizer(), Dense(4, 2, activation_function=Halved())),
                "activation_func",
            ),
            (lambda: _of_words(Commas(), OwnDense(4, 2, activation_function=Halved())), "tokenizer_class"),
            (
                lambda: _of_words(
                    WhitespaceTokenizer(), Router({"a": [Dense(4, 2, activation_function=Halved())]}, "a")
                ),
                "activation_function",
            ),
        ],
        ids=["tokenizer", "activation", "both", "in a router"],
    )
    def test_with_trust(self, make: Callable[[], SentenceTransformer], key: str, tmp_path: Path) -> None:
        """What can be imported is loaded again with trust; without, the message names the remedy."""
        model = make()
        model.save(tmp_path)

        with pytest.raises(FormatError, match=rf"{key}.*trust_remote_code=True\): look at it.*{__name__}\."):
            SentenceTransformer(str(tmp_path), device="cpu")
        again = _load(tmp_path)

        texts = ["cat,dog", "dog"]
        np.testing.assert_array_equal(again.encode(texts), model.encode(texts))

    @pytest.mark.parametrize("name", ["json.dumps", "json", "nowhere.Own", "builtins.dict", "torch.nn.Sequential"])
    @pytest.mark.parametrize("key", ["tokenizer_class", "activation_function"])
    def test_what_is_no_such_class(self, key: str, name: str, tmp_path: Path) -> None:
        """With trust too, a name that leads to something else is an error that says what belongs there."""
        _of_words(WhitespaceTokenizer(), Dense(4, 2)).save(tmp_path)
        names = {"tokenizer_class": "0_WordEmbeddings/wordembedding_config.json"}
        path = tmp_path / names.get(key, "2_Dense/config.json")
        write_json(path, {**read_json(path), key: name})

        with pytest.raises(FormatError, match=rf"{key}.*: expected one of .* found '{name}'"):
            _load(tmp_path)

    def test_a_tokenizer_that_cannot_be_imported(self, tmp_path: Path) -> None:
        """A tokenizer of a class that nobody else finds is an error when it is saved; that of now counts."""

        class Local(Commas):
            """A class inside a function."""

        model = _of_words(WhitespaceTokenizer())
        model[0].tokenizer = Local(model[0].tokenizer.get_vocab())

        with pytest.raises(ValueError, match=r"tokenizer of a WordEmbeddings: expected .*<locals>.Local could not"):
            model.save(tmp_path)


class TestNestedModels:
    """A model that is a module of another."""

    @pytest.mark.parametrize("wrapped", [lambda inner: inner, lambda inner: Router({"a": [inner]}, "a")])
    def test_it_is_not_saved(self, wrapped: Callable[[nn.Module], nn.Module], tmp_path: Path) -> None:
        """Files could name models without end, so none names one; the error says what to do instead."""
        inner = SentenceTransformer(modules=[models.BoW(["cat", "dog"])], device="cpu")
        outer = SentenceTransformer(modules=[wrapped(inner)], device="cpu")

        message = r"modules=\[\*model, …\]: a model that is a module of another"
        with pytest.raises(ValueError, match=message):
            outer.save(str(tmp_path))
        with pytest.raises(ValueError, match=message):
            check_module(outer[0])
        SentenceTransformer(modules=[*inner, models.Normalize()], device="cpu").save(tmp_path)


class TestArguments:
    """Keyword arguments of ``encode`` that modules ask for."""

    def test_of_the_class(self, folder: Path, model: SentenceTransformer) -> None:
        """A class of 5.0 and later says which it takes; what it imports from beside it is found."""
        (folder / "newer.py").write_text(NEWER)
        (folder / "numbers_of_ours.py").write_text("TWO = 2.0\n")
        _add(folder, "newer.Shift", "2_Shift", {})

        shifted = _load(folder)

        np.testing.assert_allclose(shifted.encode(TEXTS), model.encode(TEXTS), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(shifted.encode(TEXTS, by=1.5), model.encode(TEXTS) + 3, rtol=1e-5, atol=1e-6)
        assert shifted.encode("hello", by=1).shape == model.encode("hello").shape

    def test_of_the_file(self, folder: Path, model: SentenceTransformer, tmp_path: Path) -> None:
        """``kwargs`` in modules.json say it for classes that do not, and are kept."""
        (folder / "custom_st.py").write_text(TRANSFORMER)
        rows = read_json(folder / "modules.json")
        write_json(
            folder / "modules.json", [{**rows[0], "type": "custom_st.Transformer", "kwargs": ["task"]}, rows[1]]
        )
        settings = read_json(folder / "sentence_bert_config.json")
        write_json(folder / "sentence_bert_config.json", {**settings, "max_seq_length": 5, "own": 3})

        custom = _load(folder)
        model.max_seq_length = 5

        assert custom.max_seq_length == 5
        assert custom[0].given == {"own": 3, "do_lower_case": False}
        np.testing.assert_allclose(custom.encode(TEXTS), model.encode(TEXTS), rtol=1e-5, atol=1e-6)
        negative = custom.encode(TEXTS, task="negative")
        np.testing.assert_allclose(negative, -model.encode(TEXTS), rtol=1e-5, atol=1e-6)
        features = custom(custom.tokenize(TEXTS), task="negative")
        np.testing.assert_allclose(features["sentence_embedding"].detach(), negative, rtol=1e-5, atol=1e-6)

        custom.save(tmp_path / "again")
        assert read_json(tmp_path / "again" / "modules.json")[0]["kwargs"] == ["task"]
        np.testing.assert_array_equal(_load(tmp_path / "again").encode(TEXTS, task="negative"), negative)

    def test_unknown_ones_are_refused(self, folder: Path, model: SentenceTransformer) -> None:
        """An argument that no module takes is refused by its name, before any work."""
        (folder / "newer.py").write_text(NEWER.replace("from .numbers_of_ours import TWO", "TWO = 2.0"))
        _add(folder, "newer.Shift", "2_Shift", {})

        with pytest.raises(
            TypeError, match=r"no such argument: \['bye'\]; the modules of this model take \['by'\]"
        ):
            _load(folder).encode(TEXTS, bye=1)
        with pytest.raises(TypeError, match=r"no such argument: \['task'\]"):
            model.encode(TEXTS, task="query")


def test_a_module_of_2_7_in_memory(model: SentenceTransformer) -> None:
    """A module that was written for the reference, and changes the Features in place, works unchanged."""
    doubled = SentenceTransformer(modules=[*model, Doubled()], device="cpu")

    np.testing.assert_allclose(doubled.encode(TEXTS), 2 * model.encode(TEXTS), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", models.__all__)
def test_both_generations_of_names(name: str) -> None:
    """Every class is known under the names of 2.0 to 5.3, and of 5.4 and later."""
    module_class = getattr(models, name)
    file_name = module_class.__module__.rpartition(".")[2]

    for dotted in (f"models.{name}", f"models.{name}.{name}", f"base.modules.{file_name}.{module_class.__name__}"):
        found = class_named(f"sentence_transformers.{dotted}", Path(), "modules.json", trust_remote_code=False)
        assert found is module_class


@pytest.mark.parametrize(
    ("type_name", "family"),
    [
        ("sentence_transformers.sparse_encoder.models.SpladePooling", "a SparseEncoder"),
        ("sentence_transformers.sparse_encoder.modules.mlm_transformer.MLMTransformer", "a SparseEncoder"),
        ("sentence_transformers.multi_vector_encoder.modules.mask.MultiVectorMask", "a MultiVectorEncoder"),
        ("pylate.models.Dense.Dense", "a MultiVectorEncoder of PyLate"),
    ],
)
def test_modules_of_other_families(type_name: str, family: str) -> None:
    """A module of another kind of model is refused with the name of the kind, trusted or not."""
    with pytest.raises(FormatError, match=f"{family}, found"):
        class_named(type_name, Path(), "modules.json", trust_remote_code=True)


def test_model2vec_writes_folders_of_its_own(tmp_path: Path, model: SentenceTransformer) -> None:
    """The path "." is the model folder itself, and a Normalize needs no folder."""
    StaticEmbedding(model.tokenizer, torch.randn(len(model.tokenizer), 6)).save(tmp_path)
    names = {".": "StaticEmbedding", "1_Normalize": "Normalize"}
    rows = [
        {"idx": idx, "name": str(idx), "path": path, "type": f"sentence_transformers.models.{name}"}
        for idx, (path, name) in enumerate(names.items())
    ]
    (tmp_path / "modules.json").write_text(json.dumps(rows))

    embeddings = SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS)

    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5, atol=1e-6)


def test_an_adapter_repository(checkpoint: Path, tmp_path: Path) -> None:
    """A folder with nothing but a LoRA adapter is its base model, adapted; saved, it is an adapter again."""
    peft = pytest.importorskip("peft")
    base = Transformer(str(checkpoint))
    config = peft.LoraConfig(r=2, target_modules=["query", "value"], init_lora_weights=False)
    base.auto_model.add_adapter(config)
    base.auto_model.eval().save_pretrained(tmp_path / "adapter")
    base.tokenizer.save_pretrained(tmp_path / "adapter")
    by_hand = SentenceTransformer(modules=[base, Pooling(32)], device="cpu")

    model = SentenceTransformer(str(tmp_path / "adapter"), device="cpu")
    model.save(tmp_path / "again", safe_serialization=False)

    expected = by_hand.encode(TEXTS)
    np.testing.assert_allclose(model.encode(TEXTS), expected, rtol=1e-5, atol=1e-6)
    again = SentenceTransformer(str(tmp_path / "again"), device="cpu")
    np.testing.assert_allclose(again.encode(TEXTS), expected, rtol=1e-5, atol=1e-6)
    plain = SentenceTransformer(modules=[Transformer(str(checkpoint)), Pooling(32)], device="cpu")
    assert np.abs(plain.encode(TEXTS) - expected).max() > 1e-2


def test_an_adapter_without_all_of_its_weights(checkpoint: Path, tmp_path: Path) -> None:
    """Weights that an adapter lacks are an error, not made up."""
    peft = pytest.importorskip("peft")
    from safetensors.torch import load_file, save_file

    config = peft.LoraConfig(r=2, target_modules=["query", "value"], init_lora_weights=False)
    base = Transformer(str(checkpoint))
    base.auto_model.add_adapter(config)
    base.auto_model.save_pretrained(tmp_path)
    base.tokenizer.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    lost = sorted(tensors)[0]
    save_file(
        {name: tensor for name, tensor in tensors.items() if name != lost}, tmp_path / "adapter_model.safetensors"
    )

    with pytest.raises(ValueError, match=r"weights of a BertModel, found none for \['encoder.layer.0"):
        SentenceTransformer(str(tmp_path), device="cpu")


def test_a_tokenizer_inside_the_folder(folder: Path, model: SentenceTransformer) -> None:
    """``tokenizer_name_or_path`` may name a folder inside the model's, wherever the program runs."""
    (folder / "words").mkdir()
    for path in folder.glob("*token*"):
        path.rename(folder / "words" / path.name)
    settings = read_json(folder / "sentence_bert_config.json")
    write_json(folder / "sentence_bert_config.json", {**settings, "tokenizer_name_or_path": "words"})

    found = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)

    np.testing.assert_array_equal(found, model.encode(TEXTS))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("transformer_task", "fill-mask"),
        ("modality_config", {"text": {"method": "forward", "method_output_name": ["hidden_states", -2]}}),
        ("module_output_name", "sentence_embedding"),
        ("processing_kwargs", {"text": {"add_special_tokens": False}}),
    ],
)
def test_what_is_computed_otherwise_is_refused(key: str, value: Any, folder: Path) -> None:
    """Settings of 5.4 and later that ask for other numbers than are computed here are no detail to pass over."""
    settings = read_json(folder / "sentence_bert_config.json")
    write_json(folder / "sentence_bert_config.json", {**settings, key: value})

    with pytest.raises(FormatError, match=f"{key}: expected the last hidden state"):
        SentenceTransformer(str(folder), device="cpu")


def test_names_of_methods(folder: Path) -> None:
    """A module that would hide a method or a setting of the model is refused by its name."""
    rows = read_json(folder / "modules.json")
    for name in ("encode", "prompts", "forward"):
        write_json(folder / "modules.json", [{**rows[0], "name": name}, rows[1]])
        with pytest.raises(ValueError, match=f"another name for a module than '{name}'"):
            SentenceTransformer(str(folder), device="cpu")


def test_an_error_of_a_format_can_be_sent() -> None:
    """It goes from one process to another as it is."""
    error = FormatError("config.json: width", "a number", "many")

    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301


def test_a_module_that_loads_a_model_while_it_is_imported(tmp_path: Path) -> None:
    """One thread imports it, and another loads a model with a class of it: neither waits for the other for ever."""
    (tmp_path / "mine.py").write_text(
        textwrap.dedent("""
            import os, time, torch
            from torch import nn
            from sentence_embedder import SentenceTransformer

            class Mine(nn.Module):
                def tokenize(self, texts):
                    return {"numbers": torch.tensor([[float(len(text))] for text in texts])}

                def forward(self, features):
                    return {**features, "sentence_embedding": features["numbers"]}

                def save(self, path):
                    pass

                @staticmethod
                def load(path):
                    return Mine()

            if "FOLDER" in os.environ:
                time.sleep(0.5)
                SentenceTransformer(os.environ["FOLDER"], device="cpu", trust_remote_code=True)
        """),
        encoding="utf-8",
    )

    printed = run_program(
        """
        import importlib, os, sys, threading, time
        sys.path.insert(0, sys.argv[1])
        import mine
        from sentence_embedder import SentenceTransformer
        folder = sys.argv[1] + "/model"
        mine.SentenceTransformer(modules=[mine.Mine()], device="cpu").save(folder)
        os.environ["FOLDER"] = folder
        del sys.modules["mine"]

        def load():
            SentenceTransformer(folder, device="cpu", trust_remote_code=True)

        threads = [threading.Thread(target=lambda: importlib.import_module("mine")), threading.Thread(target=load)]
        for thread in threads:
            thread.start()
            time.sleep(0.2)
        for thread in threads:
            thread.join()
        print("done")
        """,
        str(tmp_path),
    )

    assert printed == "done\n"
