"""What the policy held back, and what people decide about it."""
