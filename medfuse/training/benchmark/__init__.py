"""What medfuse reaches on published data: one file per benchmark, one table of their names."""
