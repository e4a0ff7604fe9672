"""One file for each command of `sluice`: its options, its work, its printing."""
