"""The generated files: what is committed is what table and schemas give, and it is safe."""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from docs import generate
from docs.generate import ERRORS
from docs.schemas import reply_schema
from rpcd_wireguard_uplink import errors
from rpcd_wireguard_uplink.api.methods import METHODS, OBJECT

ROOT = Path(__file__).resolve().parents[2]


GENERATED = generate.generated()


@pytest.mark.parametrize("name", GENERATED)
def test_committed_files_are_what_the_table_gives(name: str) -> None:
    committed = (ROOT / name).read_text(encoding="utf-8")
    assert committed == GENERATED[name], f"{name} is stale: run `make generate`"


def test_the_page_has_every_code_that_a_call_may_end_with() -> None:
    package = ROOT / "rpcd_wireguard_uplink"
    folders = [
        path for name in ("api", "provider", "uplinks") for path in package.glob(f"{name}/*.py")
    ]
    found = set()
    for path in (*folders, package / "extras/drill.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                given = [k.value for k in node.keywords if k.arg == "code"]
                kind = getattr(errors, node.func.id, None)
                found |= {
                    (kind.status, v.value) for v in given if kind and isinstance(v, ast.Constant)
                }
    told = {(status, code) for status, (_, codes) in ERRORS.items() for code in codes.split()}
    assert len(found) > 10 and found <= told, found - told


READ = """
uplink_list uplink_status uplink_history uplink_pulse uplink_texts uplink_series uplink_explain
uplink_simulate uplink_consumers uplink_trust uplinks
"""
WRITE = """
uplink_add uplink_remove uplink_test uplink_set_priority uplink_set_failover uplink_use uplink_drill
uplink_check uplink_notify uplink_offer uplink_withdraw uplink_trust_accept uplink_trust_revoke
add_uplink remove_uplink test_uplink offer_uplink withdraw_uplink set_uplink_priority
set_uplink_failover
"""


def test_acl_groups() -> None:
    acl = json.loads(generate.acl_text())
    assert list(acl) == ["rpcd-wireguard-uplink"]
    groups = acl["rpcd-wireguard-uplink"]
    assert groups["description"]
    assert groups["read"]["ubus"] == {OBJECT: READ.split()}
    assert groups["write"]["ubus"] == {OBJECT: WRITE.split()}
    assert "uplink_gossip" not in generate.acl_text()


def test_acl_never_opens_a_config_with_keys() -> None:
    groups = json.loads(generate.acl_text())["rpcd-wireguard-uplink"]
    for group in (groups["read"], groups["write"]):
        assert group["uci"] == ["wireguard-uplink"]
        assert set(group) == {"ubus", "uci"}
        # rpcd matches with fnmatch: a star would open other objects and methods.
        assert not any(char in name for char in "*?[" for name in [OBJECT, *group["ubus"][OBJECT]])


def test_docs_tell_every_argument_and_field() -> None:
    docs = generate.docs_text()
    for method in METHODS.values():
        section = docs.split(f"\n## {method.name}\n")[1].split("\n## ")[0]
        assert method.doc in section
        for name in [*method.arguments.properties, *reply_schema(method).properties]:
            assert f"| `{name}` |" in section
    assert "| `uplinks[].handshake_age_s` |" in docs
    assert "| `families.ipv4.state` |" in docs


def test_the_page_of_messages_tells_every_member_and_holds_their_schemas() -> None:
    page = generate.messages_text()
    for name, schema in generate.MESSAGES.items():
        section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
        told = json.loads(section.split("```json\n")[1].split("```")[0])
        Draft202012Validator.check_schema(told)
        assert list(told["properties"]) == list(schema.properties)
        for member in schema.properties:
            assert f"| `{member}` |" in section
    assert "| `endpoints[].scope` | string | no |" in page
    assert "| `capabilities.latency_ms` | number | no | ms;" in page
    assert "x-must" not in page


@pytest.mark.parametrize(
    ("name", "usage"),
    [
        ("uplink_remove", "wgctl uplink remove PEER"),
        ("uplink_set_failover", "wgctl uplink failover enable|disable"),
        ("uplink_test", "wgctl uplink test PEER [--target TARGET] [--count COUNT]"),
    ],
)
def test_usage(name: str, usage: str) -> None:
    assert generate.usage(METHODS[name]) == usage


def test_writes_once_and_only_into_a_checkout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate.main([str(tmp_path)]) == 2
    assert "is no checkout" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []
    (tmp_path / "setup.cfg").touch()
    assert generate.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [f"wrote {name}" for name in GENERATED]
    for name, text in GENERATED.items():
        assert (tmp_path / name).read_text(encoding="utf-8") == text
    assert generate.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == ""
