"""`make bench`: what Accord does in a second on this machine, each figure beside a plain twin in the same run."""
