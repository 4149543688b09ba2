"""The method table: what it takes, what it refuses and with which sentence, what it promises."""

from __future__ import annotations

import copy
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from docs.schemas import check_reply, reply_schema
from rpcd_wireguard_uplink import errors
from rpcd_wireguard_uplink.api import replies
from rpcd_wireguard_uplink.api.methods import (
    METHODS,
    Method,
    error_reply,
    parse_arguments,
    signature,
)
from rpcd_wireguard_uplink.errors import InvalidArgument, Status, UplinkError
from rpcd_wireguard_uplink.schema import shapes
from rpcd_wireguard_uplink.ubus.blobmsg import Type

ROOT = Path(__file__).resolve().parents[3]
KEY = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
ADD_TAKES = "it takes peer_id, weight, endpoint, public_key, address"
PEER_ID_RULE = (
    "peer_id must be 1 to 64 letters, digits, dots, underscores or hyphens, "
    "and begin with a letter or digit"
)
PORTS = "give a number from 1 to 65535"
NO_HOST = "is neither a host name nor an IP address"
NO_BITS = "has no prefix length from 1 to 32 behind the /"
KEY_RULE = "public_key must be a WireGuard public key: 44 characters of base64"


@pytest.fixture
def canned() -> dict[str, Any]:
    """A canned reply of every method."""
    found: dict[str, Any] = json.loads((ROOT / "tests/data/replies.json").read_text("utf-8"))
    return found


def schemas_of(name: str) -> tuple[Any, Any]:
    return METHODS[name].arguments.tree, reply_schema(METHODS[name]).tree


def walk(tree: Any) -> Iterator[Any]:
    yield tree
    children = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    for child in children:
        yield from walk(child)


TAKES = {
    "uplink_list": "",
    "uplink_status": "",
    "uplink_add": "peer_id weight? endpoint? public_key? address?",
    "uplink_remove": "peer_id",
    "uplink_test": "peer_id target? count?",
    "uplink_set_priority": "peer_id weight",
    "uplink_set_failover": "enabled",
    "uplink_use": "path for?",
    "uplink_gossip": "message origin?",
    "uplink_history": "limit?",
    "uplink_pulse": "",
    "uplink_texts": "",
    "uplink_series": "span?",
    "uplink_explain": "",
    "uplink_simulate": "fail",
    "uplink_drill": "peer_id? all_traffic? seconds?",
    "uplink_check": "",
    "uplink_notify": "",
    "uplink_offer": "bandwidth_mbps? latency_ms? wan_type? metered? quota_gb? price_per_gb? "
    "limit_mbps? max_consumers? endpoint?",
    "uplink_withdraw": "",
    "uplink_consumers": "",
    "uplink_trust": "",
    "uplink_trust_accept": "peer_id fingerprint?",
    "uplink_trust_revoke": "peer_id",
    "uplinks": "",
    "add_uplink": "peer_pubkey endpoint? local_pubkey? priority? weight? node_id?",
    "remove_uplink": "interface",
    "test_uplink": "interface target?",
    "offer_uplink": "bandwidth? latency?",
    "withdraw_uplink": "",
    "set_uplink_priority": "interface priority? weight?",
    "set_uplink_failover": "enabled",
}
"""The contract: every method with its arguments; those with a ? may be left out."""


def test_the_table_has_these_methods_with_these_arguments() -> None:
    found = {
        name: " ".join(
            argument + ("" if argument in method.arguments.required else "?")
            for argument in method.arguments.properties
        )
        for name, method in METHODS.items()
    }
    assert found == TAKES
    assert list(METHODS) == list(TAKES)


def test_table_is_unambiguous() -> None:
    commands = [method.command for method in METHODS.values() if method.command]
    assert len(set(commands)) == len(commands)
    for name, method in METHODS.items():
        assert name == method.name
        assert method.command or not method.progress
        assert method.doc.endswith(".")
        assert "\n" not in method.doc


@pytest.mark.parametrize("name", METHODS)
def test_schemas_keep_the_rules(name: str) -> None:
    for tree in schemas_of(name):
        Draft202012Validator.check_schema(tree)
        for node in (found for found in walk(tree) if isinstance(found, dict)):
            assert "oneOf" not in node
            if isinstance(node.get("pattern"), str):
                assert not re.search(r"\$(?!\(\?!\\n\))|\\d|\\w", node["pattern"])
            if isinstance(node.get("properties"), dict):
                assert all(field.get("description") for field in node["properties"].values())


def loaded_by(code: str) -> str:
    """What a fresh Python prints."""
    words = [sys.executable, "-c", f"import sys; {code}"]
    return subprocess.check_output(words, text=True, cwd=ROOT).strip()


