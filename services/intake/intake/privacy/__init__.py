"""What a person can ask for: consent, export, erasure; and how long what they said is kept."""
