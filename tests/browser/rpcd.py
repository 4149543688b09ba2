"""The objects of rpcd that LuCI itself asks for: sessions, features, and the configuration.

Owns as much of rpcd's `uci` object as a form uses; a session's changes wait until commit(), which
stands for "Save & Apply". The recorded conversations of the real one are what it goes by.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rpcd_wireguard_uplink.uci import MissingConfig, Section, Store

from .gateway import Answer, Function, Session, Table

BASE = {"session": ["access"], "luci": ["getFeatures"], "file": ["list"], "uci": ["*"]}
"""What luci-base grants every login on the bus; which configurations, the `uci` scope says."""


@dataclass(slots=True)
class Rpcd:
    """Give `objects` to a gateway and admit() its sessions."""

    config_dir: str
    pending: list[list[Any]] = field(default_factory=list)

    @property
    def objects(self) -> dict[str, dict[str, Function]]:
        """The objects by name, their methods by name."""
        uci = {"get": self._get, "set": self._set, "add": self._add, "delete": self._delete}
        return {
            "session": {"access": _access},
            "luci": {"getFeatures": lambda session, given: (0, {})},
            "file": {"list": lambda session, given: (4, None)},
            "uci": {
                **{name: _guarded(function, name) for name, function in uci.items()},
                "changes": self._changes,
            },
        }

    def admit(self, session: Session) -> Session:
        """Grant what every login has."""
        session.grant({"ubus": BASE}, "read")
        return session

    def commit(self) -> None:
        """Write what waits into the files."""
        for config, kind, section, name, value in self.pending:
            with Store(self.config_dir).edit(config) as draft:
                if kind == "add":
                    draft.set_section(section, name, value)
                elif name is None:
                    draft.remove_section(section)
                else:
                    draft.set_option(section, name, value)
        self.pending.clear()

    def _get(self, session: Session, given: Table) -> Answer:
        try:
            document = Store(self.config_dir).read(given["config"])
        except MissingConfig:
            return 4, None
        found = {each.name: _values(each, i) for i, each in enumerate(document.sections)}
        for config, kind, section, name, value in self.pending:
            if config != given["config"]:
                continue
            if kind == "add":
                about = {".anonymous": True, ".type": name, ".name": section, ".index": len(found)}
                found[section] = about
            elif name is None:
                found.pop(section, None)
            else:
                found[section] |= {name: list(value) if isinstance(value, tuple) else value}
        return 0, {"values": found}

    def _set(self, session: Session, given: Table) -> Answer:
        config, section = given["config"], given["section"]
        for name, value in given["values"].items():
            plain = tuple(map(str, value)) if isinstance(value, list) else str(value)
            self.pending.append([config, "set", section, name, plain])
        return 0, None

    def _add(self, session: Session, given: Table) -> Answer:
        section = given.get("name") or f"cfg{len(self.pending):06x}"
        self.pending.append([given["config"], "add", section, given["type"], {}])
        return self._set(session, {**given, "section": section})[0], {"section": section}

    def _delete(self, session: Session, given: Table) -> Answer:
        options = given.get("options")
        if options is None:
            options = [given.get("option")]
        for name in options:
            self.pending.append([given["config"], "delete", given["section"], name, None])
        return 0, None

    def _changes(self, session: Session, given: Table) -> Answer:
        found: dict[str, list[Any]] = {}
        for config, kind, section, name, value in self.pending:
            shown = "remove" if kind == "delete" else "set"
            found.setdefault(config, []).append([shown, section, name, value])
        return 0, {"changes": found}


def _access(session: Session, given: Table) -> Answer:
    scope = given.get("scope", "ubus")
    return 0, {"access": session.may(scope, given.get("object", ""), given.get("function", ""))}


def _guarded(function: Function, method: str) -> Function:
    def guarded(session: Session, given: Table) -> Answer:
        wanted = "read" if method == "get" else "write"
        if not session.may("uci", given["config"], wanted):
            return 6, None
        return function(session, given)

    return guarded


def _values(section: Section, index: int) -> Table:
    options = {k: v if isinstance(v, str) else list(v) for k, v in section.options.items()}
    about = {".anonymous": section.anonymous, ".type": section.type, ".name": section.name}
    return {**about, ".index": index, **options}
