"""The ledger: every file, its checksum, its state and every transition, in one SQLite database."""
