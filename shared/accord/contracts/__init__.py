"""What the services say to each other: event types, envelopes and topics. Knows pydantic and the standard library, nothing of ours."""
