"""`make bench`: what Accord does in a second on this machine, each figure beside a plain baseline in the same run."""