def test_import_loads_neither_asyncio_nor_jsonschema() -> None:
    found = loaded_by(
        "before = set(sys.modules); "
        "from rpcd_wireguard_uplink.api import methods; "
        "from rpcd_wireguard_uplink.mesh.wire import offer; "
        "methods.parse_arguments(methods.METHODS['uplink_status'], {'ubus_rpc_session': 'x'}); "
        "print([m for m in ('asyncio', 'jsonschema', 'argparse', 'logging', 'pathlib', "
        "'rpcd_wireguard_uplink.ubus.client', 'rpcd_wireguard_uplink.uplinks.lifecycle') "
        "if m in set(sys.modules) - before])"
    )
    assert found == "[]"


def test_validation_can_be_prepared_beforehand() -> None:
    found = loaded_by(
        "from rpcd_wireguard_uplink.api import methods; "
        "method = methods.METHODS['uplink_test']; "
        "method.arguments.prepare(); before = set(sys.modules); "
        "methods.parse_arguments(method, {'peer_id': 'a', 'target': '1.1.1.1', 'count': '5'}); "
        "print('jsonschema' in before, sorted(set(sys.modules) - before))"
    )
    assert found == "True []"


REFUSALS: dict[str, list[tuple[dict[str, Any], str]]] = {
    "uplink_add": [
        ({}, "peer_id is missing: give the id of a mesh peer"),
        ({"peer_id": None}, "peer_id is missing: give the id of a mesh peer"),
        ({"peer_id": 5}, "peer_id must be a string, not a number"),
        ({"peer_id": ["a"]}, "peer_id must be a string, not a list"),
        ({"peer_id": {}}, "peer_id must be a string, not a table"),
        ({"peer_id": "a b"}, f'{PEER_ID_RULE}, not "a b"'),
        ({"peer_id": "nodeA\n"}, f'{PEER_ID_RULE}, not "nodeA\\n"'),
        ({"peer_id": ""}, f'{PEER_ID_RULE}, not ""'),
        ({"peer_id": "-a"}, f'{PEER_ID_RULE}, not "-a"'),
        ({"peer_id": "\u0663"}, f'{PEER_ID_RULE}, not "\u0663"'),
        ({"peer_id": "a" * 65}, f'{PEER_ID_RULE}, not "{"a" * 40}..."'),
        ({"peer_id": "\x1b[2J"}, f'{PEER_ID_RULE}, not "\\x1b[2J"'),
        ({"peer_id": "x", "extra": 1}, f"extra is not an argument of uplink_add; {ADD_TAKES}"),
        (
            {f"\x07{'x' * 99}": 1},
            f"\\x07{'x' * 39}... is not an argument of uplink_add; {ADD_TAKES}",
        ),
        ({"peer_id": "x", "weight": "heavy"}, 'weight must be a whole number, not "heavy"'),
        ({"peer_id": "x", "weight": True}, "weight must be a whole number, not a boolean"),
        ({"peer_id": "x", "weight": 1.5}, "weight must be a whole number, not 1.5"),
        ({"peer_id": "x", "weight": float("nan")}, "weight must be a whole number, not nan"),
        ({"peer_id": "x", "weight": float("inf")}, "weight must be a whole number, not inf"),
        ({"peer_id": "x", "weight": " 7"}, 'weight must be a whole number, not " 7"'),
        ({"peer_id": "x", "weight": "7\n"}, 'weight must be a whole number, not "7\\n"'),
        ({"peer_id": "x", "weight": "\u0667"}, 'weight must be a whole number, not "\u0667"'),
        ({"peer_id": "x", "weight": 0}, "weight must be from 1 to 100, not 0"),
        ({"peer_id": "x", "weight": "101"}, "weight must be from 1 to 100, not 101"),
        ({"peer_id": "x", "public_key": "hunter2"}, KEY_RULE),
        ({"peer_id": "x", "public_key": KEY[:-2] + "F="}, KEY_RULE),
        ({"peer_id": "x", "public_key": KEY + "\n"}, KEY_RULE),
        ({"peer_id": "x", "public_key": 7}, "public_key must be a string, not a number"),
        (
            {"peer_id": "x", "endpoint": "[::1]:5"},
            'endpoint can\'t be used: "::1" is a loopback address',
        ),
        ({"peer_id": "x", "endpoint": "h:65536"}, f"endpoint has no valid port: {PORTS}"),
        ({"peer_id": "x", "endpoint": "h" * 263}, "endpoint is longer than 262 characters"),
        (
            {"peer_id": "x", "address": "10.0.0.1/33"},
            f'address can\'t be used: "10.0.0.1/33" {NO_BITS}',
        ),
    ],
    "uplink_status": [({"a": 1}, "a is not an argument of uplink_status; it takes none")],
    "uplink_test": [
        ({"peer_id": "x", "count": 21}, "count must be from 1 to 20, not 21"),
        ({"peer_id": "x", "target": "-c 5"}, f'target can\'t be used: "-c 5" {NO_HOST}'),
    ],
    "uplink_history": [({"limit": "201"}, "limit must be from 1 to 200, not 201")],
    "uplink_simulate": [
        ({}, "fail is missing: give the paths to assume dead: devices, names of WANs, or peer ids"),
        ({"fail": "wan"}, "fail must be a list, not a string"),
        ({"fail": []}, "fail must have from 1 to 64 entries"),
        ({"fail": ["a"] * 65}, "fail must have from 1 to 64 entries"),
        ({"fail": [5]}, "fail[0] must be a string, not a number"),
    ],
    "uplink_drill": [({"seconds": 61}, "seconds must be from 1 to 60, not 61")],
    "uplink_set_failover": [
        ({}, "enabled is missing: give 1 to fail over automatically, 0 not to"),
        ({"enabled": 1.0}, "enabled must be 0 or 1, not 1.0"),
        ({"enabled": 2}, "enabled must be 0 or 1, not 2"),
        ({"enabled": "yes"}, 'enabled must be 0 or 1, not "yes"'),
    ],
    "uplink_gossip": [
        ({"message": 5}, "message must be a table or a string, not a number"),
        ({"message": "x" * 16385}, "message is longer than 16384 characters"),
    ],
    "remove_uplink": [
        ({"interface": ""}, "interface is missing: give the name of an uplink's network interface")
    ],
    "set_uplink_priority": [
        (
            {"interface": "wgup_a", "priority": "101"},
            'priority must be a whole number from 1 to 100, not "101"',
        ),
        ({"interface": "wgup_a", "priority": 0}, "priority must be from 1 to 100, not 0"),
    ],
    "set_uplink_failover": [({"enabled": "2"}, 'enabled must be 1 or 0, not "2"')],
    "add_uplink": [({"peer_pubkey": "hunter2"}, KEY_RULE.replace("public_key", "peer_pubkey"))],
}


