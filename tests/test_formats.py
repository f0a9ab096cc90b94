"""The records of the JSON files: every historical spelling in, the one of 2.7 out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentence_embedder import formats
from sentence_embedder.formats import (
    POOLING_MODES,
    AdapterConfig,
    BoWConfig,
    CheckpointConfig,
    CNNConfig,
    DenseConfig,
    DropoutConfig,
    LayerNormConfig,
    LSTMConfig,
    ModelConfig,
    ModuleEntry,
    NormalizeConfig,
    PhraseTokenizerConfig,
    PoolingConfig,
    RouterConfig,
    TransformerConfig,
    WeightedLayerPoolingConfig,
    WeightsIndex,
    WordEmbeddingsConfig,
    WordTokenizerConfig,
    WordWeightsConfig,
)
from sentence_embedder.record import FormatError

names = st.text(min_size=1, max_size=8)
widths = st.integers(1, 10_000)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(names, children, max_size=3),
    max_leaves=5,
)
# Keys that no version knows: none of them begins like this.
extras = st.dictionaries(names.map("future_".__add__), json_values, max_size=3)
arguments = st.dictionaries(names, json_values, max_size=2)
counts = st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple)
vocabularies = st.lists(names, max_size=3).map(tuple)
words: dict[str, st.SearchStrategy[Any]] = {
    "vocab": vocabularies,
    "stop_words": vocabularies,
    "do_lower_case": st.booleans(),
}
weights: dict[str, st.SearchStrategy[Any]] = {
    "vocab": vocabularies,
    "word_weights": st.dictionaries(names, st.floats(-9, 9), max_size=3),
    "unknown_word_weight": st.floats(0, 9),
}

RECORDS: dict[type[Any], st.SearchStrategy[Any]] = {
    ModelConfig: st.builds(
        ModelConfig,
        prompts=st.dictionaries(names, st.text(max_size=9), max_size=3),
        default_prompt_name=st.none() | names,
        similarity_fn_name=st.none() | names,
        truncate_dim=st.none() | st.integers(),
        model_type=st.none() | names,
        versions=st.dictionaries(names, names, max_size=3),
        extra=extras,
    ),
    ModuleEntry: st.builds(
        ModuleEntry,
        idx=st.integers(0, 99),
        name=st.text(max_size=5),
        path=st.text(max_size=9),
        type=names,
        kwargs=st.lists(names, max_size=3).map(tuple),
        extra=extras,
    ),
    TransformerConfig: st.builds(
        TransformerConfig,
        max_seq_length=st.none() | widths,
        do_lower_case=st.booleans(),
        tokenizer_name_or_path=st.none() | names,
        model_args=arguments,
        tokenizer_args=arguments,
        config_args=arguments,
        extra=extras,
    ),
    PoolingConfig: st.builds(
        PoolingConfig,
        word_embedding_dimension=widths,
        pooling_modes=st.lists(st.sampled_from(POOLING_MODES), min_size=1, max_size=8).map(tuple),
        include_prompt=st.booleans(),
        extra=extras,
    ),
    DenseConfig: st.builds(
        DenseConfig,
        in_features=widths,
        out_features=widths,
        bias=st.booleans(),
        activation_function=names,
        use_residual=st.booleans(),
        module_input_name=names,
        module_output_name=names,
        extra=extras,
    ),
    NormalizeConfig: st.builds(NormalizeConfig, module_input_name=names, module_output_name=names, extra=extras),
    LayerNormConfig: st.builds(LayerNormConfig, dimension=widths, extra=extras),
    DropoutConfig: st.builds(DropoutConfig, dropout=st.floats(0, 1), extra=extras),
    CNNConfig: st.builds(
        CNNConfig,
        in_word_embedding_dimension=widths,
        out_channels=widths,
        kernel_sizes=counts,
        stride_sizes=st.none() | counts,
        extra=extras,
    ),
    LSTMConfig: st.builds(
        LSTMConfig,
        word_embedding_dimension=widths,
        hidden_dim=widths,
        num_layers=st.integers(1, 9),
        dropout=st.floats(0, 1),
        bidirectional=st.booleans(),
        extra=extras,
    ),
    WeightedLayerPoolingConfig: st.builds(
        WeightedLayerPoolingConfig,
        word_embedding_dimension=widths,
        layer_start=st.integers(0, 9),
        num_hidden_layers=st.integers(1, 9),
        extra=extras,
    ),
    WordEmbeddingsConfig: st.builds(
        WordEmbeddingsConfig,
        tokenizer_class=names,
        update_embeddings=st.booleans(),
        max_seq_length=widths,
        extra=extras,
    ),
    WordTokenizerConfig: st.builds(WordTokenizerConfig, **words, extra=extras),
    PhraseTokenizerConfig: st.builds(
        PhraseTokenizerConfig, **words, ngram_separator=names, max_ngram_length=st.integers(1, 9), extra=extras
    ),
    WordWeightsConfig: st.builds(WordWeightsConfig, **weights, extra=extras),
    BoWConfig: st.builds(BoWConfig, **weights, cumulative_term_frequency=st.booleans(), extra=extras),
    CheckpointConfig: st.builds(
        CheckpointConfig,
        model_type=st.none() | names,
        architectures=st.none() | vocabularies,
        hidden_size=st.none() | widths,
        vocab_size=st.none() | widths,
        max_position_embeddings=st.none() | st.integers(-1, 99),
        num_hidden_layers=st.none() | st.integers(0, 99),
        extra=extras,
    ),
    AdapterConfig: st.builds(AdapterConfig, base_model_name_or_path=names, extra=extras),
    WeightsIndex: st.builds(WeightsIndex, weight_map=st.dictionaries(names, names, max_size=3), extra=extras),
    RouterConfig: st.builds(
        RouterConfig,
        types=st.just({"a": "A", "b": "B"}),
        structure=st.just({"query": ["a"], "document": ["a", "b"]}),
        default_route=st.sampled_from([None, "query"]),
        allow_empty_key=st.booleans(),
        route_mappings=st.dictionaries(
            st.tuples(st.none() | names, st.none() | names), st.just("document"), max_size=2
        ),
        extra=extras,
    ),
}


def test_every_record_is_here() -> None:
    """No record of the formats is forgotten below."""
    of_module = {
        value
        for value in vars(formats).values()
        if isinstance(value, type) and value.__module__ == formats.__name__ and hasattr(value, "from_dict")
    } - {formats.FeatureNames}

    assert of_module == set(RECORDS)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: str(record.__name__))
@settings(max_examples=60)
@given(data=st.data())
def test_a_record_survives_being_written(record: type[Any], data: st.DataObject) -> None:
    """``from_dict(to_dict(x)) == x``, by way of JSON too, unknown keys included."""
    value = data.draw(RECORDS[record])

    assert record.from_dict(value.to_dict()) == value
    assert record.from_dict(json.loads(json.dumps(value.to_dict()))) == value


@settings(max_examples=100)
@given(record=st.sampled_from(list(RECORDS)), content=json_values)
def test_any_json_is_a_record_or_a_format_error(record: type[Any], content: Any) -> None:
    """Whatever JSON a file holds, reading it gives a record or a FormatError, and leaves the JSON as it was."""
    before = json.dumps(content)

    try:
        value = record.from_dict(content)
    except FormatError:
        pass
    else:
        assert isinstance(value, record)
    assert json.dumps(content) == before


class TestPooling:
    """The two generations of Pooling's settings."""

    @pytest.mark.parametrize(
        ("content", "modes", "include_prompt"),
        [
            ({"word_embedding_dimension": 3}, ("mean",), True),
            ({"word_embedding_dimension": 3, "pooling_mode_mean_tokens": False}, ("mean",), True),
            ({"word_embedding_dimension": 3, "pooling_mode_cls_token": True}, ("cls",), True),
            (
                {
                    "word_embedding_dimension": 3,
                    "pooling_mode_mean_tokens": True,
                    "pooling_mode_max_tokens": True,
                    "pooling_mode_cls_token": True,
                    "include_prompt": False,
                },
                ("cls", "max", "mean"),
                False,
            ),
            ({"embedding_dimension": 3, "pooling_mode": "lasttoken"}, ("lasttoken",), True),
            ({"embedding_dimension": 3, "pooling_mode": ["mean", "cls"]}, ("mean", "cls"), True),
        ],
        ids=["oldest", "none set", "cls", "three", "one, 5.4", "two, 5.4"],
    )
    def test_spellings(self, content: dict[str, Any], modes: tuple[str, ...], include_prompt: bool) -> None:
        """Flags and names of modes mean the same, and flags that are missing are not set."""
        config = PoolingConfig.from_dict(content)

        assert config == PoolingConfig(
            word_embedding_dimension=3,
            pooling_modes=modes,  # type: ignore[arg-type]
            include_prompt=include_prompt,
        )

    @pytest.mark.parametrize("modes", ["median", [], ["cls", "median"], 3, {"cls": True}])
    def test_unknown_modes(self, modes: Any) -> None:
        """A mode that does not exist is an error that lists those that do."""
        with pytest.raises(FormatError, match=r"p.json: pooling_mode(\[1\])?: expected .*\['cls', 'max', 'mean'"):
            PoolingConfig.from_dict({"embedding_dimension": 3, "pooling_mode": modes}, "p.json")


