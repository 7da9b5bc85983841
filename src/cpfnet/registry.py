"""Networks, losses and encoders by name: those that come with the package, and the user's own.

A part of the user's own joins in one of three ways, and is then named like any other:

- `Registry.register` in the same Python process;
- an entry point of an installed package, which is loaded only when a plan names it;
- ``module:name``, code in a module. A plan or a Model may name it, but the module is imported only where the caller
  allows it (``--allow-import``): whoever receives a Model runs none of its author's code by loading it.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from cpfnet.errors import CodeError, CpfnetError, redacted_message
from cpfnet.text import printable

logger = logging.getLogger(__name__)

Part = TypeVar("Part", bound=Callable[..., object])

_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_OWN = re.compile(rf"(?P<module>{_MODULE.pattern}):(?P<name>[^\W\d]\w*)")


def module_names(given: str | Iterable[str] | None) -> tuple[str, ...]:
    """The modules that a caller allows, checked.

    Raises:
        CodeError: one is no name of a module.
    """
    names = (given,) if isinstance(given, str) else tuple(given or ())
    for name in names:
        if not isinstance(name, str) or not _MODULE.fullmatch(name):
            raise CodeError(
                f"{name!r} is no name of a module",
                where="--allow-import",
                fix="write it as in `import my_package.parts`",
            )
    return names


def in_module(name: str) -> bool:
    """Does a name mean code in a module, ``module:name``?"""
    return ":" in name


class Registry(Generic[Part]):
    """The parts of one kind.

    Args:
        kind: what they are, in a word.
        group: entry-point group by which an installed package's parts join: name → part.
        error: raised for a name that nothing is called by, and for a part that cannot be.
        check: raises ``error`` where an object cannot be such a part; called with its name and the object.
        where: the setting that names it, for messages.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        *,
        error: type[CpfnetError],
        check: Callable[[str, object], None],
        where: str | None = None,
    ) -> None:
        self.kind, self.group, self.error, self.where = kind, group, error, where
        self._check = check
        self._registered: dict[str, Part] = {}

    def register(self, name: str, part: Part) -> None:
        """Let a part be named.

        Raises:
            CpfnetError: the name is taken or holds a colon, or it cannot be such a part.
        """
        if name in self._registered:
            raise self.error(f"a {self.kind} called {name!r} is registered already", fix="choose another name")
        if in_module(name):
            raise self.error(f"{name!r} holds a colon, which is for MODULE:NAME", fix="choose another name")
        self._check(name, part)
        self._registered[name] = part

    def registered(self) -> Mapping[str, Part]:
        """Those that were registered: the package's own first. Nothing is loaded."""
        return dict(self._registered)

    def names(self) -> list[str]:
        """All names, the package's own first, then those of installed packages; nothing is loaded."""
        return [*self._registered, *(point for point in self._installed() if point not in self._registered)]

    def check_name(self, name: str) -> None:
        """Refuse a name that nothing is called by; code in a module is not looked for.

        Raises:
            CpfnetError: no such part; says what is near.
        """
        if in_module(name):
            _parsed(name, self.kind, self.where)
        elif name not in self.names():
            near = difflib.get_close_matches(name.lower().replace("_", "-"), self.names(), n=1)
            known = f"known are {', '.join(self.names())}, and code of your own as MODULE:NAME"
            raise self.error(
                f"no {self.kind} is called {printable(name)!r}",
                where=self.where,
                fix=f"did you mean {near[0]!r}? {known}" if near else known,
            )

    def find(self, name: str, allow_import: Sequence[str] = ()) -> Part:
        """The part of this name.

        Args:
            name: registered, of an installed package, or ``module:name``.
            allow_import: modules that the caller named for this call; no other is imported.

        Raises:
            CpfnetError: no such part.
            CodeError: its module is not allowed, not there, or does not define it.
        """
        self.check_name(name)
        if in_module(name):
            return self._checked(name, _from_module(name, self.kind, self.where, allow_import))
        points = self._installed()
        if name in self._registered:
            if name in points:
                logger.warning("The %s %r is not that of %s: the name was taken", self.kind, name, _named(points[name]))
            return self._registered[name]
        try:
            found = points[name].load()
        except Exception as error:  # a package may fail in any way
            raise CodeError(
                f"the {self.kind} {name!r} of an installed package cannot be loaded: {_first_line(error)}",
                where=_named(points[name]),
                fix="fix or remove that package",
            ) from None
        return self._checked(name, found)

    def origin(self, name: str) -> str | None:
        """Where a part of the user's own comes from, for records; None for the package's own or for nothing."""
        if in_module(name):
            return f"module {_parsed(name, self.kind, self.where)[0]}"
        if (part := self._registered.get(name)) is not None:
            home = getattr(part, "func", part)  # of a partial
            here = str(getattr(home, "__module__", ""))
            return None if here.startswith("cpfnet.") else f"registered by {here}"
        point = self._installed().get(name)
        return None if point is None else _named(point)

    def _checked(self, name: str, found: object) -> Part:
        self._check(name, found)
        return found  # type: ignore[return-value]

    def _installed(self) -> dict[str, EntryPoint]:
        points: dict[str, EntryPoint] = {}
        for point in _entry_points(self.group):
            other = points.setdefault(point.name, point)
            if other.value != point.value:
                raise CodeError(
                    f"two installed packages offer a {self.kind} called {point.name!r}: {_named(other)} and "
                    f"{_named(point)}",
                    fix="remove one of them",
                )
        return points


