"""A deterministic simulator of messaging: the real relay, consumer and firing code over an in-memory log and store (ADR 79)."""