class TestTransformer:
    """The generations of the Transformer's settings."""

    def test_what_6_2_always_writes_means_nothing(self) -> None:
        """The keys that 5.4 and later write for every text encoder are taken for granted, and not written."""
        content = {
            "transformer_task": "feature-extraction",
            "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
            "module_output_name": "token_embeddings",
        }

        config = TransformerConfig.from_dict(content)

        assert config == TransformerConfig()
        assert config.to_dict() == {"max_seq_length": None, "do_lower_case": False}

    def test_what_is_not_usual_is_kept(self) -> None:
        """Other values of these keys are kept."""
        assert (
            TransformerConfig.from_dict({"transformer_task": "fill-mask"}).to_dict()["transformer_task"]
            == "fill-mask"
        )

    @pytest.mark.parametrize(
        ("newer", "older"),
        [("model_kwargs", "model_args"), ("processor_kwargs", "tokenizer_args"), ("config_kwargs", "config_args")],
    )
    def test_names_of_arguments(self, newer: str, older: str) -> None:
        """Arguments for loading are read under their old and new names."""
        value = {"attn_implementation": "eager"}

        assert TransformerConfig.from_dict({newer: value}) == TransformerConfig.from_dict({older: value})
        assert TransformerConfig.from_dict({newer: value}).to_dict()[older] == value


