"""Router: modules of their own for each kind of text, such as queries and documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from sentence_embedder.features import Features
from sentence_embedder.files import read_json, write_json
from sentence_embedder.formats import Route, RouterConfig
from sentence_embedder.models.module import accepted_kwargs, check_module, class_name_of, save_module

_CONFIG_NAME = "router_config.json"
_OLDER_CONFIG_NAME = "config.json"


class Router(nn.Module):
    """Sends each text through the modules of its route.

    A text names its route as ``{route: text}``, or all do by ``encode(..., task=route)``. Where a Router is the
    first module, that of each route starts with a module that tokenises. ``Asym`` is its older name.

    Args:
        sub_modules: Route → its modules, in their order. A module may be part of several routes.
        default_route: The route of texts that name none.
        allow_empty_key: Whether such texts pass unchanged where there is no default route.
        route_mappings: (task, kind of input) → route, for tasks that are not named like routes; None in a pair
            stands for any.

    Raises:
        ValueError: There is no route, or no such one, or its name is not possible.

    Example:
        >>> from sentence_embedder.models import Dense
        >>> Router({"query": [Dense(4, 4)], "document": []}, default_route="document").routes
        ('query', 'document')
    """

    forward_kwargs = frozenset(["task"])
    config_file_name = _CONFIG_NAME

    def __init__(
        self,
        sub_modules: Mapping[str, Sequence[nn.Module]],
        default_route: str | None = None,
        allow_empty_key: bool = True,
        route_mappings: Mapping[Route, str] | None = None,
    ) -> None:
        super().__init__()
        for route in sub_modules:
            if not route or "." in route or hasattr(nn.ModuleDict, route):
                raise ValueError(f"Router: expected another name for a route than {route!r}")
        self.sub_modules = nn.ModuleDict({route: nn.Sequential(*parts) for route, parts in sub_modules.items()})
        self.default_route = default_route
        self.allow_empty_key = allow_empty_key
        self.route_mappings = dict(route_mappings or {})
        self._config: RouterConfig | None = None
        named = [*self.route_mappings.values(), *([default_route] if default_route is not None else [])]
        if not sub_modules or not set(named) <= sub_modules.keys():
            raise ValueError(f"Router: expected routes, and among them {named}, found {list(sub_modules)}")

    @classmethod
    def for_query_document(
        cls,
        query_modules: Sequence[nn.Module],
        document_modules: Sequence[nn.Module],
        default_route: str | None = "document",
        allow_empty_key: bool = True,
    ) -> Router:
        """A router for queries and documents, between which ``encode_query`` and ``encode_document`` choose."""
        routes = {"query": query_modules, "document": document_modules}
        return cls(routes, default_route, allow_empty_key)

    @property
    def routes(self) -> tuple[str, ...]:
        """The names of the routes."""
        return tuple(self.sub_modules)

    def knows(self, task: str) -> bool:
        """Whether a task leads to a route."""
        return task in self.sub_modules or self._mapped(task) is not None

    def route_of(self, key: str | None, task: str | None = None) -> str | None:
        """The route of a text.

        Args:
            key: What the text names.
            task: What holds for texts that name nothing.

        Returns:
            The route; None if the text passes unchanged.

        Raises:
            ValueError: There is no such route, or none is named, and one must be.
        """
        if key is not None and key in self.sub_modules:
            return key
        name = task if key is None else key
        mapped = self._mapped(name)
        if mapped is not None:
            return mapped
        if name is not None and name in self.sub_modules:
            return name
        if name is not None:
            raise ValueError(f"expected one of the routes {list(self.routes)}, found {name!r}")
        if self.default_route is None and not self.allow_empty_key:
            raise ValueError(
                f"expected {{route: text}} with one of the routes {list(self.routes)}, or task=, found neither: "
                "allow_empty_key is False"
            )
        return self.default_route

    def _mapped(self, task: str | None) -> str | None:
        """The route that the mappings name for texts of a task."""
        pairs = ((task, "text"), (task, None), (None, "text"), (None, None))
        return next((self.route_mappings[pair] for pair in pairs if pair in self.route_mappings), None)

    def modules_of(self, route: str | None) -> Sequence[nn.Module]:
        """The modules of a route, in their order."""
        return [] if route is None else list(self._sequential(route))

    def tokenize(self, texts: Sequence[Any], task: str | None = None) -> Features:
        """The Features of a batch of texts of one route, as its first module makes them.

        Args:
            texts: Each ``{route: text}``, or a text.
            task: The route of those that name none.

        Raises:
            ValueError: They are of several routes, or of none.
        """
        keys = {next(iter(text)) if isinstance(text, Mapping) else None for text in texts}
        routes = {self.route_of(key, task) for key in keys}
        if len(routes) != 1 or None in routes:
            raise ValueError(
                f"expected texts of one of the routes {list(self.routes)}, found {sorted(map(str, routes))}: "
                "encode takes texts of several"
            )
        (route,) = routes
        plain = [next(iter(text.values())) if isinstance(text, Mapping) else text for text in texts]
        first: Any = self.modules_of(route)[0]
        return {**first.tokenize(plain), "text_keys": [route] * len(plain)}

    def forward(self, features: Features, task: str | None = None, **kwargs: Any) -> Features:
        """What the modules of a route make of the Features of texts.

        Args:
            features: With ``text_keys``, the route of each text, or without.
            task: The route of texts that name none.
            kwargs: For the modules that take them.

        Raises:
            ValueError: The texts are of several routes.
        """
        keys = set(features.get("text_keys") or [None])
        if len(keys) > 1:
            raise ValueError(f"expected texts of one route in a batch, found {sorted(map(str, keys))}")
        for module in self.modules_of(self.route_of(keys.pop(), task)):
            given = {name: value for name, value in kwargs.items() if name in accepted_kwargs(module)}
            features = module(features, **given)
        return features

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the default route, or else of the first."""
        return self._first_of_default().tokenizer

    @property
    def max_seq_length(self) -> Any:
        """The longest input of the default route, or else of the first; setting it sets that of all routes."""
        return self._first_of_default().max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, limit: int | None) -> None:
        for route in self.routes:
            for module in list(self._sequential(route))[:1]:
                setattr(module, "max_seq_length", limit)  # noqa: B010  # of no type that has one

    def get_sentence_embedding_dimension(self) -> int | None:
        """Width of the embeddings that the first route makes; None if none of its modules knows it."""
        for module in reversed(self.modules_of(self.routes[0])):
            of_module = getattr(module, "get_sentence_embedding_dimension", None)
            if callable(of_module):
                width: int | None = of_module()
                return width
        return None

    def class_name_on_disk(self) -> str:
        """The dotted name of the class: what 2.7 can read is an Asym there."""
        return f"sentence_transformers.models.{'Asym' if self._is_asym() else 'Router'}"

    def check_can_be_saved(self) -> None:
        """See ``Module.check_can_be_saved``: the error is that of the first module that could not be saved."""
        for _, _, module in self._placed():
            check_module(module)

    def save(self, output_path: str | Path, *, safe_serialization: bool = True) -> None:
        """Write the settings, and each module into a folder of its own; arguments as for ``Module.save``."""
        folder = Path(output_path)
        folder.mkdir(parents=True, exist_ok=True)
        names: dict[nn.Module, str] = {}
        for route, place, module in self._placed():
            if module not in names:
                names[module] = f"{route}_{place}_{type(module).__name__}"
                save_module(module, folder / names[module], safe_serialization=safe_serialization)
        config = RouterConfig(
            types={name: class_name_of(module) for module, name in names.items()},
            structure={route: [names[module] for module in self._sequential(route)] for route in self.routes},
            default_route=self.default_route,
            allow_empty_key=self.allow_empty_key,
            route_mappings=self.route_mappings,
            extra={} if self._config is None else self._config.extra,
        )
        write_json(folder / (_OLDER_CONFIG_NAME if self._is_asym() else _CONFIG_NAME), config.to_dict())

    @classmethod
    def load(cls, input_path: str | Path, *, load_module: Callable[[str, str], nn.Module]) -> Router:
        """The module that a folder holds.

        Args:
            input_path: The folder.
            load_module: The dotted name of a class, the name of a folder in this one → the module in it.

        Raises:
            FormatError: The settings are not those of a Router.
        """
        config = cls._read_config(Path(input_path))
        # What is part of several routes is loaded once.
        parts = {name: load_module(class_name, name) for name, class_name in config.types.items()}
        router = cls(
            {route: [parts[name] for name in names] for route, names in config.structure.items()},
            config.default_route,
            config.allow_empty_key,
            config.route_mappings,
        )
        router._config = config
        return router

    @staticmethod
    def _read_config(folder: Path) -> RouterConfig:
        path = folder / _CONFIG_NAME
        path = path if path.exists() else folder / _OLDER_CONFIG_NAME
        return RouterConfig.from_dict(read_json(path), str(path))

    def extra_repr(self) -> str:
        """The settings, inside the parentheses of ``repr``."""
        return f"default_route={self.default_route!r}, allow_empty_key={self.allow_empty_key}"

    def _is_asym(self) -> bool:
        return self.default_route is None and not self.route_mappings

    def _sequential(self, route: str) -> nn.Sequential:
        modules: Any = self.sub_modules[route]
        return modules  # type: ignore[no-any-return]

    def _placed(self) -> Iterator[tuple[str, int, nn.Module]]:
        for route in self.routes:
            for place, module in enumerate(self._sequential(route)):
                yield route, place, module

    def _first_of_default(self) -> Any:
        modules = self.modules_of(self.default_route or self.routes[0])
        if not modules:
            raise AttributeError(f"the route {self.default_route or self.routes[0]!r} has no modules")
        return modules[0]


Asym = Router
"""The older name of Router."""
