"""The demo: a seeded sample of leads, played over the public HTTP interface and shown as tables. It knows no database and no topic."""
