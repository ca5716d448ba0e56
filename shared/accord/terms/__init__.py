"""What people write in agreements and documents: criteria, durations, patterns, weeks, findings. Imports nothing of ours."""
