"""The release of everything in this repository but the event contracts, by SemVer. It is written here and nowhere else."""

VERSION = "0.1.0"
