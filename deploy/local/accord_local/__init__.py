"""Accord on one machine: embedded PostgreSQL and Apache Kafka, the stack runner and the `accord` command."""
