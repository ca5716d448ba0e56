"""Of every table somebody has said how long its rows stay."""

import pytest

from accord.agreements import tables as agreements
from accord.http import tables as http
from accord.messaging import tables as messaging
from intake import tables as intake
from metrics import tables as metrics
from qualification import tables as qualification
from sla_monitor import tables as sla_monitor

SHARED = messaging.KEPT | agreements.KEPT | http.KEPT


@pytest.mark.parametrize("tables", [intake, qualification, sla_monitor, metrics], ids=lambda module: module.__name__)
def test_every_table_says_how_long_its_rows_stay_and_no_other_does(tables):
    assert set(SHARED | tables.KEPT) == set(tables.metadata.tables)
    assert all(SHARED.values())
    assert all(tables.KEPT.values())