@pytest.mark.parametrize(
    ("name", "raw", "sentence"), [(name, *row) for name, rows in REFUSALS.items() for row in rows]
)
def test_refuses_with_a_sentence(name: str, raw: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_arguments(METHODS[name], raw)
    assert str(caught.value) == sentence
    assert caught.value.status is Status.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("name", "raw", "taken"),
    [
        ("uplink_list", {"ubus_rpc_session": "x"}, {}),
        ("uplink_simulate", {"fail": ["wan", "nodeA"]}, {"fail": ["wan", "nodeA"]}),
        ("uplink_drill", {"all_traffic": "1"}, {"all_traffic": True}),
        ("uplink_status", {"ubus_rpc_session": None, "anything": None}, {}),
        ("uplink_remove", {"peer_id": "sb-0011aabbccdd"}, {"peer_id": "sb-0011aabbccdd"}),
        ("uplink_add", {"peer_id": "a" * 64}, {"peer_id": "a" * 64}),
        (
            "uplink_add",
            {
                "peer_id": "nodeA",
                "weight": "7",
                "endpoint": "[2001:db8::1]:51820",
                "public_key": KEY,
                "address": None,
            },
            {"peer_id": "nodeA", "weight": 7, "endpoint": "[2001:db8::1]:51820", "public_key": KEY},
        ),
        ("uplink_set_priority", {"peer_id": "x", "weight": 100.0}, {"peer_id": "x", "weight": 100}),
        (
            "uplink_test",
            {"peer_id": "x", "target": "one.one.one.one", "count": "20"},
            {"peer_id": "x", "target": "one.one.one.one", "count": 20},
        ),
        ("uplink_set_failover", {"enabled": "0"}, {"enabled": False}),
        ("uplink_set_failover", {"enabled": "1"}, {"enabled": True}),
        ("uplink_set_failover", {"enabled": 1}, {"enabled": True}),
        ("uplink_set_failover", {"enabled": False}, {"enabled": False}),
        ("uplink_history", {"limit": 1}, {"limit": 1}),
        ("uplink_gossip", {"message": "{}"}, {"message": "{}"}),
        (
            "add_uplink",
            {"peer_pubkey": KEY, "local_pubkey": "", "priority": "10", "node_id": ""},
            {"peer_pubkey": KEY, "priority": "10"},
        ),
        (
            "set_uplink_priority",
            {"interface": "wgup_a", "priority": "", "weight": 7},
            {"interface": "wgup_a", "weight": 7},
        ),
        ("set_uplink_failover", {"enabled": "0"}, {"enabled": "0"}),
        ("uplink_gossip", {"message": {"a": None}}, {"message": {"a": None}}),
    ],
)
def test_takes_and_coerces(name: str, raw: dict[str, Any], taken: dict[str, Any]) -> None:
    before = copy.deepcopy(raw)
    found = parse_arguments(METHODS[name], raw)
    assert found == taken
    assert [type(value) for value in found.values()] == [type(value) for value in taken.values()]
    assert raw == before


