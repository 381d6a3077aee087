"""What files are ingested into: the contract, the catalogues that come along, and their host."""
