"""`dataclass`, with less work at the start: a router pays for each method that is generated.

`__init__` is made when the first object of a class is, and what `fields` and `replace` ask for when
they do; comparison, hash and text are shared. It takes what dataclasses.dataclass takes of what is
used here. That a frozen one is not written to is for the type checker to see, which reads the
original.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
    from dataclasses import replace as replace
else:
    from operator import attrgetter

    NOTHING = object()
    SHARED: dict[str, Any] = {}  # what most of the methods that are made know: nothing

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
            kinds = own.get("__annotations__", {})
            names = [name for name in kinds if not kinds[name].startswith("ClassVar[")]
            given = {name: own.get(name, NOTHING) for name in names}
            made = _slotted(cls, names) if slots else _with_defaults(cls, given)
            inherited = getattr(cls, "_declared", None)
            made._declared = {**inherited, **given} if inherited else given
            made.__dataclass_fields__ = _Later(made, "__dataclass_fields__", _fields)
            made.__match_args__ = _Later(made, "__match_args__", _match_args)
            if "__init__" not in own:
                made.__init__ = _Later(made, "__init__", _init)
            if eq:
                made._compared = _Later(made, "_compared", _comparison)
                if "__eq__" not in own:
                    made.__eq__ = _is_equal
                if "__hash__" not in own:
                    made.__hash__ = _hash if frozen else None
            if repr and "__repr__" not in own:
                made.__repr__ = _text
            return made

        return make if cls is None else make(cls)

    def replace(of: Any, /, **changes: Any) -> Any:
        """As dataclasses.replace, in half the time: a probing service calls it all day."""
        for name in of.__match_args__:
            if name not in changes:
                changes[name] = getattr(of, name)
        return type(of)(**changes)

    class _Later:
        """An attribute of a class that is made when it is first read."""

        __slots__ = ("made", "make", "name")

        def __init__(self, made: type, name: str, make: Any) -> None:
            self.made, self.name, self.make = made, name, make

        def __get__(self, instance: object, cls: type) -> Any:
            setattr(self.made, self.name, self.make(self.made))
            return getattr(cls if instance is None else instance, self.name)

    def _slotted(cls: type, names: list[str]) -> type:
        """The class again: slots can't be added to one that is there."""
        left_out = {*names, "__dict__", "__weakref__"}
        own = {name: value for name, value in cls.__dict__.items() if name not in left_out}
        made = type(cls)(cls.__name__, cls.__bases__, {**own, "__slots__": tuple(names)})
        made.__qualname__ = cls.__qualname__
        return made

    def _with_defaults(cls: type, given: dict[str, Any]) -> type:
        for name, value in given.items():
            default, *_ = _default_of(value)
            if value is not default:
                delattr(cls, name)
                if default is not NOTHING:
                    setattr(cls, name, default)
        return cls

    def _default_of(value: Any) -> tuple[Any, Any, bool]:
        """The default, the default's maker, and whether `__init__` takes it; of a plain default
        too. The original is loaded only by who declares with its `field`.
        """
        if not hasattr(value, "default_factory"):
            return value, NOTHING, True
        from dataclasses import MISSING

        parts = (value.default, value.default_factory)
        return *(NOTHING if each is MISSING else each for each in parts), value.init

    def _init(made: type) -> Any:
        """The method that takes the values, as dataclasses has it (_init_fn)."""
        taken, lines, known, defaults = ["self"], [], {}, []
        for name, value in made._declared.items():
            default, factory, is_taken = _default_of(value)
            source = name
            if factory is not NOTHING:
                known |= {f"_{name}": factory, "absent": NOTHING}
                source = f"_{name}() if {name} is absent else {name}" if is_taken else f"_{name}()"
            elif not is_taken:
                if default is NOTHING:
                    continue
                known[source := f"_{name}"] = default
            if is_taken:
                has_default = default is not factory  # both are missing otherwise
                taken.append(f"{name}=None" if has_default else name)
                defaults += [default if factory is NOTHING else NOTHING] * has_default
            lines.append(f" self.{name} = {source}")
        if hasattr(made, "__post_init__"):
            lines.append(" self.__post_init__()")
        lines = [f"def __init__({', '.join(taken)}):", *(lines or [" pass"])]
        found: dict[str, Any] = {}
        exec("\n".join(lines), known or SHARED, found)  # noqa: S102 -- as dataclasses does it
        found["__init__"].__defaults__ = tuple(defaults)
        return found["__init__"]

    def _fields(made: type) -> dict[str, Any]:
        """What dataclasses asks for, which it makes of a twin."""
        import dataclasses

        given = {name: each for name, each in made._declared.items() if each is not NOTHING}
        kinds = dict.fromkeys(made._declared, object)
        twin = type("Twin", (), {"__annotations__": kinds, "__doc__": "", **given})
        return dataclasses.dataclass(twin, init=False, eq=False, repr=False).__dataclass_fields__

    def _names(made: type, flag: str) -> list[str]:
        """The fields that take part in something, which is `compare`, `repr` or `init`."""
        return [name for name, each in made._declared.items() if getattr(each, flag, True)]

    def _match_args(made: type) -> tuple[str, ...]:
        return tuple(_names(made, "init"))

    def _comparison(made: type) -> Any:
        """What tells one from another, as something that can be compared and hashed."""
        names = _names(made, "compare")
        return attrgetter(*names) if names else staticmethod(lambda _: ())

    def _is_equal(self: Any, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return self._compared(self) == self._compared(other)

    def _hash(self: Any) -> int:
        return hash(self._compared(self))

    def _text(self: object) -> str:
        told = (f"{name}={getattr(self, name)!r}" for name in _names(type(self), "repr"))
        return f"{type(self).__qualname__}({', '.join(told)})"
