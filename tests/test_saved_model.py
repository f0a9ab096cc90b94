"""Model folders: what is written, what is read, and what is refused."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from sentence_embedder import SentenceTransformer
from sentence_embedder.features import Features
from sentence_embedder.files import WeightsError
from sentence_embedder.formats import TRANSFORMER_CONFIG_NAMES
from sentence_embedder.models import CLIPModel, Dense, Normalize, Pooling, Transformer
from sentence_embedder.record import FormatError
from sentence_embedder.saved_model import incomplete_folders
from tests.tiny_chains import Folders
from tests.tiny_models import TINY_MODELS

TEXTS = ["the cat sat on the mat", "hello world", "query"]


@pytest.fixture
def folder(tiny_folders: dict[str, Path], tmp_path: Path) -> Path:
    """A folder with a chain of six modules, a test's own."""
    return Path(shutil.copytree(tiny_folders["bert-chain"], tmp_path / "model"))


def _load(folder: Path, **arguments: Any) -> SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu", **arguments)


def _edit(path: Path, change: Callable[[Any], Any]) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps(change(content) or content))


class TestRoundTrip:
    """Saving and loading."""

    @pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "pickles"])
    @pytest.mark.parametrize("name", TINY_MODELS)
    def test_vectors_and_settings_survive(
        self, name: str, safe: bool, tiny_folders: dict[str, Path], tmp_path: Path
    ) -> None:
        """A model that was saved and loaded gives the same vectors and has the same settings."""
        model = _load(tiny_folders[name], truncate_dim=7, default_prompt_name="query", similarity_fn_name="dot")
        model.max_seq_length = 11

        model.save(tmp_path / "deep" / "again", safe_serialization=safe)
        again = _load(tmp_path / "deep" / "again")

        np.testing.assert_array_equal(again.encode(TEXTS), model.encode(TEXTS))
        assert (again.truncate_dim, again.max_seq_length, again.similarity_fn_name) == (7, 11, "dot")
        assert (again.prompts, again.default_prompt_name) == (model.prompts, "query")
        assert list(tmp_path.rglob("*.safetensors" if safe else "*.bin"))
        assert not list(tmp_path.rglob("*.bin" if safe else "*.safetensors"))

    @pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "pickles"])
    def test_saving_twice(self, safe: bool, folder: Path, tmp_path: Path) -> None:
        """Weights of an earlier save in the other format are not read as the new ones."""
        model = _load(folder)
        model.save(tmp_path / "twice", safe_serialization=not safe)
        for parameter in model.parameters():
            parameter.data.mul_(1.1)

        model.save(tmp_path / "twice", safe_serialization=safe)

        np.testing.assert_array_equal(_load(tmp_path / "twice").encode(TEXTS), model.encode(TEXTS))

    def test_no_folder(self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """With None for a folder nothing is saved."""
        model = _load(folder)
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")

        model.save(None)
        model.save_pretrained(None)

        assert not list((tmp_path / "here").iterdir())

    def test_the_real_model(self, minilm: SentenceTransformer, tmp_path: Path) -> None:
        """So does the real MiniLM, whose wheel lacks the empty folder of Normalize."""
        minilm.save_pretrained(tmp_path)

        np.testing.assert_array_equal(_load(tmp_path).encode(TEXTS), minilm.encode(TEXTS))

    def test_the_files_are_those_of_2_7(self, tiny_folders: dict[str, Path], tmp_path: Path) -> None:
        """Names, keys and their order are those that sentence-transformers 2.7 writes."""
        _load(tiny_folders["bert-chain"]).save(tmp_path, safe_serialization=False)

        modules = json.loads((tmp_path / "modules.json").read_text())
        assert [row["path"] for row in modules] == [
            *("", "1_Pooling", "2_Dense", "3_LayerNorm", "4_Dropout", "5_Normalize")
        ]
        assert modules[2] == {
            "idx": 2,
            "name": "2",
            "path": "2_Dense",
            "type": "sentence_transformers.models.Dense",
        }
        assert json.loads((tmp_path / "sentence_bert_config.json").read_text()) == {
            "max_seq_length": 24,
            "do_lower_case": False,
        }
        assert list(json.loads((tmp_path / "1_Pooling" / "config.json").read_text())) == [
            "word_embedding_dimension",
            "pooling_mode_cls_token",
            "pooling_mode_mean_tokens",
            "pooling_mode_max_tokens",
            "pooling_mode_mean_sqrt_len_tokens",
            "pooling_mode_weightedmean_tokens",
            "pooling_mode_lasttoken",
            "include_prompt",
        ]
        config = json.loads((tmp_path / "config_sentence_transformers.json").read_text())
        assert list(config) == ["__version__", "prompts", "default_prompt_name"]
        assert config["__version__"]["sentence_transformers"] == "2.7.0"
        assert not list((tmp_path / "5_Normalize").iterdir())
        assert (tmp_path / "2_Dense" / "pytorch_model.bin").exists()

    def test_a_module_in_two_places(self, folder: Path, tmp_path: Path) -> None:
        """A module that stands twice in the chain does so in what is copied, pickled or saved, and on the card."""
        (first, pooling), unit = _load(folder)[:2], Normalize()
        dense = Dense(pooling.get_sentence_embedding_dimension(), 8, activation_function=nn.Identity())
        model = SentenceTransformer(modules=[first, pooling, unit, dense, unit], device="cpu")

        model.save(tmp_path / "saved")

        again = _load(tmp_path / "saved")
        copies = (again, copy.deepcopy(model), pickle.loads(pickle.dumps(model)))  # noqa: S301  # our own
        for made in copies:
            assert [type(module) for module in made] == [Transformer, Pooling, Normalize, Dense, Normalize]
            np.testing.assert_array_equal(made.encode(TEXTS), model.encode(TEXTS))
        assert (tmp_path / "saved" / "README.md").read_text().count("): Normalize(") == 2

    def test_unknown_keys_survive(self, folder: Path, tmp_path: Path) -> None:
        """Keys that nobody here knows are written back to the file that they came from."""
        files = ["config_sentence_transformers.json", "sentence_bert_config.json", "2_Dense/config.json"]
        for name in files:
            _edit(folder / name, lambda content: content.update(future={"a": [1, None]}))
        _edit(folder / "modules.json", lambda rows: rows[1].update(kwargs=["task"], future=1))

        _load(folder).save(tmp_path / "again")

        for name in files:
            assert json.loads((tmp_path / "again" / name).read_text())["future"] == {"a": [1, None]}
        row = json.loads((tmp_path / "again" / "modules.json").read_text())[1]
        assert (row["kwargs"], row["future"]) == (["task"], 1)

    def test_the_card(self, folder: Path, tmp_path: Path) -> None:
        """A loaded card is kept, a model without one gets a new one, and on request none is written."""
        _load(folder).save(tmp_path / "new", model_name="me/mine", train_datasets=["snli"])
        (folder / "README.md").write_text("# My card\n", encoding="utf-8")
        _load(folder).save(tmp_path / "kept")
        _load(folder).save(tmp_path / "none", create_model_card=False)

        new = (tmp_path / "new" / "README.md").read_text(encoding="utf-8")
        assert 'SentenceTransformer("me/mine")' in new
        assert 'datasets: ["snli"]' in new
        assert (tmp_path / "kept" / "README.md").read_text(encoding="utf-8") == "# My card\n"
        assert not (tmp_path / "none" / "README.md").exists()

    def test_pooling_of_another_order(self, tiny_folders: dict[str, Path], tmp_path: Path) -> None:
        """Modes in an order that flags cannot say are written in the newer way."""
        transformer = Transformer(str(tiny_folders["bert"]))
        model = SentenceTransformer(modules=[transformer, Pooling(32, ["mean", "cls"]), Normalize()], device="cpu")

        model.save(tmp_path)

        np.testing.assert_array_equal(_load(tmp_path).encode(TEXTS), model.encode(TEXTS))

    def test_a_transformer_in_a_folder_of_its_own(self, tiny_folders: dict[str, Path], tmp_path: Path) -> None:
        """Old models have the Transformer in a folder of its own, with a settings file of another name."""
        expected = _load(tiny_folders["roberta"]).encode(TEXTS)
        shutil.copytree(tiny_folders["roberta"], tmp_path / "0_Transformer")
        for name in ("modules.json", "1_Pooling", "config_sentence_transformers.json"):
            (tmp_path / "0_Transformer" / name).rename(tmp_path / name)
        settings = tmp_path / "0_Transformer" / "sentence_bert_config.json"
        settings.rename(settings.with_name("sentence_roberta_config.json"))
        _edit(tmp_path / "modules.json", lambda rows: rows[0].update(path="0_Transformer"))

        model = _load(tmp_path)

        assert model.max_seq_length == 24
        np.testing.assert_array_equal(model.encode(TEXTS), expected)

    def test_the_dialect_of_6_2(self, folder: Path) -> None:
        """Type names, keys and settings of sentence-transformers 6.2 are read."""
        expected = _load(folder).encode(TEXTS)
        modules = "sentence_transformers.sentence_transformer.modules"
        types = ["pooling.Pooling", "dense.Dense", "layer_norm.LayerNorm", "dropout.Dropout"]
        shared = "sentence_transformers.base.modules"

        def rename(rows: Any) -> None:
            rows[0]["type"] = f"{shared}.transformer.Transformer"
            for row, name in zip(rows[1:], types, strict=False):
                row["type"] = f"{modules}.{name}"
            rows[2]["type"] = f"{shared}.dense.Dense"
            rows[5]["type"] = f"{shared}.normalize.Normalize"

        _edit(folder / "modules.json", rename)
        names = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}
        _edit(folder / "2_Dense" / "config.json", lambda config: config.update(names))
        (folder / "5_Normalize" / "config.json").write_text(json.dumps(names))
        pooling = {"embedding_dimension": 32, "pooling_mode": ["cls", "max"], "include_prompt": True}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
        method = {"method": "forward", "method_output_name": "last_hidden_state"}
        settings = {"transformer_task": "feature-extraction", "modality_config": {"text": method}}
        path = folder / "sentence_bert_config.json"
        path.write_text(json.dumps({**settings, "module_output_name": "token_embeddings"}))
        _edit(folder / "tokenizer_config.json", lambda config: config.update(model_max_length=24))

        model = _load(folder)

        assert model.max_seq_length == 24
        np.testing.assert_array_equal(model.encode(TEXTS), expected)


