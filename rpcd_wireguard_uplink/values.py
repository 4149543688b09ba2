"""`dataclass`, with less work at the start: a router pays for each method that is generated.

Of a class only `__init__` is generated; comparison, hash and text are shared. It takes what
dataclasses.dataclass takes of what is used here, and what is made of it is one (`replace`, `fields`
work). That a frozen one is not written to is for the type checker to see, which reads the original.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:
    import dataclasses
    from operator import attrgetter

    def dataclass(
        cls: type | None = None,
        /,
        *,
        eq: bool = True,
        repr: bool = True,
        frozen: bool = False,
        slots: bool = False,
    ) -> Any:
        """As dataclasses.dataclass."""

        def make(cls: type) -> type:
            own = cls.__dict__
            made = dataclasses.dataclass(cls, eq=False, repr=False, slots=slots)
            if eq:
                value = _value_of(made)
                if "__eq__" not in own:
                    made.__eq__ = _comparison(value)
                if "__hash__" not in own:
                    made.__hash__ = (lambda self: hash(value(self))) if frozen else None
            if repr and "__repr__" not in own:
                made.__repr__ = _text
            return made

        return make if cls is None else make(cls)

    def _value_of(made: type) -> Any:
        """What tells one from another, as something that can be compared and hashed."""
        names = [field.name for field in dataclasses.fields(made) if field.compare]
        return attrgetter(*names) if names else lambda self: ()

    def _comparison(value: Any) -> Any:
        def is_equal(self: object, other: object) -> bool:
            if other.__class__ is not self.__class__:
                return NotImplemented
            return value(self) == value(other)

        return is_equal

    def _text(self: object) -> str:
        shown = (field.name for field in dataclasses.fields(self) if field.repr)
        told = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
        return f"{type(self).__qualname__}({told})"
