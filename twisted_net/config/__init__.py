"""Configuration ground: self-checking records, read from file, environment and options."""

from __future__ import annotations
