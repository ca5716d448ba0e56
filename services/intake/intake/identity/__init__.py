"""Who is who by a person's word: merged, taken back, corrected, likened; and the companies they are of."""
