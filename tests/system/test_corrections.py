"""What metrics makes of corrections is what qualification means by them, for any history that is heard in any order."""

from __future__ import annotations

from hypothesis import settings
from hypothesis.stateful import invariant

from accord.contracts.qualification_events import LeadStageChanged
from metrics.domain.stage_history import StageChange, derive_stage_history
from tests.effort import cases
from tests.qualification.test_history import Histories


class Followed(Histories):
    """The same histories, followed by metrics."""

    @invariant()
    def metrics_has_the_same_way(self) -> None:
        for lead_id in self.memory.leads:
            told = [event for event in self.memory.events_of(lead_id) if isinstance(event, LeadStageChanged)]
            changes = [
                StageChange(
                    event.sequence,
                    event.stage,
                    event.visit,
                    event.occurred_at,
                    event.correction,
                    event.replaces,
                    event.withdrawn,
                    event.follows,
                )
                for event in told
            ]
            stands = [(entry.sequence, entry.stage, entry.occurred_at) for entry in self.memory.entries(lead_id)]
            assert [
                (entry.sequence, entry.stage, entry.entered_at) for entry in derive_stage_history(changes)
            ] == stands


TestFollowed = Followed.TestCase
TestFollowed.settings = settings(max_examples=cases(50), stateful_step_count=30, deadline=None)
