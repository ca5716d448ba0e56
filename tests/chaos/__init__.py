"""Faults of real processes under load, against a ledger of what was acknowledged."""

import pytest

pytest.register_assert_rewrite("tests.chaos.evidence", "tests.chaos.ledger")
