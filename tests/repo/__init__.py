"""Tests of the project itself: its layers, its packaging, its style, what it must not contain."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "rpcd_wireguard_uplink"