class Doubling(nn.Module):
    """A module in the style of 2.7, whose ``save`` takes a path alone."""

    def forward(self, features: Features) -> Features:
        """Twice the embedding."""
        features["sentence_embedding"] = 2 * features["sentence_embedding"]
        return features

    def save(self, output_path: str) -> None:
        """Write a file."""
        (Path(output_path) / "doubling.txt").touch()


class TestPlainCheckpoint:
    """Transformers without modules.json."""

    def test_mean_pooling(self, checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
        """An encoder gets a mean pooling, with one log line."""
        model = _load(checkpoint)

        assert model[1].get_pooling_mode_str() == "mean"
        assert len(caplog.records) == 1
        assert "a plain transformer (BertModel), of which mean pooling makes embeddings" in caplog.text

    def test_clip(self, tiny_checkpoints: Folders) -> None:
        """A CLIP has a space for texts and images, which its own module knows."""
        model = _load(tiny_checkpoints["clip"])

        assert [type(module) for module in model] == [CLIPModel]
        assert model.encode(["the cat", "a dog"]).shape == (2, 16)

    @pytest.mark.parametrize(("is_causal", "mode"), [(None, "lasttoken"), (False, "mean")])
    def test_causal_language_models(
        self, is_causal: bool | None, mode: str, tiny_folders: dict[str, Path], tmp_path: Path
    ) -> None:
        """A causal language model gets the last token, unless its configuration says that it looks ahead."""
        shutil.copytree(tiny_folders["decoder"], tmp_path / "lm")
        (tmp_path / "lm" / "modules.json").unlink()
        extra = {} if is_causal is None else {"is_causal": is_causal}
        _edit(tmp_path / "lm" / "config.json", lambda c: c.update(architectures=["Qwen2ForCausalLM"], **extra))

        assert _load(tmp_path / "lm")[1].get_pooling_mode_str() == mode

    def test_weights_in_half_precision_are_computed_in_float32(
        self, tiny_folders: dict[str, Path], tmp_path: Path
    ) -> None:
        """A checkpoint in float16 is computed in float32, unless another dtype is asked for."""
        _load(tiny_folders["bert"]).half().save(tmp_path)

        assert _load(tmp_path).encode("a").dtype == np.float32
        assert _load(tmp_path, model_kwargs={"torch_dtype": "auto"}).encode("a").dtype == np.float16

    def test_neither(self, tmp_path: Path) -> None:
        """A folder that holds no model is said to be that."""
        with pytest.raises(FileNotFoundError, match=r"expected modules.json .* or config.json .* found neither"):
            _load(tmp_path)


class TestEncoderDecoder:
    """T5 and its kin, of which the encoder makes embeddings."""

    @pytest.mark.parametrize("saved_as", ["T5EncoderModel", "T5Model"])
    def test_the_encoder_alone(self, saved_as: str, checkpoint: Path, tmp_path: Path) -> None:
        """Of a T5 the encoder is loaded, whether the decoder was saved or not."""
        import torch
        import transformers

        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(checkpoint / name, tmp_path)
        sizes: dict[str, Any] = {
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 64,
            "num_layers": 2,
            "num_heads": 4,
            "vocab_size": 200,
        }
        torch.manual_seed(0)
        t5: Any = getattr(transformers, saved_as)(transformers.T5Config(**sizes)).eval()
        t5.save_pretrained(tmp_path)

        model = _load(tmp_path)
        model.save(tmp_path / "again")

        ids = model.tokenize(TEXTS[:1])["input_ids"]
        expected = t5.get_encoder()(input_ids=ids)[0].mean(1).detach()
        np.testing.assert_allclose(model.encode(TEXTS[:1]), expected, atol=1e-5)
        np.testing.assert_array_equal(_load(tmp_path / "again").encode(TEXTS), model.encode(TEXTS))


class TestRefusals:
    """Folders that are not what they should be."""

    @pytest.mark.parametrize(
        "type_name",
        ["os.system", "my_module.Module", "sentence_transformers.models.Nothing", "custom_st.Transformer"],
    )
    def test_unknown_classes(self, type_name: str, folder: Path) -> None:
        """A class that is not in the table is refused by name, and nothing is imported."""
        _edit(folder / "modules.json", lambda rows: rows[1].update(type=type_name))

        with pytest.raises(FormatError, match=rf"modules.json: type: expected a module of .* found '{type_name}'"):
            _load(folder)

    @pytest.mark.parametrize("path", ["../other", "/etc", "a/../../b", "..", "C:\\x", "a\\b"])
    def test_paths_that_lead_out(self, path: str, folder: Path) -> None:
        """A module's folder lies inside the model folder."""
        _edit(folder / "modules.json", lambda rows: rows[1].update(path=path))

        with pytest.raises(FormatError, match="path: expected a path inside the model folder"):
            _load(folder)

    @pytest.mark.parametrize("name", ["", "a.b", "0"])
    def test_names_of_modules(self, name: str, folder: Path) -> None:
        """Each module has a name of its own, that torch allows: none takes another's place."""
        _edit(folder / "modules.json", lambda rows: rows[1].update(name=name))

        with pytest.raises(FormatError, match=f"name: expected a name of its own .* found '{name}'"):
            _load(folder)

    @pytest.mark.parametrize("family", ["SparseEncoder", "CrossEncoder", "MultiVectorEncoder"])
    def test_models_of_another_family(self, family: str, folder: Path) -> None:
        """A model of another family is refused by name."""
        _edit(folder / "config_sentence_transformers.json", lambda config: config.update(model_type=family))

        with pytest.raises(FormatError, match=rf"model_type: expected 'SentenceTransformer'.* found '{family}'"):
            _load(folder)

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("modules.json", "{}", "modules.json: expected a JSON array, found {}"),
            ("modules.json", "[3]", r"modules.json\[0\]: expected a JSON object, found 3"),
            ("modules.json", "[{", "modules.json: expected JSON"),
            ("config_sentence_transformers.json", '{"prompts": []}', "prompts: expected an object"),
            ("1_Pooling/config.json", "{}", "1_Pooling/config.json: expected a key 'word_embedding_dimension'"),
            (
                "2_Dense/config.json",
                '{"in_features": "64"}',
                "in_features: expected a whole number from 1 to 10,000,000, found '64'",
            ),
            (
                "sentence_bert_config.json",
                '{"max_seq_length": true}',
                "max_seq_length: expected a whole number",
            ),
        ],
    )
    def test_files_that_are_not_what_they_should_be(
        self, name: str, content: str, message: str, folder: Path
    ) -> None:
        """A file with other content is an error that names the file, the key, and what was expected and found."""
        (folder / name).write_text(content)

        with pytest.raises(ValueError, match=message):
            _load(folder)

    def test_weights_that_are_missing(self, folder: Path) -> None:
        """A checkpoint without some of its weights is an error that lists them, not a model with random ones."""
        from safetensors.numpy import load_file, save_file

        weights = load_file(folder / "model.safetensors")
        del weights["encoder.layer.1.output.dense.weight"]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

        with pytest.raises(WeightsError, match=r"found none for \['encoder.layer.1.output.dense.weight'\]"):
            _load(folder)

    def test_a_pooler_may_be_missing(self, folder: Path) -> None:
        """Nothing reads the pooler: language models come without one."""
        from safetensors.numpy import load_file, save_file

        expected = _load(folder).encode(TEXTS)
        weights = {k: v for k, v in load_file(folder / "model.safetensors").items() if "pooler" not in k}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

        np.testing.assert_array_equal(_load(folder).encode(TEXTS), expected)

    def test_a_module_of_ones_own_is_saved_but_not_loaded(self, folder: Path, tmp_path: Path) -> None:
        """A module of the user's own is saved by its own method, and refused when it is loaded."""
        model = _load(folder)
        model.append(Doubling())

        model.save(tmp_path / "again")

        assert (tmp_path / "again" / "6_Doubling" / "doubling.txt").exists()
        with pytest.raises(FormatError, match=r"found 'tests.test_saved_model.Doubling'"):
            _load(tmp_path / "again")

    def test_a_module_that_cannot_be_saved(self, folder: Path, tmp_path: Path) -> None:
        """A module without ``save`` is an error that says so."""
        model = _load(folder)
        model.append(nn.Identity())

        with pytest.raises(TypeError, match=r"Identity: expected a save\(path\) method"):
            model.save(tmp_path / "again")


