"""What the services say to each other: event types, envelopes and topics, and the language of criteria.

Knows pydantic and the standard library, nothing of ours.
"""
