"""The structure: which file may import which, and what importing the class costs."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sentence_embedder

PACKAGE = Path(sentence_embedder.__file__).parent
NAME = PACKAGE.name

FACADE, ENGINES, CHAIN, LEAVES = 4, 3, 2, 1
LAYERS = {
    FACADE: ("__main__", "cli", "compat", "sentence_transformers"),
    ENGINES: (
        "acceleration",
        "encoding",
        "saved_model",
        "module_classes",
        "hub",
        "model_card",
        "pool",
        "serving",
        "cluster",
        "training",
    ),
    CHAIN: ("models", "losses", "evaluation"),
    LEAVES: (
        "argument_names",
        "atomic_folder",
        "datasets",
        "deferred",
        "devices",
        "dotted_names",
        "features",
        "files",
        "fingerprint",
        "forks",
        "formats",
        "grad_mode",
        "input_example",
        "installed",
        "latch",
        "loaders",
        "loading",
        "lock",
        "logging_handler",
        "model_card_data",
        "placement",
        "progress",
        "prompts",
        "quantization",
        "readers",
        "record",
        "retrieval",
        "similarity",
        "threads",
        "transient",
        "uninterrupted",
        "util",
        "version",
        "web_file",
        "whole_number",
    ),
}
LAYER_OF = {part: layer for layer, parts in LAYERS.items() for part in parts}
BETWEEN_PARTS = {
    ("__main__", "cli"),
    ("cli", "sentence_transformers"),
    ("losses", "models"),
    ("encoding", "acceleration"),
    ("cluster", "encoding"),
    ("cluster", "pool"),
    ("pool", "encoding"),
    ("serving", "encoding"),
    ("training", "acceleration"),
    ("saved_model", "module_classes"),
}
"""The only imports between parts of one layer, leaves aside: those between engines, of what is run, and of the
checkpoints that a loss loads or looks into."""

RUNTIME = {"huggingface_hub", "numpy", "safetensors", "torch", "tqdm", "transformers"}
OUTSIDE_THEIR_HOME = {
    "huggingface_hub": ("hub",),
    "transformers": ("models.checkpoint", "models.tokenizer_backend", "training.schedules"),
    "tokenizers": ("models.tokenizer_backend", "models.stand_ins.known_tokenizer"),  # which comes with transformers
    "tqdm": ("progress",),
    # Extras.
    "model2vec": ("models.static_embedding",),
    "nltk": ("models.tokenizer", "datasets.denoising_dataset"),
    "PIL": ("models.clip_model",),
    "faiss": ("quantization.index_search",),
    "usearch": ("quantization.index_search",),
    "pyarrow": ("cluster", "cli.text_file", "cli.embeddings_file"),
    "ray": ("cluster",),
    "typing_extensions": ("sentence_transformers", "deferred", "models.transformer"),  # for type checkers alone
    # What is used if it is there.
    "coloredlogs": ("logging_handler",),
}
"""Packages that few files alone, or folders, may import."""


def _modules() -> dict[str, ast.Module]:
    """Dotted name inside the package → its syntax tree."""
    trees = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        trees[name] = ast.parse(path.read_text(encoding="utf-8"))
    return trees


def _imports(tree: ast.AST) -> Iterator[str]:
    """The dotted names that a file imports, wherever the statement stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports inside the package are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


MODULES = _modules()
EDGES = [
    (importer, imported.removeprefix(f"{NAME}."))
    for importer, tree in MODULES.items()
    if importer  # the package itself only names where its names are
    for imported in _imports(tree)
    if imported.startswith(f"{NAME}.")
]


def test_every_file_has_its_layer() -> None:
    """Each file of the package stands in one layer."""
    parts = {name.partition(".")[0] for name in MODULES} - {""}

    assert parts == set(LAYER_OF)


@pytest.mark.parametrize(("importer", "imported"), EDGES, ids=lambda name: str(name))
def test_imports_point_down(importer: str, imported: str) -> None:
    """A file imports from lower layers, leaves from leaves, engines from each other only where it is allowed."""
    source, target = importer.partition(".")[0], imported.partition(".")[0]
    above, below = LAYER_OF[source], LAYER_OF[target]

    is_down = above > below
    is_among_leaves = above == below == LEAVES
    assert is_down or is_among_leaves or source == target or (source, target) in BETWEEN_PARTS


def test_there_is_no_cycle() -> None:
    """No file imports itself by way of others."""
    files = {importer: set[str]() for importer in MODULES}
    for importer, imported in EDGES:
        files[importer].add(imported if imported in MODULES else imported.rpartition(".")[0])
    while files:
        free = {name for name, targets in files.items() if not (targets & files.keys()) - {name}}
        assert free, f"a cycle among {sorted(files)}"
        files = {name: targets - free for name, targets in files.items() if name not in free}


@pytest.mark.parametrize("name", [name for name in MODULES if name])
def test_foreign_packages_are_those_of_the_runtime_list(name: str) -> None:
    """A file imports the standard library and the packages that are declared, some of them in one place."""
    foreign = (
        {imported.partition(".")[0] for imported in _imports(MODULES[name])} - {NAME} - sys.stdlib_module_names
    )

    assert foreign <= RUNTIME | OUTSIDE_THEIR_HOME.keys()
    for package, homes in OUTSIDE_THEIR_HOME.items():
        assert package not in foreign or f"{name}.".startswith(tuple(f"{home}." for home in homes))


def _imported_by(statement: str) -> set[str]:
    """The packages that a statement imports, in a fresh process."""
    program = f"import sys, json\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


def test_the_package_alone_imports_nothing_heavy() -> None:
    """``import sentence_embedder`` imports no package but itself."""
    before, after = _imported_by("pass"), _imported_by("import sentence_embedder")

    assert after - before - sys.stdlib_module_names == {"sentence_embedder"}


def test_the_class_imports_no_training() -> None:
    """Importing the class takes nothing of what ``fit`` alone needs."""
    program = (
        "import sys\nfrom sentence_embedder import SentenceTransformer\n"
        "print(*(name for name in sys.modules if name.startswith('sentence_embedder.')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    parts = {name.split(".")[1] for name in done.stdout.split()}
    assert "sentence_transformers" in parts
    assert not parts & {"training", "losses", "evaluation", "loaders", "datasets"}


def test_the_class_imports_no_transformers() -> None:
    """Importing the class takes torch, numpy and safetensors; what loads a model is imported when one is loaded."""
    of_torch = _imported_by("import torch, numpy")

    imported = _imported_by("from sentence_embedder import SentenceTransformer")

    assert imported - of_torch - sys.stdlib_module_names <= {"sentence_embedder", "safetensors"}