def test_null_prompts_are_empty() -> None:
    """A prompt that is null, as some files have it, is an empty one."""
    assert ModelConfig.from_dict({"prompts": {"query": None}}).prompts == {"query": ""}


def test_an_output_name_follows_the_input_name() -> None:
    """A module that names only what it reads writes the same feature."""
    config = DenseConfig.from_dict({"in_features": 1, "out_features": 1, "module_input_name": "token_embeddings"})

    assert config.module_output_name == "token_embeddings"


@pytest.mark.parametrize(
    ("record", "content", "message"),
    [
        (LayerNormConfig, [], r"f.json: expected a JSON object, found \[\]"),
        (LayerNormConfig, {}, "f.json: expected a key 'dimension'"),
        (
            LayerNormConfig,
            {"dimension": "7"},
            "dimension: expected a whole number from 1 to 10,000,000, found '7'",
        ),
        (
            LayerNormConfig,
            {"dimension": True},
            "dimension: expected a whole number from 1 to 10,000,000, found True",
        ),
        (DropoutConfig, {"dropout": "x"}, "dropout: expected a number"),
        (ModelConfig, {"prompts": {"q": 3}}, r"f.json: prompts\['q'\]: expected a text, found 3"),
        (
            ModuleEntry,
            {"idx": 0, "name": "0", "path": "", "type": 3},
            "type: expected a text, found 3",
        ),
        (DenseConfig, {"in_features": 1, "out_features": 1, "bias": 0}, "bias: expected true or false"),
        (NormalizeConfig, {"module_input_name": ["x" * 200]}, r"found .{20,90}$"),
    ],
)
def test_errors_name_file_key_expected_and_found(record: type[Any], content: Any, message: str) -> None:
    """What is not as it should be is named: the file, the key, what was expected and, in short, what was found."""
    with pytest.raises(FormatError, match=message):
        record.from_dict(content, "f.json")


def test_whole_numbers_are_floats_too() -> None:
    """A float may be written without a point."""
    assert DropoutConfig.from_dict({"dropout": 0}).dropout == 0
