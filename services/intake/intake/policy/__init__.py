"""The data policy that both departments sign: its document, judging by it, and what it would have made of what came."""