def test_dense_weights_of_other_shapes(tmp_path: Path) -> None:
    """Weights of other shapes than the settings say are an error that names the file."""
    Dense(4, 2).save(tmp_path)
    _edit(tmp_path / "config.json", lambda config: config.update(out_features=3))

    with pytest.raises(
        WeightsError,
        match=r"weights of a Dense, found others: of another shape.*linear.weight \(2, 4\) for \(3, 4\)",
    ):
        Dense.load(tmp_path)


class TestDialects:
    """What versions of sentence-transformers wrote, and people by hand."""

    @pytest.mark.parametrize("name", TRANSFORMER_CONFIG_NAMES)
    def test_names_of_the_settings(self, name: str, folder: Path) -> None:
        """The settings of a Transformer have had seven names."""
        (folder / "sentence_bert_config.json").rename(folder / name)
        _edit(folder / name, lambda config: config.update(max_seq_length=9))

        assert _load(folder).max_seq_length == 9

    def test_weights_in_several_files(self, folder: Path) -> None:
        """Large checkpoints come in parts, with an index."""
        expected = _load(folder)
        weights = expected[0].auto_model
        (folder / "model.safetensors").unlink()

        weights.save_pretrained(folder, max_shard_size="20KB")

        assert (folder / "model.safetensors.index.json").exists()
        np.testing.assert_array_equal(_load(folder).encode(TEXTS), expected.encode(TEXTS))
        assert not incomplete_folders(folder)
        next(folder.glob("model-00002-of-*.safetensors")).unlink()
        assert [*incomplete_folders(folder)] == [""]

    def test_settings_of_a_model(self, folder: Path, tmp_path: Path) -> None:
        """A width, a similarity, prompts (also empty ones) and requirements are read, and written again."""
        settings = {
            "__version__": {"sentence_transformers": "6.2.0.dev0"},
            "prompts": {"query": "query: ", "document": ""},
            "default_prompt_name": None,
            "similarity_fn_name": "dot",
            "truncate_dim": 5,
            "model_type": "SentenceTransformer",
            "requirements": {"einops": ">=0.7"},
        }
        (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))

        model = _load(folder)
        model.save(tmp_path / "again")

        assert model.prompts == {"query": "query: ", "document": ""}
        assert (model.similarity_fn_name, model.encode(TEXTS).shape) == ("dot", (3, 5))
        written = json.loads((tmp_path / "again" / "config_sentence_transformers.json").read_text())
        assert {**written, "__version__": settings["__version__"]} == settings

    def test_versions_may_be_missing(self, folder: Path) -> None:
        """Models from before 2.0 say nothing about themselves."""
        expected = _load(folder).encode(TEXTS)
        (folder / "config_sentence_transformers.json").unlink()

        np.testing.assert_array_equal(_load(folder).encode(TEXTS), expected)
