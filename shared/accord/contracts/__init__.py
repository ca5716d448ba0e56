"""The contracts between the services: event types, envelopes and topics. Knows pydantic and the standard library, nothing of ours."""
