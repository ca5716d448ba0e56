"""Messaging: outbox, relay, inbox, consumer, watermarks and dead letters. It knows no lead rules."""