@cache
def _entry_points(group: str) -> tuple[EntryPoint, ...]:
    """Looking through all installed packages takes a while."""
    return tuple(entry_points(group=group))


def _parsed(name: str, kind: str, where: str | None) -> tuple[str, str]:
    found = _OWN.fullmatch(name)
    if found is None:
        raise CodeError(
            f"{printable(name)!r} names no {kind}",
            where=where,
            fix="write code of your own as MODULE:NAME, both Python's",
        )
    return found["module"], found["name"]


def _from_module(name: str, kind: str, where: str | None, allow_import: Sequence[str]) -> object:
    module, attribute = _parsed(name, kind, where)
    if module not in allow_import:
        raise CodeError(
            f"the {kind} {name} is code in the module {module}, which runs only where you name it yourself",
            where=where,
            fix=f"if you know and trust it, add --allow-import {module} (in Python allow_import={module!r})",
        )
    found = getattr(_imported(module, kind, name), attribute, None)
    # What a module only imports may be anything: os.system, say, in the plan of a stranger who knows your module.
    home = getattr(found, "__module__", None) or ""
    if not callable(found) or not (home == module or home.startswith(f"{module}.")):
        raise CodeError(
            f"does not itself define a function or class called {attribute}",
            where=f"the module {module}",
            fix=f"define the {kind} there: what a module only imports is not taken from it",
        )
    return found


def _imported(module: str, kind: str, name: str) -> object:
    here = os.getcwd()  # noqa: PTH109
    if added := here not in sys.path:
        sys.path.append(here)  # a command does not look there by itself; last, so that it hides nothing
    try:
        return import_module(module)
    except Exception as error:  # the module's own code may fail in any way
        missing = isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")
        raise CodeError(
            f"the {kind} {name} needs the module {module}, which "
            + ("is not here" if missing else f"cannot be imported: {_first_line(error)}"),
            fix="install it, start the command in its folder, or set PYTHONPATH" if missing else "correct it",
        ) from None
    finally:
        if added and here in sys.path:  # what lies there must not pass for an installed package later
            sys.path.remove(here)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {redacted_message(error)}"


def _named(point: EntryPoint) -> str:
    package = point.dist
    return point.value if package is None else f"{point.value} of {package.name} {package.version}"