@pytest.mark.parametrize(
    "secret", [KEY[1:], "A" * 60, "a b c d e", "{secret!r} %s", "\x00\n'\"ä😀"]
)
def test_a_key_is_never_quoted(secret: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_arguments(METHODS["uplink_add"], {"peer_id": "x", "public_key": secret})
    assert str(caught.value) == KEY_RULE


@pytest.mark.parametrize("name", METHODS)
def test_replies_are_as_promised_and_a_missing_field_is_named(
    name: str, canned: dict[str, Any]
) -> None:
    check_reply(METHODS[name], canned[name])
    for field in canned[name]:
        lacking = {key: value for key, value in canned[name].items() if key != field}
        with pytest.raises(UplinkError, match=rf"^reply of {name}: {field} is missing"):
            check_reply(METHODS[name], lacking)


def test_a_wrong_reply_is_told_with_its_path(canned: dict[str, Any]) -> None:
    canned["uplink_list"]["uplinks"][0]["state"] = "fine"
    with pytest.raises(UplinkError, match=r"uplinks\[0\]\.state must be one of .*, not \"fine\""):
        check_reply(METHODS["uplink_list"], canned["uplink_list"])
    canned["uplink_status"]["enabled"] = True
    with pytest.raises(UplinkError, match="enabled must be a whole number, not a boolean"):
        check_reply(METHODS["uplink_status"], canned["uplink_status"])
    canned["uplink_status"]["enabled"] = 1
    canned["uplink_status"]["primary"]["private_key"] = "x"
    with pytest.raises(UplinkError, match=r"primary\.private_key is not"):
        check_reply(METHODS["uplink_status"], canned["uplink_status"])


def test_signature_is_what_the_bus_advertises() -> None:
    texts = dict.fromkeys(("peer_id", "endpoint", "public_key", "address"), Type.STRING)
    assert signature(METHODS["uplink_add"]) == {**texts, "weight": Type.INT32}
    assert signature(METHODS["uplink_set_failover"]) == {"enabled": Type.BOOL}
    assert signature(METHODS["uplink_gossip"]) == {"message": Type.TABLE, "origin": Type.STRING}
    assert signature(METHODS["uplink_status"]) == {}


def test_every_exception_of_the_tree_becomes_its_status() -> None:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type)
        and issubclass(kind, UplinkError)
        and kind is not errors.CallFailed
    ]
    assert len(kinds) >= 12
    for kind in kinds:
        table, status = error_reply(kind("what, where, what to do"))
        assert status is kind.status
        assert status is not Status.OK
        told = {"error": "what, where, what to do", "code": kind.code}
        quoted = {"error_code": "reported", "error_args": ["what, where, what to do"]}
        assert table == {"success": False, **told, **quoted}
    table, _ = error_reply(errors.NotFound("none", code="no_offer"))
    assert table["code"] == "no_offer"


def test_a_foreign_exception_tells_the_caller_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        try:
            raise KeyError("private_key=hunter2")
        except KeyError as error:
            table, status = error_reply(error)
    assert status is Status.UNKNOWN_ERROR
    assert table["success"] is False
    assert table["code"] == "internal"
    assert "hunter2" not in json.dumps(table)
    assert "hunter2" not in caplog.text
    assert "KeyError" in caplog.text
    assert __name__ in caplog.text


def test_the_example_in_the_documentation_works() -> None:
    page = (ROOT / "docs/adding-a-method.md").read_text("utf-8")
    example = page.split("```python\n")[1].split("```")[0]
    made = eval(example.strip().rstrip(","), {"Method": Method, "r": replies, "s": shapes})
    assert parse_arguments(made, {"peer_id": "nodeA", "label": "attic"})["label"] == "attic"
    with pytest.raises(InvalidArgument, match="label is longer than 20 characters"):
        parse_arguments(made, {"peer_id": "nodeA", "label": "a" * 21})
    with pytest.raises(InvalidArgument, match="label is missing: give the label"):
        parse_arguments(made, {"peer_id": "nodeA"})
