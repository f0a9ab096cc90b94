"""Deferred: a module that is loaded when somebody looks at it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn

from sentence_embedder.loading import undisturbed

if TYPE_CHECKING:
    from typing_extensions import Self

_Module = TypeVar("_Module", bound=nn.Module)


@dataclass(frozen=True)
class Pending:
    """What becomes of a deferred module; it can be copied and pickled, where a deferred module would be loaded.

    Args:
        stand_in: Has the weights of the module, all of them.
        load: Loads the module, in evaluation mode; it is given the stand-in.
    """

    stand_in: nn.Module
    load: Callable[[Any], nn.Module]


class Deferred(nn.Module):
    """Becomes the module that it stands for as soon as anything of it is asked for, in place: whoever holds it then
    holds that module. (``importlib.util.LazyLoader`` does so with modules of Python.)

    Until then there is a stand-in, which ``seen`` gives, and no special method but those of any nn.Module; no
    ``len``, say.

    Args:
        pending: What becomes of it.

    Example:
        >>> deferred = Deferred(Pending(nn.Identity(), load=lambda stand_in: nn.Linear(2, 3).eval()))
        >>> seen(deferred)
        Identity()
        >>> deferred.out_features, type(deferred).__name__
        (3, 'Linear')
    """

    def __init__(self, pending: Pending) -> None:
        # Not by setting an attribute, nor by nn.Module's constructor: both look at what is there.
        _contents_of(self)["pending"] = pending

    def __getattribute__(self, name: str) -> Any:
        if name == "train":
            return object.__getattribute__(self, name)
        if name == "__class__":
            # isinstance takes the answer only if it is not the class that the object has by then.
            return type(undisturbed(partial(_made, self)))
        return getattr(loaded(self), name)

    def train(self, mode: bool = True) -> Self:
        """Set the mode; evaluation mode it has already."""
        return self if not mode and pending_of(self) else loaded(self).train(mode)


_becoming: WeakKeyDictionary[nn.Module, type[nn.Module]] = WeakKeyDictionary()
"""Modules that have the contents of a class, and are about to be given it."""


def loaded(module: _Module) -> _Module:
    """The same module, loaded if it was deferred, and so of its own class."""
    if type(module) is Deferred:
        undisturbed(partial(_become, module))
    return module


def _become(module: nn.Module) -> None:
    if type(module) is Deferred and module not in _becoming:
        made = _made(module)
        _becoming[module] = type(made)
        object.__setattr__(module, "__dict__", made.__dict__)
    # Whatever came in between, a fork say, the second step is made by who looks next.
    if module in _becoming:
        object.__setattr__(module, "__class__", _becoming[module])
        del _becoming[module]


def _made(module: nn.Module) -> nn.Module:
    """The module that a deferred one is to become, made if it is not yet."""
    contents = _contents_of(module)
    pending: Pending | None = pending_of(module)
    if pending is not None:
        # Whoever looks may do so in a mode, or a context, that would leave its mark on the weights.
        with torch.inference_mode(False), torch.enable_grad(), torch.device("cpu"):
            try:
                contents["made"] = pending.load(pending.stand_in)
            except AttributeError as error:  # which nn.Module would take for an attribute that is not there
                raise RuntimeError(f"the module could not be loaded: {error}") from error
        del contents["pending"]
    return contents["made"] if type(module) is Deferred and module not in _becoming else module


def _contents_of(module: nn.Module) -> dict[str, Any]:
    contents: dict[str, Any] = object.__getattribute__(module, "__dict__")
    return contents


def pending_of(module: nn.Module) -> Pending | None:
    """What becomes of a module, if it is deferred."""
    return _contents_of(module).get("pending") if type(module) is Deferred else None


def seen(module: nn.Module) -> nn.Module:
    """What can be seen of a module without loading it: the stand-in of one that is deferred, or else itself."""
    pending = pending_of(module)
    return module if pending is None else pending.stand_in


def is_training(module: nn.Module) -> bool:
    """Whether a module, or one inside it, is in training mode. A lone text waits for it: no module takes a step of
    Python.
    """
    level: list[Any] = [module]
    while level:
        if any(map(_mode_of, level)):
            return True
        inside = chain.from_iterable(map(_values_of, map(_modules_of, level)))
        level = [part for part in inside if part is not None and type(part) is not Deferred]
    return False


_mode_of = operator.attrgetter("training")
_modules_of = operator.attrgetter("_modules")
_values_of = operator.methodcaller("values")


def modules_seen(module: nn.Module) -> Iterator[nn.Module]:
    """The modules inside a module, and itself, with stand-ins for those that are deferred."""
    return map(seen, _held_by(module))


def state_seen(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """What ``state_dict`` of a module holds, in its order, with what stand-ins have of those that are deferred.

    They are loaded only for a module that says itself what its state is.
    """
    shown = seen(module)
    if _says_its_state(shown) or not is_deferred_inside(shown):
        yield from shown.state_dict(prefix=prefix).items()
        return
    own = chain(shown._parameters.items(), shown._buffers.items())
    passing = shown._non_persistent_buffers_set
    yield from ((prefix + name, value) for name, value in own if value is not None and name not in passing)
    for name, part in shown._modules.items():
        if part is not None:
            yield from state_seen(part, f"{prefix}{name}.")


def _says_its_state(module: nn.Module) -> bool:
    """Whether a module's state may be something else than its parameters, its buffers and its parts'."""
    ways = ("state_dict", "_save_to_state_dict", "get_extra_state")
    is_another = any(getattr(type(module), name) is not getattr(nn.Module, name) for name in ways)
    return is_another or bool(module._state_dict_hooks or module._state_dict_pre_hooks)


def is_deferred_inside(module: nn.Module) -> bool:
    """Whether a module inside a module is deferred."""
    return any(type(part) is Deferred for part in _held_by(module))


def _held_by(module: nn.Module) -> Iterator[nn.Module]:
    """The modules inside a module, and itself, as they are held: nothing is asked of those that are deferred."""
    waiting: list[nn.Module | None] = [module]
    while waiting:
        inner = waiting.pop()
        if inner is not None:
            yield inner
            waiting += reversed(list(seen(inner)._modules.values()))
