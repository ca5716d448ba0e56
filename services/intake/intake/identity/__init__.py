"""Who is who by a person's decision: merges, their reversal, corrections, suggested duplicates; and the companies of leads."""
