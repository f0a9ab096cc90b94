"""Recordings: what torch does to tensors of one shape, done again without Python in between."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sentence_embedder.grad_mode import inference_mode

logger = logging.getLogger(__name__)

_WORTH_RECORDING = 128
"""So often something is computed before it is recorded, which takes about as long as so many recordings save."""

_MOST = 128
"""So many recordings are kept."""

_MOST_FUNCTIONS = 12
"""And so many functions of the interpreter, each of which takes some ten megabytes, the more the more layers.
Texts of all lengths need two to six with each head, by the processor and the architecture."""

_LITERALS: dict[type, tuple[str, Callable[[Any], str]]] = {
    bool: ("bool", lambda value: str(int(value))),
    float: ("float", repr),
    str: ("str", lambda value: f'"{value}"'),
}
"""A type of Python → what torch calls it, and how it spells a value of it."""

_KINDS = {
    "TensorType": "Tensor",
    "NumberType": "Scalar",
    "IntType": "int",
    "SymIntType": "int",
    "FloatType": "float",
    "BoolType": "bool",
    "StringType": "str",
}
"""A kind of argument → how torch spells its type."""

_DEPENDS_ON_VALUES = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


@dataclass(frozen=True)
class Recording:
    """Operations of torch on tensors, which its own interpreter does one after the other.

    For a lone text, of which each operation takes microseconds, what Python does around them is a tenth to a fifth
    of all.

    Args:
        function: Does them.
        constants: What they read beside what they are given.
    """

    function: Callable[..., Tensor]
    constants: Sequence[Tensor | int]

    def __call__(self, *inputs: Tensor) -> Tensor:
        """What comes of inputs of the shapes that it was recorded with."""
        return self.function(*inputs, *self.constants)


class Recordings:
    """What is computed so often in the same way that it is recorded.

    Threads use it together: at worst two of them record the same. What could not be recorded once is not tried
    again.
    """

    def __init__(self) -> None:
        self._counts: dict[Hashable, int] = {}
        self._recordings: dict[Hashable, Recording | None] = {}
        self._functions = Functions()

    def computed(self, key: Hashable, call: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """What a function makes of inputs.

        Args:
            key: What decides which operations it does, the shapes of the inputs among it; their values do not.
            call: The function, as for ``recorded``.
            inputs: The inputs.
        """
        recording = self._recordings.get(key)
        if recording is not None:
            return self._repeated(recording, key, call, inputs)
        if key not in self._recordings:
            count = self._counts[key] = self._counts.get(key, 0) + 1
            # Others who come while one records it do not.
            if count % _WORTH_RECORDING == 0 and len(self._recordings) < _MOST:
                self._recordings[key] = recorded(call, inputs, self._functions)
        return call(*inputs)

    def _repeated(
        self, recording: Recording, key: Hashable, call: Callable[..., Tensor], inputs: Sequence[Tensor]
    ) -> Tensor:
        """What a recording makes of inputs; where it fails, the function has the last word."""
        try:
            return recording(*inputs)
        except RuntimeError as error:
            logger.debug("a recording failed: %s", error)
        made = call(*inputs)  # if the inputs are wrong, it says so in its own words
        self._recordings[key] = None
        return made


class Functions:
    """Functions of torch's interpreter, that of TorchScript, by their text.

    What is done to texts of most lengths is the same to the letter.
    """

    def __init__(self) -> None:
        self._made: dict[str, Callable[..., Tensor]] = {}

    def with_text(self, text: str) -> Callable[..., Tensor]:
        """The function with this text, made if there is none yet."""
        if text not in self._made:
            if len(self._made) >= _MOST_FUNCTIONS:
                raise _CannotBeRecordedError(f"there are {len(self._made)} functions already")
            self._made[text] = torch._C._create_function_from_graph("recording", torch._C.parse_ir(text))
        return self._made[text]


def recorded(call: Callable[..., Tensor], inputs: Sequence[Tensor], functions: Functions) -> Recording | None:
    """A recording of what a function does to inputs; None if it cannot be repeated so.

    The interpreter is no public interface of torch, so what it makes is compared.

    Args:
        call: The function, which writes to nothing that was there before; what it computes, it leaves to torch.
            What it reads beside the inputs, it may find changed each time.
        inputs: What it is recorded with.
        functions: Those of the interpreter that there are.
    """
    try:
        if torch._C._len_torch_dispatch_stack():
            raise _CannotBeRecordedError("the caller listens to operations, too")
        with inference_mode():
            script = _Script(inputs)
            made = _written_down(script, call, inputs)
            recording = Recording(functions.with_text(script.returning(made)), script.constants)
            # The interpreter prepares itself in the first two runs.
            for _ in range(2):
                found = recording(*inputs)
                if found.dtype != made.dtype or not torch.equal(found, made):
                    raise _CannotBeRecordedError("the interpreter makes something else")
    except (_CannotBeRecordedError, RuntimeError, AttributeError, TypeError) as error:
        logger.debug("not recorded: %s", error)
        return None
    return recording


def _written_down(script: _Script, call: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Tensor:
    """What a function makes of inputs, while a script is told of each operation."""
    push: Any = torch._C._push_on_torch_dispatch_stack
    pop: Any = torch._C._pop_torch_dispatch_stack
    pushed: list[None] = []
    pushes, pops, popped = map(push, [script]), map(pop, pushed), list[None]()
    try:
        # One step each, of C: a Ctrl-C in between would leave the script listening to all that this thread does.
        pushed.extend(pushes)
        return call(*inputs)
    finally:
        popped.extend(pops)


class _CannotBeRecordedError(Exception):
    """It would not be the same another time, or has no spelling."""


class _Script:
    """What is done to tensors, in the language of TorchScript's graphs.

    What is done to none, and to what comes of that (a mask, say), is left out: it is the same each time. Weights
    are constants as well, and so are parts of their memory, but not what else comes of them: they may be changed.
    Whole numbers, many of which come of the length of a text, are constants, too, and not letters of the script:
    that is the same for texts of many lengths.

    Args:
        inputs: The inputs.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        self.constants: list[Tensor | int] = []
        self._count = 0
        self._parameters: list[str] = []
        self._lines: list[str] = []
        self._literals: dict[str, str] = {}
        self._numbers: dict[tuple[Hashable, int], str] = {}
        self._examples: dict[torch.dtype | torch.device, Tensor] = {}
        # By identity: all are kept here, so that no other tensor gets the number of one.
        self._names: dict[int, str] = {}
        self._kept: list[Any] = []
        self._is_the_same: set[int] = set()
        self._written: set[int] = set()
        self._inputs = frozenset(map(id, inputs))
        for tensor in inputs:
            self._parameter("Tensor", self._name(tensor))

    def returning(self, output: Tensor) -> str:
        """All of it, of which this is the result; the constants are parameters behind the inputs."""
        if id(output) not in self._written:
            raise _CannotBeRecordedError("the output comes of nothing that was written down")
        head, result = f"graph({', '.join(self._parameters)}):", f"return ({self._names[id(output)]})"
        return "\n  ".join([head, *self._lines, result])

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by torch for each operation."""
        kwargs = kwargs or {}
        arguments = [
            (args[place] if place < len(args) else kwargs.get(argument.name, argument.default_value), argument)
            for place, argument in enumerate(func._schema.arguments)
        ]
        tensors = [tensor for value, _ in arguments for tensor in _tensors_in(value)]
        is_the_same = all(id(tensor) in self._is_the_same for tensor in tensors)
        if is_the_same and torch.Tag.nondeterministic_seeded in func.tags:
            raise _CannotBeRecordedError(f"{func} depends on chance")
        if not is_the_same:
            self._check_is_read_only(func, arguments)
        result = func(*args, **kwargs)
        if is_the_same:
            self._is_the_same.update(map(id, _tensors_in(result)))
        elif not (self._are_constants(tensors) and _is_part_of(tensors, result)):
            self._write(func, arguments, result)
        self._kept.append(result)
        return result

    def _are_constants(self, tensors: Sequence[Tensor]) -> bool:
        return all(id(tensor) not in self._inputs and id(tensor) not in self._written for tensor in tensors)

    def _check_is_read_only(self, func: Any, arguments: Sequence[tuple[Any, Any]]) -> None:
        """Raise an error before an operation writes to anything but what was written down."""
        for value, argument in arguments:
            is_written = argument.alias_info is not None and argument.alias_info.is_write
            if is_written and id(value) not in self._written:
                raise _CannotBeRecordedError(f"{func} writes to what was there before")

    def _write(self, func: Any, arguments: Sequence[tuple[Any, Any]], result: Any) -> None:
        results = _several(result)
        if not all(isinstance(one, Tensor) for one in results) or _DEPENDS_ON_VALUES & set(func.tags):
            raise _CannotBeRecordedError(f"{func} depends on values")
        spelt = (self._argument(value, one.type, (func, one.name)) for value, one in arguments)
        call = f"{func._schema.name}({', '.join(spelt)})"
        names = [self._name(one) for one in results]
        if isinstance(result, list):
            several = self._new_name()
            self._lines.append(f"{several} : Tensor[] = {call}")
            call = f"prim::ListUnpack({several})"
        self._lines.append(f"{', '.join(f'{name} : Tensor' for name in names)} = {call}")
        self._written.update(map(id, results))

    def _argument(self, value: Any, kind: Any, place: Hashable) -> str:
        """The name of a value, which is made if need be. Equal numbers share one, which is handed over once, in the
        same place alone: a length that happens to be a width as well would make another script.
        """
        if isinstance(value, Tensor):
            return self._names.get(id(value)) or self._constant(value)
        if isinstance(value, (list, tuple)):
            element = _without_optional(kind).getElementType()
            elements = ", ".join(self._argument(one, element, (place, at)) for at, one in enumerate(value))
            return self._literal(f"{_spelt(element)}[]", f"prim::ListConstruct({elements})")
        if value is None:
            return self._literal("NoneType", "prim::Constant()")
        if isinstance(value, torch.dtype):  # a number, which torch tells nobody
            example = self._examples.setdefault(value, torch.empty(0, dtype=value))
            return self._literal("int", f"prim::dtype({self._argument(example, kind, place)})")
        if isinstance(value, torch.device):
            example = self._examples.setdefault(value, torch.empty(0, device=value))
            return self._literal("Device", f"prim::device({self._argument(example, kind, place)})")
        if type(value) is int and _without_optional(kind).kind() == "FloatType":
            value = float(value)
        if type(value) is int:
            return self._numbers.get((place, value)) or self._number(place, value)
        if type(value) not in _LITERALS:
            raise _CannotBeRecordedError(f"{value!r} has no spelling")
        name, spell = _LITERALS[type(value)]
        return self._literal(name, f"prim::Constant[value={spell(value)}]()")

    def _literal(self, kind: str, made: str) -> str:
        text = f"{kind} = {made}"
        if text not in self._literals:
            name = self._literals[text] = self._new_name()
            self._lines.append(f"{name} : {text}")
        return self._literals[text]

    def _constant(self, tensor: Tensor) -> str:
        self.constants.append(tensor)
        return self._parameter("Tensor", self._name(tensor))

    def _number(self, place: Hashable, value: int) -> str:
        self.constants.append(value)
        name = self._numbers[place, value] = self._new_name()
        return self._parameter("int", name)

    def _parameter(self, kind: str, name: str) -> str:
        self._parameters.append(f"{name} : {kind}")
        return name

    def _name(self, tensor: Tensor) -> str:
        name = self._names[id(tensor)] = self._new_name()
        return name

    def _new_name(self) -> str:
        self._count += 1
        return f"%v{self._count}"


def _tensors_in(value: Any) -> list[Tensor]:
    """The tensors among the arguments or results of an operation."""
    if isinstance(value, (list, tuple)):
        return [tensor for one in value for tensor in _tensors_in(one)]
    return [value] if isinstance(value, Tensor) else []


def _several(result: Any) -> list[Any]:
    """What an operation has made, one or several."""
    return list(result) if isinstance(result, (list, tuple)) else [result]


def _is_part_of(tensors: Sequence[Tensor], result: Any) -> bool:
    """Whether all that an operation has made are tensors in the memory of what it was given."""
    given = {tensor.untyped_storage()._cdata for tensor in tensors}
    return all(isinstance(one, Tensor) and one.untyped_storage()._cdata in given for one in _several(result))


def _without_optional(kind: Any) -> Any:
    return kind.getElementType() if kind.kind() == "OptionalType" else kind


def _spelt(kind: Any) -> str:
    """How torch spells a type."""
    if kind.kind() == "OptionalType":
        return f"{_spelt(kind.getElementType())}?"
    if kind.kind() not in _KINDS:
        raise _CannotBeRecordedError(f"the type {kind} has no spelling")
    return _KINDS[kind.kind()]
